"""``pimsim sweep`` killed, shared, and on Dask: the store is always the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]
POINTS = 5


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, tiny_card: Path) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "s.yaml"
    timings = list(range(10, 10 + POINTS))
    path.write_text(
        f"base: npu-only\nset: {{workload.model: {tiny_card}, workload.layers: 1, "
        f"workload.batch: 1}}\ngrid: {{memory.timings.tFAW: {timings}}}\n"
    )
    return path


def files(store: Path) -> dict[str, bytes]:
    """What was found out, by name."""
    found = [*store.glob("results/*.json"), *store.glob("points/*.json")]
    return {str(path.relative_to(store)): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def whole(run_cli: RunCli, sweep: Path) -> dict[str, bytes]:
    """The store of an undisturbed sweep."""
    out = sweep.with_name("whole")
    done = run_cli("sweep", sweep, "--out", out, "--workers", "2", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["simulated"] == POINTS
    found = files(out)
    assert len(found) == 2 * POINTS
    return found


def start(sweep: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pimsim.cli.main", "sweep", sweep, "--out", out, "--workers", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def test_killed_at_any_moment_it_goes_on_where_it_was(
    sweep: Path, whole: dict[str, bytes], run_cli: RunCli
) -> None:
    """SIGKILL while it starts, and soon after a file that it writes: what was written stays, whole,
    and the end is the undisturbed one. ``tests/unit/test_sweep_store.py`` kills it before each of
    its writes."""
    out = sweep.with_name("killed")
    known: dict[str, bytes] = {}
    for delay_s in (None, 0.02, 0.06):
        process = start(sweep, out)
        if delay_s is None:
            time.sleep(0.5)
        else:
            while process.poll() is None and len(files(out)) == len(known):
                time.sleep(0.002)
            time.sleep(delay_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        now = files(out)
        assert all(now[name] == content for name, content in known.items())
        assert all(now[name] == whole[name] for name in now)
        known = now
    done = run_cli("sweep", sweep, "--out", out, "--workers", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["simulated"] <= POINTS - len(known) // 2
    assert files(out) == whole


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="children are found in /proc")
def test_workers_end_with_their_parent(sweep: Path) -> None:
    process = start(sweep, sweep.with_name("orphans"))
    deadline = time.monotonic() + 60
    workers: set[int] = set()
    while not workers and time.monotonic() < deadline:
        time.sleep(0.1)
        workers = children(process.pid)
    assert workers
    time.sleep(1.5)  # until they watch
    workers |= children(process.pid)
    process.kill()
    process.wait()
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def children(pid: int) -> set[int]:
    """Processes that ``pid`` has started."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[1]) == pid and fields[0] != "Z":
            found.add(int(stat.parent.name))
    return found


def test_two_processes_may_share_a_store(sweep: Path, whole: dict[str, bytes]) -> None:
    out = sweep.with_name("shared")
    both = [start(sweep, out), start(sweep, out)]
    codes = [process.wait(timeout=120) for process in both]
    assert codes == [0, 0]
    assert files(out) == whole


