"""One matrix product on the systolic arrays, compute only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pimsim.config.errors import InputError
from pimsim.config.npu import SystolicConfig
from pimsim.hardware.npu.dataflows import load_dataflow
from pimsim.hardware.npu.operands import shared_reads
from pimsim.hardware.npu.plan import Count, GemmPlan, ceil_div
from pimsim.hardware.remembered import remembered

__all__ = ["GemmPlan", "plan_gemm", "steady_cycles", "utilisation"]

MAX_DIMENSION = 2**31 - 1
"""Above this, cumulative bytes could leave 64-bit integers."""


@remembered(16 << 20, lambda plan: plan.interval_cycles.nbytes + plan.weight_bytes_needed.nbytes)
def plan_gemm(m: int, n: int, k: int, systolic: SystolicConfig, dtype_bytes: int = 2) -> GemmPlan:
    """Plan C[m, n] = A[m, k] B[k, n] (A activations of m tokens, B weights).

    Parameters
    ----------
    m
        Tokens, rows of A and of C.
    n
        Columns of B and of C.
    k
        Columns of A, rows of B.
    systolic
        The arrays, with their dataflow.
    dtype_bytes
        Of an element.

    Returns
    -------
    GemmPlan
        In cycles of the NPU.

    Raises
    ------
    InputError
        For a size below 1 or absurdly large.
    """
    for name, size in (("m", m), ("n", n), ("k", k), ("dtype_bytes", dtype_bytes)):
        if not 1 <= size <= MAX_DIMENSION:
            raise InputError(f"gemm {m} x {n} x {k}: {name} is {size}, allowed 1..{MAX_DIMENSION}")
    if n * k * dtype_bytes >= 2**62 or m * n >= 2**62:
        raise InputError(f"gemm {m} x {n} x {k}: more than 2**62 bytes")
    found = load_dataflow(systolic.dataflow)(m, n, k, systolic, dtype_bytes)
    if found.traffic is None:
        reuse = min(systolic.rows, systolic.cols)
        found = replace(found, traffic=shared_reads(m, n, k, reuse))
    return found


def steady_cycles(m: Count, n: Count, k: Count, systolic: SystolicConfig) -> Count:
    """Cycles that the arrays are taken up by a product which another follows without a gap, or
    by each of several: the sum of the plan's intervals, in closed form where there is one.

    Parameters
    ----------
    m, n, k
        Of C[m, n] = A[m, k] B[k, n]; whole numbers, or int64 arrays of one shape.
    systolic
        The arrays, with their dataflow.

    Returns
    -------
    Count
        Cycles of the NPU, of the shape of what was given.
    """
    rows, cols = systolic.rows, systolic.cols
    closed = {"ws": (m, (k, n)), "os": (k, (m, n)), "is": (n, (k, m))}
    if systolic.dataflow not in closed:
        return _planned_cycles(m, n, k, systolic)
    streamed, stationary = closed[systolic.dataflow]
    waves = ceil_div(ceil_div(stationary[0], rows) * ceil_div(stationary[1], cols), systolic.arrays)
    if systolic.preload == "hidden":
        return waves * (rows + (streamed - rows) * (streamed > rows))
    preload = 0 if systolic.dataflow == "os" else rows
    return waves * (preload + rows + cols + streamed - 2)


def _planned_cycles(m: Count, n: Count, k: Count, systolic: SystolicConfig) -> Count:
    if isinstance(m, int):
        return int(plan_gemm(int(m), int(n), int(k), systolic).interval_cycles.sum())
    each = zip(m.tolist(), n.tolist(), k.tolist(), strict=True)
    return np.array([_planned_cycles(*sizes, systolic=systolic) for sizes in each])


def utilisation(plan: GemmPlan, systolic: SystolicConfig) -> float:
    """Share of all multipliers' cycles that did a useful multiply-accumulate, 0 to 1.

    Parameters
    ----------
    plan
        Of a product.
    systolic
        The arrays that it is for.
    """
    multipliers = systolic.arrays * systolic.rows * systolic.cols
    return plan.macs / (multipliers * plan.cycles)
