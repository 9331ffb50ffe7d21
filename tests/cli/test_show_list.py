"""`pimsim list`, `pimsim show`, and what every command shares: help, version, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import pimsim
from pimsim.cli.edge import exit_code
from pimsim.config.errors import CheckFailed, InputError
from pimsim.config.loader import load_run
from pimsim.config.resources import KINDS, preset_names

RunCli = Callable[..., subprocess.CompletedProcess[str]]


def test_list_shows_every_preset(run_cli: RunCli) -> None:
    done = run_cli("list")
    assert done.returncode == 0
    rows = [tuple(line.split()[:2]) for line in done.stdout.splitlines()[1:]]
    assert rows == [(kind, name) for kind in KINDS for name in preset_names(kind)]


def test_list_as_json_is_one_object_of_names_by_kind(run_cli: RunCli) -> None:
    assert json.loads(run_cli("list", "--json").stdout) == {k: preset_names(k) for k in KINDS}
    assert json.loads(run_cli("list", "model", "--json").stdout) == {"model": preset_names("model")}


def test_list_of_an_unknown_kind_is_refused(refused: Callable[..., str]) -> None:
    assert "unknown kind of preset 'modle'; did you mean 'model'?" in refused("list", "modle")


def test_show_prints_yaml_that_loads_to_the_same_config(run_cli: RunCli, tmp_path: Path) -> None:
    done = run_cli("show", "neupims", "--set", "npu.systolic.arrays=4")
    path = tmp_path / "copy.yaml"
    path.write_text(done.stdout)
    expected = load_run("neupims", ["npu.systolic.arrays=4"])
    assert load_run(str(path)).sha256 == expected.sha256
    assert expected.sha256 in done.stdout.splitlines()[0]


def test_show_says_where_each_value_came_from(run_cli: RunCli) -> None:
    lines = run_cli("show", "neupims", "--set", "seed=3").stdout.splitlines()
    origins = {line.split(":")[0].strip(): line.rpartition("# ")[2] for line in lines}
    assert origins["seed"] == "--set"
    assert origins["arrays"].startswith("configs/hardware/npu-only.yaml:")
    assert origins["policy"].startswith("configs/hardware/neupims.yaml:")
    assert origins["tRP"].startswith("configs/memory/")


def test_show_as_json_holds_config_origins_and_hash(run_cli: RunCli) -> None:
    report = json.loads(run_cli("show", "npu-only", "--json").stdout)
    expected = load_run("npu-only")
    assert report["kind"] == "hardware"
    assert report["config"] == expected.config.model_dump(mode="json")
    assert report["origins"] == dict(expected.origins)
    assert report["sha256"] == expected.sha256


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("hbm2",), "memory"),
        (("newton",), "pim"),
        (("default",), "energy"),
        (("gpt3-7b",), "model"),
        (("neupims",), "hardware"),
        (("neupims", "--kind", "pim"), "pim"),
    ],
)
def test_show_finds_the_kind_of_a_name(
    run_cli: RunCli, arguments: tuple[str, ...], kind: str
) -> None:
    report = json.loads(run_cli("show", *arguments, "--json").stdout)
    assert (report["kind"], report["config"]["name"]) == (kind, arguments[0])


def test_show_reads_a_file(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: neupims\nseed: 7\n")
    done = run_cli("show", "mine.yaml", cwd=tmp_path)
    assert "mine.yaml:2" in done.stdout
    assert done.returncode == 0


def test_show_of_an_unknown_name_gets_its_near_miss(refused: Callable[..., str]) -> None:
    assert "unknown preset 'neupimss'; did you mean 'neupims'?" in refused("show", "neupimss")
    assert "unknown kind of preset 'ram'" in refused("show", "neupims", "--kind", "ram")
    assert "is a trace, the CSV file traces/sharegpt-256.csv" in refused("show", "sharegpt-256")


def test_version_and_help(run_cli: RunCli) -> None:
    assert run_cli("--version").stdout == f"pimsim {pimsim.__version__}\n"
    text = run_cli("--help").stdout
    assert all(name in text for name in ("run", "compare", "kernel", "list", "show"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lst",), "No such command 'lst'"),
        (("show",), "Missing argument 'NAME'; see pimsim show --help"),
        (("show", "neupims", "--jsn"), "No such option: --jsn"),
        (("list", "model", "extra"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_wrong_input(
    refused: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused(*arguments)


def test_without_a_command_the_help_is_shown(run_cli: RunCli) -> None:
    done = run_cli()
    assert done.returncode == 0
    assert "show" in done.stdout


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (InputError("what\nis wrong"), 2, "error: what is wrong\n"),
        (CheckFailed("a bound"), 1, "check failed: a bound\n"),
        (KeyboardInterrupt(), 130, None),
    ],
)
def test_exceptions_become_exit_codes(
    raised: BaseException,
    code: int,
    message: str | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_options: object) -> None:
        raise raised

    monkeypatch.setattr("pimsim.cli.show.list_command", lambda: fail())
    monkeypatch.setattr(sys, "argv", ["pimsim", "list"])
    assert exit_code() == code
    if message is not None:
        assert capsys.readouterr().err == message


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pimsim.cli.main", "show", "neupims"]
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_traces_that_are_data_say_who_shows_them(refused: Callable[..., str]) -> None:
    line = refused("show", "tiny-moe")
    assert "traces/tiny-moe.routing.parquet" in line and "pimsim routing NAME" in line
    assert "pimsim sparsity show NAME" in refused("show", "tiny-relu")
