"""Early exit: how often the first blocks and the output layer already say the model's next token.

Self-speculation drafts so (LayerSkip, arXiv 2404.16710): drafts that were right leave the cache of
the first blocks as the model would have made it, so that a pass over the finished text says all of
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field

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
from pimsim.config.errors import InputError

__all__ = ["MEASUREMENT", "EarlyExit", "EarlyExitSettings"]


class EarlyExitSettings(GreedySettings):
    """Where it leaves, and how far ahead it drafts."""

    blocks: Annotated[str, WRITTEN, listed(1, 100_000)] = ""
    """First blocks that draft; each is measured. Empty: a half, three quarters and seven eighths of
    the model's."""
    drafts: int = Field(default=4, ge=1, le=1000)
    """Tokens that are guessed in a round."""


class EarlyExit(Measurement):
    """See the module."""

    Settings = EarlyExitSettings
    settings: EarlyExitSettings
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "blocks": ("blocks", "{:.0f}"), "acceptance": ("acceptance", "{:.3f}"),
        "tokens": ("tokens a round", "{:.2f}"), "gain": ("gain, if time is blocks", "{:.2f}"),
    }  # fmt: skip

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        asked, model = self.settings, subject.loaded.model
        layers = model.config.get_text_config().num_hidden_layers
        blocks = self._blocks(layers)
        texts = torch.cat(list(made_texts(subject, asked).values()))
        subject.report("exits behind each of the blocks")
        rows = []
        for count, hits in zip(blocks, _hits(model, texts, asked.prompt, blocks), strict=True):
            rows.append(self._row(count, layers, hits))
        best = max(range(len(rows)), key=lambda at: rows[at].figures["gain"])
        what = f"{texts.shape[0]} x {asked.made} tokens made behind {asked.prompt} of each text"
        return Measured(
            tuple(rows), what, best,
            "tokens a round over blocks that a round passes, the largest",
        )  # fmt: skip

    def _blocks(self, layers: int) -> Sequence[int]:
        if not self.settings.blocks:
            return sorted({max(1, layers * part // 8) for part in (4, 6, 7)})
        found = numbers(self.settings.blocks)
        if max(found) >= layers:
            raise InputError(f"blocks is {max(found)}; the model has {layers}, fewer are to draft")
        return found

    def _row(self, blocks: int, layers: int, hits: Any) -> MeasuredRow:
        """``hits``: shape (texts, made), whether each token is what the exit says."""
        drafts, lengths = self.settings.drafts, list[int]()
        for row in hits.tolist():
            lengths += tokens_per_round(row, 0, drafts, lambda _, ahead: _leading(ahead))
        tokens = sum(lengths) / len(lengths) if lengths else 1.0
        acceptance = float(hits.float().mean())
        gain = tokens * layers / (drafts * blocks + layers)
        decoding = f"early_exit:blocks={blocks},drafts={drafts},tokens={tokens:.4g}"
        return MeasuredRow(
            f"{blocks} of {layers} blocks",
            {"blocks": blocks, "acceptance": acceptance, "tokens": tokens, "gain": gain},
            {"decoding": decoding, "outside": True},
        )


def _leading(hits: Sequence[int]) -> int:
    """Guesses that are right before the first that is not."""
    return next((at for at, hit in enumerate(hits) if not hit), len(hits))


def _hits(model: Any, texts: Any, prompt: int, blocks: Sequence[int]) -> list[Any]:
    """Of each exit, whether it says each token that was made; shape (texts, made)."""
    base, output = model.base_model, model.get_output_embeddings()
    norm = getattr(base, "norm", None)
    if norm is None or output is None:
        raise InputError(
            f"{type(model).__name__} has no norm and output layer that an exit could use"
        )
    found: list[list[Any]] = [[] for _ in blocks]
    with torch.no_grad():
        for text in texts:
            states = base(
                input_ids=text.unsqueeze(0), use_cache=False, output_hidden_states=True
            ).hidden_states
            for into, count in zip(found, blocks, strict=True):
                said = output(norm(states[count][0, prompt - 1 : -1])).argmax(-1)
                into.append(said == text[prompt:])
    return [torch.stack(each) for each in found]


MEASUREMENT = EarlyExit
