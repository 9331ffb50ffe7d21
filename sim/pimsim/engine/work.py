"""Work of the NPU side over time: amounts by interval, spread over the spans that they take.

Intervals are as long as so many cycles of the memory; when there are too many, neighbours become
one. Amounts are whole numbers, and those of a span add up to it exactly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.dram.samples import FIRST_INTERVAL, MOST
from pimsim.hardware.ticks import Ticks

__all__ = ["KINDS", "Span", "WorkOverTime"]

KINDS = (
    "macs", "vector_lane_ops", "sram_bytes", "link_bytes", "stream_bytes", "stream_macs",
    "stream_fj", "pim_link_bytes",
)  # fmt: skip
"""What is spread: multiply-accumulates of the arrays, operations of vector lanes, bytes of
scratchpads, bytes over links; of a PIM design with a controller of its own the bytes that its units
read in the banks, their multiply-accumulates, and the energy of its commands in femtojoule; bytes
over the link to PIM's own memory."""
Ints = NDArray[np.int64]
Span = tuple[int, int, int]
"""Start and end in picoseconds, and its weight among others."""


class WorkOverTime:
    """Sums by interval.

    Parameters
    ----------
    clock : Ticks
        Whose cycles the intervals count; None: of 1 ns.
    interval : int
        Cycles of an interval, at first.
    most : int
        Intervals at most; even.
    """

    def __init__(
        self, clock: Ticks | None = None, interval: int = FIRST_INTERVAL, most: int = MOST
    ) -> None:
        self.clock = Ticks.of_period(1000) if clock is None else clock
        self.interval = interval
        self.most = most
        self._stopped = False
        self._edges = [0]
        self._sums: dict[str, list[int]] = {kind: [] for kind in KINDS}

    def sums(self, kind: str) -> list[int]:
        """Amount of each interval so far."""
        return self._sums[kind]

    def stop(self) -> None:
        """Take no more: nobody looks at it."""
        self._stopped = True

    def spread(self, spans: Sequence[Span], amounts: Iterable[tuple[str, int]]) -> None:
        """Deal ``amounts`` to ``spans`` by weight, and spread what each has evenly over it.

        Without any weight all of it goes over the whole time from the first span's start to the
        last one's end.
        """
        if self._stopped:
            return
        whole = sum(weight for _, _, weight in spans)
        if not whole:
            spans = [(spans[0][0], max(end for _, end, _ in spans), 1)]
            whole = 1
        for kind, amount in amounts:
            if amount:
                before = seen = 0
                for start, end, weight in spans:
                    seen += weight
                    upto = amount * seen // whole
                    self._add(kind, start, end, upto - before)
                    before = upto

    def spread_beside(
        self, starts_ps: Ints, ends_ps: Ints, amounts: Iterable[tuple[str, int]]
    ) -> None:
        """Deal ``amounts`` to many spans, which may lie beside each other, by how long each is.

        Parameters
        ----------
        starts_ps, ends_ps
            Of each span, in picoseconds; both of one shape, with a span at least.
        amounts
            Kinds, and how much there is of each.
        """
        whole = int((ends_ps - starts_ps).sum())
        if self._stopped or not whole:
            self.spread([(int(starts_ps.min()), int(ends_ps.max()), 0)], amounts)
            return
        self._reach(int(ends_ps.max()))
        edges = np.array(self._edges, np.int64)
        # of all spans together, what lies before each edge
        passed = (_since(starts_ps, edges) - _since(ends_ps, edges)).tolist()
        for kind, amount in amounts:
            upto = [amount * each // whole for each in passed]
            sums = self._sums[kind]
            for at in range(len(sums)):
                sums[at] += upto[at + 1] - upto[at]

    def _add(self, kind: str, start: int, end: int, amount: int) -> None:
        if not amount:
            return
        self._reach(end)
        edges, sums = self._edges, self._sums[kind]
        at = bisect_right(edges, start) - 1
        done = 0
        while edges[at + 1] < end:
            upto = amount * (edges[at + 1] - start) // (end - start)
            sums[at] += upto - done
            done = upto
            at += 1
        sums[at] += amount - done

    def _reach(self, end: int) -> None:
        """Have intervals up to ``end`` and beyond."""
        while self._edges[-1] <= end:
            if len(self._edges) > self.most:
                self.interval *= 2
                self._edges = self._edges[::2]
                for kind, sums in self._sums.items():
                    self._sums[kind] = [a + b for a, b in zip(sums[::2], sums[1::2], strict=True)]
            self._edges.append(self.clock.edge_ps(len(self._edges) * self.interval))
            for sums in self._sums.values():
                sums.append(0)


def _since(times: Ints, edges: Ints) -> Ints:
    """Of each of ``edges`` the sum of how long each of ``times`` is past, shape (edges,)."""
    ordered = np.sort(times)
    sums = np.concatenate((np.zeros(1, np.int64), np.cumsum(ordered)))
    count = np.searchsorted(ordered, edges)
    found: Ints = count * edges - sums[count]
    return found
