"""Attention of several new tokens on the arrays, tile by tile, as FlashAttention does it.

Queries stay on chip; keys and values stream past them in tiles. Of each tile the arrays make the
scores, the vector units the exponentials against the running maximum, the arrays the weighted
values; the sums so far are rescaled where the maximum rose. Scores never leave the chip, and what
lies above the diagonal, or outside the window, is not computed (Dao 2023, arXiv 2307.08691,
sections 3.1 and 3.2). A tile's scores are made while the tile before is on the vector units, so
that both sides work at once and the slower one sets the pace.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pimsim.config.npu import SystolicConfig, VectorConfig
from pimsim.hardware.npu.gemm import steady_cycles
from pimsim.hardware.npu.operands import PARTIAL_BYTES, shared_reads
from pimsim.hardware.npu.plan import GemmPlan, ceil_div, make_plan
from pimsim.hardware.npu.vector import add_tree_levels
from pimsim.hardware.npu.vector_timing import vector_timing
from pimsim.hardware.remembered import remembered

__all__ = ["FlashPass", "FlashPlan", "FlashUnits", "flash_plan", "key_tile", "resident_bytes"]

_STATISTICS_BYTES = 2 * PARTIAL_BYTES
"""A row's running maximum and its sum of exponentials."""


@dataclass(frozen=True)
class FlashPass:
    """Queries of some new tokens of one request, of the heads that share one head of keys."""

    first: int
    """Position of the first of these tokens in the context."""
    tokens: int
    context: int
    """Tokens that the request has with its new ones."""
    group: int
    """Query heads."""
    key_dim: int
    value_dim: int
    window: int | None = None
    """A token sees so many last ones, itself among them; None: all."""
    causal: bool = True
    """A token sees none behind it."""

    @property
    def last(self) -> int:
        """Position of the last of these tokens."""
        return self.first + self.tokens - 1

    @property
    def keys(self) -> range:
        """Positions that any of the tokens sees."""
        end = self.last + 1 if self.causal else self.context
        newest = self.first if self.causal else self.context - 1
        begin = 0 if self.window is None else max(newest - self.window + 1, 0)
        return range(begin, end)

    def seen_by(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of the tokens see any of the keys from ``starts`` up to ``ends`` each."""
        if not self.causal:
            return np.full(len(starts), self.tokens, dtype=np.int64)
        low = np.maximum(starts, self.first)
        high = np.full(len(starts), self.last, dtype=np.int64)
        if self.window is not None:
            high = np.minimum(high, ends - 2 + self.window)
        return np.maximum(high - low + 1, 0)


@dataclass(frozen=True)
class FlashUnits:
    """What works on one pass."""

    systolic: SystolicConfig
    arrays: int
    """Arrays that share its tokens, dealt to them one by one."""
    vector: VectorConfig
    vector_units: Fraction
    """Vector units, or the share of one."""
    element_bytes: int


@dataclass(frozen=True)
class FlashPlan:
    """What a pass takes of arrays, vector units and memory."""

    plan: GemmPlan
    """A step for each tile of keys; its ``weight_bytes_needed`` are those of keys and values, its
    ``macs`` those that are done, of tiles on the diagonal in full."""
    softmax_cycles: NDArray[np.int64]
    """Of vector units, added over units, by tile; behind the last of a pass its sums are
    divided."""
    vector_lane_ops: int
    waiting_cycles: int
    """Of ``plan.taken_cycles``: the arrays wait for the vector units."""
    sram_bytes: int

    @property
    def vector_cycles(self) -> int:
        """Of vector units, added over units."""
        return int(self.softmax_cycles.sum())


def key_tile(systolic: SystolicConfig) -> int:
    """Keys of a tile: as many as an array takes, whichever of its sides they lie along.

    Parameters
    ----------
    systolic
        The arrays.
    """
    return max(systolic.rows, systolic.cols)


def resident_bytes(
    tokens: int, group: int, key_dim: int, value_dim: int, tile: int, element_bytes: int
) -> int:
    """On chip while a pass of ``tokens`` runs: queries, sums with their statistics, and two tiles
    of keys and values.

    Parameters
    ----------
    tokens
        Of the pass.
    group
        Query heads that share a head of keys.
    key_dim
        Elements of a key.
    value_dim
        Elements of a value.
    tile
        Keys of a tile.
    element_bytes
        Of queries, keys and values.
    """
    row = key_dim * element_bytes + value_dim * PARTIAL_BYTES + _STATISTICS_BYTES
    return tokens * group * row + 2 * tile * (key_dim + value_dim) * element_bytes


@remembered(16 << 20, lambda found: 24 * found.plan.steps + 400)
def flash_plan(
    work: FlashPass, keys: range, units: FlashUnits,
    stored: tuple[tuple[int, int, Fraction], ...] = (),
) -> FlashPlan:  # fmt: skip
    """The pass over a run of its keys, tile by tile.

    Parameters
    ----------
    work : FlashPass
    keys : range
        Positions, a part of ``work.keys`` that begins at a tile; where it begins and ends with
        them, sums begin, or are divided by those of their exponentials.
    units : FlashUnits
    stored : tuple of (int, int, Fraction)
        Runs of positions, first and end, that come from memory, in the order of their positions,
        and bytes of each key with its value.

    Returns
    -------
    FlashPlan
        A step for each tile of ``key_tile`` keys.
    """
    systolic, vector = units.systolic, units.vector
    tile, share = key_tile(systolic), units.vector_units
    starts = np.arange(keys.start - keys.start % tile, keys.stop, tile, dtype=np.int64)
    ends = np.minimum(starts + tile, keys.stop)
    starts = np.maximum(starts, keys.start)
    tokens, widths = work.seen_by(starts, ends), ends - starts
    one = systolic.model_copy(update={"arrays": 1})
    # of the array with the most tokens
    most = -(-tokens // units.arrays) * work.group
    arrays = np.array(
        [
            _array_cycles(work, m, n, one)
            for m, n in zip(most.tolist(), widths.tolist(), strict=True)
        ],
        dtype=np.int64,
    )
    rows = tokens * work.group
    rescale = _scale_cycles(work.value_dim, vector)
    softmax = rows * np.array([_row_cycles(n, vector) for n in widths.tolist()], dtype=np.int64)
    is_first = starts == work.keys.start
    softmax += np.where(is_first, 0, rows * rescale)
    is_last = keys.stop == work.keys.stop
    softmax[-1] += work.tokens * work.group * rescale if is_last else 0
    waits = -(-softmax * share.denominator // share.numerator)
    intervals = np.maximum(arrays, waits)
    needed = np.zeros(len(starts), dtype=np.int64)
    for first, end, size in stored:
        inside = np.clip(np.minimum(ends, end) - np.maximum(starts, first), 0, None)
        needed += -(-np.cumsum(inside) * size.numerator // size.denominator)
    folds = ceil_div(work.key_dim, systolic.rows) * ceil_div(tile, systolic.cols)
    folds += ceil_div(tile, systolic.rows) * ceil_div(work.value_dim, systolic.cols)
    streamed = min(folds * int(most.sum()), int(arrays.sum()))
    drain = int(arrays[-1] + waits[-1])
    pairs, dims = int((rows * widths).sum()), work.key_dim + work.value_dim
    plan = make_plan(
        folds=folds * len(starts),
        interval_cycles=intervals,
        weight_bytes_needed=needed,
        lead_cycles=0,
        drain_cycles=drain + 2 * (systolic.rows + systolic.cols - 2),
        macs=pairs * dims,
        streamed_cycles=streamed,
        loading_cycles=int(arrays.sum()) - streamed,
    )
    return FlashPlan(
        plan=plan,
        softmax_cycles=softmax,
        # maximum, difference, exponential and sum of each score; sums rescaled and divided
        vector_lane_ops=4 * pairs
        + int(rows[~is_first].sum()) * work.value_dim
        + (work.tokens * work.group * work.value_dim if is_last else 0),
        waiting_cycles=int((intervals - arrays).sum()),
        sram_bytes=_sram_bytes(work, rows, widths, units),
    )


def _array_cycles(work: FlashPass, rows: int, keys: int, one: SystolicConfig) -> int:
    """Of one array: scores, then weighted values, of ``rows`` queries and a tile of ``keys``."""
    if not rows:
        return 0
    scores = steady_cycles(rows, keys, work.key_dim, one)
    return scores + steady_cycles(rows, work.value_dim, keys, one)


def _row_cycles(keys: int, vector: VectorConfig) -> int:
    """Of one vector unit: a query's scores of one tile. Trees for maximum and sum, and a pass each
    of differences and exponentials; latencies as in ``vector_cycles``."""
    timing = vector_timing(vector)
    keys = timing.elements("softmax", keys)
    tree = add_tree_levels(keys, vector.lanes) * vector.add_tree_latency
    passes = ceil_div(keys, vector.lanes)
    return timing.npu_softmax_cycles(2 * tree + passes * (vector.add_latency + vector.exp_latency))


def _scale_cycles(width: int, vector: VectorConfig) -> int:
    """Of one vector unit: a query's sums are multiplied by a number."""
    return ceil_div(vector_timing(vector).elements("mul", width), vector.lanes) * vector.mul_latency


def _sram_bytes(
    work: FlashPass, rows: NDArray[np.int64], widths: NDArray[np.int64], units: FlashUnits
) -> int:
    """Queries, keys and values read by the arrays, scores written, read and written again as
    probabilities, sums read and written."""
    reuse = min(units.systolic.rows, units.systolic.cols)
    size = units.element_bytes
    total = 0
    for m, n in zip(rows.tolist(), widths.tolist(), strict=True):
        if not m:
            continue
        scores = shared_reads(m, n, work.key_dim, reuse)
        values = shared_reads(m, work.value_dim, n, reuse)
        total += (scores.operand_reads + values.operand_reads) * size
        total += m * n * (2 * PARTIAL_BYTES + size)
        total += 2 * m * work.value_dim * PARTIAL_BYTES
    return total
