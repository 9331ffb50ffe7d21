"""What one forward pass is asked to do.

A decode step feeds one token of each request, a prefill step prompts or pieces of them, the
verification of a draft a few tokens, a diffusion block all of its tokens at once: a step is any mix
of these. Three numbers of an entry say what it is, and no name does: tokens that are fed, rows of
logits that are wanted, and tokens that come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import accumulate, chain

from pimsim.workload.requests import Request

__all__ = ["Mask", "Step", "StepEntry"]


class Mask(StrEnum):
    """Which keys a new token attends to."""

    CAUSAL = "causal"
    """Itself and all before it."""
    FULL = "full"
    """All of the context, the new tokens behind it too: an encoder, a diffusion block."""
    TREE = "tree"
    """A draft tree: all before the new tokens, and of these its own ancestors. Scores with the
    others are worked out as well and masked away (n x n, Medusa, arXiv 2401.10774 section 2.2)."""


@dataclass(frozen=True, slots=True)
class StepEntry:
    """One request's part of a step.

    Raises ``ValueError`` where the numbers contradict each other.
    """

    request: Request
    new_tokens: int
    """Tokens that are fed."""
    context: int
    """Tokens that attention reads at the end of the step, the new ones included."""
    logits: int = 1
    """Of the new tokens, how many get a row of logits; the last ones."""
    made: int = 1
    """Tokens that the request has more after the step: of a draft those that are accepted."""
    mask: Mask = Mask.CAUSAL

    def __post_init__(self) -> None:
        if not 1 <= self.new_tokens <= self.context:
            raise ValueError(
                f"request {self.request.id}: {self.new_tokens} new tokens in a context of "
                f"{self.context}; 1 to {self.context} are possible"
            )
        if not 0 <= self.logits <= self.new_tokens:
            raise ValueError(
                f"request {self.request.id}: {self.logits} rows of logits of {self.new_tokens} "
                "new tokens"
            )
        if not 0 <= self.made <= self.logits:
            raise ValueError(
                f"request {self.request.id}: {self.made} tokens made of {self.logits} rows of "
                "logits"
            )

    @property
    def cached(self) -> int:
        """Tokens whose keys and values the cache has already."""
        return self.context - self.new_tokens

    @property
    def feeds_prompt(self) -> bool:
        """Whether tokens are fed of which no logits are wanted: a prompt, or a piece of it."""
        return self.logits < self.new_tokens

    def keys(self, window: int | None = None) -> int:
        """Keys that at least one of the new tokens attends to.

        ``window``: a token sees so many last ones, itself among them; None: all.
        """
        if window is None:
            return self.context
        return min(self.context, window + self.new_tokens - 1)

    @property
    def ends(self) -> range | tuple[int, ...]:
        """Of each new token, tokens up to the last one that it is given to see."""
        if self.mask is Mask.CAUSAL:
            return range(self.cached + 1, self.context + 1)
        return (self.context,) * self.new_tokens

    def pairs(self, window: int | None = None) -> int:
        """Pairs of a new token and a key that it attends to."""
        if self.new_tokens == 1:
            return self.keys(window)
        if self.mask is not Mask.CAUSAL:
            return self.new_tokens * min(self.context, self.keys(window))
        first = self.cached + 1  # keys that the first new token sees
        limit = self.context if window is None else min(window, self.context)
        growing = max(limit - first, 0)  # tokens that see fewer keys than the limit
        growing = min(growing, self.new_tokens)
        seen = growing * (2 * first + growing - 1) // 2
        return seen + (self.new_tokens - growing) * limit


@dataclass(frozen=True)
class Step:
    """Entries of one forward pass, one for each of its requests.

    Raises ``ValueError`` without entries.
    """

    entries: tuple[StepEntry, ...]

    def __post_init__(self) -> None:
        if not self.entries:
            raise ValueError("a step without entries")

    @classmethod
    def decode(cls, requests: Iterable[Request]) -> Step:
        """One new token of each request."""
        return cls(tuple(StepEntry(request, 1, request.context) for request in requests))

    @classmethod
    def prefill(cls, requests: Iterable[Request]) -> Step:
        """The whole prompt of each request."""
        return cls(
            tuple(
                StepEntry(request, request.prompt_tokens, request.prompt_tokens)
                for request in requests
            )
        )

    @cached_property
    def requests(self) -> tuple[Request, ...]:
        """In the order of the entries."""
        return tuple(entry.request for entry in self.entries)

    @cached_property
    def contexts(self) -> tuple[int, ...]:
        """Of each entry, the new tokens included."""
        return tuple(entry.context for entry in self.entries)

    @cached_property
    def new_tokens(self) -> tuple[int, ...]:
        """Of each entry."""
        return tuple(entry.new_tokens for entry in self.entries)

    @cached_property
    def tokens(self) -> int:
        """Tokens that are fed, over all entries."""
        return sum(self.new_tokens)

    @cached_property
    def logits(self) -> int:
        """Rows of logits that are wanted."""
        return sum(entry.logits for entry in self.entries)

    @cached_property
    def made(self) -> int:
        """Tokens that come out."""
        return sum(entry.made for entry in self.entries)

    def token_numbers(self, members: Sequence[int]) -> tuple[int, ...]:
        """Numbers of the tokens that these entries feed, among all of the step's."""
        first = [0, *accumulate(self.new_tokens)]
        return tuple(chain.from_iterable(range(first[at], first[at + 1]) for at in members))

    def part(self, members: Sequence[int]) -> Step:
        """The entries of these numbers, in this order."""
        return Step(tuple(self.entries[at] for at in members))

    def symbols(self, forms: Iterable[Mapping[str, int]]) -> dict[str, int]:
        """Values of the symbols that ``forms`` use (``trace.SYMBOLS``), but for a routing's."""
        values = {"T": self.tokens, "B": len(self.entries), "L": self.logits}
        for form in forms:
            for symbol in form:
                if symbol[0] in "PK" and symbol not in values:
                    window = int(symbol[2:]) if "@" in symbol else None
                    values[symbol] = sum(
                        self.pairs(window) if symbol[0] == "P" else self.keys(window)
                    )
        return values

    def pairs(self, window: int | None = None) -> tuple[int, ...]:
        """``StepEntry.pairs`` of each entry."""
        key = "P", window
        if key not in self._seen:
            alone = self.tokens == len(self.entries)  # and so sees its keys, each once
            self._seen[key] = (
                self.keys(window) if alone
                else tuple(entry.pairs(window) for entry in self.entries)
            )  # fmt: skip
        return self._seen[key]

    def keys(self, window: int | None = None) -> tuple[int, ...]:
        """``StepEntry.keys`` of each entry."""
        key = "K", window
        if key not in self._seen:
            self._seen[key] = (
                self.contexts if window is None
                else tuple(entry.keys(window) for entry in self.entries)
            )  # fmt: skip
        return self._seen[key]

    @cached_property
    def _seen(self) -> dict[tuple[str, int | None], tuple[int, ...]]:
        """What the entries see, by window: every operator of attention asks."""
        return {}
