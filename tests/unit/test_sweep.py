"""Sweeps: which points, the store, and what is simulated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.loader import load_run
from pimsim.explore.expressions import check_expression, holds
from pimsim.explore.pool import Job, answers, worker_pool
from pimsim.explore.spec import (
    RangeSpec,
    SweepSpec,
    common_values,
    expand,
    overrides,
    read_sweep,
)
from pimsim.explore.store import Store
from pimsim.explore.sweep import load_table, run_sweep

pytestmark = pytest.mark.usefixtures("no_workers")

TINY = """\
name: tiny
base: npu-only
set: {{workload.model: {card}, workload.layers: 1}}
grid:
  workload.batch: [1, 2]
  memory.timings.tFAW: [8, 16]
where: ["workload.batch > 1 or memory.timings.tFAW < 10"]
"""


@pytest.fixture
def sweep(tmp_path: Path, tiny_card: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(TINY.format(card=tiny_card))
    return path


def spec(**sections: Any) -> SweepSpec:
    return SweepSpec.model_validate(sections)


def test_points_are_the_product_of_grid_zip_and_samples() -> None:
    sections = spec(
        grid={"a": [1, 2]}, zip={"b": [1, 2, 3], "c": ["x", "y", "z"]},
        sample={"count": 2, "ranges": {"d": {"choices": [True, False]}}},
    )  # fmt: skip
    found = list(expand(sections, "t"))
    assert len(found) == sections.count == 2 * 3 * 2
    assert {(p["b"], p["c"]) for p in found} == {(1, "x"), (2, "y"), (3, "z")}
    assert found == list(expand(sections, "t"))


@pytest.mark.parametrize("method", ["random", "latin-hypercube"])
def test_samples_stay_in_their_ranges(method: str) -> None:
    count = 40
    ranges = {
        "i": {"low": 3, "high": 9, "integer": True}, "f": {"low": 0.5, "high": 2.0},
        "l": {"low": 1, "high": 1000, "log": True},
    }  # fmt: skip
    found = list(expand(spec(sample={"method": method, "count": count, "ranges": ranges}), "t"))
    assert len(found) == count
    assert {p["i"] for p in found} == set(range(3, 10))
    assert all(0.5 <= float(p["f"]) <= 2 and 1 <= float(p["l"]) <= 1000 for p in found)  # type: ignore[arg-type]
    if method == "latin-hypercube":  # one in each of as many equal parts
        cells = sorted(int((float(p["f"]) - 0.5) / 1.5 * count) for p in found)  # type: ignore[arg-type]
        assert cells == list(range(count))


def test_constraints_compute_and_nothing_else() -> None:
    values = {"npu.arrays": 8, "x": 2.5, "on": True}
    assert holds("npu.arrays * 2 <= 16 and not x > 3 and on == true", values, "t")
    assert not holds("npu.arrays % 3 == 0", values, "t")
    for text in (
        "__import__('os')",
        "x.__class__",
        "[x]",
        "x if on else 1",
        "lambda: 1",
        "x +",
        "'a' * 10000000000 == ''",
    ):
        with pytest.raises(InputError):
            holds(text, values, "t")
    with pytest.raises(InputError, match=r"did you mean 'npu\.arrays'"):
        check_expression("npu.array > 1", values, "t")
    with pytest.raises(InputError, match="division by zero"):
        holds("x / 0 > 1", values, "t")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("grid: {a: []}", "grid.a is empty"),
        ("zip: {a: [1], b: [1, 2]}", "all must be as long"),
        ("name: x", "nothing to sweep"),
        ("grid: {a: [1]}\nset: {a: 2}", "a is in set and in grid"),
        ("gird: {a: [1]}", "did you mean 'grid'?"),
        ("grid: {workload.batc: [1]}", "workload.batc"),
        ("grid: {workload.batch: [1]}\nwhere: ['workload.batch > 5']", "no point obeys"),
        ("sample: {count: 3, ranges: {a: {low: 3, high: 1}}}", "low (3) exceeds high (1)"),
        ("sample: {count: 3, ranges: {a: {low: 3}}}", "either low and high, or choices"),
        ("base: nepims\ngrid: {workload.batch: [1]}", "did you mean 'neupims'?"),
    ],
)
def test_a_wrong_sweep_is_refused_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text + "\n")
    with pytest.raises(InputError) as caught:
        run_sweep(path, tmp_path / "out")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_billion_points_are_refused_before_any_is_made(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    axis = list(range(1, 1001))
    path.write_text(f"grid:\n  a: {axis}\n  b: {axis}\n  c: {axis}\n")
    with pytest.raises(InputError, match="1,000,000,000 points"):
        read_sweep(path)


def test_a_sweep_is_simulated_once_and_read_back(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = run_sweep(sweep, out, workers=1)
    assert (first.points, first.simulated, first.failed) == (3, 3, 0)
    again = run_sweep(sweep, out, workers=1)
    assert (again.points, again.simulated) == (3, 0)
    table = pimsim.load(out)
    assert table["error"].isna().all()
    assert table["workload.batch"].tolist() == [1, 2, 2]
    one = pimsim.run(
        "npu-only", model=_card(sweep), layers=1,
        batch=2, overrides=["memory.timings.tFAW=16", "fidelity=fast"],
    )  # fmt: skip
    assert table["cycles"].tolist()[-1] == one.cycles
    assert table["energy_j.total"].tolist()[-1] == one.energy_j.total


def test_points_are_simulated_fast_unless_the_sweep_says_otherwise(
    sweep: Path, tmp_path: Path
) -> None:
    run_sweep(sweep, tmp_path / "fast", workers=1)
    assert set(pimsim.load(tmp_path / "fast")["fidelity"]) == {"fast"}
    exact = sweep.with_name("exact.yaml")
    exact.write_text("fidelity: command\n" + sweep.read_text())
    run_sweep(exact, tmp_path / "exact", workers=1)
    assert set(pimsim.load(tmp_path / "exact")["fidelity"]) == {"command"}


def _card(sweep: Path) -> str:
    line = next(text for text in sweep.read_text().splitlines() if "workload.model" in text)
    return line.split("workload.model: ")[1].split(",")[0]


def test_a_failed_point_is_recorded_and_the_sweep_goes_on(tmp_path: Path, tiny_card: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"base: npu-only\nset: {{workload.model: {tiny_card}, workload.layers: 1, "
        "workload.batch: 1}\ngrid: {memory.timings.tFAW: [16, -3]}\n"
    )
    outcome = run_sweep(path, tmp_path / "out", workers=1)
    assert (outcome.simulated, outcome.failed) == (2, 1)
    errors = load_table(tmp_path / "out")["error"]
    assert errors.isna().tolist() == [True, False]
    assert "tFAW" in errors.tolist()[1]
    again = run_sweep(path, tmp_path / "out", workers=1)
    assert (again.simulated, again.failed) == (0, 1)
    assert run_sweep(path, tmp_path / "out", workers=1, retry_failed=True).simulated == 1


def test_damaged_results_are_named_and_simulated_anew(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_sweep(sweep, out, workers=1)
    victim = sorted((out / "results").glob("*.json"))[0]
    whole = victim.read_bytes()
    victim.write_bytes(whole[:50])
    with pytest.raises(InputError, match=victim.name):
        load_table(out)
    again = run_sweep(sweep, out, workers=1)
    assert (again.simulated, again.damaged) == (1, (str(victim),))
    assert victim.read_bytes() == whole


def test_an_altered_result_is_damaged_too(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_sweep(sweep, out, workers=1)
    victim = sorted((out / "results").glob("*.json"))[0]
    whole = victim.read_text()
    data = json.loads(whole)
    data["content"]["cycles"] = 1
    victim.write_text(json.dumps(data))
    with pytest.raises(InputError, match=victim.name):
        load_table(out)
    again = run_sweep(sweep, out, workers=1)
    assert (again.simulated, again.damaged) == (1, (str(victim),))
    assert victim.read_text() == whole


@pytest.mark.parametrize("what", ["card", "requests"])
def test_a_file_that_changed_is_simulated_anew(tmp_path: Path, tiny_card: Path, what: str) -> None:
    """Results are known by what they depend on, not by the names of files. The files' names are
    relative to the sweep's."""
    files = {"card": tmp_path / "card.yaml", "requests": tmp_path / "requests.csv"}
    files["card"].write_text(tiny_card.read_text())
    files["requests"].write_text("seq_len,ch_idx\n100,0\n50,1\n")
    path = tmp_path / "s.yaml"
    path.write_text(
        "base: npu-only\nset: {workload.model: card.yaml, workload.requests: requests.csv, "
        "workload.layers: 1}\ngrid: {workload.batch: [1, 2]}\n"
    )
    out = tmp_path / "out"
    assert run_sweep(path, out, workers=1).simulated == 2
    before = load_table(out)["cycles"].tolist()
    text = files[what].read_text()
    changed = text.replace("100,0", "900,0")
    if what == "card":
        lines = [f"ffn_hidden: {4 * int(line.split(':')[1])}" if "ffn_hidden" in line else line
                 for line in text.splitlines()]  # fmt: skip
        changed = "\n".join(lines)
    assert changed != text
    files[what].write_text(changed)
    assert run_sweep(path, out, workers=1).simulated == 2
    after = load_table(out)["cycles"].tolist()
    assert all(now > then for now, then in zip(after, before, strict=True))
    files[what].write_text(text)
    assert run_sweep(path, out, workers=1).simulated == 0  # both are known
    assert load_table(out)["cycles"].tolist() == before


