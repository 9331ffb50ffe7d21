"""PIM operations of a run that were met before, by what they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.fast.operations import Operation
from pimsim.hardware.dram.transfers import ResultWork

__all__ = ["KnownOperations"]

Ints = NDArray[np.int64]


@dataclass
class KnownOperations:
    """Operations by their programs and by what is written behind each result.

    Blocks of one kind ask for the same arrays, which are then compared in no time; others of equal
    lengths differ on their first channels.
    """

    _by_length: dict[tuple[int, ...], list[tuple[ResultWork | None, Operation]]] = field(
        default_factory=dict
    )
    _all: list[Operation] = field(default_factory=list)

    def __iter__(self) -> Iterator[Operation]:
        """In the order in which they were first asked for."""
        return iter(self._all)

    def get(
        self, programs: Sequence[Ints], marks: int, after: ResultWork | None,
        find: Callable[[], Operation],
    ) -> Operation:  # fmt: skip
        """The operation of these ``programs``, ``marks`` results and their outputs, or, where it
        is new, what ``find`` says."""
        for written, known in self._by_length.get(_length(programs, marks), ()):
            if _equal_outputs(written, after) and _equal(known.programs, programs):
                return known
        operation = find()
        self.add(operation, marks, after)
        return operation

    def add(self, operation: Operation, marks: int, after: ResultWork | None) -> None:
        """Take note of an operation of ``marks`` results, with what is written behind them; of
        equal ones the first is known."""
        alike = self._by_length.setdefault(_length(operation.programs, marks), [])
        alike.append((after, operation))
        self._all.append(operation)


def _length(programs: Sequence[Ints], marks: int) -> tuple[int, ...]:
    return (marks, *map(len, programs))


def _equal(one: Sequence[Ints], other: Sequence[Ints]) -> bool:
    """Whether the programs of all channels do the same; of the same arrays it is clear."""
    return all(a is b or np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _equal_outputs(one: ResultWork | None, other: ResultWork | None) -> bool:
    """Whether as much is written behind each result, in the same places. How long the vector
    units take for it, an operation does not say."""
    if one is None or other is None:
        return one is other
    return one.spread == other.spread and all(
        a is b or np.array_equal(a, b)
        for a, b in ((one.bursts, other.bursts), (one.channel, other.channel))
    )
