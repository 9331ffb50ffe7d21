"""Who asks a service for what, and when: requests as columns.

A service of a hundred thousand requests is read, checked and scaled as whole arrays; all times are
picoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Traffic"]

Ints = NDArray[np.int64]

_NOBODY = -1


def _none() -> NDArray[np.int32]:
    return np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class Traffic:
    """The requests of a service, in the order in which they are listed."""

    arrival_ps: Ints
    """When each comes, shape (requests,); of one that follows another one it is not known yet."""
    prompt: Ints
    """Tokens of the prompt, at least 1."""
    output: Ints
    """Tokens to make, the first one included, at least 1."""
    id: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Numbers by which they are called; by default from 0."""
    priority: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """The smaller, the sooner; by default 0."""
    follows: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Row of the request whose end each waits for, or -1: it comes at its time."""
    pause_ps: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Time between that end and its arrival."""
    prefix: NDArray[np.int32] = field(default_factory=_none)
    """What blocks at the start of prompts hold, by number, one request behind the other: equal
    numbers are equal content behind equal content."""
    prefix_first: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Where each request's begin."""
    prefix_blocks: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """How many it has, full ones of its prompt."""
    places: tuple[str, ...] | str = "requests"
    """Where a request stands, for messages: of each, or of all."""

    def __post_init__(self) -> None:
        count = len(self.prompt)
        defaults = {
            "id": np.arange(count, dtype=np.int64), "priority": np.zeros(count, dtype=np.int64),
            "follows": np.full(count, _NOBODY, dtype=np.int64),
            "pause_ps": np.zeros(count, dtype=np.int64),
            "prefix_first": np.zeros(count, dtype=np.int64),
            "prefix_blocks": np.zeros(count, dtype=np.int64),
        }  # fmt: skip
        for name, values in defaults.items():
            if not len(getattr(self, name)):
                object.__setattr__(self, name, values)

    def __len__(self) -> int:
        return len(self.prompt)

    @property
    def prefix_contents(self) -> int:
        """Numbers that ``prefix`` uses: 0 to one less."""
        return int(self.prefix.max()) + 1 if len(self.prefix) else 0

    def where(self, row: int) -> str:
        """How a message calls the request of a row."""
        if isinstance(self.places, str):
            return f"{self.places}: request {self.id[row]}"
        return self.places[row]

    def scaled(self, rate: float) -> Traffic:
        """The same requests at ``rate`` times the rate, pauses unchanged."""
        if rate == 1:
            return self
        return replace(self, arrival_ps=np.rint(self.arrival_ps / rate).astype(np.int64))
