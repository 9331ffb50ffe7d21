"""Multi-token prediction: one more block of the model guesses the next tokens, one after the other.

DeepSeek-V3 (arXiv 2412.19437, section 2.2), Qwen3.5, GLM-4.5. The block is one of the model's last
kind, experts and all, behind a projection from 2 d to d of the last hidden state and the embedding
of the token before; tables are the model's. A step is ``drafts`` passes of it with a token of each
request, then one of the model with ``drafts + 1`` tokens.
"""

from __future__ import annotations

from pydantic import Field

from pimsim.config.decoding import DecodingSettings
from pimsim.workload.decoding import DecodingStrategy, Drafter
from pimsim.workload.draft_blocks import one_block_drafter
from pimsim.workload.trace import OperatorTrace

__all__ = ["STRATEGY", "MultiTokenPrediction", "MultiTokenSettings"]


class MultiTokenSettings(DecodingSettings):
    """How far ahead."""

    drafts: int = Field(default=1, ge=1, le=16)
    """Tokens that are guessed in a step (1: DeepSeek-V3's)."""


class MultiTokenPrediction(DecodingStrategy):
    """See the module."""

    Settings = MultiTokenSettings
    settings: MultiTokenSettings

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "mtp"

    @property
    def rows(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.drafts + 1

    @property
    def depth(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.drafts

    def drafter(self, trace: OperatorTrace) -> Drafter:
        """The block; see ``DecodingStrategy``."""
        found, own = one_block_drafter(trace, f"{trace.model}-mtp", fused=2)
        return Drafter(found, 1, self.settings.drafts, own)


STRATEGY = MultiTokenPrediction
