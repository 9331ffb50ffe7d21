"""What a terminal and a page say of the steps of a run."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

import pimsim
from pimsim.report.runs import RunFolder, runs_page
from pimsim.result.steps import STEP_COLUMNS, batch_words, step_cells, step_table
from pimsim.result.tables import headline_table, result_view
from pimsim.result.types import RequestResult, Result, StepResult

FIRST = StepResult(
    requests=2, tokens=1300, logits=3, made=2, context_max=1200, cycles=900, time_s=2e-6,
    iteration_s=3e-3, step=0,
)  # fmt: skip
SECOND = replace(FIRST, requests=1, tokens=1, logits=1, made=1, context_max=1201, step=1)


def lines(what: RenderableType) -> list[list[str]]:
    """Cells of each line, which more than one space part."""
    console = Console(file=StringIO(), width=250)
    console.print(what)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [[c.strip() for c in line.split("  ") if c.strip()] for line in text.splitlines()]


def heading(column: str) -> str:
    """Of a table that sorts by it."""
    return f'<button type="button" class="sort">{column}</button></th>'


@pytest.fixture(scope="module")
def single(tiny_card: Path) -> Result:
    return pimsim.run("npu-only", model=tiny_card, batch=2, layers=2)


def with_steps(result: Result, *steps: StepResult) -> Result:
    requests = (RequestResult(4, 0, 1, 1201, 1201, 2), RequestResult(5, 0, 0, 100, 100, 1))
    return replace(
        result, steps=steps, requests=requests, tokens=sum(step.tokens for step in steps)
    )


def page_of(result: Result) -> str:
    return runs_page([RunFolder("a", result, pimsim.load_config("npu-only"), "")])


def test_a_row_has_the_figures_of_its_step() -> None:
    assert step_cells(FIRST) == (
        "0", "2", "1,300", "3", "2", "1,200", "2.000 us", "3.000 ms"
    )  # fmt: skip
    assert len(step_cells(FIRST)) == len(STEP_COLUMNS)


def test_several_steps_are_a_table_in_the_terminal_and_on_the_page(single: Result) -> None:
    result = with_steps(single, FIRST, SECOND)
    shown = lines(result_view(result))
    for row in (list(STEP_COLUMNS), list(step_cells(FIRST)), list(step_cells(SECOND))):
        assert row in shown
    assert ["blocks", f"2 simulated of 4; all steps take {1e6 * result.iteration_s:,.3f} us"] in (
        shown
    )
    page = page_of(result)
    for column in STEP_COLUMNS:
        assert heading(column) in page
    for step in (FIRST, SECOND):
        assert "".join(f"<td>{cell}</td>" for cell in step_cells(step)) in page
    assert "2 requests, 1,301 tokens fed, 3 made in 2 steps" in page
    assert page.count(heading("step")) == 3  # of stages and operators too


def test_a_single_step_is_shown_as_ever(single: Result) -> None:
    assert len(single.steps) == 1
    shown = lines(result_view(single))
    assert ["batch", "2 requests, one token each, tiny"] in shown
    assert ["steps"] not in shown and list(STEP_COLUMNS) not in shown
    assert any("one iteration takes" in cell for line in shown for cell in line)
    page = page_of(single)
    assert 'id="steps"' not in page and heading("step") not in page
    assert "2 requests, one token each" in page


def test_what_requests_are_asked_in_words(single: Result) -> None:
    assert batch_words(replace(single, steps=(), requests=())) == "2 requests, one token each"
    assert batch_words(with_steps(single, FIRST)) == "2 requests, 1,300 tokens fed, 2 made"
    without_rows = replace(with_steps(single, FIRST, SECOND), requests=())
    assert batch_words(without_rows) == "2 requests, 1,301 tokens fed, 3 made in 2 steps"
    # as many tokens as requests, of which not all come out
    piece = replace(FIRST, tokens=2, made=1)
    assert batch_words(with_steps(single, piece)) == "2 requests, 2 tokens fed, 1 made"
    shown = lines(headline_table(with_steps(single, piece)))
    assert ["batch", "2 requests, 2 tokens fed, 1 made, tiny"] in shown


def test_of_many_steps_the_first_are_shown_and_the_others_in_sum(single: Result) -> None:
    many = with_steps(single, FIRST, *(replace(SECOND, step=n) for n in range(1, 30)))
    shown = [line for line in lines(step_table(many, 3)) if line]
    assert [line[0] for line in shown[-4:]] == ["0", "1", "2", "27 more"]
    assert shown[-1] == ["27 more", "27", "27", "27", "1,201", "54.000 us", "81.000 ms"]
    assert lines(step_table(with_steps(single, FIRST, SECOND), 2))[-2][0] == "1"
    page = page_of(with_steps(single, *(replace(SECOND, step=n) for n in range(201))))
    assert "Steps: the first 200 of 201" in page
