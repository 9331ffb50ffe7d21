"""How long a matrix in the banks takes for a vector: asked of the command engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import INFINITY
from pimsim.hardware.dram.system import Group, MemorySystem, ResultWork, Stream
from pimsim.hardware.pim.gemv import GemvShape, gemv_program

__all__ = ["GemvTime", "gemv_time"]

_RUN_CYCLES = 12_000
"""About as long is a run, as many vectors as fit."""
_FEWEST = 3
"""Vectors of a run, at least."""
_PIECE_BYTES = 1 << 20
"""A stream comes in pieces, two under way at a time, as a product's tiles do."""


@dataclass(frozen=True)
class GemvTime:
    """A vector on all channels, in memory cycles; and what it does to a stream of weights."""

    alone_cycles: int
    """Nothing else going on."""
    beside_cycles: int
    """Beside a stream that asks for the whole data bus."""
    stream_bursts: int
    """Bursts of that stream which come in some time beside PIM."""
    stream_alone_bursts: int
    """Those that come without it in as much time."""


def gemv_time(
    shape: GemvShape, memory: MemoryConfig, pim: PimConfig, written_bursts: int = 0
) -> GemvTime:
    """Times of a vector alone and beside a stream.

    Parameters
    ----------
    shape
        Of the matrix in the banks.
    memory
        Whose commands run.
    pim
        The units.
    written_bursts
        Of results that go to the channels after each vector.

    Returns
    -------
    GemvTime
        In memory cycles and bursts.
    """
    one = _run(shape, memory, pim, _FEWEST, written_bursts, streams=False)[0] // _FEWEST
    vectors = max(_RUN_CYCLES // max(one, 1), _FEWEST)
    alone, _ = _run(shape, memory, pim, vectors, written_bursts, streams=False)
    beside, bursts = _run(shape, memory, pim, vectors, written_bursts, streams=True)
    _, quiet = _run(shape, memory, pim, 0, 0, streams=True, until=beside)
    return GemvTime(-(-alone // vectors), -(-beside // vectors), bursts, quiet)


def _run(
    shape: GemvShape, memory: MemoryConfig, pim: PimConfig, vectors: int, written_bursts: int,
    *, streams: bool, until: int = INFINITY,
) -> tuple[int, int]:  # fmt: skip
    """Cycle of the last result of ``vectors`` (or ``until``), and bursts that came by then."""
    org = memory.organization
    system = MemorySystem(memory, pim)
    group: Group | None = None
    if vectors:
        after = ResultWork(
            duration=np.zeros(vectors, dtype=np.int64),
            bursts=np.full(vectors, written_bursts, dtype=np.int64),
            channel=np.zeros(vectors, dtype=np.int64), units=0, spread=True,
        )  # fmt: skip
        group = system.submit_pim(0, _programs(shape, memory, pim, vectors), vectors, after)
    bursts = _PIECE_BYTES // org.burst_bytes
    # from half of the memory on, which the matrix does not reach
    at = org.rows // 2 * org.channels * org.ranks * org.banks * org.columns
    pieces = 0
    live: list[Group] = []
    while system.now < until and (group is None or group.done_cycle < 0):
        while streams and len(live) < 2:
            piece = Stream(at + pieces * bursts, bursts)
            live.append(system.submit(system.now, [piece]))
            pieces += 1
        if system.advance(until) is None:
            break
        live = [each for each in live if each.done_cycle < 0]
    table, channels = system.board["ticket"][0], org.channels
    left = sum(int(table[each.ticket : each.ticket + channels, 0].sum()) for each in live)
    return system.now, pieces * bursts - left


def _programs(
    shape: GemvShape, memory: MemoryConfig, pim: PimConfig, vectors: int
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """All channels' parts of ``vectors``, each with rows of its own for its chunks, and one of two
    matrices in turn: no row is open when it is needed, as with experts that have one token each."""
    channels = memory.organization.channels
    rows = shape.rows_per_channel(channels)
    first = 2 * rows
    found = []
    for channel in range(channels):
        run = shape.share(channel, channels)
        chunks = len(shape.chunks_of(run))
        found.append(
            np.concatenate([
                gemv_program(
                    shape, run, v % 2 * rows, range(first + v * chunks, first + (v + 1) * chunks),
                    v, pim.composite_gemv,
                )
                for v in range(vectors)
            ])
        )  # fmt: skip
    return found
