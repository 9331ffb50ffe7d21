"""Which tiles a product is cut into, which core works on each, and why these.

Every cut is judged by the same estimate: computing on the busiest core, moving what the cut makes
move at the memory's full rate, or turning the buffers over, whichever takes longer, and what
nothing hides: the first tiles' loads, the way through the array, the last tiles' stores. A buffer
is turned over when its tile has come, has been computed and has left the array; with two of them
that happens twice in the time, without a second one nothing overlaps. Only the choice depends on
the estimate; what the cut really takes is simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import chain, product
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.npu import TILINGS, NpuConfig
from pimsim.hardware.npu.gemm import steady_cycles
from pimsim.hardware.npu.plan import ceil_div
from pimsim.hardware.npu.tiling import (
    MAX_TILES,
    GemmTile,
    cut_tiles,
    least_traffic,
    operand_passes,
    tile_places,
    tile_sizes,
)
from pimsim.hardware.remembered import remembered

__all__ = ["CoreTiling", "Cut", "tile_for_cores"]

PARTIAL_BYTES = 4
"""A partial sum in an accumulator (Gemmini, ONNXim's Mapping.cc)."""
_TILE_BYTES = 400
"""A tile as an object, about."""
_OTHERS = 8
"""Other cuts that are shown."""
Sizes = tuple[int, int, int]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """One way to cut a product, and what it is estimated to take, in NPU cycles."""

    sizes: Sizes
    """m, n, k of a full tile."""
    order: str
    """Loops from the outermost in; ``k`` is innermost where cores share the product."""
    tiles: int
    compute_cycles: int
    """Of the busiest core."""
    memory_cycles: int
    """To move ``traffic_bytes`` at the memory's full rate."""
    turnover_cycles: int
    """To fill and work off the buffers of the busiest core, one tile after the other."""
    exposed_cycles: int
    """First loads, fill and drain of the array, last stores."""
    traffic_bytes: int
    cycles: int

    @property
    def pace_cycles(self) -> int:
        """Of the arrays, of the memory or of turning the buffers over, whichever takes longest."""
        return max(self.compute_cycles, self.memory_cycles, self.turnover_cycles)

    @property
    def bound(self) -> str:
        """``compute``, ``memory`` or ``turnover``, whichever takes longest."""
        if self.pace_cycles == self.compute_cycles:
            return "compute"
        return "memory" if self.pace_cycles == self.memory_cycles else "turnover"


@dataclass(frozen=True)
class CoreTiling:
    """The chosen cut, each core's tiles in order, and what else there was to choose from."""

    cut: Cut
    cores: tuple[tuple[GemmTile, ...], ...]
    candidates: int
    """Cuts that fit and were judged."""
    others: tuple[Cut, ...]
    """Where they were asked for, the best of them by estimate, the chosen one apart: one for each
    size of tile."""
    policy: str


@dataclass(frozen=True)
class _Cuts:
    """Ways to cut one product: the fields of ``Cut``, (cuts,) each."""

    sizes: tuple[Ints, Ints, Ints]
    order: tuple[str, ...]
    tiles: Ints
    compute_cycles: Ints
    memory_cycles: Ints
    turnover_cycles: Ints
    exposed_cycles: Ints
    traffic_bytes: Ints

    @classmethod
    def of(cls, parts: Sequence[_Cuts]) -> _Cuts:
        """Those of all ``parts``, which cut into the same sizes, each in another order: sizes by
        sizes."""
        orders = tuple(chain(*zip(*(part.order for part in parts), strict=True)))
        m, n, k = (np.repeat(own, len(parts)) for own in parts[0].sizes)
        names = (each.name for each in fields(cls)[2:])
        columns = (np.stack([getattr(p, name) for p in parts], axis=1).ravel() for name in names)
        return cls((m, n, k), orders, *columns)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def pace_cycles(self) -> Ints:
        """As ``Cut.pace_cycles``."""
        arrays_or_memory = np.maximum(self.compute_cycles, self.memory_cycles)
        return np.maximum(arrays_or_memory, self.turnover_cycles)

    @property
    def cycles(self) -> Ints:
        """As ``Cut.cycles``."""
        return self.pace_cycles + self.exposed_cycles

    def cut(self, at: int) -> Cut:
        """The cut at this place."""
        m, n, k = (int(own[at]) for own in self.sizes)
        columns = (self.tiles, self.compute_cycles, self.memory_cycles, self.turnover_cycles,
                   self.exposed_cycles, self.traffic_bytes, self.cycles)  # fmt: skip
        return Cut((m, n, k), self.order[at], *(int(own[at]) for own in columns))

    def first_by(self, *keys: Ints) -> Cut:
        """The cut that is least by the first key, then by the next ones, then by its sizes."""
        best = np.arange(len(self))
        for key in (*keys, *self.sizes):
            best = best[key[best] == key[best].min()]
        return self.cut(int(best[0]))

    def others(self, chosen: Sizes, most: int) -> tuple[Cut, ...]:
        """``most`` of the best by time of other sizes than the ``chosen`` ones, one of each."""
        rows = zip(self.cycles, self.traffic_bytes, self.tiles, *self.sizes, strict=True)
        found: dict[Sizes, int] = {}
        for (*_, m, n, k), at in sorted((tuple(map(int, row)), at) for at, row in enumerate(rows)):
            if (m, n, k) != chosen and len(found) < most:
                found.setdefault((m, n, k), at)
        return tuple(map(self.cut, found.values()))


@remembered(32 << 20, lambda tiling: _TILE_BYTES * sum(map(len, tiling.cores)))
def tile_for_cores(
    m: int,
    n: int,
    k: int,
    dtype_bytes: int,
    npu: NpuConfig,
    bytes_per_kcycle: int,
    explain: bool = False,
    activations_move: bool = True,
) -> CoreTiling:
    """Cut C[m, n] = A[m, k] B[k, n] for the cores of ``npu`` by its ``tiling``.

    Parameters
    ----------
    m
        Rows of A and of C.
    n
        Columns of B and of C.
    k
        Columns of A, rows of B.
    dtype_bytes
        Of an element.
    npu
        Its cores, arrays, scratchpad and ``tiling``.
    bytes_per_kcycle
        What the memory moves in 1000 NPU cycles at its full rate.
    explain
        Judge the other cuts too where the policy does not ask for them.
    activations_move
        Inputs and outputs cross the memory's bus; else weights alone do.

    Raises
    ------
    InputError
        Where no tile fits, or the product takes too many.
    """
    whole = (m, n, k)
    if min(m, n, k, dtype_bytes) < 1:
        raise InputError(f"gemm {m} x {n} x {k} of {dtype_bytes} bytes: sizes must be at least 1")
    judge = _Judge(whole, dtype_bytes, npu, max(bytes_per_kcycle, 1), activations_move)
    judge.check_room()
    alone = npu.cores == 1 and npu.scratchpad.accumulator is None
    # what a module cuts by itself is judged here as the least traffic
    by_traffic = npu.tiling not in ("gemmini", "least-time")
    fewest = judge.judge(*least_traffic(m, n, k, judge.room)) if by_traffic and alone else None
    # as long as memory sets the pace, nothing is gained by another cut
    settled = fewest is not None and fewest.compute_cycles <= fewest.memory_cycles
    listed = explain or not (settled or npu.tiling == "gemmini")
    found = judge.all_cuts() if listed else None
    if npu.tiling == "gemmini":
        cut = judge.judge(_gemmini_sizes(whole, dtype_bytes, npu), "mnk", keep=False)
    elif fewest is not None and settled:
        cut = fewest
    else:
        assert found is not None, "no policy chooses among none"
        by_time = [found.cycles, found.traffic_bytes, found.tiles]
        if npu.tiling != "least-time":
            # few tiles: each has the arrays drain before its buffer takes another
            by_time = [found.pace_cycles, found.traffic_bytes, found.tiles, found.cycles]
        cut = found.first_by(*by_time)
    if cut.tiles > MAX_TILES:
        raise InputError(
            f"npu.scratchpad.capacity {npu.scratchpad.capacity} B: gemm {m} x {n} x {k} would "
            f"take {cut.tiles} tiles, more than {MAX_TILES}"
        )
    keep = npu.tiling != "gemmini"
    policy = npu.tiling if npu.tiling in TILINGS else "least-traffic"
    places = _deal(tile_places(whole, cut.sizes, cut.order), whole, cut.sizes, npu)
    tiles = tuple(cut_tiles(own, whole, cut.sizes, keep, dtype_bytes) for own in places)
    others = found.others(cut.sizes, _OTHERS) if explain and found is not None else ()
    return CoreTiling(cut, tiles, 0 if found is None else len(found), others, policy)


def _orders(cores: int) -> tuple[str, ...]:
    """An output tile stays on its core, so that with several cores k is innermost."""
    return ("nmk", "mnk") if cores > 1 else ("nmk", "nkm", "mnk", "mkn", "knm", "kmn")


class _Judge:
    """Estimates cuts of one product."""

    def __init__(
        self, whole: Sizes, dtype_bytes: int, npu: NpuConfig, rate: int, moving: bool = True
    ) -> None:
        self.whole = whole
        self.dtype_bytes = dtype_bytes
        self.npu = npu
        self.rate = rate
        # on one core a cut's traffic is counted in all its operands, wherever they are
        self.moving = moving or npu.cores == 1
        pad = npu.scratchpad
        share = 2 if pad.double_buffered else 1
        self.room = pad.capacity // share // dtype_bytes
        self.partials: int | None = None
        if pad.accumulator is not None:
            self.partials = pad.accumulator // share // PARTIAL_BYTES

    def fits(self, sizes: Sizes) -> bool:
        """Whether a tile and, double buffered, the next one have room."""
        m, n, k = sizes
        operands = m * k + k * n
        if self.partials is None:
            return operands + m * n <= self.room
        return operands <= self.room and m * n <= self.partials

    def check_room(self) -> None:
        """Raises ``InputError`` where not even one element of each operand fits."""
        if not self.fits((1, 1, 1)):
            pad = self.npu.scratchpad
            apart = "" if pad.accumulator is None else f" and accumulator {pad.accumulator} B"
            raise InputError(
                f"npu.scratchpad.capacity {pad.capacity} B{apart}: no room for one element of "
                f"{self.dtype_bytes} B of weights, inputs and outputs each"
                + (", twice (double_buffered)" if pad.double_buffered else "")
            )

    def all_cuts(self) -> _Cuts:
        """Every cut that fits, of the sizes that are tried: even parts of each dimension, and
        those rounded up to whole folds; of those for k the largest that fits."""
        systolic = self.npu.systolic
        (m, n, k), columns = self.whole, self._columns
        parts_of_k = columns(_sizes(k, systolic.rows)[::-1])
        pairs = list(product(_sizes(m, systolic.rows), _sizes(n, systolic.cols)))
        tile_m, tile_n = columns([tile_m for tile_m, _ in pairs]), columns([n for _, n in pairs])
        # a smaller part of k never moves less
        fits = np.searchsorted(parts_of_k, self._most_k(tile_m, tile_n), side="right")
        tile_m, tile_n, fits = tile_m[fits > 0], tile_n[fits > 0], fits[fits > 0]
        sizes = tile_m, tile_n, parts_of_k[fits - 1]
        return _Cuts.of([self._judge(sizes, order) for order in _orders(self.npu.cores)])

    def judge(self, sizes: Sizes, order: str, keep: bool = True) -> Cut:
        """What the cut into tiles of ``sizes`` is estimated to take."""
        m, n, k = (self._columns([size]) for size in sizes)
        return self._judge((m, n, k), order, keep).cut(0)

    def _columns(self, sizes: list[int]) -> Ints:
        """Sizes to judge, as 64-bit integers where no estimate of the product can leave them."""
        systolic, (m, n, k) = self.npu.systolic, self.whole
        most = 8 * m * n * k * (1000 * self.dtype_bytes + 4 * (systolic.rows + systolic.cols))
        return np.array(sizes, np.int64 if most < 1 << 63 else object)

    def _most_k(self, tile_m: Ints, tile_n: Ints) -> Ints:
        """Largest k with which tiles of (``tile_m``, ``tile_n``) fit; below 1: none does."""
        if self.partials is None:
            return (self.room - tile_m * tile_n) // (tile_m + tile_n)
        most: Ints = self.room // (tile_m + tile_n) * (tile_m * tile_n <= self.partials)
        return most

    def _judge(self, sizes: tuple[Ints, Ints, Ints], order: str, keep: bool = True) -> _Cuts:
        """What cuts into tiles of ``sizes``, shape (cuts,), are estimated to take."""
        (m, n, k), (tile_m, tile_n, tile_k) = self.whole, sizes
        counts = (ceil_div(m, tile_m), ceil_div(n, tile_n), ceil_div(k, tile_k))
        busy = np.minimum(self.npu.cores, counts[0] * counts[1])
        reload_a, reload_b, reload_c = operand_passes(counts, order)
        # consecutive tiles go to different cores: each core that needs an operand loads it
        outer_m = order.index("m") < order.index("n")
        each_a, each_b = np.minimum(busy, counts[1]), np.minimum(busy, counts[0])
        if outer_m:
            each_b = np.where(counts[1] > 1, counts[0], each_b)
        else:
            each_a = np.where(counts[0] > 1, counts[1], each_a)
        apart = (busy > 1) & (counts[2] > 1) if keep else np.ones_like(busy, bool)
        reload_a = np.where(apart, counts[1], np.where(busy > 1, each_a, reload_a))
        reload_b = np.where(apart, counts[0], np.where(busy > 1, each_b, reload_b))
        traffic = n * k * reload_b
        if self.moving:
            traffic = traffic + m * k * reload_a + m * n * (2 * reload_c - 1)
        traffic = traffic * self.dtype_bytes
        memory = self._move(traffic)
        rounds = ceil_div(counts[0] * counts[1], busy)
        systolic, last_k = self.npu.systolic, k - (counts[2] - 1) * tile_k
        full = steady_cycles(tile_m, tile_n, tile_k, systolic)
        # the busiest core has ``rounds`` output tiles, none larger than a full one
        last_cycles = steady_cycles(tile_m, tile_n, last_k, systolic)
        compute = rounds * ((counts[2] - 1) * full + last_cycles)
        tiles = rounds * counts[2]
        load = ceil_div(memory, tiles)
        out = tile_m if systolic.dataflow == "ws" else systolic.rows
        drain = 2 * systolic.rows + systolic.cols - 2 + out
        buffers = 2 if self.npu.scratchpad.double_buffered else 1
        turnover = tiles * (load + full + drain) // buffers
        first = busy * (tile_m + tile_n) * tile_k * self.dtype_bytes
        last = busy * tile_m * tile_n * self.dtype_bytes
        exposed = self._move(np.minimum(first, traffic)) + self._move(np.minimum(last, traffic))
        return _Cuts(
            sizes, (order,) * len(tile_m), counts[0] * counts[1] * counts[2], compute, memory,
            turnover, exposed + drain, traffic,
        )  # fmt: skip

    def _move(self, size: Ints) -> Ints:
        return ceil_div(size * 1000, self.rate)


def _sizes(dim: int, fold: int) -> list[int]:
    """Sizes to try, the largest first: even parts, and the same in whole folds."""
    parts = tile_sizes(dim)
    return sorted({*parts, *(min(ceil_div(s, fold) * fold, dim) for s in parts)}, reverse=True)


def _gemmini_sizes(whole: Sizes, dtype_bytes: int, npu: NpuConfig) -> Sizes:
    """Gemmini's tiles as ONNXim cuts them for several cores (Mapping.cc, gemm_mapping).

    Output tiles are squares of array blocks that fill half the accumulator, k is as deep as a
    quarter of the scratchpad allows; then m or n, whichever is longer, is cut into so many more
    tiles as there are cores too many, and the tiles that a full round lacks.
    """
    pad, block = npu.scratchpad, npu.systolic.rows
    assert pad.accumulator is not None  # NpuConfig has checked it
    side = isqrt(pad.accumulator // (block * PARTIAL_BYTES * 2) // block)
    deep = pad.capacity // (block * dtype_bytes * 2) // 2 // block // max(side, 1)
    if side == 0 or deep == 0:
        raise InputError(
            f"npu.tiling 'gemmini': a block of {block} x {block} fits neither half of the "
            f"accumulator ({pad.accumulator} B) nor a quarter of the scratchpad ({pad.capacity} B)"
        )
    m, n, k = whole
    tiles_m, tiles_n = ceil_div(m, side * block), ceil_div(n, side * block)
    tiles_k = ceil_div(k, deep * block)
    cores = npu.cores
    if tiles_m * tiles_n < cores:
        more = ceil_div(cores, tiles_m * tiles_n)
        tiles_n *= more if n > m and n > cores else 1
        tiles_m *= more if m > n and m > cores else 1
    lacking = tiles_m * tiles_n % cores
    tiles_n += lacking if n > m and n > cores else 0
    tiles_m += lacking if m > n and m > cores else 0

    def size(dim: int, tiles: int) -> int:
        padded = ceil_div(dim, block) * block
        return min(max(ceil_div(padded, tiles) // block * block, block), dim)

    return size(m, tiles_m), size(n, tiles_n), size(k, tiles_k)


def _deal(
    places: Sequence[dict[str, int]], whole: Sizes, sizes: Sizes, npu: NpuConfig
) -> list[list[dict[str, int]]]:
    """Tiles by core; those of one output tile stay together."""
    dealt: list[list[dict[str, int]]] = [[] for _ in range(npu.cores)]
    owner: dict[tuple[int, int], int] = {}
    load = [0] * npu.cores
    for place in places:
        output = (place["m"], place["n"])
        if output not in owner:
            core = (len(owner) + 1) % npu.cores  # ONNXim begins with core 1
            if npu.core_assignment == "least-loaded":
                core = min(range(npu.cores), key=load.__getitem__)
            owner[output] = core
            load[core] += min(sizes[0], whole[0] - output[0]) * min(sizes[1], whole[1] - output[1])
        dealt[owner[output]].append(place)
    return dealt
