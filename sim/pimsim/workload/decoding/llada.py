"""LLaDA's blocks of masks, with the caches of Fast-dLLM.

Nie et al. 2025, arXiv 2502.09992; Wu et al. 2025, arXiv 2505.22618. All blocks of an answer are
made, whatever is behind its end of text.
"""

from __future__ import annotations

from pimsim.workload.diffusion import BlockDiffusion

__all__ = ["STRATEGY", "Llada"]


class Llada(BlockDiffusion):
    """See the module."""

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "llada"


STRATEGY = Llada
