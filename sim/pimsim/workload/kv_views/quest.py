"""Quest: each query reads the pages of the cache that may matter most to it, and no others.

Tang et al. 2024, arXiv 2406.10774; mit-han-lab/Quest. Of each page the largest and the smallest of
each element of its keys are kept: 2/``page`` of what the keys take. A page's score is the sum over
elements of ``max(q M, q m)``, which is the product of ``[max(q, 0), min(q, 0)]`` with ``[M, m]``: a
matrix of a column of ``2 D`` elements a page, for each head of keys. The best pages of ``budget``
tokens are read as a whole, the last one always. The first ``dense`` blocks read all, as in the
paper. Nothing is evicted.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.workload.chosen_keys import choosing, kept_product, kept_vector, queries_of
from pimsim.workload.kv_views import KvView
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import OperatorTrace, SymbolicOperator

__all__ = ["VIEW", "Quest", "QuestSettings"]


class QuestSettings(ConfigModel):
    """How much is read."""

    budget: int = Field(default=2048, ge=1, le=1_000_000)
    """Tokens that a query reads, in whole pages (2048: the paper's figures of speed)."""
    page: int = Field(default=16, ge=1, le=4096)
    """Tokens of a page."""
    dense: int = Field(default=2, ge=0, le=1000)
    """First blocks whose queries read all."""

    @model_validator(mode="after")
    def _whole_pages(self) -> QuestSettings:
        if self.budget % self.page:
            raise ValueError(
                f"budget is {self.budget}, no multiple of page ({self.page}); pages are read whole"
            )
        return self


class Quest(KvView):
    """See the module."""

    Settings = QuestSettings
    settings: QuestSettings
    of_single_tokens = True

    @property
    def tokens(self) -> int:
        """See ``KvView``."""
        return self.settings.budget

    def model(self, trace: OperatorTrace) -> OperatorTrace:
        """See ``KvView``. Raises ``InputError`` for latents, windows, and too many dense blocks."""
        scores = [
            each for operators in trace.phases["decode"].blocks.values() for each in operators
            if each.kind in (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)
        ]  # fmt: skip
        where = f"workload.kv_view: quest: model {trace.model}"
        if len({each.head_dim for each in scores}) > 1:
            raise InputError(
                f"{where} keeps latents (MLA), which all heads share; deepseek_sparse chooses those"
            )
        if any(each.window is not None for each in scores):
            raise InputError(
                f"{where} has blocks with a window, which hold their last tokens alone"
            )
        own = self.settings
        if own.dense >= trace.facts.layers:
            raise InputError(
                f"{where} has {trace.facts.layers} blocks, dense is {own.dense}: no block chooses"
            )
        size = trace.facts.dtype_bytes, trace.facts.kv_dtype_bytes

        def chooser(operators: Sequence[SymbolicOperator]) -> list[SymbolicOperator]:
            score = next(o for o in operators if o.kind is OperatorKind.ATTENTION_SCORE)
            heads, kv_heads, dim = score.heads, score.kv_heads, score.head_dim
            group = heads // kv_heads
            product = kept_product(
                "page_scores", group, 2 * dim, kv_heads, own.page, 2 * dim * size[1], size[0],
                queries_of(operators, score), kv_heads,
            )  # fmt: skip
            best = kept_vector(
                "choice", heads, 1, 0, own.page, size[0], (product.name,), kv_heads,
                output=False,
            )  # fmt: skip
            return [product, best]

        return choosing(trace, own.budget, own.page, chooser, own.dense)


VIEW = Quest