def test_equal_points_are_simulated_once(tmp_path: Path, tiny_card: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        f"base: npu-only\nset: {{workload.model: {tiny_card}, workload.layers: 1, "
        "workload.batch: 1}\npoints: [{npu.frequency: 1GHz}, {npu.frequency: 1000MHz}, "
        "{npu.frequency: 1000000kHz}]\n"
    )
    out = tmp_path / "out"
    outcome = run_sweep(path, out, workers=2)
    assert (outcome.points, outcome.simulated, outcome.failed) == (3, 1, 0)
    assert len(list((out / "results").glob("*.json"))) == 1
    assert len(set(load_table(out)["cycles"])) == 1


def test_a_worker_that_dies_fails_its_point_alone(tmp_path: Path) -> None:
    jobs = [Job(str(i), str(i), "npu-only", (f"workload.batch={i}",)) for i in range(1, 5)]
    with worker_pool(2, None) as pool:
        real = pool.submit
        pool.submit = lambda jobs: (  # type: ignore[method-assign]
            pool._executor.submit(os._exit, 9)  # type: ignore[attr-defined]
            if any(job.identity == "3" for job in jobs) else real(jobs)
        )  # fmt: skip
        found = {answer.job.identity: answer for answer in answers(pool, iter(jobs))}
    assert set(found) == {"1", "2", "3", "4"}
    assert [i for i, answer in found.items() if answer.figures is None] == ["3"]
    assert "worker died" in found["3"].error


