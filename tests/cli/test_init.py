"""Files to start from: what their first lines say to type works."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pimsim.cli.init import next_commands
from pimsim.config.resources import data_dir

RunCli = Callable[..., subprocess.CompletedProcess[str]]
KINDS = sorted(path.stem for path in (data_dir("configs") / "start").glob("*.yaml"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_start_says_to_type_works(kind: str, run_cli: RunCli, tmp_path: Path) -> None:
    written = run_cli("init", kind, "--out", f"my-{kind}.yaml", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    commands = next_commands((tmp_path / f"my-{kind}.yaml").read_text())
    assert commands
    assert all(f"my-{kind}.yaml" in each or "report" in each for each in commands)
    for command in commands:
        assert command in written.stdout
        words = shlex.split(command.split("    ")[0])[1:]
        done = run_cli(*words, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)


def test_nothing_is_overwritten_and_kinds_are_named(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text("mine")
    assert "run.yaml is there already; --out" in refused("init", "run")
    assert (tmp_path / "run.yaml").read_text() == "mine"
    message = refused("init", "servce")
    assert "service" in message and "golden, pim, prices, run" in message
