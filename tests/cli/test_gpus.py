"""``pimsim run`` on GPUs: wrong input in one line, and what ``pimsim system`` says of it."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pimsim.cli.edge import exit_code
from pimsim.config.loader import load_system
from pimsim.validate.gpu_steps import decoding
from pimsim.workload.cards import load_card

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``call("run", "dgx-a100a")``: exit code, stdout and stderr, in this process."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pimsim", *map(str, arguments)])
        code = exit_code()
        out, err = capsys.readouterr()
        return code, out, err

    return run


PREFILL = ("--phase", "prefill")
SMALL = ("--model", "gpt3-7b", "--batch", "3")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("dgx-a100a",), "pimsim run dgx-a100a --requests equal:2048+1 --batch 1 --steps 127"),
        (
            ("dgx-attacc-bank", *SMALL, "--input", "100", "--output", "4", "--contexts", "5"),
            "pimsim run dgx-attacc-bank --model gpt3-7b --requests equal:100+1 --batch 3 --steps 3 "
            "--set attention_contexts=5",
        ),
        (
            (
                "dgx-h100",
                "--trace",
                "llama-3-8b",
                "--set",
                "devices=4",
                "--contexts",
                "5",
                "--json",
            ),
            "pimsim run dgx-h100 --trace llama-3-8b --requests equal:2048+1 --batch 1 --steps 127 "
            "--set devices=4 --json",
        ),
        (
            ("dgx-h100", "--phase", "prefill", "--chunk", "40", "--input", "100"),
            "pimsim run dgx-h100 --requests equal:100 --batch 1 --phase prefill --chunk 40 "
            "--set workload.outside=true",
        ),
    ],
)
def test_the_old_command_says_what_to_type(
    call: Call, arguments: tuple[str, ...], line: str
) -> None:
    code, out, err = call("system", *arguments)
    assert (code, out) == (2, "")
    assert err == f"error: pimsim system is pimsim run now; type: {line}\n"


def test_what_it_says_runs_and_is_the_mean_that_it_had(call: Call) -> None:
    old = ("dgx-attacc-bank", *SMALL, "--input", "100", "--output", "5", "--json")
    line = call("system", *old)[2].rpartition("type: ")[2]
    code, out, err = call(*shlex.split(line)[1:])
    assert (code, err) == (0, "")
    config, card = load_system("dgx-attacc-bank").config, load_card("gpt3-7b")
    mean = decoding(config, card, 3, 100, 5)
    found = json.loads(out)
    assert found["tokens_per_s"] == pytest.approx(mean.tokens_per_s, rel=1e-6)
    per_token = mean.energy_j.total / 3
    assert found["token_j"]["total"] == pytest.approx(per_token, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dgx-a10",), "unknown hardware 'dgx-a10'; did you mean 'dgx-a100'?"),
        (("dgx-a100a", "--model", "gpt3-175"), "unknown model 'gpt3-175'; did you mean"),
        (("dgx-a100a", "--trace", "nothing.json"), "nothing.json"),
        (("dgx-a100a", "--batch", "0"), "Invalid value for '--batch'"),
        (("dgx-a100a", "--set", "devics=4"), "unknown key 'devics'; did you mean 'devices'?"),
        (("dgx-a100a", "--set", "attention_contexts=3"), "but attention is not on pim"),
        (("dgx-a100a", "--set", "devices=5"), "cannot be shared by tp 5; tp may be 1, 2, 3"),
        (("dgx-a100a", "--set", "xpu.cores=0"), "xpu.cores: found 0; allowed: at least 1"),
        (("dgx-a100a", "--set", "attention=pim"), "attention on pim needs a pim section"),
        (("dgx-a100a", "--set", "attention=gpu"), "attention: found 'gpu'; did you mean 'xpu'?"),
        (("dgx-a100a", "--set", "ffn_split=true"), "ffn_split is true, but attention is not on"),
        (
            ("dgx-a100a", "--set", "xpu.memory_utilisation=1.1"),
            "allowed: at least 0.001, at most 1",
        ),
        (
            ("dgx-h100", "--set", "xpu.silicon.decode.regroup_ns=5"),
            "regroup_ns is 5, but splits_single is true",
        ),
        (("dgx-a100a", "--set", "xpu.l1_per_core=1KiB"), "but the smallest tile (8 x 8) needs"),
        (("dgx-attacc-bank", "--set", "pim=neupims"), "pim.controller: neupims has none"),
        (("dgx-attacc-bank", "--set", "pim=aim"), "pim aim: key attention is missing"),
        (("dgx-a100a", "--set", "xpu=b20"), "unknown xpu 'b20'; did you mean 'b200'?"),
        (("dgx-a100a", *PREFILL, "--set", "devices=5"), "cannot be shared by tp 5; tp may be"),
        (("dgx-a100a", *PREFILL, "--set", "xpu.flash.query_rows=0"), "allowed: at least 1"),
        (("dgx-a100a", *PREFILL, "--set", "xpu.l1_per_core=8KiB"), "xpu.l1_per_core: 8192 bytes"),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    call: Call, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = call("run", *arguments)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_file_extends_a_preset(call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: dgx-a100a\nxpu:\n  memory_bandwidth_gb_per_s: 6704\n")
    one, two = (json.loads(call("run", name, *SMALL, "--json")[1]) for name in (mine, "dgx-a100a"))
    assert one["name"] == "mine"
    assert one["peaks"]["dram_bytes_per_s"] == pytest.approx(2 * two["peaks"]["dram_bytes_per_s"])
    assert one["time_s"] < two["time_s"]


def test_show_resolves_a_system(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("show", "dgx-h100")
    assert code == 0
    assert "configs/xpu/a100.yaml" in out
    copy = tmp_path / "copy.yaml"
    copy.write_text(out)
    one, two = (json.loads(call("run", name, *SMALL, "--json")[1]) for name in (copy, "dgx-h100"))
    assert one["provenance"]["content_sha256"] == two["provenance"]["content_sha256"]
