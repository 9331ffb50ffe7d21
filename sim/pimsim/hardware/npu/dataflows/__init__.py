"""Dataflows: which operand stays in the array. One module each, found by its name.

A module offers ``plan``, a ``plan.Dataflow``: the closed form and its source stand there. Where the
operands of a product can come one by one (a tiling says for each step which it needs), it offers
``finish_cycles`` too, a ``FinishCycles``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pimsim.config.npu import SystolicConfig
from pimsim.config.plugins import load_module
from pimsim.hardware.npu.plan import Dataflow

__all__ = ["FinishCycles", "Ints", "load_dataflow", "load_finish_cycles"]

Ints = NDArray[np.int64]
FinishCycles = Callable[[Ints, SystolicConfig], Ints]
"""From the NPU cycle at which each step has its operands, (preloads, steps of each), to the cycle
at which its result is there, (steps,)."""


def load_dataflow(name: str) -> Dataflow:
    """The dataflow of that name.

    Parameters
    ----------
    name
        Of its module, as ``npu.systolic.dataflow`` has it.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    return load_module("dataflow", name).plan  # type: ignore[no-any-return]


def load_finish_cycles(name: str) -> FinishCycles:
    """When the steps of that dataflow end where their operands come one by one.

    Parameters
    ----------
    name
        Of its module, as ``npu.systolic.dataflow`` has it.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    return load_module("dataflow", name).finish_cycles  # type: ignore[no-any-return]
