"""Output stationary: an R x C block of C grows in the array while A and B stream by along k."""

from __future__ import annotations

from pimsim.config.npu import SystolicConfig
from pimsim.hardware.npu.chunks import plan_streamed_weights
from pimsim.hardware.npu.operands import ArrayTraffic
from pimsim.hardware.npu.plan import GemmPlan, ceil_div, check_folds

__all__ = ["plan"]


def plan(m: int, n: int, k: int, systolic: SystolicConfig, dtype_bytes: int) -> GemmPlan:
    """``ceil(m/R) ceil(n/C)`` folds, n blocks outside, m blocks inside, so that C columns of B
    serve all of A before the next ones come.

    There is nothing to preload: a fold starts with its first products, and its last one is done
    k + R + C - 2 cycles later.

    - ``exposed``: folds never overlap, R + C + k - 2 each (SCALE-Sim 3, exact: reference
      npu/NOTES.md section 1; it does not count the shift of results out of the array).
    - ``hidden``: the next fold's operands follow on the heels of the last, and results shift out
      beside them, R rows through the columns' ends: max(k, R) from fold to fold (our assumption,
      the mirror image of the hidden preload; a processing element needs one output register
      beside its accumulator).

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
    m_blocks, n_blocks = ceil_div(m, rows), ceil_div(n, cols)
    exposed = systolic.preload == "exposed"
    return plan_streamed_weights(
        folds=check_folds(m, n, k, m_blocks * n_blocks),
        folds_per_block=m_blocks,
        block_width=cols,
        width=n,
        streamed=k,
        chunk=rows,
        arrays=systolic.arrays,
        distance=rows + cols + k - 2 if exposed else max(k, rows),
        lead_cycles=0,
        loading_cycles=0,
        tail_cycles=rows + cols - 2,
        dtype_bytes=dtype_bytes,
        macs=m * n * k,
        # a fold streams k of both operands and keeps its sums
        traffic=ArrayTraffic(m * k * n_blocks, n * k * m_blocks, m * n),
    )
