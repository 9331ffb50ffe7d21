"""PIM programs as amounts of work: pieces that repeat.

A piece is a GWRITE or a tile with its HEADER, dot products and reads. All channels together run
few kinds of pieces many times over; what each kind takes, a few channels show (``probe``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.layout import (
    P_COMPS,
    P_LAST,
    P_LOOP,
    P_MARK,
    P_OP,
    P_READS,
    P_READY,
    P_ROUNDS,
    P_ROW,
    Records,
)
from pimsim.hardware.dram.pim_queue import gwrite_estimate, tile_estimate
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.transfers import ResultWork

__all__ = [
    "Pieces", "ProgramRun", "Results", "estimate", "find_pieces", "job_of", "renamed_rows",
    "reserved",
]  # fmt: skip

Ints = NDArray[np.int64]
_GWRITE, _HEADER = int(Command.GWRITE), int(Command.HEADER)
_COMP, _READRES, _GEMV = int(Command.COMP), int(Command.READRES), int(Command.GEMV)
_MIX = np.array([1_000_003, 8_191, 524_287, 131_071], dtype=np.int64)
_SPREAD = -7046029254386353131
"""An odd number without pattern (2^64 over the golden ratio)."""


@dataclass(frozen=True)
class Results:
    """What follows each instruction of programs."""

    bursts: Ints
    """That are written, (instructions,)."""
    duration: Ints
    """Cycles of vector work before they are; below 0: nothing follows."""
    overlap: bool = True
    """See ``ResultWork``."""

    def of(self, instructions: Ints | slice) -> Results:
        """Of these instructions, in order."""
        return Results(self.bursts[instructions], self.duration[instructions], self.overlap)

    def at_ends(self, first: Ints) -> Results:
        """Written at once at the end of the piece that they are in. ``first``: first instruction
        of each."""
        bursts, duration = np.zeros_like(self.bursts), np.full_like(self.duration, -1)
        last = np.append(first[1:], len(bursts)) - 1
        bursts[last] = np.add.reduceat(self.bursts, first)
        duration[last] = 0
        return Results(bursts, duration, self.overlap)

    def repeated(self, times: int) -> Results:
        """Of the same instructions so many times."""
        return Results(np.tile(self.bursts, times), np.tile(self.duration, times), self.overlap)


@dataclass(frozen=True)
class ProgramRun:
    """One channel's program, marked where a piece ends or where results are all there."""

    program: Ints
    bursts: Ints
    """That are written, by mark."""
    duration: Ints
    """Cycles of vector work before they are, below 0 where nothing follows; by mark."""
    ends: Ints
    """Marks at which pieces end."""
    overlap: bool = True
    """See ``ResultWork``."""

    @property
    def after(self) -> ResultWork:
        """Its vector work as if units never queued: others have results, too, but as many units
        as it takes are there."""
        nowhere = np.zeros(len(self.bursts), dtype=np.int64)
        return ResultWork(self.duration, self.bursts, nowhere, 0, False, self.overlap)

    @cached_property
    def content(self) -> bytes:
        """What tells it from another."""
        digest = sha256(usedforsecurity=False)  # in hardware on most machines
        for part in (self.program, self.bursts, self.duration, self.ends):
            digest.update(np.ascontiguousarray(part).data)
        digest.update(bytes([self.overlap]))
        return digest.digest()


@dataclass(frozen=True)
class Pieces:
    """The pieces of all channels' programs, in order."""

    first: Ints
    """First instruction of each, (pieces,)."""
    size: Ints
    channel: Ints
    kind: Ints
    """Number of its kind."""
    example: Ints
    """A piece of each kind, (kinds,)."""
    rounds: Ints
    """How often each comes, one after the other or in turn with the others of its loop."""
    loop: Ints
    """Pieces of the loop that each ends, 0 for those that end none."""


def find_pieces(whole: Ints, channel: Ints, bursts: Ints) -> Pieces:
    """Cut the programs of all channels at GWRITEs and HEADERs.

    Loops in them stay, each piece once; what precedes one is what ends its rounds. A kind is what a
    piece does and what it follows: nothing, a GWRITE or a tile. Streams that were under way have
    rows open when a program begins, and never again as many.

    Parameters
    ----------
    whole
        Programs of all channels, one after the other, (instructions, ``N_INSTRUCTION``).
    channel
        Of each instruction, (instructions,).
    bursts
        Written after each instruction's result, (instructions,).

    Returns
    -------
    Pieces
        In the order of ``whole``.
    """
    op = whole[:, P_OP]
    starts = (op == _GWRITE) | (op == _HEADER)
    starts[1:] |= channel[1:] != channel[:-1]
    starts[:1] = True
    first = np.flatnonzero(starts)
    size = np.diff(np.append(first, len(whole)))
    # what an instruction is, and the place where it stands in its piece
    place = np.arange(len(whole)) - np.repeat(first, size)
    mixed = (whole[:, [P_OP, P_COMPS, P_READS, P_LAST]] + 1) @ _MIX
    mixed = (mixed * (2 * place + 1)) ^ (mixed >> 7)
    before = np.append(0, 1 + (op[first[:-1]] == _GWRITE))
    before[np.append(True, channel[first[1:]] != channel[first[:-1]])] = 0
    # one number each: sorting them is ten times faster than sorting rows
    signature = np.add.reduceat(mixed, first)
    for column in (size, np.add.reduceat(bursts, first), before):
        signature = (signature ^ (signature >> 31)) * _SPREAD + column
    _, example, kind = np.unique(signature, return_index=True, return_inverse=True)
    end = first + size - 1
    begins = np.searchsorted(first, end - whole[end, P_LOOP] + 1)
    loop = np.where(whole[end, P_LOOP] > 0, np.arange(len(first)) - begins + 1, 0)
    return Pieces(first, size, channel[first], kind, example, whole[first, P_ROUNDS], loop)


