"""Perplexity of a model that sees the first tokens and a window of the last ones alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

from pimsim.capture.likelihood import perplexity
from pimsim.capture.measurements import (
    WRITTEN,
    Measured,
    MeasuredRow,
    Measurement,
    Quality,
    Subject,
    listed,
    numbers,
    smallest_within,
)
from pimsim.capture.own_attention import Attend, attending, softmaxed, turning
from pimsim.config.errors import InputError

__all__ = ["WindowSettings", "WindowedMeasurement"]


class WindowSettings(Quality):
    """Which windows."""

    windows: Annotated[str, WRITTEN, listed(1, 1_000_000)] = "64/128/256"
    """Last tokens that a query sees, itself included; each is measured."""
    sinks: Annotated[str, WRITTEN, listed(0, 1_000_000)] = "4/0"
    """First tokens that it sees, too; each is measured."""
    tokens: int = Field(default=1024, ge=16, le=100_000)
    """That are read."""


@dataclass(frozen=True)
class FarPositions:
    """Where a query stands that sees first tokens from far away, and where they stand."""

    query: Callable[[int, int], int]
    """Of window and sinks."""
    keys: Callable[[Any], Any]
    """Of the places of the first tokens in the text."""


class WindowedMeasurement(Measurement):
    """See the module; a view of its name says the positions."""

    Settings = WindowSettings
    settings: WindowSettings
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "perplexity": ("perplexity", "{:.2f}"), "ratio": ("times as high", "{:.3f}"),
        "rise": ("rise, %", "{:+.1f}"), "read": ("part of the KV read at the end", "{:.3f}"),
    }  # fmt: skip
    VIEW: ClassVar[str]
    """As ``workload.kv_view`` calls it."""
    FAR: ClassVar[FarPositions]

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        asked, model = self.settings, subject.loaded.model
        windows = numbers(asked.windows)
        sinks = numbers(asked.sinks)
        if max(windows) + max(sinks) >= asked.tokens:
            raise InputError(
                f"windows of {max(windows)} tokens and {max(sinks)} sinks leave nothing out of "
                f"{asked.tokens} tokens"
            )
        name = subject.text_of(asked.text)
        ids = torch.tensor([subject.piece(name, asked.tokens)])
        turned = turning(model)
        subject.report("perplexity with all keys")
        whole = perplexity(subject.loaded, ids)
        rows = [MeasuredRow("all keys", self._figures(whole, whole, asked.tokens))]
        for window, first in _pairs(windows, sinks):
            subject.report(f"window {window}, {first} sinks")
            with attending(model, self._attend(turned, window, first)):
                found = perplexity(subject.loaded, ids)
            view = f"{self.VIEW}:window={window},sinks={first}"
            rows.append(
                MeasuredRow(view, self._figures(found, whole, window + first), {"kv_view": view})
            )
        chosen = smallest_within(rows, "read", "rise", asked.rise)
        return Measured(
            tuple(rows), f"{asked.tokens} tokens of {subject.texts[name][0]}", chosen,
            f"fewest keys of those whose perplexity rises by at most {asked.rise:g} %",
        )  # fmt: skip

    def _figures(self, found: float, whole: float, read: int) -> dict[str, float]:
        part = min(1.0, read / self.settings.tokens)
        ratio = found / whole
        return {
            "perplexity": found, "ratio": ratio, "rise": 100 * (ratio - 1), "read": part,
        }  # fmt: skip

    def _attend(self, turned: Callable[..., Any], window: int, sinks: int) -> Attend:
        def attend(_: int, query: Any, key: Any, value: Any, scale: float) -> Any:
            tokens = key.shape[2]
            at = torch.arange(tokens)
            behind = at.unsqueeze(1) - at.unsqueeze(0)
            near = (behind >= 0) & (behind < window)
            far = (behind >= window) & (at < sinks).unsqueeze(0)
            scores = (query @ key.transpose(2, 3)) * scale
            if sinks:
                first = at[:sinks]
                # a cache that is not full yet has no gap
                stands = at.clamp(max=self.FAR.query(window, sinks))
                queries = turned(turned(query, at, back=True), stands)
                keys = turned(key[:, :, :sinks], first, back=True)
                keys = turned(keys, self.FAR.keys(first))
                seen_far = (queries @ keys.transpose(2, 3)) * scale
                scores[..., :sinks] = torch.where(far[:, :sinks], seen_far, scores[..., :sinks])
            return softmaxed(scores, near | far).to(value.dtype) @ value

        return attend


def _pairs(windows: tuple[int, ...], sinks: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    return ((window, first) for window in windows for first in sinks)
