"""Between which simulated steps others are interpolated: steps of like requests, on ladders.

Two kinds: requests that decode, and prompts that are fed, which come alone, in equal pieces, or as
one piece behind a past. What a real step has of both is made up of these
(``between.step_between``), each sub-batch by itself.
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
PIECES = (1, 2, 4, 8)
"""That the prompts of a sub-batch come in."""
_FIRST_CONTEXT = 53
"""Rungs from this odd number on are no multiples of tiles and rows, which have nothing left over,
as hardly any real context has."""
_HEAD_TOKENS = 128
"""Of the prompt that says what the model's head takes."""
_FEW_REQUESTS = 8
"""That decode; of more, rungs are two octaves apart."""
_FIRST_PAST = 2048
"""Attention to what lies before a piece takes time in proportion to it; where there is more, it may
be cut otherwise."""


@dataclass(frozen=True)
class Anchor:
    """A step that is simulated so that others can be interpolated."""

    requests: int
    """That decode."""
    context: int
    """Of those on the channels with the longest ones (``graded``)."""
    tokens: int = 0
    """Of prompts."""
    pieces: int = 1
    """They come in so many, as equal as may be."""
    past: int = 0
    """Tokens in the cache before each piece."""
    logits: bool = True
    """The prompts end, so that a token is made of each."""

    def step(self, channels: int, parts: int = 1) -> Step:
        """The step, its requests dealt out to ``channels`` in turn, for ``parts`` sub-batches."""
        sizes = [1] * self.requests
        contexts: list[int] = self.graded(channels, parts).tolist()
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

    def graded(self, channels: int, parts: int) -> NDArray[np.int64]:
        """Contexts of the requests that decode: on the last channels ``context``, on the others
        less in equal steps, since channels are not equally full; one channel after the other goes
        to another sub-batch, so that ``parts`` neighbours are alike."""
        groups = -(-min(self.requests, channels) // parts)
        group = np.arange(self.requests) % channels // parts
        return np.maximum(self.context * (group + 1) // max(groups, 1), 1)

    @property
    def key(self) -> str:
        """What a store knows it as."""
        return (
            f"{self.requests}x{self.context}+{self.tokens}/{self.pieces}@{self.past}"
            f"{'!' if self.logits else ''}"
        )


def _ladder(first: int, last: int, each_octave: float) -> NDArray[np.int64]:
    """Whole numbers from ``first`` to ``last``, so many an octave as far as there are so many."""
    count = int(np.ceil(np.log2(max(last, first) / first) * each_octave)) + 1
    rungs = np.rint(first * 2.0 ** (np.arange(count) / each_octave)).astype(np.int64)
    return np.unique(np.append(np.minimum(rungs, last), last))


@dataclass(frozen=True)
class Grid:
    """The ladders; ``fineness`` doubles how many rungs they have."""

    requests: NDArray[np.int64]
    contexts: NDArray[np.int64]
    some: int
    """Number of the context with which PIM works, and holds nobody up."""
    tokens: NDArray[np.int64]
    """Of the prompts of a sub-batch."""
    splits: NDArray[np.float64]
    """-1 over the number of pieces of each of ``PIECES``."""
    pasts: NDArray[np.int64]
    """Tokens of the past of one piece by its tokens, the first 0, shape (tokens, rungs)."""
    wanted: NDArray[np.int64]
    """The same where no context is too long, (rungs,)."""
    max_context: int

    @classmethod
    def of(cls, max_context: int, fineness: int = 0) -> Grid:
        """For contexts up to ``max_context``."""
        finer = 2**fineness
        first = min(_FIRST_CONTEXT, max_context)
        contexts = np.unique(np.append(_ladder(first, max_context, 2 * finer), (1, first)))
        tokens = _ladder(1, MOST, 2 * finer)
        wanted = np.append(0, _ladder(min(_FIRST_PAST, max_context), max_context, finer))
        pasts = np.minimum(wanted, np.maximum(max_context - tokens, 0)[:, None])
        return cls(
            # of many, channels and contexts decide about the time
            requests=np.unique(
                np.append(_ladder(1, _FEW_REQUESTS, finer), _ladder(_FEW_REQUESTS, MOST, finer / 2))
            ),
            contexts=contexts,
            some=int(np.searchsorted(contexts, min(512, max_context))),
            tokens=tokens,
            splits=-1.0 / np.array(PIECES),
            pasts=pasts,
            wanted=wanted,
            max_context=max_context,
        )

    def decode(self, requests: int, context: int) -> Anchor:
        """By numbers of rungs."""
        return Anchor(int(self.requests[requests]), int(self.contexts[context]))

    def prompt(self, tokens: int, split: int, parts: int) -> Anchor:
        """By numbers of rungs; as many for each of ``parts`` sub-batches."""
        return self._prompt(int(self.tokens[tokens]), PIECES[split], parts)

    def behind(self, tokens: int, past: int) -> Anchor:
        """One piece behind a past, by numbers of rungs."""
        size, before = int(self.tokens[tokens]), int(self.pasts[tokens, past])
        return Anchor(0, 0, size, -(-size // self.max_context), before)

    def head(self, logits: bool) -> Anchor:
        """A prompt that ends, and the same that does not."""
        return self._prompt(_HEAD_TOKENS, 1, 1, logits)

    def _prompt(self, tokens: int, pieces: int, parts: int, logits: bool = True) -> Anchor:
        each = min(max(pieces, -(-tokens // self.max_context)), tokens)
        return Anchor(0, 0, parts * tokens, parts * each, 0, logits)
