"""How one matrix product runs on the systolic arrays: a plan that memory can hold back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar, overload

import numpy as np
import numpy.typing as npt

from pimsim.config.errors import InputError
from pimsim.config.npu import SystolicConfig
from pimsim.hardware.npu.operands import ArrayTraffic

__all__ = [
    "MAX_FOLDS",
    "MAX_STEPS",
    "Count",
    "Dataflow",
    "GemmPlan",
    "ceil_div",
    "check_folds",
    "make_plan",
]

Int64Array = npt.NDArray[np.int64]
Count = TypeVar("Count", int, Int64Array)
"""A number, or one for each of several products."""

MAX_STEPS = 100_000
"""Longest plan; a longer one merges runs of neighbouring steps, its cycles unchanged."""

MAX_FOLDS = 10_000_000
"""Largest product that is planned; a plan takes some 16 bytes a fold while it is built."""


@dataclass(frozen=True)
class GemmPlan:
    """Steps of C[m, n] = A[m, k] B[k, n] on the arrays, A activations and B weights.

    A step is one fold on each of the arrays that work in parallel, a piece of such folds where
    weights are the streamed operand, or a block of results of any other plan. A controller that
    waits for weights starts step 0 ``lead_cycles`` after the start of the product and when
    ``weight_bytes_needed[0]`` have arrived, then step i + 1 ``interval_cycles[i]`` after step i,
    or when its weights have arrived, whichever is later.
    """

    folds: int
    """Folds of the closed form, before they are dealt over the arrays."""
    interval_cycles: Int64Array
    """From the start of each step to the start of the next; the last entry is what a product
    that follows without a gap would wait for."""
    weight_bytes_needed: Int64Array
    """Bytes of the weight stream, in the plan's order of use, on chip before a step starts;
    never decreases, and ends at the size of B."""
    lead_cycles: int
    """Before the first step, whatever the memory does: the exposed first preload."""
    drain_cycles: int
    """From the start of the last step to the last result."""
    macs: int
    """Multiply-accumulates: m n k."""
    streamed_cycles: int
    """Of ``cycles``: an operand streams past the one that stays in the array."""
    loading_cycles: int
    """Of ``cycles``: the operand that stays is put into the array and nothing streams. What is
    left of ``cycles`` is filling and draining: the skew of rows and columns."""
    traffic: ArrayTraffic | None = None
    """Elements read and written beside the arrays; None: the dataflow does not say, and
    ``plan_gemm`` puts in what broadcasting along the arrays' smaller side takes."""

    @cached_property
    def taken_cycles(self) -> int:
        """Cycles in which the arrays are taken up by a product that another one follows."""
        return int(self.interval_cycles.sum())

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.interval_cycles)

    @property
    def cycles(self) -> int:
        """Cycles from start to last result when memory never holds the arrays back."""
        return self.lead_cycles + int(self.interval_cycles[:-1].sum()) + self.drain_cycles


Dataflow = Callable[[int, int, int, SystolicConfig, int], GemmPlan]
"""``(m, n, k, systolic, dtype_bytes)`` to a plan; sizes are at least 1."""


@overload
def ceil_div(amount: int, part: int) -> int: ...
@overload
def ceil_div(amount: Int64Array, part: int | Int64Array) -> Int64Array: ...
@overload
def ceil_div(amount: int, part: Int64Array) -> Int64Array: ...
def ceil_div(amount: int | Int64Array, part: int | Int64Array) -> int | Int64Array:
    """Parts of size ``part`` that hold ``amount``.

    Parameters
    ----------
    amount
        0 or more; a number or an int64 array.
    part
        Above 0; a number or an int64 array that broadcasts with ``amount``.
    """
    return -(-amount // part)


def check_folds(m: int, n: int, k: int, folds: int) -> int:
    """``folds``, where a product is not too large to plan fold by fold.

    Parameters
    ----------
    m, n, k
        Of C[m, n] = A[m, k] B[k, n], for the message.
    folds
        That it takes on the arrays.

    Raises
    ------
    InputError
        For more than ``MAX_FOLDS``.
    """
    if folds > MAX_FOLDS:
        raise InputError(
            f"gemm {m} x {n} x {k}: {folds} folds on these arrays, more than {MAX_FOLDS}; "
            "use a larger array or a smaller product"
        )
    return folds


def make_plan(
    folds: int,
    interval_cycles: Int64Array,
    weight_bytes_needed: Int64Array,
    lead_cycles: int,
    drain_cycles: int,
    macs: int,
    max_steps: int = MAX_STEPS,
    *,
    streamed_cycles: int | None = None,
    loading_cycles: int | None = None,
    traffic: ArrayTraffic | None = None,
) -> GemmPlan:
    """A plan of at most ``max_steps`` steps; ``cycles`` does not depend on the merging.

    A merged step waits for the weights of all steps in it, which is late by at most one merged
    step.

    Parameters
    ----------
    folds
        Of the product.
    interval_cycles
        (steps,): from the start of a step to that of the next.
    weight_bytes_needed
        (steps,): bytes of weights that must be there, from the first on.
    lead_cycles
        Before the first step.
    drain_cycles
        From the start of the last step to the last result.
    macs
        Multiply-accumulates of the product.
    max_steps
        Above which steps are merged.
    streamed_cycles
        In which operands stream; None: all between lead and drain.
    loading_cycles
        In which arrays load and nothing streams; None: ``lead_cycles``.
    traffic
        Elements that the folds read and write; None: the dataflow does not say.

    Returns
    -------
    GemmPlan
        Its arrays are read-only.
    """
    if loading_cycles is None:
        loading_cycles = lead_cycles
    if streamed_cycles is None:
        streamed_cycles = int(interval_cycles[:-1].sum())
    steps = len(interval_cycles)
    run = ceil_div(steps, max_steps)
    if run > 1:
        starts = np.arange(0, steps, run)
        lasts = np.minimum(starts + run, steps) - 1
        drain_cycles += int(interval_cycles[starts[-1] : steps - 1].sum())
        interval_cycles = np.add.reduceat(interval_cycles, starts)
        weight_bytes_needed = weight_bytes_needed[lasts]
    interval_cycles.setflags(write=False)
    weight_bytes_needed.setflags(write=False)
    return GemmPlan(
        folds, interval_cycles, weight_bytes_needed, lead_cycles, drain_cycles, macs,
        streamed_cycles, loading_cycles, traffic,
    )  # fmt: skip
