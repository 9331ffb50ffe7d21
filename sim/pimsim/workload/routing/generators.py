"""Routing of models that nobody here can run: uniform, skewed, or by the token's id.

All are deterministic in their seed and the block, and independent between blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TokenIdRouting", "ZipfRouting"]

Ints = NDArray[np.int64]


def _zipf(count: int, exponent: float) -> NDArray[np.float64]:
    weights = 1.0 / np.arange(1, count + 1) ** exponent
    share: NDArray[np.float64] = weights / weights.sum()
    return share


def _without_replacement(
    weights: NDArray[np.float64], rows: int, chosen: int, random: np.random.Generator
) -> Ints:
    """``chosen`` of ``len(weights)`` for each row, one after the other by weight (Gumbel top-k,
    Kool et al. 2019, arXiv 1903.06059)."""
    keys = np.log(weights) + random.gumbel(size=(rows, len(weights)))
    found: Ints = np.sort(np.argpartition(-keys, chosen - 1, axis=1)[:, :chosen], axis=1)
    return found.astype(np.int64)


@dataclass(frozen=True)
class ZipfRouting:
    """Experts are popular as 1 / rank^exponent; ranks are dealt anew in each block."""

    experts: int
    experts_per_token: int
    exponent: float
    seed: int = 0

    def assignments(self, layer: int, tokens: int) -> Ints:
        """See ``Routing``."""
        random = np.random.default_rng((self.seed, layer, 1))
        weights = _zipf(self.experts, self.exponent)[random.permutation(self.experts)]
        return _without_replacement(weights, tokens, self.experts_per_token, random)


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
        random = np.random.default_rng((self.seed, 2))
        drawn: Ints = random.choice(self.vocab, size=tokens, p=_zipf(self.vocab, self.exponent))
        return drawn.astype(np.int64)

    def assignments(self, layer: int, tokens: int) -> Ints:
        """See ``Routing``."""
        ids = self.ids(tokens)
        unique, where = np.unique(ids, return_inverse=True)
        table = np.empty((len(unique), self.experts_per_token), dtype=np.int64)
        for row, token in enumerate(unique.tolist()):
            random = np.random.default_rng((self.seed, layer, 3, token))
            table[row] = np.sort(random.choice(self.experts, self.experts_per_token, replace=False))
        found: Ints = table[where]
        return found
