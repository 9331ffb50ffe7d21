"""Quest's pages (arXiv 2406.10774): how much of a query's attention lies on those that it reads.

Of each page the largest and the smallest of each element of its keys; a page's score is the sum
over elements of the larger of the query's products with both. Each query head chooses for itself,
and reads its last page in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator

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

__all__ = ["MEASUREMENT", "Quest", "QuestSettings", "page_scores"]


class QuestSettings(OnText):
    """What is read."""

    budgets: Annotated[str, WRITTEN, listed(1, 1_000_000)] = "128/256/512"
    """Tokens that a query reads, in whole pages; each is measured."""
    page: int = Field(default=16, ge=1, le=4096)
    """Tokens of a page."""
    dense: int = Field(default=2, ge=0, le=1000)
    """First blocks whose queries read all."""
    queries: int = Field(default=16, ge=1, le=10_000)
    """Last tokens of the text, whose queries are looked at."""
    recall: float = Field(default=0.9, ge=0, le=1)
    """Least part of a query's attention that the row has which a run is given."""

    @model_validator(mode="after")
    def _whole_pages(self) -> QuestSettings:
        for budget in numbers(self.budgets):
            if budget % self.page:
                raise ValueError(f"budgets: {budget} is no multiple of page ({self.page})")
        if max(numbers(self.budgets)) + self.queries + self.page > self.tokens:
            raise ValueError(f"budgets: {self.budgets} leave nothing out of {self.tokens} tokens")
        return self


def page_scores(query: Any, keys: Any, page: int) -> Any:
    """The most that a key of each page can come to.

    Parameters
    ----------
    query
        Shape (heads, features).
    keys
        Shape (heads, tokens, features).
    page
        Tokens of a page; the last may be shorter.

    Returns
    -------
    Tensor
        Shape (heads, pages).
    """
    short = -keys.shape[1] % page
    full = torch.cat([keys, keys[:, -1:].expand(-1, short, -1)], dim=1)
    pages = full.view(keys.shape[0], -1, page, keys.shape[2])
    high, low = pages.amax(dim=2), pages.amin(dim=2)
    one = query.unsqueeze(1)
    return torch.maximum(one * high, one * low).sum(dim=-1)


class Quest(Measurement):
    """See the module."""

    Settings = QuestSettings
    settings: QuestSettings
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "budget": ("tokens read", "{:.0f}"), "read": ("part of the KV, scores too", "{:.3f}"),
        "recall": ("attention on them", "{:.3f}"), "top": ("best tokens among them", "{:.3f}"),
    }  # fmt: skip

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        asked, model = self.settings, subject.loaded.model
        layers = model.config.get_text_config().num_hidden_layers
        if asked.dense >= layers:
            raise InputError(f"dense is {asked.dense}; the model has {layers} blocks")
        budgets = numbers(asked.budgets)
        found: dict[int, list[tuple[float, float]]] = {budget: [] for budget in budgets}

        def attend(block: int, query: Any, key: Any, value: Any, scale: float) -> Any:
            weights = softmaxed((query @ key.transpose(2, 3)) * scale, causal(key.shape[2]))
            if block >= asked.dense:
                for at in range(key.shape[2] - asked.queries, key.shape[2]):
                    self._look(query[0, :, at], key[0, :, : at + 1], weights[0, :, at], found)
            return weights.to(value.dtype) @ value

        name = subject.text_of(asked.text)
        ids = torch.tensor([subject.piece(name, asked.tokens)])
        subject.report("queries of each block")
        with attending(model, attend), torch.no_grad():
            model(input_ids=ids, use_cache=False)
        rows = []
        for budget in budgets:
            recalls, tops = zip(*found[budget], strict=True)
            figures = {
                "budget": budget, "read": budget / asked.tokens + 1 / asked.page,
                "recall": sum(recalls) / len(recalls), "top": sum(tops) / len(tops),
            }  # fmt: skip
            view = f"quest:budget={budget},page={asked.page},dense={asked.dense}"
            rows.append(MeasuredRow(view, figures, {"kv_view": view}))
        chosen = smallest_within(rows, "budget", "recall", asked.recall, at_least=True)
        what = (
            f"{asked.tokens} tokens of {subject.texts[name][0]}, the last {asked.queries} queries"
        )
        return Measured(
            tuple(rows), what, chosen, f"fewest tokens with {asked.recall:g} of the attention"
        )

    def _look(
        self, query: Any, keys: Any, weights: Any, found: dict[int, list[tuple[float, float]]]
    ) -> None:
        """One query of all heads; ``weights``: shape (heads, keys or more)."""
        page, tokens = self.settings.page, keys.shape[1]
        scores = page_scores(query, keys, page)
        scores[:, -1] = torch.inf
        order = scores.argsort(dim=-1, descending=True)
        seen = weights[:, :tokens]
        ranked = seen.argsort(dim=-1, descending=True)
        for budget, into in found.items():
            chosen = torch.zeros_like(scores, dtype=torch.bool)
            chosen.scatter_(1, order[:, : budget // page], True)
            read = chosen.repeat_interleave(page, dim=1)[:, :tokens]
            into.append(
                (
                    float((seen * read).sum(dim=-1).mean()),
                    float(read.gather(1, ranked[:, :budget]).float().mean()),
                )
            )


MEASUREMENT = Quest
