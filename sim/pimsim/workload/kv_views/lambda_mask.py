"""The lambda mask of LM-Infinite: the first tokens and a window of the last ones.

Han et al. 2024, arXiv 2308.16137; Glaciohound/LM-Infinite @a0ce64c (``convert_llama_model(model,
4096, 10)``). A query reads ``min(C, window + sinks)`` keys in each block. The first tokens are seen
at a fixed distance, so that keys are cached unrotated and turned when they are read
(``rotation=keys``: ``K D`` elements of vector work a token read), or queries are turned twice and
the keys lie rotated in the banks (``rotation=queries``). The middle is evicted here; the paper's
optional top-k of it in some blocks is not modelled. Contexts beyond the model's are taken: that is
what the mask is for.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.workload.kept_tokens import keeping
from pimsim.workload.kv_views import KvView
from pimsim.workload.trace import OperatorTrace

__all__ = ["VIEW", "LambdaMask", "LambdaMaskSettings"]


class LambdaMaskSettings(ConfigModel):
    """Which tokens are kept."""

    window: int = Field(default=4096, ge=1, le=1_000_000)
    """Last tokens, the query's own among them (4096: the length of training)."""
    sinks: int = Field(default=10, ge=0, le=1_000_000)
    """First tokens."""
    rotation: Literal["keys", "queries"] = "keys"
    """What is turned when keys are read."""


class LambdaMask(KvView):
    """See the module."""

    Settings = LambdaMaskSettings
    settings: LambdaMaskSettings

    @property
    def tokens(self) -> int:
        """See ``KvView``."""
        return self.settings.window + self.settings.sinks

    @property
    def rotates_keys(self) -> bool:
        """See ``KvView``."""
        return self.settings.rotation == "keys"

    def model(self, trace: OperatorTrace) -> OperatorTrace:
        """See ``KvView``."""
        return keeping(trace, self.tokens, self.rotates_keys, "lambda_mask")


VIEW = LambdaMask
