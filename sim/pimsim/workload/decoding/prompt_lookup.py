"""Prompt lookup: the tokens that followed an n-gram of the prompt are guessed to follow it again.

Saxena 2023 (apoorvumang/prompt-lookup-decoding); in Spec-Bench as PLD. No model drafts: the host
finds the last n-gram in the text, and a step feeds the known token and ``drafts`` guesses.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from pimsim.config.decoding import DecodingSettings
from pimsim.workload.decoding import DecodingStrategy

__all__ = ["STRATEGY", "PromptLookup", "PromptLookupSettings"]


class PromptLookupSettings(DecodingSettings):
    """How much is guessed."""

    drafts: int = Field(default=10, ge=1, le=1000)
    """Tokens that are guessed in a step (10: the published code's)."""


class PromptLookup(DecodingStrategy):
    """See the module."""

    Settings = PromptLookupSettings
    beside_blocks: ClassVar[bool] = False
    settings: PromptLookupSettings

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "prompt_lookup"

    @property
    def rows(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.drafts + 1

    @property
    def depth(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.drafts


STRATEGY = PromptLookup
