"""The vector unit: cycles of one operation on one vector, and many operations on few units."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from pimsim.config.errors import InputError, near_miss
from pimsim.config.npu import VectorConfig
from pimsim.hardware.compiled import njit
from pimsim.hardware.earliest import take_earliest
from pimsim.hardware.npu.plan import ceil_div
from pimsim.hardware.npu.vector_timing import vector_timing

__all__ = [
    "VectorKind",
    "add_tree_levels",
    "schedule_in_order",
    "vector_cycles",
    "vector_lane_ops",
]

VectorKind = Literal["softmax", "layernorm", "rmsnorm", "add", "mul", "gelu", "silu", "rope"]
_KINDS = get_args(VectorKind)


def add_tree_levels(width: int, lanes: int) -> int:
    """Passes that reduce ``width`` elements to one with a tree of ``lanes`` inputs.

    AT(w) = 1 for w <= lanes, else p + AT(p) with p = ceil(w / lanes): p passes leave p partial
    sums (MECHANISMS 4.11). One lane has no tree: it adds one element a pass.

    Parameters
    ----------
    width
        Elements.
    lanes
        Inputs of the tree.
    """
    if lanes == 1:
        return max(width, 1)
    passes = ceil_div(width, lanes)
    return 1 if passes <= 1 else passes + add_tree_levels(passes, lanes)


def vector_cycles(kind: VectorKind, width: int, vector: VectorConfig) -> int:
    """Cycles of one operation over ``width`` elements on one unit; width 0 is allowed.

    Counts of passes; each pass costs its operation's latency and nothing overlaps. With
    latencies of 1 these are the formulas of MECHANISMS 4.11 (softmax 2 AT + 3 it, layernorm
    2 AT + 3 + 5 it, add and gelu it); the others are counted in the same way:

    - softmax: max tree, subtract, exp, sum tree, multiply by the reciprocal
    - layernorm: two trees (mean, variance), scalars 2 mul + sqrt, vectors 2 add + 3 mul
    - rmsnorm: one tree, scalars mul + sqrt, vectors 3 mul (square, scale, gain)
    - silu: exp, add, 2 mul; rope: 2 mul, add

    Of how many elements it is the time says ``vector.timing``.

    Parameters
    ----------
    kind
        Of the operation.
    width
        Elements of the vector.
    vector
        Lanes and latencies of a unit.

    Raises
    ------
    InputError
        For another kind, or a negative width.
    """
    if kind not in _KINDS:
        allowed = ", ".join(_KINDS)
        raise InputError(f"vector operation {kind!r} is none of {allowed}{near_miss(kind, _KINDS)}")
    if width < 0:
        raise InputError(f"vector operation {kind}: width {width} is negative")
    width = vector_timing(vector).elements(kind, width)
    passes = ceil_div(width, vector.lanes)
    tree = add_tree_levels(width, vector.lanes) * vector.add_tree_latency
    add, mul = vector.add_latency, vector.mul_latency
    match kind:
        case "softmax":
            return 2 * tree + passes * (add + vector.exp_latency + mul)
        case "layernorm":
            return 2 * tree + 2 * mul + vector.sqrt_latency + passes * (2 * add + 3 * mul)
        case "rmsnorm":
            return tree + mul + vector.sqrt_latency + passes * 3 * mul
        case "add":
            return passes * add
        case "mul":
            return passes * mul
        case "gelu":
            return passes * vector.gelu_latency
        case "silu":
            return passes * (vector.exp_latency + add + 2 * mul)
        case "rope":
            return passes * (2 * mul + add)


_LANE_OPS: dict[VectorKind, int] = {
    "softmax": 5,
    "layernorm": 7,
    "rmsnorm": 4,
    "add": 1,
    "mul": 1,
    "gelu": 1,
    "silu": 4,
    "rope": 3,
}


def vector_lane_ops(kind: VectorKind, width: int) -> int:
    """Lane operations over ``width`` elements, for energy: passes over the vector, trees too.

    Parameters
    ----------
    kind
        Of the operation.
    width
        Elements of the vector.
    """
    return _LANE_OPS[kind] * width


@njit(cache=True)
def schedule_in_order(
    ready_cycles: npt.NDArray[np.int64],
    duration: npt.NDArray[np.int64],
    units: int,
) -> npt.NDArray[np.int64]:
    """Finish cycle of each operation when ``units`` equal units take them in program order.

    One operation issues per cycle, the first of them at 0 or later. Each starts at the latest of
    its ready cycle, the previous issue + 1, and the cycle at which a unit is free; a unit is busy
    for the duration.

    Parameters
    ----------
    ready_cycles
        (operations,): cycle from which on each may start.
    duration
        (operations,): cycles of each.
    units
        Below 1: a unit is always free.

    Returns
    -------
    NDArray[np.int64]
        (operations,).
    """
    count = len(ready_cycles)
    finish = np.empty(count, dtype=np.int64)
    free = np.zeros(max(units, 1), dtype=np.int64)
    issue = -1
    for i in range(count):
        start = max(ready_cycles[i], issue + 1)
        if units > 0:
            start = max(start, free[0])
        issue = start
        end = start + duration[i]
        finish[i] = end
        if units > 0:
            take_earliest(free, end)
    return finish
