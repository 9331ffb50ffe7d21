"""Wrong input of every kind over all commands: one line, exit code 2, nothing written.

``PIMSIM_FUZZ=500 pytest tests/property/test_bad_inputs.py`` draws more cases of each kind. Sweeps,
searches and ONNX files have tests of their own.
"""

from __future__ import annotations

import gzip
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fuzzing import WORDS, check, mutated, mutated_lines, seeds, stop_before_work

from pimsim.config.loader import load_preset, load_run
from pimsim.config.resources import preset_names, preset_path

BY_A_LIBRARY = {"export", "numerics", "measure", "import-onnx", "sweep", "search", "validate"}
"""Commands that load PyTorch first, have fuzzers of their own, or only simulate."""


@pytest.fixture(autouse=True)
def _in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stop_before_work(monkeypatch)
    monkeypatch.chdir(tmp_path)


def _share(refused: list[bool]) -> float:
    return sum(refused) / len(refused)


# commands and their options -----------------------------------------------------------------------


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", {})
    if not children and path[-1] not in BY_A_LIBRARY:
        yield path, command
    for name, child in children.items():
        yield from _commands(child, (*path, name))


def _from_main() -> list[tuple[tuple[str, ...], Any]]:
    from pimsim.cli.commands import app

    return list(_commands(typer.main.get_command(app)))


def test_command_lines(tmp_path: Path) -> None:
    """Any word in any place of any command."""
    commands = _from_main()
    refused = []
    for draw in seeds("command lines"):
        path, command = draw.choice(commands)
        arguments = list(path)
        for option in command.params:
            if option.name in ("help", "out", "junit", "markdown", "figures", "update", "reason"):
                continue
            given = [draw.choice(WORDS)] if draw.random() < 0.7 else ["5"]
            if option.opts[0].startswith("-"):
                if draw.random() < 0.4:
                    arguments += [option.opts[0], *([] if option.is_flag else given)]
            elif draw.random() < 0.9:
                arguments += given
        arguments = [word.replace("\x00", "") for word in arguments]
        refused.append(check(arguments, tmp_path))
    assert _share(refused) > 0.5


# configs ------------------------------------------------------------------------------------------

KINDS = ("hardware", "memory", "pim", "energy", "xpu", "area", "system")


@pytest.mark.parametrize("kind", KINDS)
def test_configs(kind: str, tmp_path: Path) -> None:
    """Presets with lines, words and values changed, resolved; hardware as a run."""
    refused = []
    file = tmp_path / "a.yaml"
    for draw in seeds(kind):
        text = preset_path(kind, draw.choice(preset_names(kind))).read_text()
        if draw.random() < 0.5:
            file.write_bytes(mutated(text.encode(), draw))
        else:
            file.write_text(mutated_lines(text, draw), errors="surrogateescape")
        use = ["show", "a.yaml", "--kind", kind]
        if kind == "hardware" and draw.random() < 0.3:
            use = ["run", "a.yaml", "--batch", "2", "--layers", "1"]
        refused.append(check(use, tmp_path))
    assert _share(refused) > 0.3


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_set(kind: str, tmp_path: Path) -> None:
    """Any word as the value of any key."""
    refused = []
    for draw in seeds(f"set {kind}"):
        name = draw.choice(preset_names(kind))
        keys = sorted(load_preset(kind, name).origins)
        words = [word.replace("\x00", "") for word in WORDS]
        change = f"{draw.choice(keys)}={draw.choice(words)}"
        refused.append(check(["show", name, "--kind", kind, "--set", change], tmp_path))
    assert _share(refused) > 0.3


# data files ---------------------------------------------------------------------------------------


def _requests() -> bytes:
    return (
        b"request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,channel\n"
        + b"".join(b"%d,0.5,%d,40,3,%d\n" % (i, 10 + i, i % 32) for i in range(8))
    )


