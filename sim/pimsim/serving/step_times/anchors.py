"""Between which simulated steps others are interpolated: steps of like requests, on ladders.

Three kinds: requests that decode, all with the same context; prompts, in equal pieces or as one
piece behind a past; and both, a prompt beside such requests. A real step lies between some of
them by what its time depends on: how many requests it has, what the fullest channel has to do in
each sub-batch, how many tokens of prompts it feeds, and how many keys each of these sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry

__all__ = ["Anchor", "Grid"]

MOST = 2**20
"""Tokens or requests of a step for which there are anchors."""
PIECES = (8, 4, 2)
"""Of a prompt that is no single piece."""


@dataclass(frozen=True)
class Anchor:
    """A step that is simulated so that others can be interpolated."""

    requests: int
    """That decode."""
    context: int
    """Of each of them."""
    tokens: int = 0
    """Of prompts."""
    pieces: int = 1
    """They come in so many, as equal as may be."""
    past: int = 0
    """Tokens in the cache before each piece."""
    logits: bool = True
    """The prompts end, so that a token is made of each."""

    def step(self, channels: int) -> Step:
        """The step, its requests dealt out to ``channels`` in turn."""
        sizes = [1] * self.requests
        contexts = [self.context] * self.requests
        for at in range(self.pieces if self.tokens else 0):
            size = self.tokens * (at + 1) // self.pieces - self.tokens * at // self.pieces
            sizes.append(size)
            contexts.append(self.past + size)
        entries = []
        for row, (new, context) in enumerate(zip(sizes, contexts, strict=True)):
            request = Request(row, 0.0, context, 1, 0, row % channels)
            made = int(self.logits or row < self.requests)
            entries.append(StepEntry(request, new, context, made, made))
        return Step(tuple(entries))

    @property
    def spread(self) -> float:
        """Of prompts, how far they are from one piece behind nothing (``Grid.spread``)."""
        return float(self.past) if self.pieces == 1 else 1 / self.pieces - 1

    @property
    def key(self) -> str:
        """What a store knows it as."""
        return (
            f"{self.requests}x{self.context}+{self.tokens}/{self.pieces}@{self.past}"
            f"{'!' if self.logits else ''}"
        )


def _ladder(first: int, last: int, each_octave: int) -> NDArray[np.int64]:
    """Whole numbers from ``first`` to ``last``, so many an octave as far as there are so many."""
    count = int(np.ceil(np.log2(max(last, first) / first) * each_octave)) + 1
    rungs = np.rint(first * 2.0 ** (np.arange(count) / each_octave)).astype(np.int64)
    return np.unique(np.append(np.minimum(rungs, last), last))


@dataclass(frozen=True)
class Grid:
    """The ladders; ``fineness`` doubles how many rungs they have."""

    requests: NDArray[np.int64]
    contexts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    """Of prompts alone."""
    spread: NDArray[np.float64]
    """Of prompts alone, how far they are from one piece behind nothing: below 0, 1/pieces - 1;
    above, tokens of the past. Shape (rungs of tokens, rungs)."""
    wanted: tuple[float, ...]
    """The same where no context is too long."""
    beside_requests: NDArray[np.int64]
    """Of steps with both, and so on."""
    beside_contexts: NDArray[np.int64]
    beside_tokens: NDArray[np.int64]
    max_context: int

    @classmethod
    def of(cls, max_context: int, fineness: int = 0) -> Grid:
        """For contexts up to ``max_context``."""
        finer = 2**fineness
        first = min(64, max_context)
        pasts = _ladder(min(256, max_context), max_context, finer)
        wanted = (*(1 / pieces - 1 for pieces in PIECES), 0.0, *map(float, pasts))
        tokens = _ladder(1, MOST, 4 * finer)
        near = [[_prompt(int(n), one, max_context) for one in wanted] for n in tokens]
        return cls(
            requests=_ladder(1, MOST, 2 * finer),
            contexts=np.unique(np.append(_ladder(first, max_context, 2 * finer), (1, first))),
            tokens=tokens,
            spread=np.array([[one.spread for one in row] for row in near]),
            wanted=wanted,
            beside_requests=_ladder(1, MOST, finer),
            beside_contexts=np.unique(np.append(_ladder(first, max_context, finer), (1, first))),
            beside_tokens=_ladder(1, MOST, finer),
            max_context=max_context,
        )

    def decode(self, requests: int, context: int) -> Anchor:
        """By numbers of rungs."""
        return Anchor(int(self.requests[requests]), int(self.contexts[context]))

    def prompt(self, tokens: int, spread: int, logits: bool) -> Anchor:
        """By numbers of rungs; as near as a context allows."""
        size = int(self.tokens[tokens])
        return _prompt(size, self.wanted[spread], self.max_context, logits)

    def beside(self, tokens: int, requests: int, context: int) -> Anchor:
        """By numbers of rungs, those of ``beside_...``."""
        alone = self.beside_prompt(tokens)
        return Anchor(
            int(self.beside_requests[requests]), int(self.beside_contexts[context]),
            alone.tokens, alone.pieces,
        )  # fmt: skip

    def beside_prompt(self, tokens: int) -> Anchor:
        """The prompt of ``beside`` alone."""
        return _prompt(int(self.beside_tokens[tokens]), 0.0, self.max_context)


def _prompt(tokens: int, spread: float, max_context: int, logits: bool = True) -> Anchor:
    """The anchor nearest to ``spread`` whose contexts are no longer than may be."""
    pieces = 1 if spread >= 0 else round(1 / (1 + spread))
    pieces = min(max(pieces, -(-tokens // max_context)), tokens)
    past = min(max(int(spread), 0), max_context - -(-tokens // pieces))
    return Anchor(0, 0, tokens, pieces, past, logits)
