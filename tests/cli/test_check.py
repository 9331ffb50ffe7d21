"""``pimsim check``: what passes, what fails, and what it writes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]

CASE = """\
# kept
cases:
  - name: small
    run: {run}
    set: [workload.batch=2, workload.layers=1]
{numbers}"""


def write(folder: Path, numbers: str = "", run: str = "npu-only") -> Path:
    path = folder / "golden.yaml"
    path.write_text(CASE.format(run=run, numbers=numbers))
    return path


@pytest.fixture(scope="module")
def golden_text(run_cli: RunCli, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What --update writes: the numbers of this version."""
    folder = tmp_path_factory.mktemp("golden")
    path = write(folder)
    done = run_cli("check", "--update", "--reason", 'it\'s new: "first"', cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(folder.iterdir()) == [path]
    return path.read_text()


@pytest.fixture
def recorded(golden_text: str, tmp_path: Path) -> Path:
    """A golden file that the check passes."""
    path = tmp_path / "golden.yaml"
    path.write_text(golden_text)
    return path


def test_update_records_and_check_then_passes(
    run_cli: RunCli, tmp_path: Path, recorded: Path
) -> None:
    text = recorded.read_text()
    assert text.startswith("# kept\ncases:\n")
    assert 'reason: "it\'s new: \\"first\\""' in text
    done = run_cli("check", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "none moved" in done.stdout
    assert recorded.read_text() == text


def test_json_of_a_check_that_passes(run_cli: RunCli, tmp_path: Path, recorded: Path) -> None:
    done = run_cli("check", "--json", cwd=tmp_path)
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["passed"] is True
    case = report["cases"][0]
    assert sum(case["stages"].values()) == case["cycles"] > 0
    assert f"cycles: {case['cycles']}" in recorded.read_text()


def test_a_moved_count_fails_with_a_table(run_cli: RunCli, tmp_path: Path, recorded: Path) -> None:
    [number] = re.findall(r" cycles: (\d+)", recorded.read_text())
    found = int(number)
    was = 2 * found
    recorded.write_text(recorded.read_text().replace(f"cycles: {found}", f"cycles: {was}"))
    done = run_cli("check", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("check failed: 1 of 1 golden cases moved")
    for text in ("small", "total", f"{was:,}", f"{found:,}", "-50.000 %"):
        assert text in done.stdout
    done = run_cli("check", "--json", cwd=tmp_path)
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["passed"] is False
    assert report["cases"][0]["differences"] == [
        {"what": "total", "expected": was, "found": found, "percent": -50.0}
    ]


def test_update_leaves_the_reason_of_what_did_not_move(
    run_cli: RunCli, tmp_path: Path, recorded: Path
) -> None:
    recorded.write_text(recorded.read_text() + "\n# so it stays as it is\n")
    before = recorded.read_text()
    done = run_cli("check", "--update", "--reason", "another", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert recorded.read_text() == before


def test_a_stage_that_is_gone_or_new_counts_as_moved(run_cli: RunCli, recorded: Path) -> None:
    recorded.write_text(recorded.read_text().replace("{A:", "{Z:"))
    done = run_cli("check", "--golden", recorded, "--json")
    assert done.returncode == 1
    moved = {one["what"]: one for one in json.loads(done.stdout)["cases"][0]["differences"]}
    assert set(moved) == {"A", "Z"}
    assert moved["A"]["expected"] is None
    assert moved["Z"]["found"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--update"], "--update needs --reason"),
        (["--update", "--reason", " "], "--update needs --reason"),
        (["--reason", "x"], "--reason goes with --update"),
        (["--golden", "none.yaml"], "none.yaml: no such file"),
    ],
)
def test_options_that_make_no_sense(refused: Refused, arguments: list[str], message: str) -> None:
    assert message in refused("check", *arguments)


@pytest.mark.parametrize(
    ("numbers", "run", "message"),
    [
        ("    cycle: 1\n", "npu-only", "unknown key 'cases.0.cycle'; did you mean 'cycles'"),
        ("    cycles: -1\n", "npu-only", "found -1; allowed: at least 0"),
        ("    stages: {A: 1.5}\n", "npu-only", "1.5"),
        ("  - {name: small, run: neupims}\n", "npu-only", "the name 'small' is used twice"),
        ("", "npu-onyl", "case 'small': "),
        ("", "other.yaml", "other.yaml"),
    ],
)
def test_a_wrong_file_is_refused_and_left_alone(
    refused: Refused, tmp_path: Path, numbers: str, run: str, message: str
) -> None:
    path = write(tmp_path, numbers, run)
    before = path.read_text()
    assert message in refused("check", "--update", "--reason", "x", "--golden", path)
    assert path.read_text() == before


def test_a_case_that_cannot_be_simulated_is_named(refused: Refused, tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(path.read_text().replace("batch=2", "batch=100000"))
    line = refused("check", "--golden", path)
    assert "golden.yaml: case 'small': " in line and "a batch of 100000 requests" in line


def test_reports_for_machines_say_what_moved(
    run_cli: RunCli, tmp_path: Path, recorded: Path
) -> None:
    from xml.etree import ElementTree

    files = ("--junit", "r.xml", "--markdown", "r.md")
    done = run_cli("check", *files, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "none moved" in (tmp_path / "r.md").read_text()
    assert ElementTree.parse(tmp_path / "r.xml").getroot().get("failures") == "0"
    text = recorded.read_text()
    recorded.write_text(re.sub(r"cycles: \d+", "cycles: 7", text).replace("small", "a|<b>"))
    done = run_cli("check", *files, cwd=tmp_path)
    assert done.returncode == 1
    suite = ElementTree.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None and "expected 7 cycles" in str(failure.get("message"))
    summary = (tmp_path / "r.md").read_text()
    assert "1 of 1 golden cases moved" in summary and "a\\|&lt;b>" in summary