def _commands_file() -> bytes:
    text = "".join(
        f"{cycle} {name} 0 0 0 1 0x12 0x{column}\n"
        for cycle, name, column in ((0, "activate", 0), (20, "read", 1), (60, "precharge", 0))
    )
    return text.encode()


def _golden() -> bytes:
    return b"cases:\n  - name: a\n    run: neupims\n    set: [workload.batch=2]\n    cycles: 5\n"


def _result() -> bytes:
    return b'{"name": "a", "cycles": 5, "stages": [], "operators": [], "energy": {"total": 1.0}}'


INI = """[dram_structure]
protocol = HBM2
bankgroups = 4
banks_per_group = 4
rows = 16384
columns = 64
device_width = 128
BL = 4
num_dies = 4
[timing]
tCK = 1
CL = 14
CWL = 4
tRCDRD = 14
tRCDWR = 14
tRP = 14
tRAS = 34
tRFC = 260
tREFI = 3900
[power]
VDD = 1.2
IDD0 = 65
[system]
channel_size = 512
channels = 8
bus_width = 128
address_mapping = rorabgbachco
"""

FILES: dict[str, tuple[Callable[[], bytes], str, list[str]]] = {
    "requests": (_requests, "a.csv", ["run", "npu-only", "--requests", "a.csv", "--layers", "1"]),
    "artifact requests": (
        lambda: b"seq_len,ch_idx\n40,1\n50,2\n60,31\n", "a.csv",
        ["run", "neupims", "--requests", "a.csv", "--layers", "1"],
    ),
    "DRAM traces": (
        lambda: b"0x1f40 READ 0\n# x\n0x2f40 WRITE 7\n0x80 READ 90\n", "a.trc",
        ["kernel", "dram", "a.trc"],
    ),
    "address vectors": (
        lambda: b"R 0,0,2,3,100,31\nW 1,0,2,3,100,31\n", "a.trc", ["kernel", "dram", "a.trc"],
    ),
    "command traces": (
        _commands_file, "a.cmd", ["kernel", "dram", "--check-commands", "a.cmd"],
    ),
    "packed command traces": (
        lambda: gzip.compress(_commands_file() + b"# x\n" * 3000, mtime=0), "a.cmd.gz",
        ["kernel", "dram", "--check-commands", "a.cmd.gz"],
    ),
    "AiM instructions": (
        lambda: b"W MEM 0 1 2\nAiM WR_GB 2 2 15\nAiM MAC_ABK 2 15 0\nAiM EOC\n", "a.isr",
        ["kernel", "pim-trace", "a.isr"],
    ),
    "DRAMsim3 configs": (
        INI.encode, "a.ini", ["kernel", "gemm", "8", "8", "8", "--memory", "a.ini"],
    ),
    "operator traces": (
        lambda: preset_path("operators", "mixtral-8x7b").read_bytes(), "a.json",
        ["run", "npu-only", "--trace", "a.json", "--layers", "1", "--batch", "2"],
    ),
    "routing": (
        lambda: preset_path("routing", preset_names("routing")[0]).read_bytes(), "a.parquet",
        ["routing", "a.parquet"],
    ),
    "sparsity": (
        lambda: preset_path("sparsity", preset_names("sparsity")[0]).read_bytes(), "a.parquet",
        ["sparsity", "show", "a.parquet"],
    ),
    "golden counts": (_golden, "a.yaml", ["check", "--golden", "a.yaml"]),
    "model cards": (
        lambda: preset_path("model", "llama-3-8b").read_bytes(), "a.yaml",
        ["run", "npu-only", "--model", "a.yaml", "--layers", "1", "--batch", "2"],
    ),
}  # fmt: skip
"""By kind: a right file, its name, and the command that reads it."""


