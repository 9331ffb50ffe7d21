"""Routing of models that nobody here can run: uniform, skewed, or by the token's id.

All are deterministic in their seed and the block, and independent between blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from pimsim.workload.draws import RandomStream

__all__ = ["TokenIdRouting", "ZipfRouting"]

Ints = NDArray[np.int64]


def _zipf(count: int, exponent: float) -> NDArray[np.float64]:
    weights = [rank**-exponent for rank in range(1, count + 1)]
    whole = fsum(weights)
    return np.array([weight / whole for weight in weights])


@dataclass(frozen=True)
class ZipfRouting:
    """Experts are popular as 1 / rank^exponent; ranks are dealt anew in each block."""

    experts: int
    experts_per_token: int
    exponent: float
    seed: int = 0

    def assignments(self, layer: int, tokens: int) -> Ints:
        """See ``Routing``."""
        random = RandomStream(self.seed, layer, 1)
        weights = _zipf(self.experts, self.exponent)[random.permutation(self.experts)]
        return random.weighted_subsets(tokens, weights, self.experts_per_token)


@dataclass(frozen=True)
class TokenIdRouting:
    """A token's experts depend on its id alone, as OpenMoE found (arXiv 2402.01739, section 4.1):
    ids come as words do, by 1 / rank^exponent; each has experts of its own in each block."""

    experts: int
    experts_per_token: int
    exponent: float = 1.0
    vocab: int = 32_000
    seed: int = 0

    def ids(self, tokens: int) -> Ints:
        """Token ids of a batch."""
        return RandomStream(self.seed, 2).choices(_zipf(self.vocab, self.exponent), tokens)

    def assignments(self, layer: int, tokens: int) -> Ints:
        """See ``Routing``."""
        ids = self.ids(tokens)
        unique, where = np.unique(ids, return_inverse=True)
        table = np.empty((len(unique), self.experts_per_token), dtype=np.int64)
        for row, token in enumerate(unique.tolist()):
            random = RandomStream(self.seed, layer, 3, token)
            table[row] = random.subsets(1, self.experts, self.experts_per_token)
        found: Ints = table[where]
        return found
