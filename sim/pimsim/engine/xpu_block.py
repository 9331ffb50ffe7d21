"""One decoder block of a step on a device: the time, energy and least times of its kernels.

Kernels run one after the other; what PIM does at the same time is said by ``overlap`` and
``ffn_split``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import fsum

from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_attention import AttentionCost, ProgramTimes, attention_cost, flash_cost
from pimsim.engine.xpu_products import (
    FixedCosts,
    KernelTime,
    gemm_on,
    multiplying_command,
    pim_bandwidth,
)
from pimsim.engine.xpu_rows import kernel_rows, product_rows
from pimsim.engine.xpu_rules import cost_rules
from pimsim.hardware.energy.pim import read_pj_per_byte
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.sharing import exposed
from pimsim.hardware.xpu.tiling import Product
from pimsim.mapping.kernels import BlockKernels
from pimsim.workload.operators import OperatorKind

__all__ = [
    "BlockCost", "FixedCosts", "KernelTime", "added", "block_cost", "gemm_cost", "prompts_cost",
    "with_attention",
]  # fmt: skip

_BITS = 8


@dataclass(frozen=True, slots=True)
class BlockCost:
    """One block of one step; energies of one device."""

    parts_s: dict[str, float]
    gemm_s: dict[str, float]
    energy_pj: dict[str, float]
    bound_s: dict[str, float]
    kernels: tuple[KernelTime, ...]
    attention_s: float = 0.0
    """Until attention and all projections are done."""

    @property
    def time_s(self) -> float:
        """Of the block."""
        return fsum(self.parts_s.values())


def block_cost(
    kernels: BlockKernels, fixed: FixedCosts, config: SystemConfig,
    programs: ProgramTimes | None = None,
) -> BlockCost:  # fmt: skip
    """A block at one context; of several new tokens only where the device has attention.

    Parameters
    ----------
    kernels
        Of one block and one kind.
    fixed
        What does not depend on the context.
    config
        Of the server.
    programs
        Where attention on PIM is interpolated; None: nowhere.
    """
    attention = _attention(kernels, config, programs)
    projections_s = fsum(each.time_s for each in fixed.projections)
    transfer_s = attention.transfer_s
    if config.overlap != "none" and kernels.alone:
        heads = kernels.alone[0].heads // kernels.alone[0].requests
        others = [transfer_s, projections_s if config.overlap == "projections" else 0.0]
        busy = attention.attention_s + attention.hidden_softmax_s
        added = exposed(busy, others, heads)
        transfer_s = added[0]
        if config.overlap == "projections":
            projections_s = added[1]
    whole = fsum(each.time_s for each in fixed.projections)
    gemm_s = {each.name: each.time_s * projections_s / whole for each in fixed.projections}
    gemm_s |= {each.name: each.time_s for each in fixed.ffn}
    if fixed.experts is not None:
        gemm_s["experts"] = fixed.experts_s
    attending_s = fsum((attention.attention_s, attention.softmax_s, transfer_s, projections_s))
    return BlockCost(
        parts_s={
            "attention": attention.attention_s,
            "softmax": attention.softmax_s,
            "gemm": fsum(gemm_s.values()),
            "communication": fixed.all_reduce_s + transfer_s,
            "elementwise": fsum(cost.time_s for *_, cost in fixed.elementwise),
        },
        gemm_s=gemm_s,
        energy_pj=_energy(attention, fixed, config),
        bound_s=_bounds(kernels, fixed, config),
        kernels=kernel_rows(kernels, attention, fixed, attending_s, config),
        attention_s=attending_s,
    )


def _attention(
    kernels: BlockKernels, config: SystemConfig, programs: ProgramTimes | None
) -> AttentionCost:
    if kernels.alone:
        return attention_cost(kernels.alone, config, programs)
    if config.attention != "xpu":
        raise ValueError("attention of several new tokens is the device's")
    return flash_cost(kernels.flash, config)


def prompts_cost(kernels: BlockKernels, config: SystemConfig) -> BlockCost:
    """Attention of a block's prompts on the device, beside single tokens that attend elsewhere.

    Parameters
    ----------
    kernels
        Of one block, with ``flash`` of the prompts.
    config
        Of the server.
    """
    cost = flash_cost(kernels.flash, config)
    macs = sum(each.macs for each in kernels.flash)
    moved = sum(each.kv_bytes for each in kernels.flash)
    bounds = {
        "xpu_compute": 2 * macs
        / roofline.peak_flops(config.xpu, kernels.flash[0].element_bytes),
        "xpu_memory": moved / roofline.bandwidth(config.xpu),
    }  # fmt: skip
    row = KernelTime(
        "attention of prompts", "xpu", cost.attention_s, cost.bound, OperatorKind.ATTENTION_SCORE,
        macs=macs, moved_bytes=moved, least_s=max(bounds.values()),
    )  # fmt: skip
    energy = {"memory": cost.memory_pj, "core": cost.core_pj}
    return BlockCost({"attention": cost.attention_s}, {}, energy, bounds, (row,))


def with_attention(cost: BlockCost, more: BlockCost) -> BlockCost:
    """A block with more attention, behind its own and before the feed-forward network.

    Parameters
    ----------
    cost
        Of the block.
    more
        Of the attention.
    """
    both, until_s = added(cost, more), cost.attention_s
    first = [row for row in cost.kernels if row.start_s < until_s]
    behind = [row for row in cost.kernels if row.start_s >= until_s]
    rows = (
        *first,
        *(replace(row, start_s=row.start_s + until_s) for row in more.kernels),
        *(replace(row, start_s=row.start_s + more.time_s) for row in behind),
    )
    return replace(both, kernels=rows, attention_s=until_s + more.time_s)


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
    gemm = gemm_on(name, product, config, split=False)
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
        kernels=product_rows(gemm, 0.0, config),
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
    costs = [cost for *_, cost in fixed.elementwise]
    for cost in costs if fixed.experts is None else [*costs, fixed.experts[1]]:
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
    assert config.pim is not None
    return read_pj_per_byte(config.pim, multiplying_command(config.pim))


def _bounds(kernels: BlockKernels, fixed: FixedCosts, config: SystemConfig) -> dict[str, float]:
    """Least time of each unit for its part of a block: peaks, and each byte once."""
    gemms = (*fixed.projections, *fixed.ffn)
    flops = fsum(2 * gemm.share * gemm.product.macs for gemm in gemms)
    moved = fsum(gemm.share * gemm.weight_bytes for gemm in gemms)
    if fixed.experts is not None:
        flops += 2 * fixed.experts[0].macs
        moved += fixed.experts[0].stored_bytes
    bounds = {}
    if config.attention == "xpu":
        flops += 2 * kernels.attention_macs
        moved += kernels.kv_bytes
    elif config.attention == "pim":
        bounds["pim"] = kernels.kv_bytes / pim_bandwidth(config, at_commands=True)
        bounds["pim"] += fsum(gemm.pim_s for gemm in gemms)
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


def added(cost: BlockCost, more: BlockCost) -> BlockCost:
    """Both, one after the other.

    Parameters
    ----------
    cost
        What runs first; its time of attention is kept.
    more
        What runs behind it: its kernels start later by the time of ``cost``.

    Returns
    -------
    BlockCost
        Sums of times, s, and energies, pJ.
    """

    def total(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
        names = dict.fromkeys((*ours, *theirs))
        return {name: ours.get(name, 0.0) + theirs.get(name, 0.0) for name in names}

    behind = [replace(row, start_s=row.start_s + cost.time_s) for row in more.kernels]
    return BlockCost(
        parts_s=total(cost.parts_s, more.parts_s),
        gemm_s=total(cost.gemm_s, more.gemm_s),
        energy_pj=total(cost.energy_pj, more.energy_pj),
        bound_s=total(cost.bound_s, more.bound_s),
        kernels=(*cost.kernels, *behind),
        attention_s=cost.attention_s,
    )
