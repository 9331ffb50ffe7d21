"""Step times of a machine, most of them interpolated between steps that are simulated.

Between two arrivals or ends only contexts grow, and a step's time is piecewise smooth in few
numbers. Anchors (``anchors.py``) are simulated when a step first lies beside them, and remembered;
which they are depends on the steps alone, so that the same service has the same times wherever and
however often it runs. A random sample of the interpolated steps, drawn in proportion to their time,
is simulated to know the error.
"""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.hardware.compiled import njit
from pimsim.intervals import student_t
from pimsim.serving.records import ENTRY, REQUEST
from pimsim.serving.schedulers import Batch
from pimsim.serving.step_times import ON_CHANNELS, MachineSteps
from pimsim.serving.step_times.anchors import Anchor, Grid
from pimsim.serving.step_times.between import (
    BEHIND,
    DECODE,
    F_FULLEST,
    N_FOUND,
    PROMPT,
    measure,
    step_between,
)
from pimsim.serving.step_times.simulated import Simulated, step_of
from pimsim.workload.step import Step

__all__ = ["MOST_FINENESS", "Errors", "Interpolated"]

MOST_FINENESS = 4
"""How often the rungs between anchors are halved at most."""

_UNKNOWN = -1.0
_PS_PER_S = 10**12
_MOST_WANTED = 256
"""Anchors that a step asks for at a time."""


@dataclass(frozen=True)
class Errors:
    """Of interpolated step times, relative, from a random sample."""

    sampled: int
    mean: float
    """With its sign: above 0, interpolated ones are too long."""
    half_width: float
    """Of the mean's 95 % interval."""
    absolute: float
    """Mean without the signs."""
    worst: float
    """Of the sample, without its sign."""

    @property
    def bound(self) -> float:
        """What the mean error without its sign is not above, with 95 %: the far end of the
        interval, or the mean size of the errors where that is more."""
        return max(abs(self.mean) + self.half_width, self.absolute)

    @classmethod
    def of(cls, found: NDArray[np.float64]) -> Errors:
        """From the errors of the sample."""
        count = len(found)
        if not count:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        half = math.inf
        if count > 1:
            half = student_t(count - 1) * float(found.std(ddof=1)) / math.sqrt(count)
        size = np.abs(found)
        return cls(count, float(found.mean()), half, float(size.mean()), float(size.max()))


@njit(cache=True)
def _uniform(seed: Any, number: Any) -> float:
    """A number of (0, 1) for each of a seed's numbers (splitmix64)."""
    state = np.uint64(seed) + np.uint64(number) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return (float(state >> np.uint64(11)) + 0.5) * 2.0**-53


@njit(cache=True)
def _step(
    entries: Any, count: int, asked: Any, channel: Any, given: Any, tables: Any, scratch: Any,
    sums: Any, out: Any,
) -> float:  # fmt: skip
    """Time of a step, ps, added up with its energy in ``sums``; below 0: anchors are missing.

    ``sums``: time, energy by part, number of steps, seed, the sample's largest key.
    """
    work, pim_tokens, dealing, idle_w = given
    load, seen, found, pieces, own, wanted = scratch
    number, ends = measure(
        entries, count, asked, channel, work, pim_tokens, dealing, load, seen, found, pieces
    )
    decode, requests, places, means, some = tables[:5]
    prompt, tokens_axis, splits, behind, pasts, head = tables[5:]
    step_between(
        found, pieces, number, ends, decode, requests, places, means, some, prompt, tokens_axis,
        splits, behind, pasts, head, pim_tokens > 0, idle_w, own, out, wanted,
    )  # fmt: skip
    if wanted[0, 0] > 0:
        return -1.0
    parts = len(idle_w)
    time_ps = max(np.rint(out[0]), 1.0)
    idle_s = time_ps / 1e12
    beyond = 0.0
    for each in range(parts):
        # nothing that works takes less than when it does not
        joule = max(out[1 + each], idle_w[each] * idle_s)
        beyond += joule - idle_w[each] * idle_s
        sums[1 + each] += joule
    sums[0] += time_ps
    sums[1 + parts] += 1.0
    out[1] = beyond
    # weighted sampling: the smallest of exponential keys (Efraimidis and Spirakis 2006)
    out[2] = -np.log(_uniform(int(sums[2 + parts]), int(sums[1 + parts]))) / time_ps
    return float(time_ps)