def job_of(program: Ints, first: Ints, results: Results) -> ProgramRun:
    """A channel's program apart from those of the others, ready at once.

    Parameters
    ----------
    program
        (instructions, ``N_INSTRUCTION``).
    first
        First instruction of each piece, (pieces,).
    results
        What follows each instruction.

    Returns
    -------
    ProgramRun
        With marks of its own.
    """
    own = program.copy()
    own[:, P_READY] = 0
    own[:, P_MARK] = -1
    last = np.append(first[1:], len(program)) - 1
    marked = (results.duration >= 0) | (results.bursts > 0)
    marked[last] = True
    number = np.cumsum(marked) - 1
    own[marked, P_MARK] = number[marked]
    return ProgramRun(
        own, results.bursts[marked], results.duration[marked], number[last], results.overlap
    )


def renamed_rows(program: Ints, least: int, most: int) -> Ints:
    """The program with its rows numbered from ``least`` on in the order in which they come first:
    which rows they are plays no role for its commands, only which of them are the same.

    As it is where a row is below ``least`` or not below ``most``, among those of others.

    Parameters
    ----------
    program
        (instructions, ``N_INSTRUCTION``).
    least, most
        Row below which, and from which on, others have theirs.

    Returns
    -------
    Ints
        A copy, or ``program`` itself.
    """
    rows = program[:, P_ROW]
    if not len(rows) or rows.min() < least or rows.max() >= most:
        return program
    renamed = program.copy()
    _number(renamed, int(rows.min()), np.full(int(np.ptp(rows)) + 1, -1), least)
    return renamed


@njit(cache=True)
def _number(program: Any, first_row: Any, number: Any, least: Any) -> None:
    """Give rows numbers from ``least`` on as they come; ``number``: of each from ``first_row`` on,
    -1 where it has none yet."""
    following = least
    for at in range(len(program)):
        row = program[at, P_ROW] - first_row
        if number[row] < 0:
            number[row] = following
            following += 1
        program[at, P_ROW] = number[row]


@njit(cache=True)
def reserved(program: Any, channel: Any, p: Any) -> Any:
    """Cycles that the controller keeps free before a refresh for the piece that each instruction
    begins.

    Its own estimate, as if all banks were open, with the row of the channel's tile before. In one
    row buffer GWRITE has opened its own row in its bank since.

    Parameters
    ----------
    program
        Of all channels, (instructions, ``N_INSTRUCTION``).
    channel
        Of each instruction, (instructions,).
    p
        A record of ``PARAMETERS``.

    Returns
    -------
    Ints
        (instructions,); 0 where an instruction begins no piece.
    """
    found = np.zeros(len(program), dtype=np.int64)
    if p.avoid_refresh == 0:
        return found
    groups = p.banks >> p.group_shift
    row, wrong = -1, 0
    for at in range(len(program)):
        op, comps, reads = program[at, P_OP], program[at, P_COMPS], program[at, P_READS]
        if at == 0 or channel[at] != channel[at - 1]:
            row = -1
        if op == _GWRITE:
            found[at] = gwrite_estimate(p, True, True) + 1
            wrong = 1 if p.row_buffers == 1 else 0
        elif op == _HEADER:
            if program[at, P_ROW] != row:
                found[at] = tile_estimate(p, p.banks, groups, comps, reads) + 1
            else:
                found[at] = tile_estimate(p, wrong, wrong, comps, reads) + 1
            row, wrong = program[at, P_ROW], 0
    return found


def estimate(program: Ints, p: Records) -> Ints:
    """About how many cycles each instruction takes: rows to open under tFAW two bank groups at a
    time, dot products, reads (NeuPIMs section 5.3). It only orders kinds of pieces; how long they
    take, the command engine says.

    Parameters
    ----------
    program
        (instructions, ``N_INSTRUCTION``).
    p
        A record of ``PARAMETERS``.

    Returns
    -------
    Ints
        (instructions,).
    """
    groups = int(p["banks"]) >> int(p["group_shift"])
    fixed = np.zeros(max(_GWRITE, _HEADER, _COMP, _READRES, _GEMV) + 1, dtype=np.int64)
    fixed[_GWRITE] = p["gwrite"] + p["trp"] + p["trcd"]
    fixed[_HEADER] = p["trp"] + p["trcd"] + int(p["tfaw"]) * max(groups // 2 - 1, 0)
    fixed[_READRES] = p["tccd_l"]
    fixed[_GEMV] = p["tccd_l"]
    op = program[:, P_OP]
    steps = np.where((op == _COMP) | (op == _GEMV), program[:, P_COMPS], 0)
    about: Ints = fixed[op] + steps * int(p["tccd_s"])
    return about
