"""Tri-gram tables that grow (ADED, arXiv 2407.12021): tokens a round, by what the table has read.

The table counts which token followed each pair. A round's tree is searched in it: of each depth the
nodes whose path is likeliest. The published account searches by Monte Carlo, and gives neither
tree nor table. The curve over what was read is told, and the two keys of the strategy's law,
``1 + (tokens - 1) (1 - 2^(-seen / half))``, by least squares.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field, field_validator

from pimsim.capture.greedy import GreedySettings, made_texts, tokens_per_round
from pimsim.capture.measurements import (
    WRITTEN,
    Measured,
    MeasuredRow,
    Measurement,
    Subject,
    listed,
    numbers,
)
from pimsim.workload.speculation import DraftTree

__all__ = ["MEASUREMENT", "Trigram", "TrigramSettings", "TrigramTable", "fitted_law"]

_HALVES = [10 * 1.1**power for power in range(100)]
"""Tokens, of which the law's ``half`` is the best: 10 to 125,000 in steps of a tenth."""


class TrigramSettings(GreedySettings):
    """The tree, and what the table has read."""

    tree: str = "1/8/8/4"
    """Nodes by depth, from the root on."""
    seen: Annotated[str, WRITTEN, listed(0, 10_000_000)] = "0/2000/8000"
    """Tokens of the text, beside the prompt, that the table has read before; each is measured."""
    prompt: int = Field(default=128, ge=4, le=100_000)
    """Tokens of a prompt."""

    @field_validator("tree")
    @classmethod
    def _is_a_tree(cls, value: str) -> str:
        DraftTree.of(value)
        return value


class TrigramTable:
    """Which tokens followed each pair, and how often."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, int], Counter[int]] = defaultdict(Counter)

    def read(self, text: Sequence[int]) -> None:
        """Count a text.

        Parameters
        ----------
        text
            Token ids; its first two were read before, or are the first.
        """
        for at in range(len(text) - 2):
            self._after[text[at], text[at + 1]][text[at + 2]] += 1

    def paths(self, last: tuple[int, int], levels: Sequence[int]) -> set[tuple[int, ...]]:
        """Nodes of a tree behind two tokens, each as the tokens from the root to it.

        Parameters
        ----------
        last
            The last two tokens that are known.
        levels
            Nodes of each depth, the root apart.
        """
        found: set[tuple[int, ...]] = set()
        tips: list[tuple[float, tuple[int, ...]]] = [(1.0, ())]
        for most in levels:
            grown = []
            for likely, path in tips:
                pair = (*last, *path)[-2:]
                after = self._after.get((pair[0], pair[1]))
                if after is None:
                    continue
                every = after.total()
                grown += [
                    (likely * count / every, (*path, token))
                    for token, count in after.most_common(most)
                ]
            tips = sorted(grown, key=lambda tip: (-tip[0], tip[1]))[:most]
            found |= {path for _, path in tips}
        return found


def fitted_law(curve: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """``tokens`` and ``half`` of the law that is nearest a curve, by least squares.

    Parameters
    ----------
    curve
        Tokens that were read, and tokens that a round makes.

    Returns
    -------
    tuple
        Tokens a round in the end, 1 or more, and tokens after which half of what is above 1 is
        there.
    """
    best = (1.0, _HALVES[0])
    least = float("inf")
    for half in _HALVES:
        learnt = [1 - 2 ** (-seen / half) for seen, _ in curve]
        square = sum(each * each for each in learnt)
        above = sum(part * (made - 1) for part, (_, made) in zip(learnt, curve, strict=True))
        above = max(0.0, above / square) if square else 0.0
        error = sum(
            (1 + above * part - made) ** 2 for part, (_, made) in zip(learnt, curve, strict=True)
        )
        if error < least:
            best, least = (1 + above, half), error
    return best


class Trigram(Measurement):
    """See the module."""

    Settings = TrigramSettings
    settings: TrigramSettings
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "seen": ("tokens read", "{:.0f}"), "tokens": ("tokens a round", "{:.2f}"),
        "rounds": ("rounds", "{:.0f}"),
    }  # fmt: skip

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        asked = self.settings
        sizes = sorted(numbers(asked.seen))
        tree = DraftTree.of(asked.tree)
        made = made_texts(subject, asked)
        rows, curve = [], []
        for size in sizes:
            subject.report(f"a table that has read {size} tokens")
            lengths: list[int] = []
            for name, texts in made.items():
                # prompts begin at the whole parts of the text: what is read lies behind the first
                before = subject.piece(name, size, 0.5 / asked.prompts) if size else []
                for text in texts.tolist():
                    lengths += self._rounds(text, before, tree)
            seen = size + asked.prompt + asked.made / 2  # it reads what is made, too
            tokens = sum(lengths) / len(lengths) if lengths else 1.0
            curve.append((seen, tokens))
            decoding = f"trigram:tree={asked.tree},tokens={tokens:.4g}"
            rows.append(
                MeasuredRow(
                    f"{size} before the prompt",
                    {"seen": seen, "tokens": tokens, "rounds": len(lengths)},
                    {"decoding": decoding, "outside": True},
                )
            )
        tokens, half = fitted_law(curve)
        most = min(tokens, tree.depth + 1)
        law = f"trigram:tree={asked.tree},tokens={most:.4g},half={half:.4g},seen={curve[-1][0]:.6g}"
        figures = {"seen": curve[-1][0], "tokens": most, "rounds": sum(
            row.figures["rounds"] for row in rows)}  # fmt: skip
        rows.append(
            MeasuredRow(
                f"the law, half after {half:.0f}", figures, {"decoding": law, "outside": True}
            )
        )
        what = f"{asked.prompts} x {asked.made} tokens made behind {asked.prompt} of each text"
        return Measured(
            tuple(rows), what, len(rows) - 1, "the law through all of them, at the largest table"
        )

    def _rounds(self, text: Sequence[int], before: Sequence[int], tree: DraftTree) -> list[int]:
        table = TrigramTable()
        table.read(before)
        read = [0]

        def right(known: Sequence[int], following: Sequence[int]) -> int:
            table.read(known[max(0, read[0] - 2) :])
            read[0] = len(known)
            paths = table.paths((known[-2], known[-1]), tree.levels[1:])
            count = 0
            while count < len(following) and tuple(following[: count + 1]) in paths:
                count += 1
            return count

        return tokens_per_round(text, self.settings.prompt, tree.depth, right)


MEASUREMENT = Trigram
