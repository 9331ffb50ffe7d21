"""Charts say what the result says."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import pimsim
from pimsim.report.charts import LaneChart
from pimsim.report.palette import cause_colour
from pimsim.report.run_charts import (
    ceilings,
    energy_chart,
    gantt_chart,
    roofline_chart,
    stack_chart,
    utilisation_chart,
)
from pimsim.result.types import CYCLE_CAUSES, Result


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


def test_no_operator_is_above_its_roof(result: Result) -> None:
    limits = ceilings(pimsim.load_config("neupims").config)
    chart = roofline_chart(result, limits)
    by_unit = {series.name: series.points for series in chart.points}
    peak = {"NPU arrays": (limits.npu_flop_per_s, limits.dram_bytes_per_s),
            "PIM": (limits.pim_flop_per_s, limits.pim_bytes_per_s)}  # fmt: skip
    assert set(by_unit) >= set(peak)
    for unit, (flops, size) in peak.items():
        for point in by_unit[unit]:
            assert 0 < point.y * 1e12 <= min(flops, point.x * size) * (1 + 1e-9)


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
    limits = ceilings(pimsim.load_config("neupims").config)
    chart = utilisation_chart(result, limits)
    arrays = next(line for line in chart.lines if line.name == "NPU arrays")
    mean = sum(arrays.y) / len(arrays.y) / 100
    flops = sum(o.flops for o in result.operators if o.unit == "systolic")
    assert mean == pytest.approx(flops / (limits.npu_flop_per_s * result.time_s))
    assert max(arrays.y) <= 100


def test_every_cause_has_a_colour_of_its_own() -> None:
    colours = [cause_colour(cause) for cause in CYCLE_CAUSES]
    assert len(set(colours)) == len(colours)