def test_values_of_a_range_have_its_unit() -> None:
    sections = spec(
        sample={"count": 5, "ranges": {"npu.frequency": {"low": 1, "high": 2, "unit": "GHz"}}}
    )
    for point in expand(sections, "t"):
        assert str(point["npu.frequency"]).endswith("GHz")
        load_run("npu-only", overrides(common_values(sections, "npu-only"), point, Path()))


def test_stores_of_others_are_refused(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Store(out, create=True)
    (out / "store.json").write_text(json.dumps({"format": "pimsim-store", "version": 7}))
    with pytest.raises(InputError, match="version 7; this pimsim reads"):
        run_sweep(sweep, out)
    with pytest.raises(InputError, match="new or empty folder"):
        run_sweep(sweep, tmp_path)
    with pytest.raises(InputError, match="no store"):
        Store(tmp_path / "none")


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({"low": 1, "high": 2}, True), ({"choices": [1, 2.5]}, True), ({"choices": ["a"]}, False),
        ({"choices": [1, "a"]}, False), ({"choices": [True, False]}, False),
        ({"choices": [None]}, False),
    ],
)  # fmt: skip
def test_a_range_of_numbers_alone_has_some_between_others(
    given: dict[str, Any], numbers: bool
) -> None:
    assert RangeSpec.model_validate(given).numbers is numbers


def test_shares_of_a_range_are_its_values() -> None:
    def at(share: float, **given: Any) -> Any:
        return RangeSpec.model_validate(given).at(share)

    assert [at(share, choices=["a", "b", "c"]) for share in (0, 0.34, 0.67, 1)] == list("abcc")
    assert [at(share, low=3, high=5, integer=True) for share in (0, 0.34, 0.67, 1)] == [3, 4, 5, 5]
    assert [at(share, low=1, high=9) for share in (0, 0.25, 1)] == [1.0, 3.0, 9.0]
    assert [at(share, low=1, high=100, log=True) for share in (0, 0.5)] == [1.0, pytest.approx(10)]
    whole = {"low": 1, "high": 7, "log": True, "integer": True}
    assert [at(share, **whole) for share in (0, 0.34, 0.7, 1)] == [1, 2, 4, 7]
    assert at(0.5, low=1, high=2, unit="GHz") == "1.5GHz"
