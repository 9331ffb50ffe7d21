"""``pimsim calibrate`` as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]

SMALL = ("--batch", "8", "--layers", "1", "--set", "memory.organization.channels=4",
         "--set", "memory.organization.rows=65536")  # fmt: skip


def test_it_shows_streams_refresh_and_pieces_and_keeps_them(
    run_cli: RunCli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", str(tmp_path / "cache"))
    shown = run_cli("calibrate", *SMALL)
    assert "streams of one channel" in shown.stdout
    assert "GWRITE" in shown.stdout
    (kept,) = (tmp_path / "cache").iterdir()
    assert str(kept.name) in shown.stdout.replace("\n", "")
    found = json.loads(run_cli("calibrate", *SMALL, "--json").stdout)
    assert 0.5 < found["reads"]["bus_share"] <= 1
    assert found["refresh_stall_cycles"] > 0
    assert found["chains"][0]["cycles_per_burst"] >= found["chains"][-1]["cycles_per_burst"]
    for operation in found["pim"]:
        for kind in operation["kinds"]:
            assert kind["cycles_beside"] >= kind["cycles"] > 0
            assert 0 < kind["stream_share"] <= 1


def test_the_artifact_has_no_rates(refused: Refused) -> None:
    line = refused(
        "calibrate", "neupims-artifact-npu-pim", "--batch", "4", "--layers", "1"
    )  # fmt: skip
    assert "there are no rates" in line
