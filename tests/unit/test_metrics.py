"""Each figure is declared once: terminal, page, timeline, sweep and search say the same of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields, replace
from io import StringIO
from math import inf, isnan
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

import pimsim
from pimsim.config.prices import Prices
from pimsim.explore.figures import (
    COLUMNS,
    OPEN_COLUMNS,
    flat_figures,
    kept_figures,
    metrics_of,
)
from pimsim.explore.search_spec import Objective
from pimsim.report.run_charts import comparison_chart, energy_chart, stack_chart
from pimsim.report.runs import RunFolder, runs_page
from pimsim.result.compare import COMPARED, comparison_rows
from pimsim.result.cost import Priced
from pimsim.result.metrics import METRICS, PRICED, metric_label
from pimsim.result.tables import (
    compare_table,
    cycle_stack_table,
    headline_table,
    operator_table,
    utilisation_table,
)
from pimsim.result.types import CYCLE_CAUSES, Result, Utilisation
from pimsim.result.words import OPERATOR_UNITS, cause_words, ordered_causes, unit_words


@pytest.fixture(scope="module")
def result(tiny_card: Path) -> Result:
    return pimsim.run("neupims", model=tiny_card, batch=4)


def shown(what: RenderableType) -> str:
    console = Console(file=StringIO(), width=250)
    console.print(what)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return " ".join(text.split())


@pytest.mark.parametrize("name", METRICS)
def test_a_figure_is_the_same_of_a_result_and_of_a_row_of_a_sweep(
    result: Result, name: str
) -> None:
    metric = METRICS[name]
    assert metric.name == name
    row = dict(flat_figures(kept_figures(result)))
    if name in PRICED:
        told = (metric.of(result), metric.of(row), metrics_of(kept_figures(result))[name])
        assert all(map(isnan, told))
        prices = Prices(currency="USD", memory_gb=2.0, logic_mm2=0.1, hours=1000)
        assert metric.of(Priced(result, prices)) == metric.of(Priced(row, prices)) > 0
        assert metrics_of(kept_figures(result), prices)[name] == metric.of(Priced(row, prices))
        return
    assert metric.of(result) == metric.of(row) == metrics_of(kept_figures(result))[name]
    assert metric.of(result) > 0
    assert metric.field in COLUMNS or metric.field.startswith(OPEN_COLUMNS)
    assert isnan(metric.of({}))


def test_a_row_has_the_columns_that_are_promised(result: Result) -> None:
    row = dict(flat_figures(kept_figures(result)))
    assert set(COLUMNS) <= set(row)
    assert all(column.startswith(OPEN_COLUMNS) for column in set(row) - set(COLUMNS))


def test_values_and_words_by_hand() -> None:
    energy, rate, share = (METRICS[name] for name in ("mj_per_token", "tokens_per_s", "npu"))
    assert energy.of({"tokens_per_j": 50.0}) == 20.0
    assert energy.of({"tokens_per_j": 0.0}) == inf
    assert energy.text(20.0) == "20.000 mJ/token" and energy.number(20.0) == "20.000"
    assert energy.text(inf) == "none" and energy.number(inf) == ""
    assert energy.text(float("nan")) == "none"
    assert energy.label == "energy (mJ/token)" and energy.column == "mJ/token"
    assert rate.text(1234.56) == "1,234.6 tokens/s" and rate.text(1234.56, 0) == "1,235 tokens/s"
    assert share.of({"utilisation.npu": 0.125}) == 0.125
    assert share.text(0.125) == "12.5% of peak" and share.number(0.125) == "12.5%"
    assert METRICS["cycles"].text(1234.0) == "1,234" and METRICS["cycles"].label == "cycles"
    assert METRICS["area_mm2"].of({"area_mm2.total": 3.0, "area_mm2": 4.0}) == 3.0
    assert METRICS["dram_bus"].column == "DRAM bus"
    row = {
        "tokens_per_s": 100.0, "tokens_per_j": 5.0, "iteration_s": 0.2, "devices": 4,
        "area_mm2.logic_dies": 10.0, "area_mm2.dram_dies": 40.0, "area_mm2.total": 50.0,
        "memory_bytes": 3 * 2**30, "power_w.total": 7.0,
    }  # fmt: skip
    by_hand = {
        # 20 tokens an iteration take 4 J
        "energy_delay_js": 4 * 0.2, "tokens_per_s_device": 25.0, "tokens_per_s_mm2": 2.0,
        "tokens_per_s_logic_mm2": 10.0, "tokens_per_s_dram_mm2": 2.5, "memory_gib": 3.0,
        "power_w": 7.0, "logic_mm2": 10.0, "dram_mm2": 40.0,
    }  # fmt: skip
    for name, value in by_hand.items():
        assert METRICS[name].of(row) == pytest.approx(value), name
    assert METRICS["tokens_per_s_device"].of(row | {"devices": 0}) == inf
    delay = METRICS["energy_delay_js"]
    assert delay.text(0.0000123456) == "1.235e-05 J s" and delay.text(12345.6) == "12,350 J s"
    assert delay.number(12345.6, 1) == "12,345.6"


def test_axes_of_columns_and_metrics() -> None:
    assert metric_label("tokens_per_s") == "throughput (tokens/s)"
    assert metric_label("mj_per_token") == "energy (mJ/token)"
    assert metric_label("area_mm2.total") == metric_label("area_mm2") == "silicon (mm2)"
    assert metric_label("tokens_per_j") == "tokens for energy (tokens/J)"
    assert metric_label("npu.systolic.rows") == "npu.systolic.rows"


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("tokens_per_s", "maximize"), ("mj_per_token", "minimize"), ("cycles", "minimize"),
        ("iteration_s", "minimize"), ("devices", "minimize"), ("area_mm2", "minimize"),
        ("tokens_per_j", "maximize"), ("energy_j", "minimize"), ("time_s", "minimize"),
    ],
)  # fmt: skip
def test_an_objective_seeks_what_is_better_unless_it_says_otherwise(
    name: str, direction: str
) -> None:
    assert Objective(metric=name).sought == direction
    for other in ("maximize", "minimize"):
        assert Objective(metric=name, direction=other).sought == other  # type: ignore[arg-type]


def test_power_and_silicon_add_up_and_are_told(result: Result) -> None:
    area, config = result.area_mm2, pimsim.load_config("neupims").config
    parts = {"arrays", "vector", "sram"}, {"dram", "pim", "row_buffers"}
    logic, dram = (sum(area[part] for part in group) for group in parts)
    assert area["logic_dies"] == pytest.approx(logic) and area["dram_dies"] == pytest.approx(dram)
    assert area["total"] == pytest.approx(logic + dram)
    memory = config.memory.organization
    assert result.memory_bytes == result.devices * memory.capacity_bytes
    assert result.stacks == memory.stacks > 0 and result.stack_w is not None
    assert result.stack_w * result.stacks == pytest.approx(
        result.power_w["dram"] + result.power_w["pim"]
    )
    told = shown(headline_table(replace(result, tdp_w=2 * result.power_w["total"])))
    assert f"50.0% of its TDP of {2 * result.power_w['total']:,.0f} W" in told
    assert f"{result.stack_w:,.1f} W in each of" in told
    for name in ("tokens_per_s_logic_mm2", "tokens_per_s_dram_mm2", "energy_delay_js"):
        assert METRICS[name].text(METRICS[name].of(result)) in told
    page = runs_page([RunFolder("a", replace(result, tdp_w=2 * result.power_w["total"]),
                                pimsim.load_config("neupims"), "")])  # fmt: skip
    assert "50.0% of its TDP of" in page
    assert f"{result.stack_w:,.1f} W in each stack of DRAM" in page
    old = replace(result, area_mm2={"total": 1.0}, stacks=0, memory_bytes=0)
    assert old.stack_w is None and "logic silicon" not in shown(headline_table(old))


def test_terminal_page_and_comparison_say_the_same(result: Result) -> None:
    rate, energy = METRICS["tokens_per_s"], METRICS["mj_per_token"]
    facts = dict(comparison_chart([result], ["a"]).spans[0].facts)
    assert facts[rate.words] == rate.text(rate.of(result))
    assert facts[energy.words] == energy.text(energy.of(result))
    assert f"{rate.words} {facts[rate.words]}" in shown(headline_table(result))
    text = shown(compare_table([result], ["a"]))
    for name in ("tokens_per_s", "mj_per_token", "npu", "dram_bus", "area_mm2", "cycles"):
        metric = METRICS[name]
        assert metric.column in text and metric.number(metric.of(result)) in text
    assert comparison_chart([result], ["a"]).x_label == rate.label
    assert energy_chart([result], ["a"]).x_label == energy.label
    page = runs_page([RunFolder("a", result, pimsim.load_config("neupims"), "")])
    for name in ("npu", "pim", "dram_bus", "mj_per_token", "iteration_s"):
        assert METRICS[name].words in page
        if name != "iteration_s":
            assert METRICS[name].text(METRICS[name].of(result)) in page


def test_every_share_of_a_unit_is_a_metric_with_its_words(result: Result) -> None:
    text = shown(utilisation_table(result))
    for item in fields(Utilisation):
        metric = METRICS[item.name]
        assert metric.field == f"utilisation.{item.name}"
        assert f"{metric.words} {metric.text(getattr(result.utilisation, item.name))}" in text


def test_units_and_causes_have_the_same_words_everywhere(result: Result) -> None:
    lanes = stack_chart([result], ["a"]).lanes
    assert lanes == tuple(unit_words(unit) for unit in result.cycle_stack)
    stacks = shown(cycle_stack_table(result))
    assert all(lane in stacks for lane in lanes)
    units = {operator.unit for operator in result.operators}
    assert units <= set(OPERATOR_UNITS)
    operators = shown(operator_table(result, 100))
    assert all(unit_words(unit) in operators for unit in units)
    assert "systolic" not in operators
    assert unit_words("new") == "new" and cause_words("of_mine") == "of mine"


def test_causes_are_in_the_order_of_their_list_and_idle_is_last() -> None:
    given = ["idle", "zebra", "pim", "computing", "ant", "pim"]
    assert ordered_causes(given) == ["computing", "pim", "ant", "zebra", "idle"]
    assert ordered_causes(CYCLE_CAUSES) == list(CYCLE_CAUSES)
    assert ordered_causes([]) == []


def test_compared_figures_are_those_of_the_results(result: Result) -> None:
    faster = replace(result, tokens_per_s=2 * result.tokens_per_s)
    row = comparison_rows([result, faster])[1]
    for name in COMPARED:
        assert row[name] == METRICS[name].of(faster)
    assert row["speedup"] == 2 and row["energy_ratio"] == 1
    assert type(row["cycles"]) is int


def literals(path: Path) -> Iterator[str]:
    """Texts in a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    words = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
    }  # fmt: skip
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in words:
            yield node.value


@pytest.mark.parametrize("unit", ["tokens/s", "mJ/token", "tokens/J", "throughput", "NPU arrays"])
def test_no_module_writes_them_down_again(unit: str) -> None:
    sources = Path(pimsim.__file__).parent
    found = {
        path.relative_to(sources).as_posix()
        for package in ("result", "report", "explore")
        for path in (sources / package).rglob("*.py")
        if any(text in (unit, f"{unit} ") or f" {unit}" in text for text in literals(path))
    }
    home = "result/words.py" if unit == "NPU arrays" else "result/metrics.py"
    assert home in found
    assert found - {home} <= {"result/build.py"}, found  # a sentence of its warnings
