"""Charts say what the result says."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names
from pimsim.report.charts import LaneChart, Line, Point, PointSeries, XYChart, labels
from pimsim.report.interactive import _sides
from pimsim.report.palette import cause_colour
from pimsim.report.run_charts import (
    comparison_chart,
    energy_chart,
    gantt_chart,
    power_chart,
    roofline_chart,
    stack_chart,
    utilisation_chart,
)
from pimsim.result.types import CYCLE_CAUSES, OperatorResult, Result


@pytest.fixture(scope="module")
def result(tiny_card: Path) -> Result:
    return pimsim.run("neupims", model=tiny_card, batch=4)


def lane_totals(chart: LaneChart) -> dict[str, float]:
    """Where the last bar of each lane ends; bars of a lane follow each other without gaps."""
    ends: dict[str, float] = {}
    for lane in chart.lanes:
        spans = [span for span in chart.spans if span.lane == lane]
        assert all(a.end == pytest.approx(b.start) for a, b in pairwise(spans))
        ends[lane] = spans[-1].end
    return ends


def test_cycle_stacks_are_the_whole_run(result: Result) -> None:
    chart = stack_chart([result], ["a"])
    assert lane_totals(chart) == {
        lane: pytest.approx(100) for lane in ("NPU", "PIM", "DRAM data bus")
    }
    assert {span.series for span in chart.spans} <= set(chart.colours)


def test_energy_adds_up_to_that_of_a_token(result: Result) -> None:
    chart = energy_chart([result], ["a"])
    assert lane_totals(chart) == {"a": pytest.approx(1e3 / result.tokens_per_j)}


def roofs(result: Result) -> dict[str, tuple[float, float]]:
    """Operations and bytes a second by unit, where PIM reads one kind of element."""
    peaks = result.peaks
    npu = peaks["npu_flop_per_s"], peaks["npu_bytes_per_s"]
    found = {"NPU arrays": npu, "vector units": npu}
    for width in ("pim_weight_bytes_per_s", "pim_kv_bytes_per_s"):
        if width in peaks:
            found["PIM"] = peaks["pim_flop_per_s"], peaks[width]
    return found


@pytest.mark.parametrize("fidelity", ["command", "fast"])
@pytest.mark.parametrize("preset", preset_names("hardware"))
def test_no_operator_is_above_its_roof(preset: str, fidelity: str, tiny_card: Path) -> None:
    result = pimsim.run(preset, model=tiny_card, batch=4, layers=2, fidelity=fidelity)
    chart, limits = roofline_chart(result), roofs(result)
    assert {series.name for series in chart.points} >= {"NPU arrays"}
    for series in chart.points:
        flops, size = limits[series.name]
        for point in series.points:
            assert 0 < point.y * 1e12 <= min(flops, point.x * size) * (1 + 1e-9)


def lines_of(result: Result) -> dict[str, tuple[float, float]]:
    """FLOP/s and bytes/s of each roof, read off its two ends in the chart."""
    return {
        line.name: (line.y[-1] * 1e12, line.y[0] * 1e12 / line.x[0])
        for line in roofline_chart(result).lines
    }


def test_a_roof_of_pim_has_the_run_s_own_element_size(tiny_card: Path, tmp_path: Path) -> None:
    """16 lanes in each of 32 banks of 32 channels every 2 ns (of 1 GHz: tCCD_S 2): 16.384 TFLOP/s,
    and as many bytes at 2 bytes an element; half at 1, where a cache of int8 is."""
    narrow = tmp_path / "int8.yaml"
    narrow.write_text(tiny_card.read_text().replace("kv_dtype_bytes: 2", "kv_dtype_bytes: 1"))
    for card, size in ((tiny_card, 2), (narrow, 1)):
        found = lines_of(pimsim.run("neupims", model=card, batch=4))
        assert set(found) == {"NPU over DRAM", "PIM in the banks"}
        assert found["PIM in the banks"] == (
            pytest.approx(16.384e12), pytest.approx(8.192e12 * size),
        )  # fmt: skip


def test_pim_has_a_roof_only_where_something_runs_on_it(tiny_card: Path) -> None:
    there = ["schedule.attention_placement=npu"]
    for name, overrides in (("neupims", there), ("npu-only", [])):
        result = pimsim.run(name, model=tiny_card, batch=4, overrides=overrides)
        assert set(lines_of(result)) == {"NPU over DRAM"}


def test_each_width_on_pim_has_its_own_roof(result: Result) -> None:
    """Experts of 2 bytes beside a cache of 1."""
    peaks = {
        "npu_flop_per_s": 8e12, "npu_bytes_per_s": 4e12, "pim_flop_per_s": 2e12,
        "pim_kv_bytes_per_s": 1e12, "pim_weight_bytes_per_s": 2e12,
    }  # fmt: skip
    assert lines_of(replace(result, peaks=peaks)) == {
        "NPU over DRAM": (pytest.approx(8e12), pytest.approx(4e12)),
        "PIM in the banks, KV cache": (pytest.approx(2e12), pytest.approx(1e12)),
        "PIM in the banks, experts": (pytest.approx(2e12), pytest.approx(2e12)),
    }


def test_an_operator_s_time_begins_with_its_first_load(result: Result) -> None:
    """1,000 bytes in 100 cycles and 400 before them; 200 bytes more are written after its end."""
    operator = OperatorResult(
        "qkv", "gemm", "systolic", 0, 100, "A", 400, 5000, 1200, 0, lead_cycles=400,
        posted_bytes=200,
    )  # fmt: skip
    made = replace(result, operators=(operator,), cycles=1000, time_s=1e-6)
    ((point,),) = (series.points for series in roofline_chart(made).points)
    assert point.x == 5.0
    assert point.y * 1e12 == pytest.approx(5000 / 500e-9)


def test_a_result_without_peaks_has_no_roofline(result: Result) -> None:
    with pytest.raises(InputError, match="no peaks; run it again"):
        roofline_chart(replace(result, peaks={}))


def test_the_gantt_of_a_stage_is_that_stage(result: Result) -> None:
    stage = result.stages[2]
    chart = gantt_chart(result, stage.name)
    micro = result.time_s / result.cycles * 1e6
    assert chart.spans
    assert min(span.start for span in chart.spans) >= 0
    assert max(span.end for span in chart.spans) <= stage.cycles * micro * (1 + 1e-9)
    whole = gantt_chart(result)
    assert len(whole.spans) == len(result.operators)


def test_work_over_time_adds_up_to_the_work(result: Result) -> None:
    chart, series = utilisation_chart(result), result.series
    assert series is not None
    arrays = next(line for line in chart.lines if line.name == "NPU arrays")
    done = sum(y * s for y, s in zip(arrays.y, series.lengths_s, strict=False)) / 100
    flops = sum(o.flops for o in result.operators if o.unit == "systolic")
    assert done == pytest.approx(flops / result.peaks["npu_flop_per_s"])
    assert max(max(line.y) for line in chart.lines) <= 100 * (1 + 1e-9)


def test_power_over_time_adds_up_to_the_energy(result: Result) -> None:
    chart, series = power_chart(result), result.series
    assert series is not None and chart.y_range is not None
    for name, joule in (("all parts", result.energy_j.total), ("dram", result.energy_j.dram)):
        watt = next(line for line in chart.lines if line.name == name)
        used = sum(y * s for y, s in zip(watt.y, series.lengths_s, strict=False))
        assert used == pytest.approx(joule)
        assert max(watt.y) < chart.y_range[1]


def test_a_result_of_before_has_no_pictures_over_time(result: Result) -> None:
    for chart in (utilisation_chart, power_chart):
        with pytest.raises(InputError, match="no intervals; run it again"):
            chart(replace(result, series=None))


def test_every_cause_has_a_colour_of_its_own() -> None:
    colours = [cause_colour(cause) for cause in CYCLE_CAUSES]
    assert len(set(colours)) == len(colours)


def test_names_of_points_that_lie_on_each_other_are_one() -> None:
    """0.12 decades are a factor of 1.32."""
    points = tuple(
        Point(x, y, text=text)
        for x, y, text in (
            (10, 130, "a"),
            (10, 100, "b"),
            (13, 101, "c"),
            (10, 70, "d"),
            (1, 1, ""),
        )
    )
    series = PointSeries("all", "#000000", points)
    chart = XYChart("k", "t", "c", "x", "y", (series,), x_log=True, y_log=True)
    assert labels(series, chart) == [(10, 130, "a, c, b"), (10, 70, "d")]
    assert [text for *_, text in labels(series, replace(chart, x_log=False))] == list("acbd")


def test_axes_end_with_what_they_show(result: Result) -> None:
    gantt = gantt_chart(result)
    assert gantt.x_end == max(span.end for span in gantt.spans)
    assert comparison_chart([result], ["a"]).x_end > result.tokens_per_s
    micro = result.time_s * 1e6
    for chart in (utilisation_chart(result), power_chart(result)):
        assert chart.x_range == (0, pytest.approx(micro))
        assert all(line.x[-1] == pytest.approx(micro) for line in chart.lines)
        assert chart.y_range is not None
        assert chart.y_range[0] == 0 <= min(min(line.y) for line in chart.lines)
        assert max(max(line.y) for line in chart.lines) < chart.y_range[1]


@pytest.mark.parametrize("preset", preset_names("hardware"))
def test_every_cause_has_words(preset: str, tiny_card: Path) -> None:
    stack = pimsim.run(preset, model=tiny_card, batch=4, layers=1, fidelity="fast").cycle_stack
    assert {cause for causes in stack.values() for cause in causes} <= set(CYCLE_CAUSES)


def test_names_on_the_page_lie_towards_the_middle() -> None:
    """Of 1 to 100 on a logarithmic axis the middle is 10."""
    points = tuple(Point(x, 1, text=text) for x, text in ((1, "a"), (8, "b"), (12, "c")))
    series = PointSeries("all", "#000000", points)
    line = Line("roof", "#000000", (1, 100), (1, 1))
    chart = XYChart("k", "t", "c", "x", "y", (series,), (line,), x_log=True, y_log=True)
    assert [(align, offset, {name for *_, text in named for name in text.split(", ")})
            for align, offset, named in _sides(series, chart)] == [
        ("left", 8, {"a", "b"}), ("right", -8, {"c"}),
    ]  # fmt: skip