@pytest.mark.parametrize("kind", FILES)
def test_data_files(kind: str, tmp_path: Path) -> None:
    """Right files with bytes, words and lines changed; none is refused as it was."""
    make, name, use = FILES[kind]
    file, right = tmp_path / name, make()
    file.write_bytes(right)
    assert not check(use, tmp_path)
    refused = []
    for draw in seeds(kind):
        is_text = not name.endswith((".gz", ".parquet")) and draw.random() < 0.5
        changed = (
            mutated_lines(right.decode(), draw).encode("utf-8", "surrogateescape")
            if is_text else mutated(right, draw)
        )  # fmt: skip
        file.write_bytes(changed)
        refused.append(check(use, tmp_path))
    assert _share(refused) > 0.15


def test_results(tmp_path: Path) -> None:
    """Folders of results that are none."""
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "config.yaml").write_text(load_run("npu-only").to_yaml())
    for draw in seeds("results"):
        (folder / "result.json").write_bytes(mutated(_result(), draw))
        assert check([draw.choice(("report", "compare")), "r", "r"], tmp_path)


# names --------------------------------------------------------------------------------------------

PLACES: tuple[list[str], ...] = (
    ["run", "PATH"], ["run", "--model", "PATH"], ["run", "--requests", "PATH"],
    ["run", "--trace", "PATH"], ["run", "npu-only", "--trace", "mixtral-8x7b", "--routing", "PATH"],
    ["run", "--set", "memory=PATH"], ["run", "--set", "workload.sparsity=PATH"],
    ["compare", "PATH", "PATH"], ["kernel", "dram", "PATH"], ["kernel", "pim-trace", "PATH"],
    ["kernel", "dram", "--check-commands", "PATH"], ["kernel", "dram", "x", "--memory", "PATH"],
    ["kernel", "gemm", "8", "8", "8", "--npu", "PATH"],
    ["kernel", "gemv", "8", "8", "--pim", "PATH"],
    ["run", "dgx-h100", "--model", "PATH"], ["calibrate", "PATH"],
    ["check", "--golden", "PATH"], ["report", "PATH"], ["routing", "PATH"], ["show", "PATH"],
    ["sparsity", "show", "PATH"], ["validate", "--reference", "PATH"],
    ["validate", "--ranges", "PATH"], ["import-onnx", "PATH"],
    ["import-routing", "PATH", "--model", "mixtral-8x7b"],
    ["sweep", "PATH", "--out", "store"], ["search", "PATH", "--out", "store"],
)  # fmt: skip


@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_names_that_no_input_has(place: list[str], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    names = (
        "./pipe.yaml", "./zero.yaml", "./loop.yaml", "./none.yaml", "./folder.yaml", "./empty.yaml",
        "~nosuchuser/x.yaml", "./" + "x" * 300, "./" + "x" * 300 + ".yaml", "./" + "a/" * 3000,
        "./\udcff.yaml", "\udcff", "./empty.yaml/x.yaml", "x" * 300, "./pipe.csv",
    )  # fmt: skip
    for name in names:
        if "--reference" in place and "folder" in name:
            continue
        assert check([word.replace("PATH", name) for word in place], tmp_path), name


def test_some_as_processes(tmp_path: Path) -> None:
    """The edge of a real process: bytes that are no text among the arguments, no numbers."""
    for arguments in (
        [b"run", b"--set", b"npu.frequency=\xff"],
        [b"run", b"\xff\xfe.yaml"],
        [b"kernel", b"gemm", b"8", b"8", b"9" * 400],
        [b"show", b"~nosuchuser/x.yaml"],
    ):
        done = subprocess.run(
            [os.fsencode(sys.executable), b"-m", b"pimsim.cli.main", *arguments],
            cwd=tmp_path, capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (2, b""), done
        assert done.stderr.startswith(b"error: "), done
        assert done.stderr.count(b"\n") == 1, done


def test_the_drawing_is_the_same_in_every_run() -> None:
    first, again = ([draw.random() for draw in seeds("x")] for _ in range(2))
    assert first == again
    assert mutated(b"abc" * 9, random.Random("1")) == mutated(b"abc" * 9, random.Random("1"))
