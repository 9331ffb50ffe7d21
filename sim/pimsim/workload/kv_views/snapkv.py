"""SnapKV: of a prompt each head keeps the keys that its last queries looked at most.

Li et al. 2024, arXiv 2404.14469; FasterDecoding/SnapKV. The choice is made once, when a prompt of
``n`` tokens has been read; from then on a request holds and reads ``min(n, budget)`` tokens of it
and all that it generates. Keys stay as they were turned, so that banks read them, too. What the
choice itself takes is a part of the prompt's step, which is not modelled.
"""

from __future__ import annotations

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.workload.kv_views import KvView
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import OperatorTrace

__all__ = ["VIEW", "SnapKv", "SnapKvSettings"]


class SnapKvSettings(ConfigModel):
    """How much is kept."""

    budget: int = Field(default=1024, ge=1, le=1_000_000)
    """Tokens of a prompt that each head keeps, its last ones among them (1024, 2048, 4096: the
    paper's)."""


class SnapKv(KvView):
    """See the module."""

    Settings = SnapKvSettings
    settings: SnapKvSettings
    cuts_prompts = True

    @property
    def tokens(self) -> int:
        """See ``KvView``."""
        return self.settings.budget

    def model(self, trace: OperatorTrace) -> OperatorTrace:
        """See ``KvView``."""
        scores = [
            each for operators in trace.phases["decode"].blocks.values() for each in operators
            if each.kind in (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)
        ]  # fmt: skip
        if len({each.head_dim for each in scores}) > 1:
            raise InputError(
                f"workload.kv_view: snapkv: model {trace.model} keeps latents (MLA), of which keys "
                "and values of single heads cannot be chosen"
            )
        if any(each.window is not None for each in scores):
            raise InputError(
                f"workload.kv_view: snapkv: model {trace.model} has blocks with a window, which "
                "hold their last tokens alone"
            )
        return trace


VIEW = SnapKv
