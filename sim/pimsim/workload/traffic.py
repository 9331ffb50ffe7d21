"""Who asks a service for what, and when: requests as columns.

A service of a hundred thousand requests is read, checked and scaled as whole arrays; all times are
picoseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError

__all__ = ["LATEST_PS", "NOBODY", "PrefixBlocks", "Traffic", "whole_ps"]

Ints = NDArray[np.int64]

NOBODY = -1
"""In place of a request's row."""
LATEST_PS = 2**62
"""Of all times of a service, 53 days; what is computed from them fits 64 bits."""
_LATEST_S = LATEST_PS // 10**12


def whole_ps(times: NDArray[np.float64] | Ints, unit_ps: int) -> Ints:
    """Times in units of so many picoseconds, rounded to whole picoseconds.

    Those below 0 or beyond ``LATEST_PS``, which ``Traffic.check_times`` refuses, are as far out as
    they can be told to be.

    Parameters
    ----------
    times
        Of any shape.
    unit_ps
        Picoseconds.

    Returns
    -------
    Ints
        Picoseconds, of the shape of ``times``.
    """
    exact = times.dtype.kind == "i"
    most = LATEST_PS // unit_ps + 1
    inside = np.clip(times, -1 if exact else -most, most)
    scaled: Ints = (inside * unit_ps if exact else np.rint(inside * unit_ps)).astype(np.int64)
    return scaled


def _empty() -> Ints:
    return np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class PrefixBlocks:
    """What the blocks at the start of prompts hold, by number: equal numbers are equal content
    behind equal content."""

    tokens: int
    """Of a block."""
    numbers: NDArray[np.int32]
    """From 0, those of one request behind those of another."""
    first: Ints
    """Where each request's begin, shape (requests,)."""
    count: Ints
    """How many each has; its last one may be filled in part."""

    @property
    def contents(self) -> int:
        """Numbers in use: 0 to one less."""
        return int(self.numbers.max()) + 1 if len(self.numbers) else 0

    def split(self, tokens: int, prompt: Ints) -> PrefixBlocks:
        """The same in blocks of fewer tokens, full ones alone.

        Parameters
        ----------
        tokens
            Of a block; a divisor of ``self.tokens``.
        prompt
            Tokens of each prompt.

        Raises
        ------
        InputError
            Where whole blocks do not make up one of these.
        """
        if self.tokens % tokens:
            raise InputError(
                f"cache.block_tokens is {tokens}; blocks of prompts have {self.tokens} tokens in "
                "the request trace, which is no multiple of it"
            )
        parts = self.tokens // tokens
        wide = self.numbers.astype(np.int64)[:, np.newaxis] * parts + np.arange(parts)
        return PrefixBlocks(
            tokens, wide.reshape(-1).astype(np.int32), self.first * parts,
            np.minimum(self.count * parts, prompt // tokens),
        )  # fmt: skip


@dataclass(frozen=True)
class Traffic:
    """The requests of a service, in the order in which they are listed."""

    arrival_ps: Ints
    """When each comes, shape (requests,); of one that follows another one it is not known yet."""
    prompt: Ints
    """Tokens of the prompt, at least 1."""
    output: Ints
    """Tokens to make, the first one included, at least 1."""
    id: Ints = field(default_factory=_empty)
    """Numbers by which they are called; by default from 0."""
    priority: Ints = field(default_factory=_empty)
    """The smaller, the sooner; by default 0."""
    follows: Ints = field(default_factory=_empty)
    """Row of the request whose end each waits for, or ``NOBODY``: it comes at its time."""
    pause_ps: Ints = field(default_factory=_empty)
    """Time between that end and its arrival."""
    prefixes: PrefixBlocks | None = None
    """Beginnings of prompts that may be shared; None: nothing is known of them."""
    place: Callable[[int], str] | None = None
    """Where the request of a row stands, for messages."""

    def __post_init__(self) -> None:
        count = len(self.prompt)
        defaults = {
            "id": np.arange(count), "priority": np.zeros(count, dtype=np.int64),
            "follows": np.full(count, NOBODY), "pause_ps": np.zeros(count, dtype=np.int64),
        }  # fmt: skip
        for name, values in defaults.items():
            if not len(getattr(self, name)):
                object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.prompt)

    def where(self, row: int) -> str:
        """How a message calls the request of a row."""
        said = f"request {self.id[row]}"
        return said if self.place is None else f"{self.place(row)}: {said}"

    def scaled(self, rate: float) -> Traffic:
        """The same requests at ``rate`` times the rate; pauses stay."""
        if rate == 1:
            return self
        slowest = float(self.arrival_ps.max(initial=0)) / LATEST_PS
        if rate < slowest:
            raise InputError(
                f"requests.rate_scale is {rate:g}: the last request would come after {_LATEST_S:,} "
                f"s, the latest that is possible; at least {slowest:.3g} is needed"
            )
        return replace(self, arrival_ps=np.rint(self.arrival_ps / rate).astype(np.int64))

    def check_times(self) -> Traffic:
        """Itself. Raises ``InputError`` for an arrival that is not between 0 and ``LATEST_PS``."""
        wrong = np.flatnonzero((self.arrival_ps < 0) | (self.arrival_ps > LATEST_PS))
        if len(wrong):
            row = int(wrong[0])
            side = "before 0 s" if self.arrival_ps[row] < 0 else f"after {_LATEST_S:,} s"
            raise InputError(
                f"{self.where(row)} arrives {side}; arrivals are between 0 and {_LATEST_S:,} s"
            )
        return self

    def _check_numbers(self) -> None:
        order = np.argsort(self.id, kind="stable")
        again = np.flatnonzero(np.diff(self.id[order]) == 0)
        if len(again):
            row = int(order[again + 1].min())
            before = int(np.flatnonzero(self.id == self.id[row])[0])
            place = "" if self.place is None else f" ({self.place(before)})"
            raise InputError(
                f"{self.where(row)} has the number of an earlier one{place}; each needs its own"
            )

    def first(self, count: int) -> Traffic:
        """Those at the front of the list."""
        prefixes = self.prefixes
        if prefixes is not None:
            prefixes = replace(prefixes, first=prefixes.first[:count], count=prefixes.count[:count])
        columns = ("arrival_ps", "prompt", "output", "id", "priority", "follows", "pause_ps")
        return replace(
            self, prefixes=prefixes, **{name: getattr(self, name)[:count] for name in columns}
        )

    def check(self) -> Traffic:
        """Itself. Raises ``InputError``, with the request, for arrivals that are out of order, a
        prompt or an output of no tokens, and a number that two requests have."""
        for name in ("prompt", "output"):
            empty = np.flatnonzero(getattr(self, name) < 1)
            if len(empty):
                hint = "; requests.skip_empty leaves such requests out" if name == "output" else ""
                raise InputError(
                    f"{self.where(int(empty[0]))}: {name} is 0 tokens, at least 1 is expected{hint}"
                )
        timed = np.flatnonzero(self.follows == NOBODY)
        back = np.flatnonzero(np.diff(self.arrival_ps[timed]) < 0)
        if len(back):
            row, before = int(timed[back[0] + 1]), int(timed[back[0]])
            raise InputError(
                f"{self.where(row)} arrives at {self.arrival_ps[row] / 1e12:.6f} s, before the one "
                f"that stands before it ({self.arrival_ps[before] / 1e12:.6f} s); arrivals must be "
                "in order"
            )
        self._check_numbers()
        return self
