"""One decoder block of a step on a device: the time, energy and least times of its kernels.

Kernels run one after the other; what PIM does at the same time is said by ``overlap`` and
``ffn_split``.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_attention import AttentionCost, attention_cost, flash_cost
from pimsim.engine.xpu_rules import cost_rules
from pimsim.hardware.fabric.collectives import all_reduce
from pimsim.hardware.pim.bandwidth import unit_bandwidth
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.hardware.xpu.sharing import device_share, exposed
from pimsim.hardware.xpu.tiling import Product
from pimsim.mapping.kernels import BlockKernels

__all__ = ["BlockCost", "FixedCosts", "Gemm", "KernelTime", "block_cost", "gemm_cost"]

_BITS = 8


@dataclass(frozen=True, slots=True)
class KernelTime:
    """A kernel of the last step's block, as it runs when nothing overlaps."""

    name: str
    unit: str
    time_s: float
    bound: str


@dataclass(frozen=True, slots=True)
class Gemm:
    """A product on the device, and on PIM where both have a part of its weights."""

    name: str
    time_s: float
    cost: roofline.Cost
    share: float
    """Of the weights, on the device."""
    product: Product

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
    elementwise: tuple[tuple[str, roofline.Cost], ...]
    all_reduce_s: float
    link_bytes: int

    @classmethod
    def of(cls, block: BlockKernels, config: SystemConfig) -> FixedCosts:
        """Costs of a block of any context."""
        xpu = config.xpu
        reduced = [
            all_reduce(payload, config.devices, config.link) for payload in block.reduced_bytes
        ]
        elementwise = [
            (each.name, roofline.stream(each.moved_bytes, each.flops, xpu.add_norm, xpu))
            for each in block.add_norms
        ]
        act = block.activation
        act_cost = roofline.stream(act.moved_bytes, act.flops, xpu.activation, xpu)
        return cls(
            projections=tuple(
                _gemm(name, each, config, split=False) for name, each in block.projections
            ),
            ffn=tuple(
                _gemm(name, each, config, split=config.ffn_split) for name, each in block.ffn
            ),
            elementwise=(*elementwise, (act.name, act_cost)),
            all_reduce_s=sum(each.time_ps for each in reduced) * 1e-12,
            link_bytes=sum(each.link_bytes for each in reduced),
        )


def _gemm(name: str, product: Product, config: SystemConfig, *, split: bool) -> Gemm:
    """A product; with ``split``, cut by columns between the device and PIM.

    Shares follow the peaks: PIM reads its weights once for each row of the activations, the device
    once, or is bound by its arithmetic. What is achieved below the peaks makes one end later.
    """
    cost = gpu_kernels(config.xpu).product(product, config.xpu)
    if not split:
        return Gemm(name, cost.time_s, cost, 1.0, product)
    weights = product.stored_bytes
    pim_s = product.m * weights / _pim_bandwidth(config, at_commands=False)
    if cost.bound == "compute":
        device_s = 2 * product.macs / roofline.peak_flops(config.xpu, product.element_bytes)
    else:
        device_s = weights / roofline.bandwidth(config.xpu)
    share = device_share(device_s, pim_s)
    return Gemm(name, max(cost.time_s * share, pim_s * (1 - share)), cost, share, product)


def _pim_bandwidth(config: SystemConfig, *, at_commands: bool) -> float:
    """Bytes a second that the PIM units beside one device read at most."""
    stacks, design = config.stacks, config.pim
    assert stacks is not None and design is not None
    if at_commands or stacks.ffn_read_multiple is None:
        return stacks.count * unit_bandwidth(design, _mac(design))
    return stacks.count * stacks.bandwidth_gb_per_s * 1e9 * stacks.ffn_read_multiple


@dataclass(frozen=True, slots=True)
class BlockCost:
    """One block of one step; energies of one device."""

    parts_s: dict[str, float]
    gemm_s: dict[str, float]
    energy_pj: dict[str, float]
    bound_s: dict[str, float]
    kernels: tuple[KernelTime, ...]


def block_cost(kernels: BlockKernels, fixed: FixedCosts, config: SystemConfig) -> BlockCost:
    """A block at one context; of several new tokens only where the device has attention.

    Parameters
    ----------
    kernels
        Of one block and one kind.
    fixed
        What does not depend on the context.
    config
        Of the server.
    """
    attention = _attention(kernels, config)
    projections_s = fsum(each.time_s for each in fixed.projections)
    transfer_s = attention.transfer_s
    if config.overlap != "none" and kernels.attention is not None:
        heads = kernels.attention.heads // kernels.attention.requests
        others = [transfer_s, projections_s if config.overlap == "projections" else 0.0]
        busy = attention.attention_s + attention.hidden_softmax_s
        added = exposed(busy, others, heads)
        transfer_s = added[0]
        if config.overlap == "projections":
            projections_s = added[1]
    whole = fsum(each.time_s for each in fixed.projections)
    gemm_s = {each.name: each.time_s * projections_s / whole for each in fixed.projections}
    gemm_s |= {each.name: each.time_s for each in fixed.ffn}
    return BlockCost(
        parts_s={
            "attention": attention.attention_s,
            "softmax": attention.softmax_s,
            "gemm": fsum(gemm_s.values()),
            "communication": fixed.all_reduce_s + transfer_s,
            "elementwise": fsum(cost.time_s for _, cost in fixed.elementwise),
        },
        gemm_s=gemm_s,
        energy_pj=_energy(attention, fixed, config),
        bound_s=_bounds(kernels, fixed, config),
        kernels=_kernel_times(attention, fixed, config),
    )


