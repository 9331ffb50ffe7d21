"""Early exit: the model's own first blocks draft, and all of it verifies.

Self-speculation (Zhang et al. 2023, arXiv 2309.08168; LayerSkip, Elhoushi et al. 2024, arXiv
2404.16710). A step is ``drafts`` passes of the first ``blocks`` with the output layer behind them,
a token of each request, then one of the whole model with ``drafts + 1`` tokens. Weights and the
cache of the first blocks are the model's: nothing is held beside it. LayerSkip verifies with the
other blocks alone, as it keeps what the first ones made of the drafts; that is not modelled, and
makes a step here the dearer one.
"""

from __future__ import annotations

from pydantic import Field

from pimsim.config.decoding import DecodingSettings
from pimsim.config.errors import InputError
from pimsim.workload.decoding import DecodingStrategy, Drafter
from pimsim.workload.first_blocks import first_blocks
from pimsim.workload.trace import OperatorTrace

__all__ = ["STRATEGY", "EarlyExit", "EarlyExitSettings"]


class EarlyExitSettings(DecodingSettings):
    """Where drafts leave the model, and how many there are."""

    blocks: int = Field(ge=1, le=100_000)
    """First blocks that draft."""
    drafts: int = Field(default=4, ge=1, le=1000)
    """Tokens that are guessed in a step."""


class EarlyExit(DecodingStrategy):
    """See the module."""

    Settings = EarlyExitSettings
    settings: EarlyExitSettings

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "early_exit"

    @property
    def rows(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.drafts + 1

    @property
    def depth(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.drafts

    def drafter(self, trace: OperatorTrace) -> Drafter:
        """The first blocks. Raises ``InputError`` where they would be the whole model."""
        blocks, layers = self.settings.blocks, trace.facts.layers
        if blocks >= layers:
            raise InputError(
                f"workload.decoding: early_exit: model {trace.model} has {layers} blocks, blocks "
                f"is {blocks}; fewer are to draft"
            )
        first = first_blocks(trace, blocks, output=True)
        named = first.model_copy(update={"model": f"{trace.model}-exit"})
        return Drafter(named, 1, self.settings.drafts, 0, shares_cache=True)


STRATEGY = EarlyExit
