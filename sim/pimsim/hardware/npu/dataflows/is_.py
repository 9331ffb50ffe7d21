"""Input stationary: a block of A stays in the array while the n columns of B stream by."""

from __future__ import annotations

from pimsim.config.npu import SystolicConfig
from pimsim.hardware.npu.chunks import plan_streamed_weights
from pimsim.hardware.npu.operands import ArrayTraffic
from pimsim.hardware.npu.plan import GemmPlan, ceil_div, check_folds

__all__ = ["plan"]


def plan(m: int, n: int, k: int, systolic: SystolicConfig, dtype_bytes: int) -> GemmPlan:
    """``ceil(k/R) ceil(m/C)`` folds, k blocks outside, m blocks inside, so that the R rows of B
    serve all of A before the next ones come.

    The first preload of activations is exposed (R cycles, ``lead_cycles``); a step starts when
    its columns of B start to stream.

    - ``exposed``: 2R + C + n - 2 a fold (SCALE-Sim 3, exact: reference npu/NOTES.md section 1).
    - ``hidden``: max(n, R) from fold to fold, as for weight stationary with n for m.

    Parameters
    ----------
    m
        Rows of A and of C.
    n
        Columns of B and of C.
    k
        Columns of A, rows of B.
    systolic
        Arrays of R rows and C columns.
    dtype_bytes
        Of an element.

    Raises
    ------
    InputError
        Where the product has too many folds.
    """
    rows, cols = systolic.rows, systolic.cols
    k_blocks, m_blocks = ceil_div(k, rows), ceil_div(m, cols)
    exposed = systolic.preload == "exposed"
    return plan_streamed_weights(
        folds=check_folds(m, n, k, k_blocks * m_blocks),
        folds_per_block=m_blocks,
        block_width=rows,
        width=k,
        streamed=n,
        chunk=rows,
        arrays=systolic.arrays,
        distance=2 * rows + cols + n - 2 if exposed else max(n, rows),
        lead_cycles=rows,
        # a hidden preload shows where it takes longer than the columns that stream meanwhile
        loading_cycles=rows if exposed else max(rows - n, 0),
        tail_cycles=rows + cols - 2,
        dtype_bytes=dtype_bytes,
        macs=m * n * k,
        # a fold takes up its block of inputs and streams n columns of weights past it
        traffic=ArrayTraffic(m * k, n * k * m_blocks, m * n * k_blocks, m * n * (k_blocks - 1)),
    )