def test_dask_gives_the_same_store(sweep: Path, whole: dict[str, bytes], run_cli: RunCli) -> None:
    distributed = pytest.importorskip("distributed")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster:
            out = sweep.with_name("dask")
            done = run_cli("sweep", sweep, "--out", out, "--dask", cluster.scheduler_address,
                           "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files(out) == whole


def test_wrong_sweeps_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("grid: {workload.batsh: [1]}\n")
    assert "did you mean" in refused("sweep", path, "--out", tmp_path / "out")
    path.write_text("grid: {workload.batch: []}\n")
    assert "is empty" in refused("sweep", path, "--out", tmp_path / "out")
    path.write_text("grid: {workload.batch: [1]}\n")
    path.write_text("grid: {npu.frequency: [1, 1GHz]}\n")
    line = refused("sweep", path, "--out", tmp_path / "out")
    assert "npu.frequency has values of different types" in line
    deep = "(" * 10_000 + "1" + ")" * 10_000
    path.write_text(f"grid: {{workload.batch: [1]}}\nwhere: ['{deep}']\n")
    assert "where.0: longer than 500 characters" in refused(
        "sweep", path, "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()
    path.write_text("grid: {workload.batch: [1]}\n")
    line = refused("sweep", path, "--out", tmp_path / "out", "--dask", "tcp://127.0.0.1:1")
    assert "no scheduler answers" in line


def test_a_sweep_that_fails_everywhere_says_each_kind_of_reason(
    run_cli: RunCli, tmp_path: Path, tiny_card: Path
) -> None:
    path, out = tmp_path / "s.yaml", tmp_path / "out"
    path.write_text(
        f"base: npu-only\nset: {{workload.model: {tiny_card}, workload.layers: 1}}\npoints:\n"
        "- {workload.batch: 500}\n- {workload.batch: 600}\n- {memory.timings.tFAW: -3}\n"
    )
    done = run_cli("sweep", path, "--out", out, "--workers", "1")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert "3 points, 3 simulated now, 3 failed" in lines[0]
    assert lines[1].startswith("2 failed: ") and "500" in lines[1]
    assert lines[2].startswith("1 failed: ") and "tFAW" in lines[2]
    assert len(lines) == 3
    again = run_cli("sweep", path, "--out", out, "--workers", "1", "--json")
    assert (again.returncode, again.stderr) == (1, "")
    data = json.loads(again.stdout)
    assert (data["simulated"], data["failed"]) == (0, 3)
    assert sorted(data["errors"].values()) == [1, 2]
    # one point that has a result is a sweep that worked
    path.write_text(path.read_text() + "- {workload.batch: 1}\n")
    assert run_cli("sweep", path, "--out", out, "--workers", "1").returncode == 0


def test_another_sweep_takes_a_store_where_it_is_asked_to(
    run_cli: RunCli, refused: Callable[..., str], sweep: Path, tmp_path: Path
) -> None:
    other, out = tmp_path / "other.yaml", tmp_path / "out"
    text = sweep.read_text()
    first = text.replace(str(list(range(10, 10 + POINTS))), "[10, 11]")
    assert first != text
    (tmp_path / "first.yaml").write_text(first)
    other.write_text(first.replace("[10, 11]", "[11, 12]"))
    assert run_cli("sweep", tmp_path / "first.yaml", "--out", out).returncode == 0
    line = refused("sweep", other, "--out", out)
    assert str(tmp_path / "first.yaml") in line and "--replace" in line
    done = run_cli("sweep", other, "--out", out, "--replace", "--json")
    assert (done.returncode, json.loads(done.stdout)["simulated"]) == (0, 1)


def test_damage_is_named_and_mended(run_cli: RunCli, sweep: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "s.yaml", tmp_path / "out"
    path.write_text(sweep.read_text().replace(str(list(range(10, 10 + POINTS))), "[10, 11]"))
    assert run_cli("sweep", path, "--out", out).returncode == 0
    before = files(out)
    folder, deep = sorted((out / "results").glob("*.json"))
    folder.unlink()
    folder.mkdir()
    deep.write_text("[" * 100_000 + "]" * 100_000)
    done = run_cli("sweep", path, "--out", out)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        f"note: {each} was damaged; it was made anew" for each in (folder, deep)
    ]
    assert "2 simulated now" in done.stdout
    assert files(out) == before


def test_a_script_without_a_main_guard_sweeps_once(sweep: Path, tmp_path: Path) -> None:
    """Its workers do not run it again: they would sweep, too, and so on without end."""
    script = tmp_path / "study.py"
    script.write_text(
        "import sys\nimport pimsim\nwith open('starts', 'a') as stream:\n    stream.write('x')\n"
        f"table = pimsim.sweep({str(sweep)!r}, 'out', workers=2)\n"
        "assert sys.modules['__main__'].table is table\n"
        "print(len(table), int(table['error'].isna().sum()))\n"
    )
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == [str(POINTS), str(POINTS)]
    assert (tmp_path / "starts").read_text() == "x"
