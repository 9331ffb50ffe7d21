"""The report of a sweep: its front, and a page of a thousand points."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.differences import named, short_names
from pimsim.config.errors import InputError
from pimsim.explore.keys import point_id
from pimsim.explore.store import Store
from pimsim.report.charts import LaneChart, XYChart
from pimsim.report.sweep_charts import front_of
from pimsim.report.sweep_groups import Roles, effects, entries, reigns, roles_of
from pimsim.report.sweep_view import View, view_of
from pimsim.report.sweeps import (
    TECHNIQUES,
    _axes,
    axis_of,
    read_sweep,
    sweep_page,
)

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
    page = sweep_page(read_sweep(store))
    assert len(page) < 5_000_000
    assert "<script>x</script>" not in page and "&lt;script&gt;x" in page
    assert "made up" in page and ">20<" in page
    charts = read_sweep(store).charts
    assert [chart.key for chart in charts] == ["rates", "trade-off"]
    assert 'class="sort"' in page and 'class="filter"' in page and 'class="csv"' in page


def store_of(folder: Path, axes: dict[str, list[object]], rate: Callable[..., float],
             more: Callable[..., dict[str, object]] | None = None) -> Path:  # fmt: skip
    """A store of a grid, rates made up by the values in their order."""
    store = Store(folder, create=True)
    sweep = folder.with_suffix(".yaml")
    sweep.write_text(f"base: neupims\ngrid: {json.dumps(axes)}\n")
    store.write_source(sweep, {"base": "neupims", "folder": str(folder)})
    for at, values in enumerate(product(*axes.values())):
        given = ['fidelity="fast"']
        given += [f"{key}={json.dumps(v)}" for key, v in zip(axes, values, strict=True)]
        figures = {"cycles": 100, "tokens_per_s": rate(*values), "tokens_per_j": 10.0 + at}
        store.write_result(f"{at:032x}", figures | (more(*values) if more is not None else {}))
        store.write_point(point_id("neupims", given), {"result": f"{at:032x}"})
    return folder


AXES: dict[str, list[object]] = {
    "workload.model": ["gpt3-7b", "llama-3-8b"],
    "workload.batch": [16, 64, 256],
    "memory.organization.channels": [16, 32],
}


def made_up(model: str, batch: int, channels: int) -> float:
    """More channels win from batch 64 on; below, fewer do. One model is ten times the other."""
    own = batch * (channels if batch >= 64 else 48 - channels)
    return own * (10.0 if model == "gpt3-7b" else 1.0)


def stacks(_model: str, _batch: int, channels: int) -> dict[str, object]:
    return {"cycle_stack": {"npu": {"computing": channels, "weights": 100 - channels}}}


def test_groups_are_facets_machines_are_lines_and_each_group_has_its_front(tmp_path: Path) -> None:
    folder = store_of(tmp_path / "s", AXES, made_up, stacks)
    sweep = read_sweep(folder)
    assert sweep.roles == Roles(
        "workload.batch", ("workload.model",), ("memory.organization.channels",)
    )
    charts = read_sweep(folder).charts
    assert [chart.key for chart in charts] == [
        "rates-0", "causes-0", "trade-off-0", "rates-1", "causes-1", "trade-off-1",
    ]  # fmt: skip
    rates, causes, trade_off = charts[:3]
    assert isinstance(rates, XYChart) and isinstance(causes, LaneChart)
    assert isinstance(trade_off, XYChart)
    assert rates.title.endswith("model gpt3-7b") and rates.x_log and rates.x_ticks == (16, 64, 256)
    assert {line.name: line.y for line in rates.lines} == {
        "channels 16": (5120.0, 10240.0, 40960.0), "channels 32": (2560.0, 20480.0, 81920.0),
    }  # fmt: skip
    assert causes.lanes == ("1. channels 32: NPU", "2. channels 16: NPU")
    assert [(span.series, span.end - span.start) for span in causes.spans[:2]] == [
        ("computing", 32.0), ("waiting for weights", 68.0),
    ]  # fmt: skip
    assert len(trade_off.lines) == 3, "a front of each batch"
    html = sweep_page(read_sweep(folder))
    page = re.sub("</?a[^>]*>", "", html)
    assert "At model gpt3-7b, batch 16: channels 16 is the fastest, 2.00 times channels 32." in page
    assert (
        "At model llama-3-8b, batch 64 to 256: channels 32 is the fastest, 2.00 times channels 16 "
        "at 256." in page
    )
    targets = re.findall('<a href="#(point-[0-9]+)">([^<]*)</a>', html)
    assert len(targets) == 8, "each of four sentences leads to a winner and to the next one"
    for target, words in targets:
        (row,) = re.findall(f'<tr id="{target}">(.*?)</tr>', html)
        assert f"<td>{words.rpartition(' ')[2]}</td>" in row


def view(metrics: str | None = None, against: str | None = None, base: str | None = None) -> View:
    return view_of(metrics, against, base)


def test_any_metric_is_drawn_and_over_a_baseline(tmp_path: Path) -> None:
    def more(_model: str, batch: int, channels: int) -> dict[str, object]:
        return {"power_w": {"total": 2.0 * channels}, "iteration_s": batch / channels}

    folder = store_of(tmp_path / "s", AXES, made_up, more)
    plain = read_sweep(folder, view("power_w,iteration_s", "power_w"))
    keys = [chart.key for chart in plain.charts]
    assert keys[:3] == ["power_w-0", "iteration_s-0", "trade-off-0"]
    power, _, trade_off = plain.charts[:3]
    assert isinstance(power, XYChart) and isinstance(trade_off, XYChart)
    assert {line.name: line.y for line in power.lines} == {
        "channels 16": (32.0, 32.0, 32.0), "channels 32": (64.0, 64.0, 64.0),
    }  # fmt: skip
    assert power.y_label == "power (W)" and trade_off.y_label == power.y_label
    over = read_sweep(folder, view("tokens_per_s,iteration_s", "power_w", "channels=16"))
    rates, times = over.charts[:2]
    assert isinstance(rates, XYChart) and isinstance(times, XYChart)
    assert {line.name: line.y for line in rates.lines} == {
        "channels 16": (1.0, 1.0, 1.0), "channels 32": (0.5, 2.0, 2.0),
    }  # fmt: skip
    assert {line.name: line.y for line in times.lines}["channels 32"] == (0.5, 0.5, 0.5)
    assert rates.y_label == "throughput over that of channels 16"


def test_a_front_seeks_what_is_better_in_both(tmp_path: Path) -> None:
    def more(batch: int, channels: int) -> dict[str, object]:
        return {"iteration_s": float(channels), "power_w": {"total": 100.0 - channels}}

    axes: dict[str, list[object]] = {"workload.batch": [1], "memory.organization.channels": [8, 16]}
    folder = store_of(tmp_path / "s", axes, lambda batch, channels: channels, more)
    for metrics, against, front in (
        ("iteration_s", "power_w", (92.0, 84.0)), ("tokens_per_s", "power_w", (84.0,)),
        ("tokens_per_s", "tokens_per_s", (16.0,)), ("iteration_s", "iteration_s", (8.0,)),
    ):  # fmt: skip
        chart = read_sweep(folder, view(metrics, against)).charts[-1]
        assert isinstance(chart, XYChart)
        assert sorted(chart.lines[0].x) == sorted(front)


def test_a_metric_that_no_point_has_is_not_drawn(tmp_path: Path) -> None:
    folder = store_of(tmp_path / "s", AXES, made_up)
    sweep = read_sweep(folder, view("area_mm2,tokens_per_s", "power_w"))
    assert [chart.key for chart in sweep.charts] == ["rates-0", "rates-1"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("token_per_s", None, None), "did you mean 'tokens_per_s'"),
        ((None, "watt", None), "--against: unknown metric"),
        ((None, None, "channels"), "KEY=VALUE is expected"),
        ((None, None, "batch=16"), "no key that tells machines"),
        ((None, None, "chanels=16"), "did you mean"),
        ((None, None, "channels=64"), "no machines of the sweep are so"),
    ],
)
def test_what_is_no_view_of_a_sweep_is_refused(
    tmp_path: Path, given: tuple[str | None, str | None, str | None], said: str
) -> None:
    folder = store_of(tmp_path / "s", AXES, made_up)
    with pytest.raises(InputError, match=said):
        read_sweep(folder, view_of(*given))


def test_what_a_key_does_is_told_where_all_else_is_equal(tmp_path: Path) -> None:
    sweep = read_sweep(store_of(tmp_path / "s", AXES, made_up))
    (effect,) = effects(sweep.keys, sweep.rows, sweep.entries, sweep.roles.machine)
    assert (effect.value, effect.baseline, effect.pairs) == (32, 16, 6)
    assert effect.rate == (0.5, 2.0, 2.0)
    page = sweep_page(read_sweep(tmp_path / "s"))
    assert "0.500" in page and "What each key does, all else equal" in page


def test_a_machine_is_the_axis_where_nothing_is_asked_anew(tmp_path: Path) -> None:
    axes: dict[str, list[object]] = {
        "memory.organization.channels": [8, 16, 32], "schedule.sub_batches": [False, True],
    }  # fmt: skip
    sweep = read_sweep(store_of(tmp_path / "s", axes, lambda channels, two: channels + two))
    assert sweep.roles == Roles("memory.organization.channels", (), ("schedule.sub_batches",))
    assert sweep.roles.group == ()
    (reign,) = reigns(sweep.entries)
    assert (reign.first, reign.last, reign.machine, reign.next_machine) == (
        8,
        32,
        (True,),
        (False,),
    )
    keys = [each.key for each in effects(sweep.keys, sweep.rows, sweep.entries, sweep.keys)]
    assert keys == ["memory.organization.channels"] * 2 + ["schedule.sub_batches"]


def test_techniques_are_compared_and_do_not_part_groups() -> None:
    assert {"workload.decoding", "workload.kv_view", "workload.weight_format"} <= TECHNIQUES
    assert not {"workload.model", "workload.requests", "workload.phase"} & TECHNIQUES
    values = {"workload.batch": [1, 2, 1, 2], "workload.weight_format": ["none"] * 2 + ["int4"] * 2}
    assert roles_of(values, TECHNIQUES) == Roles("workload.batch", (), ("workload.weight_format",))


def test_rates_within_their_error_are_level() -> None:
    rows = [{"workload.batch": 1, "pim": name} for name in ("newton", "neupims")]
    roles = roles_of({"workload.batch": [1, 1], "pim": ["newton", "neupims"]})
    assert roles == Roles(None, ("workload.batch",), ("pim",))
    for slack, level in ((0.03, True), (0.01, False)):
        found = entries(roles, rows, [0, 0], [100.0, 105.0], [1.0, 1.0], [slack] * 2)
        (reign,) = reigns(found)
        assert (reign.machine, reign.level) == (("neupims",), level)
        assert reign.over == pytest.approx(1.05)


PLACES = ((1, 8), (1, 16), (2, 16))


def test_where_a_machine_runs_alone_is_told_apart() -> None:
    rows = [{"batch": batch, "channels": channels} for batch, channels in PLACES]
    roles = Roles("batch", (), ("channels",))
    found = entries(roles, rows, [1, 1, 2], [10.0, 20.0, 40.0], [1.0] * 3, [0.0] * 3)
    first, second = reigns(found)
    assert (first.first, first.last, first.next_machine, first.over) == (1, 1, (8,), 2.0)
    assert (second.first, second.last, second.next_machine) == (2, 2, None)


def test_a_machine_has_one_colour_in_all_pictures(tmp_path: Path) -> None:
    axes: dict[str, list[object]] = {
        "workload.batch": [1, 2], "memory.organization.channels": [8, 16],
    }  # fmt: skip
    sweep = read_sweep(store_of(tmp_path / "s", axes, lambda batch, channels: batch * channels))
    chart, free = sweep.charts[0], _axes(sweep)
    assert isinstance(chart, XYChart) and free is not None
    assert {(series.name, series.colour) for series in chart.points} == set(free.legend)


def test_many_machines_are_points_and_the_fastest_are_lines(tmp_path: Path) -> None:
    axes: dict[str, list[object]] = {
        "workload.batch": [1, 2, 4],
        "memory.timings.tFAW": list(range(10, 30)),
    }
    chart = read_sweep(
        store_of(tmp_path / "s", axes, lambda batch, faw: batch * 100.0 - faw)
    ).charts[0]
    assert isinstance(chart, XYChart)
    assert chart.points[0].name == "13 other machines"
    assert [line.name for line in chart.lines] == [f"tFAW {each}" for each in range(10, 17)]


def test_quantities_stand_on_an_axis_in_their_unit() -> None:
    places, label, names = axis_of("npu.frequency", ["800MHz", "1.2GHz"])
    assert (places, label, names) == ([0.8, 1.2], "npu.frequency (GHz)", ())


def test_what_is_no_number_is_named_where_it_stands() -> None:
    places, _, names = axis_of("schedule.sub_batches", [True, False, True])
    assert (places, names) == ([0.0, 1.0, 0.0], ("true", "false"))


def test_short_names_stay_apart() -> None:
    assert short_names(["a.rows", "b.rows", "a.cols"]) == ["a.rows", "b.rows", "cols"]
    assert named(["a.rows", "pim"], (8, True)) == "rows 8, pim true"
