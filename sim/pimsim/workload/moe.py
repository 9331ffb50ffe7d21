"""Where tokens go in a mixture of experts, and what that makes of a block's sizes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pimsim.workload.draws import RandomStream

__all__ = ["DROPPED", "ExpertLoad", "Routing", "UniformRouting"]

DROPPED = -1
"""In place of an expert: its capacity was used up."""


class Routing(Protocol):
    """A source of the experts that tokens go to."""

    def assignments(self, layer: int, tokens: int) -> NDArray[np.int64]:
        """Experts of each token in block ``layer`` (counted from 0), shape (tokens,
        experts_per_token); ``DROPPED`` where there was no room. The same arguments give the same
        answer."""


@dataclass(frozen=True)
class UniformRouting:
    """Every set of experts is as likely as any other, tokens are independent."""

    experts: int
    experts_per_token: int
    seed: int = 0

    def assignments(self, layer: int, tokens: int) -> NDArray[np.int64]:
        """See ``Routing``."""
        random = RandomStream(self.seed, layer)
        return random.subsets(tokens, self.experts, self.experts_per_token)


@dataclass(frozen=True)
class ExpertLoad:
    """Tokens of each expert that has any."""

    experts: tuple[int, ...]
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, assignments: NDArray[np.int64], experts: int) -> ExpertLoad:
        """The load of one block. Raises ``ValueError`` for an expert that is not there."""
        flat = assignments[assignments != DROPPED]
        if flat.size and not 0 <= int(flat.min()) <= int(flat.max()) < experts:
            wrong = int(flat.max()) if int(flat.max()) >= experts else int(flat.min())
            raise ValueError(f"expert {wrong}; there are 0 to {experts - 1}")
        counts = np.bincount(flat, minlength=experts)
        hit = np.flatnonzero(counts)
        return cls(tuple(hit.tolist()), tuple(counts[hit].tolist()))

    @property
    def assigned(self) -> int:
        """Pairs of a token and an expert."""
        return sum(self.tokens)
