"""StreamingLLM: attention sinks, and a window of the last tokens; what lies between is evicted.

Xiao et al. 2024, arXiv 2309.17453. Positions are those within the cache, so that keys are cached
before the rotary embedding and turned whenever they are read (section 3.2). A query reads
``min(C, window + sinks)`` keys in each block.
"""

from __future__ import annotations

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.workload.kept_tokens import keeping
from pimsim.workload.kv_views import KvView
from pimsim.workload.trace import OperatorTrace

__all__ = ["VIEW", "StreamingLlm", "StreamingLlmSettings"]


class StreamingLlmSettings(ConfigModel):
    """Which tokens are kept."""

    window: int = Field(default=2044, ge=1, le=1_000_000)
    """Last tokens, the query's own among them (2044 and 4 sinks: the paper's cache of 2048)."""
    sinks: int = Field(default=4, ge=0, le=1_000_000)
    """First tokens."""


class StreamingLlm(KvView):
    """See the module."""

    Settings = StreamingLlmSettings
    settings: StreamingLlmSettings

    @property
    def tokens(self) -> int:
        """See ``KvView``."""
        return self.settings.window + self.settings.sinks

    @property
    def rotates_keys(self) -> bool:
        """See ``KvView``."""
        return True

    def model(self, trace: OperatorTrace) -> OperatorTrace:
        """See ``KvView``."""
        return keeping(trace, self.tokens, self.rotates_keys, "streaming_llm")


VIEW = StreamingLlm
