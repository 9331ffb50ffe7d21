"""A smaller model drafts, the larger one verifies all drafts in one pass.

Leviathan et al. 2023, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318 (SpS). A step is
``drafts`` passes of the smaller model with a token of each request, then one of the model with
``drafts + 1`` tokens. Keys and values of drafts that are refused are dropped by length. Direct
Alignment's drafter of Llama-2-7B (Goel et al. 2024, arXiv 2403.00858) is the card
``llama-2-drafter-115m``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field

from pimsim.config.decoding import DecodingSettings
from pimsim.config.errors import InputError
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.decoding import DecodingStrategy, Drafter
from pimsim.workload.trace import OperatorTrace

__all__ = ["STRATEGY", "DraftModel", "DraftModelSettings"]


class DraftModelSettings(DecodingSettings):
    """Which model drafts, and how far ahead."""

    FILES: ClassVar[tuple[str, ...]] = ("model",)
    model: str
    """A card's name or YAML path, of the same vocabulary."""
    drafts: int = Field(default=5, ge=1, le=1000)
    """Tokens that are guessed in a step."""


class DraftModel(DecodingStrategy):
    """See the module."""

    Settings = DraftModelSettings
    settings: DraftModelSettings

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "draft_model"

    @property
    def rows(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.drafts + 1

    @property
    def depth(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.drafts

    def drafter(self, trace: OperatorTrace) -> Drafter:
        """The smaller model. Raises ``InputError`` where its tokens are others."""
        found = card_trace(load_card(self.settings.model))
        if found.facts.vocab != trace.facts.vocab:
            raise InputError(
                f"workload.decoding: draft_model: model {found.model} has a vocabulary of "
                f"{found.facts.vocab:,}, {trace.model} one of {trace.facts.vocab:,}; drafts must "
                "be tokens of the same vocabulary"
            )
        return Drafter(found, 1, self.settings.drafts, found.facts.parameter_bytes)

    def inputs(self) -> Mapping[str, tuple[str, str]]:
        """The card, too; see ``DecodingStrategy``."""
        return {**super().inputs(), "model": ("model", self.settings.model)}


STRATEGY = DraftModel
