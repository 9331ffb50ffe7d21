"""PIM programs: instructions, of which those that repeat stand once, in a loop.

A program is an array (instructions, ``N_INSTRUCTION``). Neighbours in it may be a loop: they run
``P_ROUNDS`` times one after the other, and from one round to the next their rows grow by
``P_ROW_STEP`` each and the cycles at which they are offered by ``P_READY_STEP``. Rows that are used
in turn stay within ``P_RING_ROWS`` from ``P_RING`` on. What they do and the mark that they count
for is the same in every round. ``P_LOOP`` of the last instruction of a loop says how many it has;
loops do not contain one another.

Attention over a context is the same few tiles as often as the context is long: so written, its
program is as long for any context.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit
from pimsim.hardware.dram.layout import (
    P_LOOP,
    P_READY,
    P_READY_STEP,
    P_RING,
    P_RING_ROWS,
    P_ROUNDS,
    P_ROW,
    P_ROW_STEP,
)

__all__ = [
    "instruction_after", "instructions", "issue_order", "loop", "loop_starts", "ready_in_round",
    "row_in_round", "written_out", "written_out_from",
]  # fmt: skip

Ints = NDArray[np.int64]


@njit(cache=True, inline="always")
def instruction_after(board: Any, at: int, number: int) -> tuple[int, int]:
    """Place and round of the instruction that follows another one.

    Parameters
    ----------
    board
        A record of ``BOARD``.
    at
        Place in ``BOARD.program``.
    number
        Round of its loop, from 0.

    Returns
    -------
    (int, int)
        Place, and round of the loop that is there, 0 where it stands in none.
    """
    size = board.program[at, P_LOOP]
    if size == 0:
        return at + 1, number
    if number + 1 < board.program[at, P_ROUNDS]:
        return at + 1 - size, number + 1
    return at + 1, 0


@njit(cache=True, inline="always")
def row_in_round(board: Any, at: int, number: int) -> int:
    """Row of an instruction in a round of its loop.

    Parameters
    ----------
    board
        A record of ``BOARD``.
    at
        Place in ``BOARD.program``.
    number
        Round of its loop, from 0.

    Returns
    -------
    int
        Within ``P_RING_ROWS`` from ``P_RING`` on where rows are used in turn.
    """
    row = board.program[at, P_ROW] + number * board.program[at, P_ROW_STEP]
    ring = board.program[at, P_RING_ROWS]
    if ring > 0:
        first = board.program[at, P_RING]
        row = first + (row - first) % ring
    return int(row)


@njit(cache=True, inline="always")
def ready_in_round(board: Any, at: int, number: int) -> int:
    """Cycle at which an instruction is offered.

    Parameters
    ----------
    board
        A record of ``BOARD``.
    at
        Place in ``BOARD.program``.
    number
        Round of its loop, from 0.

    Returns
    -------
    int
        Of tCK, as ``P_READY`` counts.
    """
    return int(board.program[at, P_READY] + number * board.program[at, P_READY_STEP])


def loop(body: Ints, rounds: int, row_step: int | Ints) -> Ints:
    """``body``, which has no loop, again and again.

    Parameters
    ----------
    body
        Instructions, (instructions, ``N_INSTRUCTION``).
    rounds
        How often they run, in all; 0: never.
    row_step
        Rows from one round to the next, of all instructions, or of each, (instructions,).

    Returns
    -------
    Ints
        (instructions, ``N_INSTRUCTION``), without any where ``rounds`` is 0.
    """
    if rounds < 2:
        return body[: len(body) * rounds]
    found = body.copy()
    found[:, P_ROUNDS] = rounds
    found[:, P_ROW_STEP] = row_step
    found[-1, P_LOOP] = len(body)
    return found


def instructions(program: Ints) -> int:
    """How many are issued.

    Parameters
    ----------
    program
        (instructions, ``N_INSTRUCTION``).

    Returns
    -------
    int
        Of a loop those of every round.
    """
    return int(program[:, P_ROUNDS].sum())


def loop_starts(program: Ints) -> NDArray[np.bool_]:
    """For each instruction whether it is the first of a loop, or stands in none.

    Parameters
    ----------
    program
        (instructions, ``N_INSTRUCTION``).

    Returns
    -------
    ndarray of bool
        (instructions,).
    """
    starts: NDArray[np.bool_] = program[:, P_ROUNDS] == 1
    ends = np.flatnonzero(program[:, P_LOOP])
    starts[ends + 1 - program[ends, P_LOOP]] = True
    return starts


def issue_order(program: Ints) -> Ints:
    """Place in ``program`` of each instruction that is issued, in order.

    Parameters
    ----------
    program
        (instructions, ``N_INSTRUCTION``).

    Returns
    -------
    Ints
        (instructions issued,).
    """
    return _rounds(program, program[:, P_ROUNDS])[0]


def written_out(program: Ints, most_rounds: int | None = None) -> Ints:
    """The same instructions without loops, in the order in which they are issued.

    Parameters
    ----------
    program
        (instructions, ``N_INSTRUCTION``).
    most_rounds
        Loops of more rounds stay, their first and last round apart: what is special about the
        ends of a loop is seen there, what lies between is all alike.

    Returns
    -------
    Ints
        (instructions, ``N_INSTRUCTION``).
    """
    return written_out_from(program, most_rounds)[0]


def written_out_from(program: Ints, most_rounds: int | None = None) -> tuple[Ints, Ints]:
    """``written_out``, and where each instruction of it is from.

    Parameters
    ----------
    program
        (instructions, ``N_INSTRUCTION``).
    most_rounds
        As of ``written_out``.

    Returns
    -------
    (Ints, Ints)
        (instructions written out, ``N_INSTRUCTION``), and the place in ``program`` of each,
        (instructions written out,).
    """
    if not program[:, P_LOOP].any():
        return program, np.arange(len(program))
    most = int(program[:, P_ROUNDS].max()) if most_rounds is None else most_rounds
    is_long = program[:, P_ROUNDS] > most
    order, number = _rounds(program, np.where(is_long, 3, program[:, P_ROUNDS]))
    found = np.take(program, order, axis=0)
    _unroll(found, number, most)
    return found, order


@njit(cache=True)
def _unroll(found: Any, number: Any, most: Any) -> None:
    """Make the copies of loops' instructions what each round has. ``number``: the round that each
    is of; of a loop of more than ``most`` it is the first, all that lies between, or the last."""
    for at in range(len(found)):
        rounds, step = found[at, P_ROUNDS], number[at]
        is_long = rounds > most
        between = is_long and step == 1 and rounds > 3
        if is_long and step == 2:
            step = rounds - 1
        found[at, P_ROW] += step * found[at, P_ROW_STEP]
        found[at, P_READY] += step * found[at, P_READY_STEP]
        if found[at, P_RING_ROWS]:
            first = found[at, P_RING]
            found[at, P_ROW] = first + (found[at, P_ROW] - first) % found[at, P_RING_ROWS]
        found[at, P_ROUNDS] = rounds - 2 if between else 1
        if not between:
            found[at, P_LOOP : P_READY_STEP + 1] = 0  # what it says of its loop: the last columns


def _rounds(program: Ints, rounds: Ints) -> tuple[Ints, Ints]:
    """Place in ``program`` and number of the round of each instruction, in order, where loops run
    ``rounds`` times, (instructions,)."""
    starts = np.append(np.flatnonzero(loop_starts(program)), len(program))
    rounds = rounds[starts[:-1]]
    total = int((np.diff(starts) * rounds).sum())
    order, number = np.empty(total, np.int64), np.empty(total, np.int64)
    _count_off(starts, rounds, order, number)
    return order, number


@njit(cache=True)
def _count_off(starts: Any, rounds: Any, order: Any, number: Any) -> None:
    """Write ``order`` and ``number`` of ``_rounds``: each stretch between ``starts`` so many
    ``rounds`` times."""
    at = 0
    for loop in range(len(rounds)):
        for once in range(rounds[loop]):
            for place in range(starts[loop], starts[loop + 1]):
                order[at], number[at] = place, once
                at += 1
