"""Dataflows: which operand stays in the array. One module each, found by its name.

A module offers ``plan``, a ``plan.Dataflow``: the closed form and its source stand there.
"""

from __future__ import annotations

from pimsim.config.plugins import load_module
from pimsim.hardware.npu.plan import Dataflow

__all__ = ["load_dataflow"]


def load_dataflow(name: str) -> Dataflow:
    """The dataflow of that name; ``InputError`` with the near miss where there is none."""
    return load_module("dataflow", name).plan  # type: ignore[no-any-return]
