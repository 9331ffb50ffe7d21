"""The report of a sweep: its front, and a page of a thousand points."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pimsim.explore.keys import point_id
from pimsim.explore.store import Store
from pimsim.report.charts import XYChart
from pimsim.report.sweeps import front_of, sweep_charts, sweep_page

pairs = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=40)


@given(pairs)
def test_nothing_beats_the_front_and_all_else_is_beaten(points: list[tuple[int, int]]) -> None:
    gains, costs = zip(*points, strict=True)
    front = front_of(gains, costs)

    def beaten(i: int, by: int) -> bool:
        better = gains[by] >= gains[i] and costs[by] <= costs[i]
        return better and (gains[by], costs[by]) != (gains[i], costs[i])

    for i in range(len(points)):
        is_beaten = any(beaten(i, by) for by in range(len(points)))
        if i in front:
            assert not is_beaten
        else:
            assert is_beaten or any(points[i] == points[by] for by in front)


def thousand(folder: Path) -> Path:
    """A store of 1,000 points with made-up figures: the page does not care who made them."""
    store = Store(folder, create=True)
    axes = {"workload.batch": list(range(1, 101)), "memory.timings.tFAW": list(range(10, 20))}
    text = f"name: <script>x</script>\nbase: neupims\ngrid: {json.dumps(axes)}\n"
    sweep = folder.with_suffix(".yaml")
    sweep.write_text(text)
    store.write_source(sweep, {"base": "neupims", "folder": str(folder)})
    for at, values in enumerate(product(*axes.values())):
        given = ['fidelity="fast"']
        given += [f"{key}={json.dumps(v)}" for key, v in zip(axes, values, strict=True)]
        key = f"{at:032x}"
        figures = {"cycles": 1000 + at, "tokens_per_s": 1.0 + at, "tokens_per_j": 50.0 + at % 7}
        store.write_result(key, figures)
        identity = point_id("neupims", given)
        store.write_point(identity, {"error": "made up"} if at % 50 == 0 else {"result": key})
    return folder


def test_a_thousand_points_fit_a_small_page_that_runs_no_foreign_script(tmp_path: Path) -> None:
    store = thousand(tmp_path / "s")
    page = sweep_page(store)
    assert len(page) < 5_000_000
    assert "<script>x</script>" not in page and "&lt;script&gt;x" in page
    assert "made up" in page and ">20<" in page
    charts = sweep_charts(store)
    assert [chart.key for chart in charts] == [
        "trade-off", "key-workload-batch", "key-memory-timings-tFAW",
    ]  # fmt: skip


def effect(folder: Path, key: str, values: list[object]) -> XYChart:
    """The chart of ``key`` of a sweep over ``values``, the throughput 1, 2, 3 ..."""
    store = Store(folder, create=True)
    sweep = folder.with_suffix(".yaml")
    sweep.write_text(f"base: neupims\ngrid: {json.dumps({key: values})}\n")
    store.write_source(sweep, {"base": "neupims", "folder": str(folder)})
    for at, value in enumerate(values):
        figures = {"cycles": 1, "tokens_per_s": 1.0 + at, "tokens_per_j": 1.0}
        store.write_result(f"{at:032x}", figures)
        identity = point_id("neupims", ['fidelity="fast"', f"{key}={json.dumps(value)}"])
        store.write_point(identity, {"result": f"{at:032x}"})
    chart = sweep_charts(folder)[1]
    assert isinstance(chart, XYChart)
    return chart


def test_quantities_stand_on_an_axis_in_their_unit(tmp_path: Path) -> None:
    chart = effect(tmp_path / "s", "npu.frequency", ["800MHz", "1.2GHz"])
    assert chart.x_label == "npu.frequency (GHz)"
    assert [point.x for point in chart.points[0].points] == [0.8, 1.2]
    assert chart.lines[0].y == (1.0, 2.0)


def test_what_is_no_number_is_named_where_it_stands(tmp_path: Path) -> None:
    chart = effect(tmp_path / "s", "schedule.sub_batches", [True, False])
    assert chart.x_names == ("true", "false")
    assert [point.x for point in chart.points[0].points] == [0.0, 1.0]


def test_many_values_are_averaged_in_groups_of_as_many_points(tmp_path: Path) -> None:
    chart = effect(tmp_path / "s", "workload.batch", list(range(1, 97)))
    mean = chart.lines[0]
    assert mean.x == tuple(2.5 + 4 * at for at in range(24))
    assert mean.y == mean.x
    assert "24 groups" in chart.caption
