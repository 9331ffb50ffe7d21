"""GemFilter: the first blocks read a prompt and choose the tokens that the whole model reads.

Shi et al. 2024, arXiv 2409.17422; SalesforceAIResearch/GemFilter @5f79b1a. The first ``blocks``
blocks (r + 1) are fed all ``n`` tokens of a prompt; its last query's scores in the last of them say
which ``budget`` tokens stay. Keys and values of that pass are dropped, and the whole model is fed
the ``k`` tokens with new positions: a prompt takes ``(r + 1) / L F(n) + F(k)`` operations, and a
request with g generated tokens is one of ``min(n, k) + g``. The choice itself, a query's scores
once more, is not counted.
"""

from __future__ import annotations

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.workload.first_blocks import first_blocks
from pimsim.workload.kv_views import KvView
from pimsim.workload.trace import OperatorTrace

__all__ = ["VIEW", "GemFilter", "GemFilterSettings"]


class GemFilterSettings(ConfigModel):
    """Who chooses, and how much."""

    blocks: int = Field(default=14, ge=1, le=100_000)
    """First blocks that read the whole prompt (14 of Llama-3.1-8B's 32, 20 of Mistral-Nemo's 40 and
    of Phi-3.5's 32)."""
    budget: int = Field(default=1024, ge=1, le=1_000_000)
    """Tokens of a prompt that stay."""


class GemFilter(KvView):
    """See the module."""

    Settings = GemFilterSettings
    settings: GemFilterSettings
    cuts_prompts = True

    @property
    def tokens(self) -> int:
        """See ``KvView``."""
        return self.settings.budget

    def model(self, trace: OperatorTrace) -> OperatorTrace:
        """See ``KvView``."""
        self.chooser(trace)
        return trace

    def chooser(self, trace: OperatorTrace) -> OperatorTrace:
        """See ``KvView``. Raises ``InputError`` where it would be the whole model."""
        blocks, layers = self.settings.blocks, trace.facts.layers
        if blocks >= layers:
            raise InputError(
                f"workload.kv_view: gemfilter: model {trace.model} has {layers} blocks, blocks is "
                f"{blocks}; fewer are to choose"
            )
        return first_blocks(trace, blocks, output=False)


VIEW = GemFilter