class Interpolated(Simulated):
    """Most steps are interpolated.

    Parameters
    ----------
    machine
        That is asked.
    samples
        Steps that are simulated to know the error.
    seed
        Of the sample.
    fineness
        How often the rungs between anchors are halved.
    known
        Anchors by their key, ``[time, joule by part ...]``, and steps of samples, ``[time]``: those
        that were simulated before; new ones are added.
    """

    def __init__(
        self, machine: MachineSteps, samples: int, seed: int, fineness: int = 0,
        known: MutableMapping[str, list[float]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(machine)
        self.known: MutableMapping[str, list[float]] = {} if known is None else known
        self.fineness = fineness
        self.simulated = 0
        """Anchors, but for those that were known before."""
        self._samples = samples
        self._grid = grid = Grid.of(machine.max_context, fineness)
        width = 1 + len(machine.parts)
        self._out = np.zeros(max(width, 3))
        self._sums = np.zeros(width + 2)
        self._sums[-1] = seed % 2**32
        channels, parts = machine.channels, machine.sub_batches
        self._scratch = (
            np.zeros((parts, channels), dtype=np.int64), np.zeros((2, channels), dtype=np.int64),
            np.zeros((parts, N_FOUND)), np.zeros((0, 3), dtype=np.int64), np.zeros((4, width)),
            np.zeros((_MOST_WANTED, 4), dtype=np.int64),
        )  # fmt: skip
        self._given = (machine.work, machine.pim_tokens, tuple(machine.dealing), self._idle_w)

        def unknown(*shape: int) -> NDArray[np.float64]:
            return np.full((*shape, width), _UNKNOWN)

        rungs = len(grid.requests), len(grid.contexts)
        places, means = self._places()
        self._tables = (
            unknown(*rungs), grid.requests, places, means, grid.some,
            unknown(2, len(grid.tokens), len(grid.splits)), grid.tokens, grid.splits,
            unknown(*grid.pasts.shape), grid.pasts, unknown(1, 2),
        )  # fmt: skip
        self._sample: list[tuple[float, int, Batch, NDArray[np.int32]]] = []
        """Key, interpolated time, a copy of the entries and their requests, and the channels."""
        self._limit = math.inf
        """Largest key of the sample, when that is full."""
        self._errors: Errors | None = None

    def _places(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What the fullest channels of each anchor of requests that decode have to do, over all
        sub-batches, and the mean context."""
        grid, channels, parts = self._grid, self.machine.channels, self.machine.sub_batches
        shape = len(grid.requests), len(grid.contexts)
        places, means = np.zeros(shape), np.zeros(shape)
        if self.machine.dealing.places:
            means[:] = grid.contexts
            return self._fullest_places(), means
        for row, requests in enumerate(grid.requests.tolist()):
            # of many, the last channels are the fullest, and a round more has one more on each
            round_of = channels * parts
            rounds = max(requests // round_of - channels, 0)
            count = requests - rounds * round_of
            for at, context in enumerate(grid.contexts.tolist()):
                contexts = Anchor(count, context).graded(channels, parts)
                more = rounds * parts * int(self.machine.work[context])
                places[row, at] = self._fullest(contexts) + more
                means[row, at] = contexts.mean()
        return places, np.maximum.accumulate(means, axis=1)

    def _fullest_places(self) -> NDArray[np.float64]:
        """The same where heads are dealt out: those of an anchor are alike."""
        grid, parts, dealing = self._grid, self.machine.sub_batches, self.machine.dealing
        heads = np.array(
            [[(n + at) // parts * dealing.heads for at in range(parts)] for n in grid.requests]
        )
        most = (-(-heads // dealing.places)).sum(axis=1)
        found: NDArray[np.float64] = most[:, None] * self.machine.work[grid.contexts].astype(float)
        return found

    def _fullest(self, contexts: NDArray[np.int64]) -> float:
        """Work of the fullest channels, over all sub-batches, of requests that are dealt out in
        turn."""
        load, seen, found, *_ = self._scratch
        entries = np.zeros(len(contexts), dtype=ENTRY)
        entries["request"] = np.arange(len(contexts))
        entries["new"], entries["context"] = 1, contexts
        channel = (np.arange(len(contexts)) % self.machine.channels).astype(np.int32)
        nobody = np.zeros(0, dtype=REQUEST)
        measure(
            entries, len(contexts), nobody, channel, self.machine.work, 1, tuple(ON_CHANNELS),
            load, seen, found, np.zeros((0, 3), dtype=np.int64),
        )  # fmt: skip
        return float(found[:, F_FULLEST].sum())

    def duration_ps(self, batch: Batch) -> int:
        """Interpolated; anchors that it lacks are simulated first."""
        asked, count = batch.asked, batch.requests
        self.channels.place(batch.entries, count, len(asked))
        if len(self._scratch[3]) < count:
            most = np.zeros((len(batch.entries), 3), dtype=np.int64)
            self._scratch = (*self._scratch[:3], most, *self._scratch[4:])
        while True:
            found = _step(
                batch.entries, count, asked, self.channels.of, self._given, self._tables,
                self._scratch, self._sums, self._out,
            )  # fmt: skip
            if found > 0:
                break
            self._learn()
        time_ps = int(found)
        batch.dynamic_j = float(self._out[1])
        if self._out[2] < self._limit:
            self._take(batch, float(self._out[2]), time_ps)
        return time_ps

    @property
    def joule(self) -> NDArray[np.float64]:
        """As they were interpolated."""
        return self._sums[1:-2]

    @property
    def worked_ps(self) -> int:
        """Of all steps so far, one after the other."""
        return int(self._sums[0])

    @property
    def steps(self) -> int:
        """So far."""
        return int(self._sums[-2])

    def _learn(self) -> None:
        """Fill the places of the tables that the last step asked for."""
        wanted = self._scratch[-1]
        grid, tables = self._grid, self._tables
        for table, a, b, c in wanted[1 : int(wanted[0, 0]) + 1].tolist():
            if table == DECODE:
                tables[0][b, c] = self._value(grid.decode(b, c))
            elif table == PROMPT:
                parts = self.machine.sub_batches if a else 1
                tables[5][a, b, c] = self._value(grid.prompt(b, c, parts))
            elif table == BEHIND:
                tables[8][b, c] = self._value(grid.behind(b, c))
            else:
                tables[10][b, c] = self._value(grid.head(logits=c == 0))

    def _value(self, anchor: Anchor) -> list[float]:
        key = anchor.key
        if key not in self.known:
            cost = self.machine.cost(anchor.step(self.machine.channels, self.machine.sub_batches))
            self.known[key] = [float(cost.time_ps), *cost.joule.tolist()]
            self.simulated += 1
        return self.known[key]

    def _take(self, batch: Batch, key: float, time_ps: int) -> None:
        """Have the step in the sample, and the one with the largest key no longer."""
        rows = batch.entries["request"][: batch.requests]
        copy = Batch(batch.requests, batch.asked[rows])
        copy.entries[:] = batch.entries[: batch.requests]
        copy.entries["request"] = np.arange(batch.requests)
        self._sample.append((key, time_ps, copy, self.channels.of[rows]))
        self._sample.sort(key=lambda one: one[0])
        del self._sample[self._samples :]
        if len(self._sample) == self._samples:
            self._limit = self._sample[-1][0]
        self._errors = None

    @property
    def sample(self) -> list[tuple[int, Step]]:
        """Interpolated times of the steps that were drawn, and these."""
        return [
            (time_ps, step_of(copy.entries, copy.asked, channel))
            for _, time_ps, copy, channel in self._sample
        ]

    @property
    def errors(self) -> Errors:
        """Of the steps so far; the sample is simulated when somebody asks."""
        if self._errors is None:
            found = [time_ps / self._true_ps(step) - 1 for time_ps, step in self.sample]
            self._errors = Errors.of(np.array(found))
        return self._errors

    def _true_ps(self, step: Step) -> float:
        """Time of a step of the sample, which an earlier service may have had in its own."""
        asked = [
            (
                each.request.prompt_tokens, each.request.output_tokens, each.request.channel,
                each.new_tokens, each.context, each.logits, each.made,
            )
            for each in step.entries
        ]  # fmt: skip
        key = f"={blake2b(repr(asked).encode(), digest_size=16).hexdigest()}"
        if key not in self.known:
            self.known[key] = [float(self.machine.cost(step).time_ps)]
        return self.known[key][0]

    def describe(self) -> dict[str, Any]:
        """What to say of the times."""
        errors = self.errors
        bounded = math.isfinite(errors.half_width)
        low, high = errors.mean - errors.half_width, errors.mean + errors.half_width
        return {
            "step_time": "interpolated", "simulated": self.simulated, "steps": self.steps,
            "fineness": self.fineness, "sampled": errors.sampled, "error_mean": errors.mean,
            "error_interval": [low, high] if bounded else None,
            "error_absolute": errors.absolute, "error_worst": errors.worst,
        }  # fmt: skip
