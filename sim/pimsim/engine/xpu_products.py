"""Kernels of a GPU that no context changes: products, streams, all-reduces, experts."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.config.system import SystemConfig
from pimsim.config.xpu import KernelConfig
from pimsim.engine.xpu_links import moved_between
from pimsim.hardware.fabric.schedule import Operation
from pimsim.hardware.pim.bandwidth import unit_bandwidth
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.experts import Experts
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.hardware.xpu.sharing import device_share
from pimsim.hardware.xpu.tiling import Product
from pimsim.mapping.kernels import BlockKernels, Streamed

__all__ = ["FixedCosts", "Gemm", "KernelTime", "gemm_on", "multiplying_command", "pim_bandwidth"]


@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel of a block, as it runs when nothing overlaps."""

    name: str
    unit: str
    time_s: float
    bound: str
    kind: str = ""
    """Of the operator that it is, as workloads call them."""
    start_s: float = 0.0
    """After the block's begin."""
    macs: int = 0
    """That its operator needs."""
    moved_bytes: int = 0
    """From and to the memory of its unit, each once; of a link, over it."""
    least_s: float = 0.0
    """At the peaks of its unit, each byte once."""


@dataclass(frozen=True, slots=True)
class Gemm:
    """A product on the device, and on PIM where both have a part of its weights."""

    name: str
    time_s: float
    cost: roofline.Cost
    share: float
    """Of the weights, on the device."""
    product: Product
    pim_s: float = 0.0
    """What PIM takes for its part, at the same time."""

    @property
    def pim_bytes(self) -> float:
        """What PIM reads: its weights once for each row of the activations."""
        return (1 - self.share) * self.product.m * self.weight_bytes

    @property
    def weight_bytes(self) -> int:
        """Of the whole product."""
        return self.product.stored_bytes


@dataclass(frozen=True, slots=True)
class FixedCosts:
    """The part of a block that does not depend on the context."""

    projections: tuple[Gemm, ...]
    ffn: tuple[Gemm, ...]
    elementwise: tuple[tuple[Streamed, KernelConfig, roofline.Cost], ...]
    reduced: tuple[tuple[float, int], ...]
    """Seconds and bytes on a device's link of each all-reduce."""
    experts: tuple[Experts, roofline.Cost] | None = None

    @property
    def all_reduce_s(self) -> float:
        """Of all of them."""
        return fsum(time_s for time_s, _ in self.reduced)

    @property
    def link_bytes(self) -> int:
        """Of all of them."""
        return sum(size for _, size in self.reduced)

    @property
    def experts_s(self) -> float:
        """Of the experts that a router chooses."""
        return 0.0 if self.experts is None else self.experts[1].time_s

    @classmethod
    def of(cls, block: BlockKernels, config: SystemConfig) -> FixedCosts:
        """Costs of a block of any context."""
        xpu = config.xpu
        streams = [(each, xpu.add_norm) for each in block.add_norms]
        streams += [(each, xpu.activation) for each in block.activations]
        return cls(
            projections=tuple(
                gemm_on(name, each, config, split=False) for name, each in block.projections
            ),
            ffn=tuple(
                gemm_on(name, each, config, split=config.ffn_split and name != "router")
                for name, each in block.ffn
            ),
            elementwise=tuple(
                (each, kernel, roofline.stream(each.moved_bytes, each.flops, kernel, xpu))
                for each, kernel in streams
            ),
            reduced=tuple(
                moved_between(Operation.ALL_REDUCE, payload, config)
                for payload in block.reduced_bytes
            ),
            experts=None
            if block.experts is None
            else (block.experts, gpu_kernels(xpu).experts(block.experts, xpu)),
        )


def gemm_on(name: str, product: Product, config: SystemConfig, *, split: bool) -> Gemm:
    """A product on the device, or cut by columns between the device and PIM.

    Shares follow the peaks: PIM reads its weights once for each row of the activations, the device
    once, or is bound by its arithmetic. What is achieved below the peaks makes one end later.

    Parameters
    ----------
    name
        Of the product, in tables.
    product
        Its sizes.
    config
        Of the server.
    split
        Whether PIM has a part of the weights.

    Returns
    -------
    Gemm
        Its time, s, is that of the part that ends last.
    """
    cost = gpu_kernels(config.xpu).product(product, config.xpu)
    if not split:
        return Gemm(name, cost.time_s, cost, 1.0, product)
    weights = product.stored_bytes
    pim_s = product.m * weights / pim_bandwidth(config, at_commands=False)
    if cost.bound == "compute":
        device_s = 2 * product.macs / roofline.peak_flops(config.xpu, product.element_bytes)
    else:
        device_s = weights / roofline.bandwidth(config.xpu)
    share = device_share(device_s, pim_s)
    on_pim_s = pim_s * (1 - share)
    return Gemm(name, max(cost.time_s * share, on_pim_s), cost, share, product, on_pim_s)


def pim_bandwidth(config: SystemConfig, *, at_commands: bool) -> float:
    """What the PIM units beside one device read at most.

    Parameters
    ----------
    config
        Of a server with stacks and a PIM design.
    at_commands
        Whether the design's commands set it; else ``stacks.ffn_read_multiple`` of the stacks'
        bandwidth does, where the config has one.

    Returns
    -------
    float
        Bytes a second, of all stacks of a device.
    """
    stacks, design = config.stacks, config.pim
    assert stacks is not None and design is not None
    if at_commands or stacks.ffn_read_multiple is None:
        return stacks.count * unit_bandwidth(design, multiplying_command(design))
    return stacks.count * stacks.bandwidth_gb_per_s * 1e9 * stacks.ffn_read_multiple


def multiplying_command(design: PimDesignConfig) -> str:
    """The command that multiplies.

    Parameters
    ----------
    design
        Of the PIM units.

    Returns
    -------
    str
        Its name among the design's commands.

    Raises
    ------
    InputError
        For a design without attention.
    """
    if design.attention is None:
        raise InputError(f"pim {design.name}: key attention is missing; a system needs it")
    return design.attention.commands.mac
