"""GemFilter's choice (arXiv 2409.17422): how much of what later blocks look at it keeps.

As published: products of a prompt's last query with all keys in one block, summed over heads, mean
of five neighbours, the largest stay. Held against the last query of the blocks behind: the part of
its attention that lies on what was chosen, and how many of the tokens that it looks at most are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from pimsim.capture.measurements import (
    WRITTEN,
    Measured,
    MeasuredRow,
    Measurement,
    OnText,
    Subject,
    listed,
    numbers,
    smallest_within,
)
from pimsim.capture.own_attention import attending, causal, softmaxed
from pimsim.config.errors import InputError

__all__ = ["MEASUREMENT", "GemFilter", "GemFilterSettings", "pooled_choice"]

_POOLED = 5


class GemFilterSettings(OnText):
    """Who chooses, and how much."""

    blocks: Annotated[str, WRITTEN, listed(1, 100_000)] = ""
    """First blocks, the last of which chooses; each is measured. Empty: 3, 4, 5 and 6 eighths of
    the model's."""
    budget: int = Field(default=128, ge=1, le=1_000_000)
    """Tokens that stay."""
    tokens: int = Field(default=512, ge=16, le=100_000)
    """Of a prompt."""
    prompts: int = Field(default=2, ge=1, le=1000)
    """Of the text."""
    recall: float = Field(default=0.8, ge=0, le=1)
    """Least part of the later blocks' attention that the row has which a run is given."""


def pooled_choice(scores: Any, budget: int) -> Any:
    """Tokens that stay.

    Parameters
    ----------
    scores
        Products of the last query and each key, shape (heads, tokens).
    budget
        Tokens that stay.

    Returns
    -------
    Tensor
        Whether each token does, shape (tokens,).
    """
    pooled = torch.nn.functional.avg_pool1d(
        scores.sum(dim=0).view(1, 1, -1), _POOLED, stride=1, padding=_POOLED // 2
    ).flatten()
    chosen = torch.zeros_like(pooled, dtype=torch.bool)
    chosen[pooled.topk(min(budget, len(pooled))).indices] = True
    return chosen


class GemFilter(Measurement):
    """See the module."""

    Settings = GemFilterSettings
    settings: GemFilterSettings
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "blocks": ("blocks", "{:.0f}"), "kept": ("part of the prompt kept", "{:.3f}"),
        "recall": ("attention of later blocks on it", "{:.3f}"),
        "top": ("their most looked at that are kept", "{:.3f}"),
    }  # fmt: skip

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        asked, model = self.settings, subject.loaded.model
        layers = model.config.get_text_config().num_hidden_layers
        blocks = self._blocks(layers)
        if asked.budget >= asked.tokens:
            raise InputError(
                f"budget is {asked.budget} of {asked.tokens} tokens: nothing would be left out"
            )
        name = subject.text_of(asked.text)
        found: list[tuple[list[Any], list[Any]]] = []
        for at in range(asked.prompts):
            subject.report(f"prompt {at + 1} of {asked.prompts}")
            ids = torch.tensor([subject.piece(name, asked.tokens, at / asked.prompts)])
            found.append(_last_queries(model, ids))
        rows = [self._row(count, found) for count in blocks]
        chosen = smallest_within(rows, "blocks", "recall", asked.recall, at_least=True)
        return Measured(
            tuple(rows), f"{asked.prompts} x {asked.tokens} tokens of {subject.texts[name][0]}",
            chosen, f"fewest blocks that keep {asked.recall:g} of the later blocks' attention",
        )  # fmt: skip

    def _blocks(self, layers: int) -> Sequence[int]:
        if not self.settings.blocks:
            return sorted({max(1, layers * part // 8) for part in (3, 4, 5, 6)})
        found = numbers(self.settings.blocks)
        if max(found) >= layers:
            raise InputError(f"blocks is {max(found)}; the model has {layers}, fewer are to choose")
        return found

    def _row(self, blocks: int, found: Sequence[tuple[list[Any], list[Any]]]) -> MeasuredRow:
        budget = self.settings.budget
        recalls, tops = list[float](), list[float]()
        for scores, weights in found:
            chosen = pooled_choice(scores[blocks - 1], budget)
            for each in weights[blocks:]:
                recalls.append(float(each[:, chosen].sum(dim=-1).mean()))
                best = each.sum(dim=0).topk(budget).indices
                tops.append(float(chosen[best].float().mean()))
        view = f"gemfilter:blocks={blocks},budget={budget}"
        figures = {
            "blocks": blocks, "kept": budget / self.settings.tokens,
            "recall": sum(recalls) / len(recalls), "top": sum(tops) / len(tops),
        }  # fmt: skip
        return MeasuredRow(view, figures, {"kv_view": view})


def _last_queries(model: Any, ids: Any) -> tuple[list[Any], list[Any]]:
    """Products and weights of the last query in each block, shapes (heads, tokens)."""
    scores, weights = list[Any](), list[Any]()

    def attend(_: int, query: Any, key: Any, value: Any, scale: float) -> Any:
        products = (query @ key.transpose(2, 3)) * scale
        every = softmaxed(products, causal(key.shape[2]))
        scores.append(products[0, :, -1])
        weights.append(every[0, :, -1])
        return every.to(value.dtype) @ value

    with attending(model, attend), torch.no_grad():
        model(input_ids=ids, use_cache=False)
    return scores, weights


MEASUREMENT = GemFilter
