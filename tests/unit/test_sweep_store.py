"""A sweep's store: whose it is, what was damaged, what is simulated again; types of its table."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_run
from pimsim.explore.keys import Contents, kin_of
from pimsim.explore.pool import Job, simulate_job
from pimsim.explore.spec import mixed, mixed_keys, read_sweep
from pimsim.explore.store import Store
from pimsim.explore.sweep import SweepOutcome, load_table, run_sweep
from pimsim.workload import batch

SWEEP = """\
name: {name}
base: npu-only
set: {{workload.model: {card}, workload.layers: 1, workload.batch: 1}}
grid:
  memory.timings.tFAW: {values}
"""


pytestmark = pytest.mark.usefixtures("no_workers")


@pytest.fixture
def write(tmp_path: Path, tiny_card: Path) -> Callable[..., Path]:
    def file(name: str, values: object = (8, 16)) -> Path:
        path = tmp_path / f"{name}.yaml"
        given = values if isinstance(values, str) else list(values)  # type: ignore[call-overload]
        path.write_text(SWEEP.format(name=name, card=tiny_card, values=given))
        return path

    return file


@pytest.fixture
def swept(write: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """A sweep's file and its store."""
    path, out = write("first"), tmp_path / "out"
    assert run_sweep(path, out, workers=1).simulated == 2
    return path, out


def files(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("values", "shown", "why"),
    [
        ('["8", 16]', '("8", 16)', "found '8'; a whole number is expected"),
        ("[true, 16]", "(true, 16)", "found true; a whole number is expected"),
        ("[16, 10ns, true]", '(16, "10ns", true)', "found '10ns'; a whole number is expected"),
    ],
)
def test_a_type_that_a_key_does_not_take_is_refused_before_the_first_point(
    write: Callable[..., Path], tmp_path: Path, values: str, shown: str, why: str
) -> None:
    path = write("mixed", values)
    with pytest.raises(InputError) as caught:
        run_sweep(path, tmp_path / "out")
    text = f"{path}: memory.timings.tFAW has values of different types {shown}: --set: "
    assert str(caught.value) == f"{text}memory.timings.tFAW: {why}"
    assert not (tmp_path / "out").exists()


