"""Weight stationary: an R x C block of B stays in the array while the m rows of A stream by."""

from __future__ import annotations

import numpy as np

from pimsim.config.npu import SystolicConfig
from pimsim.hardware.npu.operands import ArrayTraffic
from pimsim.hardware.npu.plan import GemmPlan, ceil_div, check_folds, make_plan

__all__ = ["plan"]


def plan(m: int, n: int, k: int, systolic: SystolicConfig, dtype_bytes: int) -> GemmPlan:
    """``ceil(k/R) ceil(n/C)`` folds, n blocks outside, k blocks inside (a result block is
    finished before the next begins), dealt over the arrays in that order.

    A step starts when its weight preload starts, which takes R cycles; then m rows stream and
    the last one leaves the array R + C - 2 cycles later: one fold takes 2R + C + m - 2.

    - ``exposed``: folds never overlap (SCALE-Sim 3, exact: reference npu/NOTES.md section 1).
    - ``hidden``: each processing element holds the next weight beside the current one, so the
      next preload runs while m rows stream: max(m, R) from fold to fold (ONNXim's
      ``SystolicWS``), the first preload and the last drain exposed.

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
    rows, cols, arrays = systolic.rows, systolic.cols, systolic.arrays
    k_blocks, n_blocks = ceil_div(k, rows), ceil_div(n, cols)
    folds = check_folds(m, n, k, k_blocks * n_blocks)
    fold_cycles = 2 * rows + cols + m - 2
    exposed = systolic.preload == "exposed"
    distance = fold_cycles if exposed else max(m, rows)

    last_fold = np.minimum(np.arange(arrays, folds + arrays, arrays), folds) - 1
    n_block, k_block = np.divmod(last_fold, k_blocks)
    # Columns of B finished before this block, then the rows loaded of the block itself.
    done_before = n_block * cols * k
    width = np.minimum(cols, n - n_block * cols)
    inside = np.minimum((k_block + 1) * rows, k) * width
    weight_bytes = ((done_before + inside) * dtype_bytes).astype(np.int64)
    return make_plan(
        folds=folds,
        interval_cycles=np.full(len(last_fold), distance, dtype=np.int64),
        weight_bytes_needed=weight_bytes,
        lead_cycles=0,
        drain_cycles=fold_cycles,
        macs=m * n * k,
        streamed_cycles=len(last_fold) * m,
        # a hidden preload shows where it takes longer than the rows that stream meanwhile
        loading_cycles=rows + (len(last_fold) - 1) * (rows if exposed else max(rows - m, 0)),
        # a fold takes up its block of weights and streams m rows of as many inputs past it
        traffic=ArrayTraffic(m * k * n_blocks, n * k, m * n * k_blocks, m * n * (k_blocks - 1)),
    )
