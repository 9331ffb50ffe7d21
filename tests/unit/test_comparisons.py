"""Configs, runs and sweeps side by side: what differs, and what it did."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from pimsim.config.differences import Difference, differences, labels_of
from pimsim.config.errors import InputError
from pimsim.config.loader import load_any_run
from pimsim.explore.comparison import compare_sweeps
from pimsim.explore.keys import point_id
from pimsim.explore.store import Store
from pimsim.report.charts import LaneChart, XYChart
from pimsim.report.comparisons import comparison_charts, comparison_page

RunCli = Callable[..., subprocess.CompletedProcess[str]]


def test_configs_differ_where_their_values_do_and_as_yaml_writes_them() -> None:
    first = load_any_run("npu-only")
    second = load_any_run("npu-only", ["npu.frequency=2GHz", "pim=newton"])
    found = {each.key: each.values for each in differences([first, second])}
    assert found["npu.frequency"] == ("1GHz", "2GHz")
    assert found["pim"] == ("none", "newton"), "a section that one does not have is one difference"
    assert set(found) == {"npu.frequency", "pim"}
    rules = {each.key: each.values for each in differences(
        [load_any_run(name) for name in ("npu-pim", "neupims")])}  # fmt: skip
    assert rules["pim.row_buffers"] == ("1", "2") and "pim" not in rules
    assert "pim.source" not in rules, "prose is no difference"
    assert differences([first, load_any_run("npu-only", ["name=other"])]) == []


def test_a_file_is_the_same_however_it_is_named(tmp_path: Path, tiny_card: Path) -> None:
    named = (
        tiny_card,
        tmp_path / ".." / tmp_path.name / Path(os.path.relpath(tiny_card, tmp_path)),
    )
    same = [load_any_run("npu-only", [f"workload.model={path}"]) for path in named]
    assert differences(same) == []
    link = tmp_path / "link.yaml"
    link.symlink_to(tiny_card)
    assert differences([same[0], load_any_run("npu-only", [f"workload.model={link}"])]) == []
    other = tmp_path / "other.yaml"
    other.write_text(tiny_card.read_text())
    (found,) = differences([same[0], load_any_run("npu-only", [f"workload.model={other}"])])
    assert found.key == "workload.model" and found.values[1].endswith("other.yaml")


def test_an_npu_and_gpus_differ_by_section() -> None:
    found = {each.key: each.values for each in differences([load_any_run("npu-only"),
                                                            load_any_run("dgx-h100")])}  # fmt: skip
    assert found["npu"][1] == "" and found["npu"][0]
    assert not any(key.startswith("npu.") for key in found)


BATCH = Difference("workload.batch", ("8", "16"))
ROWS = Difference("npu.rows", ("1", "2"))
COLUMNS = Difference("npu.columns", ("3", "4"))
MORE = Difference("memory.rows", ("5", "6"))


@pytest.mark.parametrize(
    ("names", "found", "labels"),
    [
        (["a", "a"], [BATCH], ["batch 8", "batch 16"]),
        (["a", "b"], [BATCH], ["a: batch 8", "b: batch 16"]),
        (["a", "b"], [BATCH, ROWS], ["a", "b"]),
        (["a", "a"], [BATCH, ROWS], ["batch 8, rows 1", "batch 16, rows 2"]),
        (["a", "a"], [BATCH, ROWS, COLUMNS, MORE], ["a", "a (2)"]),
        (["a", "a"], [], ["a", "a (2)"]),
        (["a", "a"], [Difference("x.y", ("", "1"))], ["y absent", "y 1"]),
    ],
)
def test_labels_say_what_differs(
    names: list[str], found: list[Difference], labels: list[str]
) -> None:
    assert labels_of(names, found) == labels


def store_of(
    folder: Path, base: str, axes: dict[str, list[object]], rate: Callable[..., float],
    fast: bool = False,
) -> Path:  # fmt: skip
    """A store of a grid with made-up figures; a rate of 0 is a failure."""
    store = Store(folder, create=True)
    sweep = folder.with_suffix(".yaml")
    sweep.write_text(f"base: {base}\ngrid: {json.dumps(axes)}\n")
    store.write_source(sweep, {"base": base, "folder": str(folder)})
    for at, values in enumerate(product(*axes.values())):
        given = ['fidelity="fast"']
        given += [f"{key}={json.dumps(v)}" for key, v in zip(axes, values, strict=True)]
        made, key = rate(*values), f"{at:032x}"
        if made:
            error = {"mode": "fast", "error_mean": 0.1, "error_ci95": 0.0}
            store.write_result(
                key,
                {
                    "cycles": 1000, "time_s": 1e-6, "layers_simulated": 1, "tokens_per_s": made,
                    "tokens_per_j": 10.0, "bound_cycles": {},
                    "cycle_stack": {"npu": {"computing": 100, "weights": int(900 / made)}},
                } | ({"fidelity": error} if fast else {}),
            )  # fmt: skip
        what = {"result": key} if made else {"error": "made up"}
        store.write_point(point_id(base, given), what)
    return folder


def test_sweeps_are_compared_where_both_have_a_result(tmp_path: Path) -> None:
    first = store_of(tmp_path / "one", "npu-only", {"workload.batch": [1, 2, 4],
                     "npu.frequency": ["1GHz", "2GHz"]}, lambda b, c: b * float(c[0]))  # fmt: skip
    second = store_of(tmp_path / "two", "npu-pim", {"workload.batch": [4, 2, 8]},
                      lambda batch: 0.0 if batch == 4 else 3.0 * batch)  # fmt: skip
    (found,) = compare_sweeps([first, second], ["one", "two"])
    assert [pair.values for pair in found.pairs] == [("2", "1GHz"), ("4", "1GHz")]
    assert found.alone == (4, 1)
    (pair,) = found.known
    assert pair.ratio("tokens_per_s") == 3.0 and not pair.level
    assert pair.causes[0].cause == "weights" and pair.causes[0].saved > 0
    keys = {each.key: each.values for each in found.differences}
    assert keys["pim"] == ("none", "newton")
    assert keys["workload.batch"] == ("1, 2, 4", "4, 2, 8")
    assert keys["npu.frequency"] == ("1GHz, 2GHz", "1GHz")
    words = list(found.words())
    assert words[0] == "2 points in both; 4 of one and 1 of two alone."
    assert words[1] == "1 point of these have no result in one of them."
    assert words[2] == "two has 3 times the rate of one."
    ratios, causes = comparison_charts([found])
    assert isinstance(ratios, XYChart) and isinstance(causes, LaneChart)
    assert [(p.x, p.y) for p in ratios.points[0].points] == [(0.0, 3.0)], "no axis"
    assert causes.lanes == ("one: NPU", "two: NPU")
    page = comparison_page([found])
    assert page.index("What differs") < page.index("Point by point")
    assert "two has 3 times the rate of one" in page and "waiting for weights of the NPU" in page


def test_what_fast_may_be_off_by_is_level(tmp_path: Path) -> None:
    axes: dict[str, list[object]] = {"workload.batch": [1, 2]}
    folders = [
        store_of(tmp_path / name, "npu-only", axes, lambda b, by=by: b * by, fast=True)
        for name, by in (("one", 1.0), ("two", 1.15))
    ]
    (found,) = compare_sweeps(folders, ["one", "two"])
    assert found.differences == ()
    slack = 2 * 0.1
    assert [pair.level for pair in found.known] == [True, True]
    edge = replace(found.known[0], after=found.known[0].before | {"tokens_per_s": 1 + slack})
    assert edge.level and not replace(edge, after=edge.after | {"tokens_per_s": 1.21}).level
    assert all(pair.level for pair in found.known)
    assert list(found.words())[1] == "two and one are level at all of them."


def test_the_furthest_pairs_are_shown_and_equal_points_once(tmp_path: Path) -> None:
    first = store_of(tmp_path / "one", "npu-only", {"workload.batch": [1, 2, 1, 4]}, lambda b: b)
    second = store_of(tmp_path / "two", "npu-only", {"workload.batch": [4, 2, 1]},
                      lambda b: b * {1: 1.0, 2: 0.2, 4: 3.0}[b])  # fmt: skip
    (found,) = compare_sweeps([first, second], ["one", "two"])
    assert [pair.values for pair in found.known] == [("1",), ("2",), ("4",)]
    assert found.differences == (), "the order of values is none"
    assert [pair.values for pair in found.furthest(1)] == [("2",)]
    assert [pair.values for pair in found.furthest(2)] == [("2",), ("4",)]


def test_a_search_is_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path / "one", "npu-only", {"workload.batch": [1]}, float)
    Store(tmp_path / "two", create=True)
    with pytest.raises(InputError, match="give sweeps, or runs"):
        compare_sweeps([store, tmp_path / "two"], ["one", "two"])


def test_the_command_prints_and_writes_what_differs(
    run_cli: RunCli, refused: Callable[..., str], tmp_path: Path
) -> None:
    for name, base in (("one", "npu-only"), ("two", "npu-pim")):
        store_of(tmp_path / name, base, {"workload.batch": [1, 2]}, lambda b: b * 1.0)
    done = run_cli("compare", "one", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "what differs" in done.stdout and "pim" in done.stdout
    data = json.loads(run_cli("compare", "one", "two", "--json", cwd=tmp_path).stdout)
    (sweep,) = data["sweeps"]
    assert sweep["in_both"] == 2 and sweep["points"][0]["speedup"] == 1.0
    done = run_cli("report", "one", "two", "--out", "page.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Point by point" in (tmp_path / "page.html").read_text()
    both = (tmp_path / "one", tmp_path / "two")
    assert "leave out" in refused("compare", *both, "--batch", "4")
    assert "npu-only" in refused("compare", both[0], "npu-only")