def _attention(kernels: BlockKernels, config: SystemConfig) -> AttentionCost:
    if kernels.attention is not None:
        return attention_cost(kernels.attention, config)
    if config.attention != "xpu":
        raise ValueError("attention of several new tokens is the device's")
    return flash_cost(kernels.flash, config)


def gemm_cost(name: str, product: Product, config: SystemConfig) -> BlockCost:
    """A product beside the blocks, on the device alone.

    Parameters
    ----------
    name
        Of the product, in tables.
    product
        Its sizes.
    config
        Of the server.
    """
    gemm = _gemm(name, product, config, split=False)
    return BlockCost(
        parts_s={"gemm": gemm.time_s},
        gemm_s={name: gemm.time_s},
        energy_pj={"memory": gemm.cost.memory_pj, "core": gemm.cost.core_pj},
        bound_s={
            "xpu_compute": 2
            * product.macs
            / roofline.peak_flops(config.xpu, product.element_bytes),
            "xpu_memory": gemm.weight_bytes / roofline.bandwidth(config.xpu),
        },
        kernels=(KernelTime(name, "xpu", gemm.time_s, gemm.cost.bound),),
    )


def _energy(attention: AttentionCost, fixed: FixedCosts, config: SystemConfig) -> dict[str, float]:
    """Picojoule of one block on one device."""
    memory = core = pim = host = 0.0
    rules = cost_rules(config)
    for gemm in (*fixed.projections, *fixed.ffn):
        share = rules.energy_share(gemm.share)
        memory += share * gemm.cost.memory_pj
        core += share * gemm.cost.core_pj
        if share < 1:
            pim += gemm.pim_bytes * _pim_pj_per_byte(config)
    for _, cost in fixed.elementwise:
        memory += cost.memory_pj
        core += cost.core_pj
    if config.attention == "pim":
        pim += attention.memory_pj
    elif config.attention == "host":
        host += attention.memory_pj + attention.core_pj
    else:
        memory += attention.memory_pj
        core += attention.core_pj
    link = (fixed.link_bytes + attention.link_bytes) * _BITS * config.link_pj_per_bit
    return {"memory": memory, "core": core, "pim": pim, "host": host, "link": link}


def _pim_pj_per_byte(config: SystemConfig) -> float:
    """A weight read and multiplied in PIM: a MAC command's energy over a bank's column."""
    design = config.pim
    assert design is not None
    energy = design.all_commands[_mac(design)].energy
    return design.energy_pj[energy] / design.organization.burst_bytes if energy else 0.0


def _mac(design: PimDesignConfig) -> str:
    """The command that multiplies; ``InputError`` for a design without attention."""
    if design.attention is None:
        raise InputError(f"pim {design.name}: key attention is missing; a system needs it")
    return design.attention.commands.mac


def _bounds(kernels: BlockKernels, fixed: FixedCosts, config: SystemConfig) -> dict[str, float]:
    """Least time of each unit for its part of a block: peaks, and each byte once."""
    gemms = (*fixed.projections, *fixed.ffn)
    flops = fsum(2 * gemm.share * gemm.product.macs for gemm in gemms)
    moved = fsum(gemm.share * gemm.weight_bytes for gemm in gemms)
    bounds = {}
    if config.attention == "xpu":
        flops += 2 * kernels.attention_macs
        moved += kernels.kv_bytes
    elif config.attention == "pim":
        read = kernels.kv_bytes + fsum(gemm.pim_bytes for gemm in gemms)
        bounds["pim"] = read / _pim_bandwidth(config, at_commands=True)
    else:
        assert config.host is not None
        read = cost_rules(config).host_shares(config) * kernels.kv_bytes
        bounds["host"] = read / roofline.bandwidth(config.host)
    element_bytes = gemms[0].product.element_bytes
    return {
        "xpu_compute": flops / roofline.peak_flops(config.xpu, element_bytes),
        "xpu_memory": moved / roofline.bandwidth(config.xpu),
        **bounds,
        "link": fixed.all_reduce_s,
    }


def _kernel_times(
    attention: AttentionCost, fixed: FixedCosts, config: SystemConfig
) -> tuple[KernelTime, ...]:
    rows = [
        KernelTime(each.name, "xpu", each.time_s, each.cost.bound) for each in fixed.projections
    ]
    rows.append(KernelTime("attention", config.attention, attention.attention_s, attention.bound))
    if attention.softmax_s:
        rows.append(KernelTime("softmax", config.attention, attention.softmax_s, "memory"))
    if attention.transfer_s:
        rows.append(KernelTime("transfers", "link", attention.transfer_s, "link"))
    rows += [
        KernelTime(each.name, "xpu+pim" if each.share < 1 else "xpu", each.time_s, each.cost.bound)
        for each in fixed.ffn
    ]
    rows += [KernelTime(name, "xpu", cost.time_s, cost.bound) for name, cost in fixed.elementwise]
    if fixed.all_reduce_s:
        rows.append(KernelTime("all-reduces", "link", fixed.all_reduce_s, "link"))
    return tuple(rows)
