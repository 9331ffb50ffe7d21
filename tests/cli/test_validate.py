"""``pimsim validate`` as a user types it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

RunCli = Callable[..., CompletedProcess[str]]
Refused = Callable[..., str]


def test_a_suite_prints_every_group_and_passes(run_cli: RunCli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run_cli("validate", "pim", "--out", str(out))
    assert done.returncode == 0, done.stderr
    for group in ("hbm_pim.pim_cycles", "aim.cycles", "aim.counts"):
        assert group in done.stdout
    assert "--reference DIR" in done.stdout
    with (out / "rows.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert {row["suite"] for row in rows} == {"pim"}
    assert {row["status"] for row in rows} <= {"exact", "ok", "reference wrong"}
    assert sorted(path.name for path in out.iterdir()) == ["pim.png", "pim.svg", "rows.csv"]


def test_json_is_one_object(run_cli: RunCli) -> None:
    done = run_cli("validate", "pim", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["passed"] is True
    groups = {group["group"]: group for group in found["suites"]["pim"]["groups"]}
    assert groups["aim.counts"]["rows"] == groups["aim.counts"]["exact"]


def test_outside_its_limits_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pimsim.cli.validate import validate_command
    from pimsim.config.errors import CheckFailed
    from pimsim.validate import judge, suites
    from pimsim.validate.tolerances import Tolerance
    from pimsim.validate.types import Row, Suite

    strict = Tolerance(each=0.0, reason="no row may be off")
    monkeypatch.setattr(judge, "tolerance_of", lambda group: strict)
    rows = [Row("aim.cycles", "a", "cycles", 100, 101), Row("aim.counts", "a", "RD", 7, 7)]
    wrong = Suite("pim", "a right and a wrong row", lambda _: iter(rows))
    monkeypatch.setattr(suites, "load_suites", lambda name: [wrong])
    with pytest.raises(CheckFailed, match=r"a cycles: \+1\.00%"):
        validate_command("pim", as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] is False
    verdicts = {each["group"]: each["verdict"] for each in report["suites"]["pim"]["groups"]}
    assert verdicts == {"aim.cycles": "FAILED", "aim.counts": "ok"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["drm"], "'drm'; did you mean 'dram'?"),
        (["pim", "--reference", "nowhere"], "--reference nowhere: not a folder"),
        (["pim", "--grid"], "--grid goes with the suite neupims and --out DIR"),
        (["neupims", "--grid"], "--grid goes with the suite neupims and --out DIR"),
        (["pim", "--out", "/proc/nowhere"], "/proc/nowhere: cannot be written"),
        (["dram", "--reference", "."], "no file dram/"),
    ],
)
def test_wrong_input_is_one_line(refused: Refused, arguments: list[str], said: str) -> None:
    assert said in refused("validate", *arguments)
