"""What a GPU's kernels take: the choice of model that a config asks for.

``silicon`` is the main path (``gemm``, ``flash``, ``decode``, ``experts``). What a published
simulator does otherwise is a module of the kind ``gpu_kernels`` with a subclass, ``Kernels``.
"""

from __future__ import annotations

from functools import cache

from pimsim.config.plugins import load_module
from pimsim.config.xpu import XpuConfig
from pimsim.hardware.xpu.decode import decode_attention
from pimsim.hardware.xpu.experts import Experts, experts_cost
from pimsim.hardware.xpu.flash import FlashAttention, flash
from pimsim.hardware.xpu.gemm import gemm
from pimsim.hardware.xpu.roofline import Cost
from pimsim.hardware.xpu.tiling import Product

__all__ = ["Kernels", "gpu_kernels"]


class Kernels:
    """As on silicon."""

    fuses_decode = True
    """Attention of single tokens is one kernel, as that of several is; else scores, softmax and
    values are three."""

    def product(self, work: Product, xpu: XpuConfig) -> Cost:
        """Matrix products in one launch."""
        return gemm(work, xpu)

    def flash(self, work: FlashAttention, xpu: XpuConfig) -> Cost:
        """Fused attention in one launch."""
        if all(part.new_tokens == 1 for part in work.parts):
            return decode_attention(work, xpu)
        return flash(work, xpu)

    def experts(self, work: Experts, xpu: XpuConfig) -> Cost:
        """The chosen experts of one layer, routing and sum included.

        Raises ``InputError`` for a device on which they were not measured.
        """
        return experts_cost(work, xpu)


def gpu_kernels(xpu: XpuConfig) -> Kernels:
    """The kernels that ``xpu`` asks for.

    Parameters
    ----------
    xpu
        Its key ``kernels``.

    Raises
    ------
    InputError
        With the near miss where there are none of that name.
    """
    return _made(xpu.kernels)


@cache
def _made(name: str) -> Kernels:
    if name == "silicon":
        return Kernels()
    made: Kernels = load_module("gpu_kernels", name).Kernels()
    return made
