"""Prompt lookup (apoorvumang/prompt-lookup-decoding): how often what followed an n-gram of the text
follows it again.

As published: of the longest n-gram first, the first place in the text with a whole draft behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from pimsim.capture.greedy import GreedySettings, made_texts, tokens_per_round
from pimsim.capture.measurements import Measured, MeasuredRow, Measurement, Subject

__all__ = ["MEASUREMENT", "PromptLookup", "PromptLookupSettings", "looked_up"]


class PromptLookupSettings(GreedySettings):
    """How guesses are found."""

    drafts: int = Field(default=8, ge=1, le=1000)
    """Tokens that are guessed in a round."""
    ngram: int = Field(default=3, ge=1, le=100)
    """Longest run of last tokens that is looked for."""


def looked_up(known: Sequence[int], drafts: int, ngram: int) -> list[int]:
    """Tokens that are guessed; none where no n-gram was there before.

    Parameters
    ----------
    known
        Token ids of the text so far.
    drafts
        That are guessed.
    ngram
        Longest run of last tokens that is looked for.
    """
    for length in range(min(ngram, len(known)), 0, -1):
        last = list(known[-length:])
        for at in range(len(known) - length - drafts + 1):
            if list(known[at : at + length]) == last:
                return list(known[at + length : at + length + drafts])
    return []


class PromptLookup(Measurement):
    """See the module."""

    Settings = PromptLookupSettings
    settings: PromptLookupSettings
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "tokens": ("tokens a round", "{:.2f}"), "rounds": ("rounds", "{:.0f}"),
        "guessed": ("rounds with guesses", "{:.2f}"),
    }  # fmt: skip

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        asked = self.settings
        rows, every, guessed = [], list[int](), 0
        for name, texts in made_texts(subject, asked).items():
            lengths, found = list[int](), [0]

            def right(
                known: Sequence[int], following: Sequence[int], found: list[int] = found
            ) -> int:
                guesses = looked_up(known, asked.drafts, asked.ngram)
                found[0] += bool(guesses)
                return matching(guesses, following)

            for text in texts.tolist():
                lengths += tokens_per_round(text, asked.prompt, asked.drafts, right)
            rows.append(self._row(name, lengths, found[0]))
            every, guessed = every + lengths, guessed + found[0]
        rows.append(self._row("all", every, guessed))
        what = f"{asked.prompts} x {asked.made} tokens made behind {asked.prompt} of each text"
        return Measured(tuple(rows), what, len(rows) - 1, "all texts together")

    def _row(self, name: str, lengths: Sequence[int], guessed: int) -> MeasuredRow:
        tokens = sum(lengths) / len(lengths) if lengths else 1.0
        figures = {
            "tokens": tokens, "rounds": len(lengths), "guessed": guessed / max(1, len(lengths)),
        }  # fmt: skip
        decoding = f"prompt_lookup:drafts={self.settings.drafts},tokens={tokens:.4g}"
        return MeasuredRow(name, figures, {"decoding": decoding})


def matching(guesses: Sequence[int], following: Sequence[int]) -> int:
    """Guesses that are right, up to the first that is not.

    Parameters
    ----------
    guesses, following
        Token ids.
    """
    count = 0
    for guess, token in zip(guesses, following, strict=False):
        if guess != token:
            break
        count += 1
    return count


MEASUREMENT = PromptLookup