def test_a_quantity_without_its_unit_is_refused_before_the_first_point(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("base: npu-only\ngrid: {npu.frequency: [1, 1GHz]}\n")
    with pytest.raises(InputError, match=r'different types \(1, "1GHz"\): .* needs its unit'):
        run_sweep(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_number_beyond_any_column_is_refused_by_its_range(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        run_sweep(write("large", [10**30]), tmp_path / "out")
    assert "found 1000000000000000000000000000000; allowed: at least 0" in str(caught.value)
    assert "types" not in str(caught.value)


def test_types_of_columns() -> None:
    columns = {
        "numbers": [1, 2.5, None], "texts": ["a", "b"], "both": [1, "1", 2], "flags": [True, False],
        "flag and number": [True, 1], "large": [1, 2**63], "least": [-(2**63) + 1], "none": [None],
        "huge": [1e30, 2],
    }  # fmt: skip
    found = mixed(columns)  # type: ignore[arg-type]
    assert found == {"both": [1, "1"], "flag and number": [True, 1], "large": [1, 2**63]}


@pytest.mark.parametrize(
    "sections",
    [
        "grid: {workload.layers: [auto, 1]}",
        "zip: {workload.layers: [auto, 1]}",
        "points: [{workload.layers: auto}, {workload.layers: 1}]",
        "sample: {count: 8, method: random, ranges: {workload.layers: {choices: [auto, 1]}}}",
    ],
)
def test_a_key_of_two_types_is_text_in_the_table(
    tmp_path: Path, tiny_card: Path, sections: str
) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"base: npu-only\nset: {{workload.model: {tiny_card}, workload.batch: 1}}\n{sections}\n"
    )
    assert mixed_keys(read_sweep(path)) == {"workload.layers": ["auto", 1]} or "sample" in sections
    outcome = run_sweep(path, tmp_path / "out", workers=1)
    assert (outcome.simulated, outcome.failed) == (2, 0)
    table = load_table(tmp_path / "out")
    assert set(table["workload.layers"]) == {"auto", "1"}
    table.to_parquet(tmp_path / "t.parquet")


def test_a_file_that_is_not_there_is_said_before_the_first_point(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("base: npu-only\ngrid: {memory: [./none.yaml, hbm2]}\n")
    with pytest.raises(InputError, match=r"s\.yaml: .*none\.yaml: no such file"):
        read_sweep(path)


def test_text_of_a_column_is_as_yaml_has_it(tmp_path: Path) -> None:
    path, store = tmp_path / "s.yaml", Store(tmp_path / "out", create=True)
    path.write_text("base: neupims\ngrid: {schedule.sub_batches: [true, 3, false]}\n")
    store.write_source(path, {"base": "neupims", "folder": str(tmp_path)})
    table = load_table(tmp_path / "out")
    assert table["schedule.sub_batches"].tolist() == ["true", "3", "false"]
    assert table["error"].tolist() == ["not simulated yet"] * 3


KILLED = """\
import os, shutil, signal, sys
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from pimsim.explore import pool, sweep

path, folder = Path(sys.argv[1]), Path(sys.argv[2])
STEPS = ("os.mkdir", "os.rename", "os.chmod", "os.remove", "tempfile.mkstemp")

class Here:
    width = 1
    def submit(self, jobs):
        done = Future()
        done.set_result(pool.simulate_jobs(jobs))
        return done
    def revive(self):
        raise AssertionError

@contextmanager
def here(workers, dask):
    yield Here()

sweep.worker_pool = here
pool.Job.figures = lambda job: {"cycles": int(job.overrides[-1].rpartition("=")[2])}

def swept(out, steps):
    # in a process of its own, killed before it asks so many things of the file system
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = [steps]
    def step(event, arguments):
        if event in STEPS:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
    sys.addaudithook(step)
    sweep.run_sweep(path, out)
    os._exit(0)

def files(out):
    found = [*out.glob("results/*.json"), *out.glob("points/*.json")]
    return {str(each.relative_to(out)): each.read_bytes() for each in found}

sweep.run_sweep(path, folder / "first")  # what is read once is read before the forks
assert swept(folder / "whole", -1) == 0
whole = files(folder / "whole")
steps = 0
while True:
    out = folder / str(steps)
    ended = swept(out, steps)
    now = files(out)
    assert all(now[name] == whole[name] for name in now), steps
    if ended == 0:
        break
    assert ended == signal.SIGKILL
    assert swept(out, -1) == 0, steps
    assert files(out) == whole, steps
    steps += 1
assert now == whole
print(len(whole), steps)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_any_step_of_its_writing_it_goes_on_where_it_was(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    """Before each folder, temporary file, mode and renaming: what is there is whole, and the end
    is the undisturbed one."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, write("killed", [10, 11]), tmp_path],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    written, steps = map(int, done.stdout.split())
    assert written == 4  # a result and a point each
    assert steps >= 3 * written


def test_a_store_of_another_version_is_refused(swept: tuple[Path, Path]) -> None:
    path, out = swept
    marker = out / "store.json"
    mine = json.loads(marker.read_text())
    for other in ({"version": mine["version"] + 1}, {"format": "other"}):
        marker.write_text(json.dumps(mine | other))
        for use in (lambda: load_table(out), lambda: run_sweep(path, out, workers=1)):
            with pytest.raises(InputError) as caught:
                use()
            found = mine | other
            assert str(caught.value) == (
                f"{marker}: a store of {found['format']!r}, version {found['version']}; "
                f"this pimsim reads {mine['format']!r}, version {mine['version']}"
            )
    marker.write_text(json.dumps(mine))
    assert len(load_table(out)) == 2


def test_another_sweep_does_not_take_a_store_unasked(
    write: Callable[..., Path], swept: tuple[Path, Path]
) -> None:
    first, out = swept
    before = files(out)
    second = write("second", [16, 24])
    with pytest.raises(InputError) as caught:
        run_sweep(second, out, workers=1)
    assert f"holds the sweep 'first' of {first}" in str(caught.value)
    assert "--replace" in str(caught.value)
    assert files(out) == before
    # asked for, results of both are kept: 16 is known, and 8 is when the first one comes back
    assert run_sweep(second, out, workers=1, replace=True) == SweepOutcome(2, 1, 0)
    assert load_table(out)["memory.timings.tFAW"].tolist() == [16, 24]
    assert len(list((out / "results").glob("*.json"))) == 3
    assert run_sweep(first, out, workers=1, replace=True).simulated == 0
    assert load_table(out)["memory.timings.tFAW"].tolist() == [8, 16]


def test_the_same_file_edited_and_the_same_sweep_elsewhere_go_on(
    write: Callable[..., Path], swept: tuple[Path, Path], tmp_path: Path
) -> None:
    first, out = swept
    copy = tmp_path / "elsewhere" / "copy.yaml"
    copy.parent.mkdir()
    shutil.copy(first, copy)
    assert run_sweep(copy, out, workers=1).simulated == 0
    assert run_sweep(first, out, workers=1).simulated == 0
    write("first", [8, 16, 24])
    assert run_sweep(first, out, workers=1).simulated == 1
    with pytest.raises(InputError, match="--replace"):
        run_sweep(copy, out, workers=1)


@pytest.mark.parametrize("kind", ["results", "points"])
@pytest.mark.parametrize("damage", ["folder", "deep", "pipe", "list", "number", "edit", "bytes"])
def test_what_is_no_file_of_a_store_is_named_and_made_anew(
    swept: tuple[Path, Path], kind: str, damage: str
) -> None:
    path, out = swept
    before = files(out)
    victim = sorted((out / kind).glob("*.json"))[0]
    victim.unlink()
    if damage == "folder":
        (victim / "inner").mkdir(parents=True)
    elif damage == "pipe":
        os.mkfifo(victim)
    else:
        text = {
            "deep": "[" * 100_000 + "]" * 100_000, "list": "[]", "number": '{"content": 1}',
            "edit": '{"content": {"error": "x", "cycles": 1}, "sha256": "of another content"}',
        }  # fmt: skip
        victim.write_bytes(text[damage].encode() if damage in text else b"\xff\xfe")
    if kind == "results":
        with pytest.raises(InputError, match=f"{victim.name}: damaged or missing"):
            load_table(out)
    again = run_sweep(path, out, workers=1)
    assert again == SweepOutcome(2, int(kind == "results"), 0, (str(victim),))
    assert files(out) == before


@pytest.mark.parametrize("name", ["store.json", "sweep.yaml", "source.json"])
def test_a_store_that_is_nested_without_end_is_refused(swept: tuple[Path, Path], name: str) -> None:
    _, out = swept
    (out / name).write_text("[" * 100_000)
    with pytest.raises(InputError) as caught:
        load_table(out)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_failed_point_whose_inputs_changed_is_simulated_again(
    tmp_path: Path, tiny_card: Path
) -> None:
    """Without being asked: it failed because of what was in its card."""
    card = tmp_path / "card.yaml"
    small = tiny_card.read_text()
    large = small.replace("ffn_hidden: 1024", "ffn_hidden: 1048576")
    card.write_text(large.replace("layers: 4", "layers: 40"))  # 80 GB
    path, out = tmp_path / "s.yaml", tmp_path / "out"
    path.write_text(
        "base: npu-only\nset: {workload.model: card.yaml, workload.layers: 1, workload.batch: 1, "
        "parallel.tp: 1}\ngrid: {memory.timings.tFAW: [16]}\n"
    )
    first = run_sweep(path, out, workers=1)
    assert (first.simulated, first.failed) == (1, 1)
    point = next((out / "points").glob("*.json"))
    assert set(json.loads(point.read_text())["content"]) == {"error", "failed"}
    assert run_sweep(path, out, workers=1) == SweepOutcome(1, 0, 1)
    card.write_text(small)
    assert run_sweep(path, out, workers=1) == SweepOutcome(1, 1, 0)
    assert load_table(out)["error"].isna().all()


def test_files_are_told_apart_by_every_key_that_names_one() -> None:
    """One change of each: another name, another hash; the same, read once."""
    contents = Contents()
    names = {
        "requests": ("sharegpt-64", "sharegpt-128"),
        "model": ("mixtral-8x7b", "olmoe-1b-7b"), "trace": ("null", "mixtral-8x7b"),
        "routing": ("uniform", "mixtral-8x7b"), "sparsity": ("none", "smollm2-135m"),
    }  # fmt: skip
    start = {key: values[0] for key, values in names.items()}
    seen = []
    for changed in [None, *names]:
        given = {key: values[key == changed] for key, values in names.items()}
        sets = [f"workload.{key}={value}" for key, value in given.items()]
        seen.append(contents.of(load_run("npu-only", sets).config.workload))
    assert len({json.dumps(dict(each)) for each in seen}) == len(names) + 1
    sets = [f"workload.{key}={value}" for key, value in start.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch, "_file_sha256", None)
        assert contents.of(load_run("npu-only", sets).config.workload) is seen[0]


def test_kin_share_what_programs_depend_on() -> None:
    """Points that differ in the memory, the requests or the degrees are not kin."""
    given = ["memory.timings.tFAW=8", "npu.systolic.arrays=2", "workload.batch=4"]
    assert kin_of(given) == kin_of([*reversed(given)])
    assert kin_of(given) == kin_of([given[0], "npu.systolic.arrays=4", given[2]])
    for at, other in ((0, "memory.timings.tFAW=9"), (2, "workload.batch=5")):
        assert kin_of(given) != kin_of([*given[:at], other, *given[at + 1 :]])
    assert kin_of(["parallel.tp=1"]) != kin_of(["parallel.tp=2"])
    assert kin_of(["pim=newton"]) != kin_of(["pim=neupims"])


def test_a_bug_of_the_simulator_fails_its_point(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("act")

    monkeypatch.setattr("pimsim.simulate.simulate", broken)
    answer = simulate_job(Job("i", "k", "npu-only", ("workload.batch=1",)))
    assert answer.figures is None
    assert answer.error == "simulator bug, KeyError: 'act'"


def test_a_result_is_what_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "out", create=True)
    store.write_result("k", {"cycles": 1})
    assert Store(tmp_path / "out").result("k") == {"cycles": 1}
    assert store.result("j") is None
    path = tmp_path / "out" / "results" / "k.json"
    data = json.loads(path.read_text())
    for name, value in (("cycles", 2), ("more", 1)):
        path.write_text(json.dumps({**data, "content": {**data["content"], name: value}}))
        assert store.result("k") is None
    path.write_text(json.dumps({"content": data["content"]}))
    assert store.result("k") is None


def test_a_result_s_file_is_as_other_versions_write_it(tmp_path: Path) -> None:
    """Stores are kept for years: another checksum would have all of them simulated anew."""
    Store(tmp_path / "out", create=True).write_result("k", {"tokens_per_s": 1.5, "cycles": 2})
    content = '{"cycles": 2, "tokens_per_s": 1.5}'
    checksum = hashlib.sha256(content.encode()).hexdigest()[:16]
    assert (tmp_path / "out" / "results" / "k.json").read_text() == (
        f'{{"content": {content}, "sha256": "{checksum}"}}'
    )
