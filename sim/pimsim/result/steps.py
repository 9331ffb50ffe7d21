"""The steps of a run, as tables show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pimsim.result.cells import add_rows, duration, new_table
from pimsim.result.rows import StepResult
from pimsim.result.types import Result

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["STEP_COLUMNS", "batch_words", "step_cells", "step_table"]

STEP_COLUMNS = (
    "step", "requests", "tokens fed", "logits", "made", "longest context", "simulated", "all blocks"
)  # fmt: skip
"""What ``step_cells`` says of a step; the last two are times, of the blocks that were simulated and
of the whole model."""


def step_cells(step: StepResult) -> tuple[str, ...]:
    """A step's row, a cell for each of ``STEP_COLUMNS``.

    Parameters
    ----------
    step
        Of a run.
    """
    counts = (step.step, step.requests, step.tokens, step.logits, step.made, step.context_max)
    return (*(f"{count:,}" for count in counts), duration(step.time_s), duration(step.iteration_s))


def step_table(result: Result, limit: int = 20) -> Table:
    """The first steps, and the sum of the others.

    Parameters
    ----------
    result
        Of a run.
    limit
        Steps that have a row of their own.
    """
    table = new_table(f"steps ({result.fidelity.words})" if result.fidelity.mode == "fast" else
                      "steps", *STEP_COLUMNS)  # fmt: skip
    add_rows(table, *map(step_cells, result.steps[:limit]))
    rest = result.steps[limit:]
    if rest:
        add_rows(table, _summary(rest))
    return table


def _summary(steps: Sequence[StepResult]) -> tuple[str, ...]:
    """Steps in one row: sums, and the longest context."""
    return (
        f"{len(steps):,} more", "", f"{sum(step.tokens for step in steps):,}",
        f"{sum(step.logits for step in steps):,}", f"{sum(step.made for step in steps):,}",
        f"{max(step.context_max for step in steps):,}",
        duration(sum(step.time_s for step in steps)),
        duration(sum(step.iteration_s for step in steps)),
    )  # fmt: skip


def batch_words(result: Result) -> str:
    """How many requests there are, and what they are asked.

    Parameters
    ----------
    result
        Of a run.
    """
    steps = result.steps
    if not steps or (len(steps) == 1 and steps[0].tokens == steps[0].made == steps[0].requests):
        return f"{result.tokens:,} requests, one token each"
    requests = len(result.requests) or max(step.requests for step in steps)
    words = f"{requests:,} requests, {result.tokens:,} tokens fed, "
    if result.decoding is None:
        words += f"{sum(step.made for step in steps):,} made"
    else:
        words += f"{result.decoding.made:,.1f} made"
    return words if len(steps) == 1 else f"{words} in {len(steps):,} steps"
