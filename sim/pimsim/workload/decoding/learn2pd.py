"""Learn2PD: a learned filter says which masks are final; nothing is made behind the end of text.

Bao et al. 2025, arXiv 2509.25188. Behind each pass two layers of ``block`` neurons look at the
confidences of the block (2,048 parameters of 32). Once the end of text is final, later blocks are
not made (EoTP), so that ``text`` tokens take the blocks that hold them.
"""

from __future__ import annotations

from pimsim.workload.diffusion import BlockDiffusion
from pimsim.workload.extra_operators import maker_of, output_layer, with_operators_behind
from pimsim.workload.trace import OperatorTrace

__all__ = ["STRATEGY", "Learn2pd"]


class Learn2pd(BlockDiffusion):
    """See the module."""

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "learn2pd"

    @property
    def blocks(self) -> int:
        """Blocks up to the end of text."""
        own = self.settings
        return -(-(own.text or own.length) // own.block)

    def model(self, trace: OperatorTrace, requests: int) -> OperatorTrace:
        """With the filter."""
        make, size = maker_of(trace), self.settings.block
        logits = output_layer(trace)[1]
        return with_operators_behind(
            trace,
            [
                make.gemm("filter_1", size, size, (logits.name,), m="B"),
                make.gemm("filter_2", size, size, ("filter_1",), m="B"),
            ],
        )


STRATEGY = Learn2pd
