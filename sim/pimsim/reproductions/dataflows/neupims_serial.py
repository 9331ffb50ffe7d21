"""The arrays of the NeuPIMs artifact, branch npu-only (MECHANISMS 4.10).

A preload waits until the instruction before it has left the array. In steady state
``ceil(m/R) ceil(k/R) (latency + 1 + max(R/arrays, 4) (ceil(n/R) - 1))`` cycles with the latency of
one block, R + C - 2 + max(R/arrays, 4).
"""

from __future__ import annotations

from pimsim.config.npu import SystolicConfig
from pimsim.hardware.npu.dataflows import Ints
from pimsim.hardware.npu.plan import GemmPlan
from pimsim.reproductions.neupims_arrays import (
    check,
    finish_steps,
    latency_cycles,
    plan_blocks,
    stream_cycles,
)

__all__ = ["check", "finish_cycles", "plan"]


def plan(m: int, n: int, k: int, systolic: SystolicConfig, dtype_bytes: int) -> GemmPlan:
    """See ``pimsim.hardware.npu.plan``.

    Parameters
    ----------
    m, n, k
        Of C[m, n] = A[m, k] B[k, n].
    systolic
        The arrays.
    dtype_bytes
        Of an element.
    """
    return plan_blocks(m, n, k, systolic, dtype_bytes, latency_cycles(systolic) + 1, 0)


def finish_cycles(ready: Ints, systolic: SystolicConfig) -> Ints:
    """See ``pimsim.hardware.npu.dataflows``.

    Parameters
    ----------
    ready
        (preloads, steps of each): cycle from which a step has its operands.
    systolic
        The arrays.

    Returns
    -------
    Ints
        (steps,): cycle at which the result of each is there.
    """
    return finish_steps(ready.ravel(), ready.shape[1], systolic.rows, stream_cycles(systolic), True)
