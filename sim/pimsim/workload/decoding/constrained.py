"""Text that follows a grammar: a token a step, masked by the host, or weighed by a model beside.

The host works out which tokens the grammar allows (``host_us``, beside the device with
``host_overlapped``). Deco-G asks more of the device: a tractable model of ``states`` says how
likely each token is to lead to text of the format, a product of its states with one another and one
with the vocabulary in each step, which is added to the logits.
"""

from __future__ import annotations

from pydantic import Field

from pimsim.config.decoding import DecodingSettings
from pimsim.workload.decoding import DecodingStrategy
from pimsim.workload.extra_operators import maker_of, output_layer, with_operators_behind
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import OperatorTrace, Shard

__all__ = ["STRATEGY", "Constrained", "ConstrainedSettings"]


class ConstrainedSettings(DecodingSettings):
    """Who sees to the grammar."""

    tokens: float | None = Field(default=1.0, ge=1, le=1)
    """A step makes one."""
    states: int = Field(default=0, ge=0, le=1_000_000)
    """Of the model that weighs tokens; 0: the host masks them."""


class Constrained(DecodingStrategy):
    """See the module."""

    Settings = ConstrainedSettings
    settings: ConstrainedSettings

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "constrained"

    @property
    def rows(self) -> int:
        """See ``DecodingStrategy``."""
        return 1

    @property
    def depth(self) -> int:
        """See ``DecodingStrategy``."""
        return 0

    def model(self, trace: OperatorTrace, requests: int) -> OperatorTrace:
        """With the states and what they say of each token."""
        states, vocab, make = self.settings.states, trace.facts.vocab, maker_of(trace)
        logits = output_layer(trace)[1]
        if not states:
            return trace
        return with_operators_behind(
            trace,
            [
                make.gemm("states", states, states, (logits.name,), m="L"),
                make.gemm("format_logits", vocab, states, ("states",), m="L", shard=Shard.COLUMNS),
                make.vector(
                    "weighed", OperatorKind.ELEMENTWISE, {"L": 1}, vocab, 1,
                    (logits.name, "format_logits"), shard=Shard.COLUMNS, inputs=2,
                ),
            ],
        )  # fmt: skip


STRATEGY = Constrained
