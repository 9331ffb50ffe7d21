"""What a notebook calls on a result: tables and figures say what the result says."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.result.types import Result


@pytest.fixture(scope="module")
def options(tiny_card: Path) -> list[str]:
    return [f"workload.model={tiny_card}", "workload.batch=4"]


@pytest.fixture(scope="module")
def folder(options: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "out"
    pimsim.run("neupims", overrides=options, out=path)
    return path


@pytest.fixture(scope="module")
def result(folder: Path) -> Result:
    loaded = pimsim.load(folder)
    assert isinstance(loaded, Result)
    return loaded


def test_tables_hold_every_row_and_cycle(result: Result) -> None:
    operators, stages = result.table(), result.table("stages")
    assert len(operators) == len(result.operators)
    assert operators["size_bytes"].sum() == sum(op.bytes for op in result.operators) > 0
    assert stages["cycles"].sum() == result.cycles
    stack = result.table("cycle_stack").groupby("unit")["cycles"].sum()
    assert len(stack) and set(stack) == {result.cycles}


def test_a_result_is_shown_in_a_line(result: Result) -> None:
    shown = repr(result)
    assert shown.startswith(f"Result('neupims', '{result.model}': {result.cycles} cycles, ")
    assert shown.endswith("tokens/s, command)") and "\n" not in shown and len(shown) < 200


def test_an_unknown_table_or_figure_has_a_near_miss(result: Result) -> None:
    with pytest.raises(InputError, match="no table 'operator'; did you mean 'operators'"):
        result.table("operator")
    with pytest.raises(AttributeError, match="no figure 'rofline'; did you mean 'roofline'"):
        result.plot.rofline()
    assert all(callable(getattr(result.plot, name)) for name in dir(result.plot))


def test_figures_are_drawn_with_units(result: Result, options: list[str], folder: Path) -> None:
    resolved = pimsim.load_config("neupims", options)
    figures = [
        result.plot.cycle_stack(), result.plot.energy(), result.plot.gantt(),
        result.plot.roofline(resolved), result.plot.roofline(folder),
        result.plot.roofline(), result.plot.utilisation(resolved), result.plot.utilisation(),
    ]  # fmt: skip
    for figure in figures:
        assert "(" in figure.axes[0].get_xlabel()


def test_a_roof_of_another_machine_is_refused(result: Result) -> None:
    with pytest.raises(InputError, match="not the config of the result"):
        result.plot.roofline("npu-only")


def test_trade_off_draws_the_front() -> None:
    table = pandas.DataFrame(
        {"tokens_per_s": [10.0, 20.0, 15.0, None], "tokens_per_j": [1000.0, 500.0, 250.0, None]}
    )
    axes = pimsim.plot_trade_off(table).axes[0]
    assert axes.get_xlabel() == "energy (mJ/token)"
    front = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [list(line.get_ydata()) for line in front] == [[10.0, 20.0]]
    with pytest.raises(InputError, match="did you mean 'tokens_per_s'"):
        pimsim.plot_trade_off(table, gain="token_per_s")
    with pytest.raises(InputError, match="no point of the sweep has both"):
        pimsim.plot_trade_off(table.iloc[3:])
