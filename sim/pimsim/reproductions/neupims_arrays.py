"""What the arrays of the NeuPIMs artifact do on both branches (MECHANISMS 0.5 and 4.10).

Both compute the product transposed: R x R blocks of the activations (batch x k) stay in the
array, blocks of R output columns of the weights stream by, in the order batch blocks, k blocks,
output blocks. Sizes count in started blocks: a partial block costs as much as a full one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pimsim.config.npu import SystolicConfig
from pimsim.hardware.compiled import njit
from pimsim.hardware.npu.operands import ArrayTraffic
from pimsim.hardware.npu.plan import GemmPlan, ceil_div, check_folds, make_plan

__all__ = ["check", "finish_steps", "latency_cycles", "plan_blocks", "stream_cycles"]

Ints = NDArray[np.int64]
MIN_STREAM_CYCLES = 4
"""The artifact never issues two instructions closer than this."""


def check(section: SystolicConfig) -> None:
    """Raise for keys of arrays that would not act beside these plans.

    Parameters
    ----------
    section
        That asks for the dataflow.

    Raises
    ------
    ValueError
        With the key.
    """
    if section.fetch_cycles:
        raise ValueError(
            f"fetch_cycles is {section.fetch_cycles}: dataflow {section.dataflow!r} fetches while "
            "it loads; allowed: 0"
        )
    if section.preload != "exposed":
        raise ValueError(
            f"preload is {section.preload!r}: dataflow {section.dataflow!r} says itself when a "
            "block may load; allowed: exposed"
        )


def stream_cycles(systolic: SystolicConfig) -> int:
    """From one block to the next: the arrays are modelled as one that streams faster.

    Parameters
    ----------
    systolic
        The arrays.
    """
    return max(systolic.rows // systolic.arrays, MIN_STREAM_CYCLES)


def latency_cycles(systolic: SystolicConfig) -> int:
    """From the start of a block to its last result.

    Parameters
    ----------
    systolic
        The arrays.
    """
    return systolic.rows + systolic.cols - 2 + stream_cycles(systolic)


def plan_blocks(
    m: int,
    n: int,
    k: int,
    systolic: SystolicConfig,
    dtype_bytes: int,
    preload_distance: int,
    loading_cycles: int,
) -> GemmPlan:
    """The plan of C[m, n] = A[m, k] B[k, n].

    Parameters
    ----------
    m
        Rows of A and of C.
    n
        Columns of B and of C.
    k
        Columns of A, rows of B.
    systolic
        The arrays.
    dtype_bytes
        Of an element.
    preload_distance
        Cycles from the start of a preload to that of the block before it.
    loading_cycles
        Of these, those in which nothing streams or drains.

    Raises
    ------
    InputError
        Where the product has too many folds.
    """
    rows = systolic.rows
    m_blocks, k_blocks, n_blocks = ceil_div(m, rows), ceil_div(k, rows), ceil_div(n, rows)
    folds = check_folds(m, n, k, m_blocks * k_blocks * n_blocks)
    per_preload = np.full(n_blocks, stream_cycles(systolic), dtype=np.int64)
    per_preload[-1] = preload_distance  # the block after the last one of a k block preloads

    k_seen = np.minimum(np.arange(k_blocks + 1, dtype=np.int64) * rows, k)
    n_seen = np.minimum(np.arange(1, n_blocks + 1, dtype=np.int64) * rows, n)
    first_pass = k_seen[:-1, None] * n + np.diff(k_seen)[:, None] * n_seen[None, :]
    weight_bytes = np.full(folds, n * k * dtype_bytes, dtype=np.int64)
    weight_bytes[: k_blocks * n_blocks] = first_pass.ravel() * dtype_bytes
    return make_plan(
        folds=folds,
        interval_cycles=np.tile(per_preload, m_blocks * k_blocks),
        weight_bytes_needed=weight_bytes,
        lead_cycles=2 * rows - 1,
        drain_cycles=latency_cycles(systolic),
        macs=m * n * k,
        streamed_cycles=folds * stream_cycles(systolic),
        loading_cycles=2 * rows - 1 + (m_blocks * k_blocks - 1) * loading_cycles,
        traffic=ArrayTraffic(m * k, n * k * m_blocks, m * n * k_blocks, m * n * (k_blocks - 1)),
    )


@njit(cache=True)
def finish_steps(ready: Ints, per_preload: int, rows: int, stream: int, serial: bool) -> Ints:
    """Cycle at which the result of each step is there.

    Steps issue in order, one a cycle. Every ``per_preload``-th step preloads. While the array still
    holds a step, branch main starts the next one its distance after that one's start, even if it
    was issued later (NeuPIMSystolicWS.cc ``issue_ex_inst``); an empty array starts at once, with an
    exposed preload. Branch npu-only (``serial``) preloads when the array is empty and streams
    behind the step before.

    Parameters
    ----------
    ready
        (steps,): cycle from which a step has its operands.
    per_preload
        Steps of a preload.
    rows
        Of the array.
    stream
        Cycles from one step to the next.
    serial
        Branch npu-only; else branch main.

    Returns
    -------
    Ints
        (steps,).

    References
    ----------
    The NeuPIMs artifact, NeuPIMSystolicWS.cc.
    """
    finish = np.empty(len(ready), dtype=np.int64)
    issued, start, done, left = -1, 0, 0, -1
    latency = 2 * rows - 2 + stream + (1 if serial else 0)
    lead = rows if serial else 2 * rows - 1
    for i in range(len(ready)):
        issued = max(issued + 1, ready[i])
        preload = i % per_preload == 0
        if left <= issued:
            start = issued + (lead if preload else 0)
        elif serial:
            start = done if preload else max(issued, done - 2 * rows + 1)
        else:
            start += rows if preload else stream
        done = start + latency
        left = max(done, left + 1, issued + 1)
        finish[i] = left
    return finish
