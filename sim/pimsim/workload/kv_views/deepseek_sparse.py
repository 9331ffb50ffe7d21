"""DeepSeek's sparse attention: an index chooses the latents that a query reads.

DeepSeek-V3.2-Exp (deepseek-ai/DeepSeek-V3.2-Exp, inference/model.py, class Indexer). Beside the
latents a key of ``dim`` elements of FP8 with a scale of 4 bytes is kept of each token. ``heads``
queries of a token are multiplied with all of them, so that as many queries share a key (124 FLOP/B
of 64 heads: no GEMV); what is above zero is weighted and summed up, and the latents of the best
``budget`` tokens are gathered one by one. The index is whole on each device. Nothing is evicted.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.workload.arithmetic import ROPE_FLOPS
from pimsim.workload.chosen_keys import GROUP, choosing, kept_product, kept_vector
from pimsim.workload.extra_operators import maker_of
from pimsim.workload.kv_views import KvView
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import OperatorTrace, SymbolicOperator

__all__ = ["VIEW", "DeepseekSparse", "DeepseekSparseSettings"]

_SCALE_BYTES = 4
_TURNED = 64
"""Elements of a query and a key that have a rotary position."""
_WEIGHTED_FLOPS = 3
"""Of a head's score: compare with zero, weigh, add."""


class DeepseekSparseSettings(ConfigModel):
    """The index, and how much is read; all as published."""

    budget: int = Field(default=2048, ge=1, le=1_000_000)
    """Tokens whose latents a query reads."""
    heads: int = Field(default=64, ge=1, le=4096)
    """Queries of a token that share a key of the index."""
    dim: int = Field(default=128, ge=1, le=4096)
    """Elements of such a key, a byte each."""


class DeepseekSparse(KvView):
    """See the module."""

    Settings = DeepseekSparseSettings
    settings: DeepseekSparseSettings
    of_single_tokens = True
    gathers_tokens = True

    @property
    def tokens(self) -> int:
        """See ``KvView``."""
        return self.settings.budget

    def model(self, trace: OperatorTrace) -> OperatorTrace:
        """See ``KvView``. Raises ``InputError`` where the model keeps no latents."""
        for operators in trace.phases["decode"].blocks.values():
            kept = [
                (each.head_dim, each.kv_heads)
                for each in operators
                if each.kind in (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)
            ]
            if kept and (len(set(kept)) == 1 or any(heads > 1 for _, heads in kept)):
                raise InputError(
                    f"workload.kv_view: deepseek_sparse: model {trace.model} keeps keys and values "
                    "of single heads, no latents (MLA) that an index could choose for all; quest "
                    "chooses those"
                )
        own, make, facts = self.settings, maker_of(trace), trace.facts

        def chooser(operators: Sequence[SymbolicOperator]) -> list[SymbolicOperator]:
            named = {each.name: each for each in operators}
            score = next(o for o in operators if o.kind is OperatorKind.ATTENTION_SCORE)
            absorbed = named[score.depends_on[0]]
            query = named[absorbed.depends_on[0]]  # the last projection of queries
            norm = (operators[0].name,)
            return [
                make.gemm("index_q", own.heads * own.dim, query.k, query.depends_on),
                make.gemm("index_k", own.dim, facts.hidden, norm),
                make.norm("index_norm", own.dim, "layernorm", ("index_k",)),
                make.gemm("index_weights", own.heads, facts.hidden, norm),
                make.vector(
                    "index_rope", OperatorKind.ELEMENTWISE, {"T": own.heads + 1},
                    min(own.dim, _TURNED), ROPE_FLOPS, ("index_q", "index_norm"), group=GROUP,
                ),
                kept_product(
                    "index_scores", own.heads, own.dim, 1, 1, own.dim + _SCALE_BYTES,
                    facts.dtype_bytes, ("index_rope",),
                ),
                kept_vector(
                    "index_choice", 1, own.heads, own.heads * _WEIGHTED_FLOPS, 1,
                    facts.dtype_bytes, ("index_scores", "index_weights"), output=False,
                ),
            ]  # fmt: skip

        return choosing(trace, own.budget, 1, chooser)


VIEW = DeepseekSparse
