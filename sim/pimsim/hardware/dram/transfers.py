"""What a device's memory is asked to move, and what comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.layout import INFINITY

__all__ = [
    "BLOCK_BYTES",
    "SC_CHANNEL",
    "SC_COUNT",
    "SC_FIRST",
    "SC_STRIDE",
    "SC_WRITE",
    "Group",
    "Network",
    "OperandDependency",
    "ResultWork",
    "Rows",
    "Scatter",
    "Stream",
    "scatter_table",
]

Ints = NDArray[np.int64]
BLOCK_BYTES = 32 * 1024
"""Arrival of a stream is known block by block: one 128x128 tile of 2-byte elements."""


@dataclass(frozen=True)
class Network:
    """What lies between the cores and the memory's channels."""

    sources: int = 1
    """Cores."""
    period_ps: Fraction | int = 0
    """One cycle of the network: a port, of a core or of a channel, passes one request in it.
    0: no limit."""
    latency_ps: Fraction | int = 0
    """From a core's request to the channel's port."""
    ports: int = 1
    """Injection ports of each core."""
    hashed: bool = False
    """Neighbouring bursts lie on the channels in an order that changes from row to row."""


@dataclass(frozen=True)
class OperandDependency:
    """How the operands of a stream follow those of the tracked stream before it: number i goes
    ``lag`` cycles after the ``common`` first ones and the i-th ``each`` of the others arrived."""

    common: int
    each: int
    lag: int


@dataclass(frozen=True)
class Stream:
    """Consecutive bursts of the device's linear address space."""

    first_burst: int
    bursts: int
    write: bool = False
    track_blocks: bool = False
    """Record the arrival of each block, or of each operand."""
    operands: tuple[int, ...] = ()
    """Bytes of each operand where the memory has a ``RequestOrder``: that says where they lie, and
    ``first_burst`` is not read."""
    delay: int = 0
    """Cycles after its submission from which it may go."""
    follows: OperandDependency | None = None
    """What its operands wait for."""
    weight_bytes: int = 0
    """Of its bytes, those of weights and biases; the others are activations, keys or values."""
    block_bursts: int = 0
    """Of each block, a power of two; 0: as many as ``BLOCK_BYTES`` are."""

    @property
    def total(self) -> int:
        """Bursts."""
        return self.bursts


@dataclass(frozen=True)
class Rows:
    """Runs of bursts, such as a tile's part of each row of a matrix, in order."""

    first_burst: Ints
    """First burst of each run."""
    bursts: Ints
    """Length of each run; the same shape."""
    write: bool = False
    weight_bytes: int = 0
    """As of a ``Stream``; a burst that two runs share moves once, so they may be more."""

    @property
    def total(self) -> int:
        """Bursts of all runs."""
        return int(self.bursts.sum())


@dataclass(frozen=True)
class Scatter:
    """Bursts within one channel: ``count`` from ``first``, ``stride`` apart (channel's index)."""

    channel: int
    first: int
    count: int
    stride: int = 1
    write: bool = True


SC_CHANNEL, SC_FIRST, SC_COUNT, SC_STRIDE, SC_WRITE = range(5)
"""Columns of ``scatter_table``."""


def scatter_table(scatters: Sequence[Scatter]) -> Ints:
    """All of them as numbers.

    Parameters
    ----------
    scatters
        In order.

    Returns
    -------
    Ints
        (scatters, 5): channel, first burst, bursts, stride, whether it writes.
    """
    flat = [
        value
        for each in scatters
        for value in (each.channel, each.first, each.count, each.stride, each.write)
    ]
    return np.array(flat, dtype=np.int64).reshape(-1, 5)


@dataclass(frozen=True)
class ResultWork:
    """What the vector units do with PIM results: one entry for each (request, head), in order.

    An operation starts when its results are read, its turn has come (one a cycle) and a unit is
    free; ``bursts`` of its output are then written, to its own channel or over all channels.
    """

    duration: Ints
    """Cycles; below 0: nothing follows this result."""
    bursts: Ints
    channel: Ints
    units: int
    """Vector units; 0: they never queue."""
    spread: bool
    overlap: bool = True
    """Start with a result as soon as it is there; else when all PIM work is done."""
    output_bytes: int = 0
    """Of all outputs, which move on a memory's ``RequestOrder``."""


@dataclass
class Group:
    """Requests that complete together. ``done_cycle`` is set once they have."""

    ticket: int
    eighths_each: int
    """Least cycles between two completions on one channel, times eight."""
    blocks: tuple[int, int] = (0, 0)
    marks: tuple[int, int] = (0, 0)
    after: ResultWork | None = None
    is_pim: bool = False
    done_cycle: int = -1
    block_cycles: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Arrival of each block of the tracked stream."""
    vector_busy_cycles: int = 0
    vector_ends: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Cycle in which the vector work behind each result of PIM ends, by entry of ``after``."""
    lookahead: int = INFINITY
    """Cycles from any command to the first request that its data could release."""
    tickets: tuple[int, ...] = ()
    """Ranges of the board that are this group's until it is complete, by their first entry."""
    listed: tuple[int, ...] = ()
