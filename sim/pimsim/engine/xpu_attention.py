"""Attention: of single tokens by the unit that holds the KV cache, which is the device, the host or
PIM stacks; of several new tokens, fused, by the device.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import fsum

from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.config.system import SystemConfig
from pimsim.engine.contexts import sampled
from pimsim.engine.xpu_rules import cost_rules
from pimsim.hardware.energy.limits import check_limits
from pimsim.hardware.energy.pim import cap_of, stream_energy_pj
from pimsim.hardware.pim.operations import Attention, run_operation
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.flash import FlashAttention
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.mapping.kernels import AttentionKernels

__all__ = ["AttentionCost", "ProgramTimes", "attention_cost", "flash_cost", "kv_transfer_s"]


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """One block's attention; energies are of one device."""

    attention_s: float
    """Products with K and V, and what the unit does in between."""
    softmax_s: float
    """Softmax, where it is a kernel of its own."""
    hidden_softmax_s: float
    """What hides other work, but takes no time of its own."""
    transfer_s: float
    """Queries, keys and values to the unit, and results back."""
    bound: str
    memory_pj: float
    core_pj: float
    link_bytes: int


class ProgramTimes:
    """Time and energy of attention on a PIM stack, simulated at some contexts of a run.

    Parameters
    ----------
    contexts
        Of the run's steps, as they come.
    limit
        At most so many are simulated, spread evenly over the steps, and what lies between is
        interpolated; None: all.
    """

    def __init__(self, contexts: Sequence[int] = (), limit: int | None = None) -> None:
        distinct = sorted(set(contexts))
        self._chosen: list[int] = []
        if limit is not None and len(distinct) > limit:
            self._chosen = list(sampled(distinct, limit))

    def at(
        self, design: PimDesignConfig, contexts: Sequence[int], head_dim: int, element_bytes: int
    ) -> tuple[float, float]:
        """Picoseconds and picojoule of one stack. Raises ``InputError`` for power above its cap.

        ``contexts``: tokens of each of its heads, the longest first; from step to step all grow
        alike.
        """
        text, context = design.model_dump_json(), contexts[0]

        def simulated(at: int) -> tuple[int, float]:
            own = tuple(max(each + at - context, 1) for each in contexts)
            return _program(text, own, head_dim, element_bytes)

        chosen = self._chosen
        if not chosen or context in chosen or not chosen[0] < context < chosen[-1]:
            return simulated(context)
        right = bisect_left(chosen, context)
        low, high = chosen[right - 1], chosen[right]
        share = (context - low) / (high - low)
        before, behind = simulated(low), simulated(high)
        time_ps, energy_pj = (
            (1 - share) * one + share * other for one, other in zip(before, behind, strict=True)
        )
        return time_ps, energy_pj


def attention_cost(
    kernels: Sequence[AttentionKernels], config: SystemConfig, programs: ProgramTimes | None = None
) -> AttentionCost:
    """Attention of one block on the unit that ``config`` names.

    Parameters
    ----------
    kernels
        Attention of one block, as three kernels of each context, the longest first; on the device
        of one.
    config
        Of the server; ``attention`` names the unit.
    programs
        Where attention on PIM is interpolated; None: nowhere.

    Returns
    -------
    AttentionCost
        Seconds and joules on one device.
    """
    if config.attention == "host":
        return _on_host(kernels, config)
    if config.attention == "pim":
        return _on_pim(kernels, config, programs or ProgramTimes())
    (alike,) = kernels
    return _on_xpu(alike, config)


def flash_cost(works: Sequence[FlashAttention], config: SystemConfig) -> AttentionCost:
    """Fused attention of one block on the device, one launch after the other.

    Parameters
    ----------
    works
        One for each launch.
    config
        Of the server.

    Returns
    -------
    AttentionCost
        Of all launches.
    """
    costs = [gpu_kernels(config.xpu).flash(work, config.xpu) for work in works]
    return AttentionCost(
        attention_s=fsum(each.time_s for each in costs),
        softmax_s=0.0,
        hidden_softmax_s=0.0,
        transfer_s=0.0,
        bound=max(costs, key=lambda each: each.time_s).bound,
        memory_pj=fsum(each.memory_pj for each in costs),
        core_pj=fsum(each.core_pj for each in costs),
        link_bytes=0,
    )


def kv_transfer_s(moved_bytes: int, config: SystemConfig) -> float:
    """Seconds in which keys and values of one device pass between it and who holds the cache.

    Parameters
    ----------
    moved_bytes
        Of one device's share.
    config
        Of the server, for the link between the two.

    Returns
    -------
    float
        0 where the device holds the cache itself.
    """
    if config.attention == "host":
        assert config.host is not None
        shares = cost_rules(config).host_shares(config)
        return shares * moved_bytes / (config.host.transfer_gb_per_s * 1e9)
    if config.attention == "pim":
        assert config.stacks is not None
        return moved_bytes / (config.stacks.transfer_gb_per_s * 1e9)
    return 0.0


def _on_xpu(kernels: AttentionKernels, config: SystemConfig) -> AttentionCost:
    xpu, model = config.xpu, gpu_kernels(config.xpu)
    if model.fuses_decode:
        return flash_cost([kernels.fused], config)
    score, value = (model.product(each, xpu) for each in (kernels.score, kernels.value))
    softmax = roofline.waves(kernels.softmax.moved_bytes, kernels.softmax.flops, kernels.heads, xpu)
    parts = (score, softmax, value)
    return AttentionCost(
        attention_s=score.time_s + value.time_s,
        softmax_s=softmax.time_s,
        hidden_softmax_s=0.0,
        transfer_s=0.0,
        bound=score.bound,
        memory_pj=fsum(each.memory_pj for each in parts),
        core_pj=fsum(each.core_pj for each in parts),
        link_bytes=0,
    )


def _on_host(kernels: Sequence[AttentionKernels], config: SystemConfig) -> AttentionCost:
    """A socket does the attention of several devices, one after the other."""
    host, shares = config.host, cost_rules(config).host_shares(config)
    assert host is not None
    element_bytes = kernels[0].score.element_bytes
    score, value = (
        roofline.host_stream(
            sum(each.least_bytes for each in products), 2 * sum(each.macs for each in products),
            element_bytes, host,
        )
        for products in ([each.score for each in kernels], [each.value for each in kernels])
    )  # fmt: skip
    softmax = roofline.host_stream(
        sum(each.softmax.moved_bytes for each in kernels),
        sum(each.softmax.flops for each in kernels), element_bytes, host,
    )  # fmt: skip
    moved = sum(each.sent_bytes + each.returned_bytes for each in kernels)
    return AttentionCost(
        attention_s=shares * (score.time_s + value.time_s),
        softmax_s=shares * softmax.time_s,
        hidden_softmax_s=0.0,
        transfer_s=shares * moved / (host.transfer_gb_per_s * 1e9),
        bound=score.bound,
        memory_pj=fsum(each.memory_pj for each in (score, value, softmax)),
        core_pj=fsum(each.core_pj for each in (score, value, softmax)),
        link_bytes=moved,
    )


def _on_pim(
    kernels: Sequence[AttentionKernels], config: SystemConfig, programs: ProgramTimes
) -> AttentionCost:
    """The fullest stack sets the time; energies are those of all stacks of a device.

    Heads are dealt to the stacks one by one, those of long contexts first, so that the first stack
    is the fullest. The others' energy is its by the keys that they read; of heads of one context it
    is the fullest's. Vector work of the softmax is part of the stacks' program.
    """
    stacks, design = config.stacks, config.pim
    assert stacks is not None and design is not None
    first = kernels[0]
    if first.score.b_bytes < 1:
        raise InputError(
            f"a KV cache with {first.score.b_bytes} bytes an element; PIM {design.name} reads "
            "elements of whole bytes"
        )
    dealt = [each.context for each in kernels for _ in range(each.heads)]
    fullest = dealt[:: stacks.count]
    time_ps, energy_pj = programs.at(design, fullest, first.head_dim, first.element_bytes)
    as_full = stacks.count if len(kernels) == 1 else sum(dealt) / sum(fullest)
    moved = sum(each.sent_bytes + each.returned_bytes for each in kernels)
    hiding = [cost_rules(config).hiding_softmax_s(each.softmax, config) for each in kernels]
    return AttentionCost(
        attention_s=time_ps * 1e-12,
        softmax_s=0.0,
        hidden_softmax_s=fsum(hiding),
        transfer_s=moved / (stacks.transfer_gb_per_s * 1e9),
        bound="pim",
        memory_pj=as_full * energy_pj,
        core_pj=0.0,
        link_bytes=moved,
    )


@lru_cache(maxsize=1024)
def _program(
    design_json: str, contexts: tuple[int, ...], head_dim: int, element_bytes: int
) -> tuple[int, float]:
    """Picoseconds and picojoule of one stack; ``contexts`` of each of its heads. Systems that
    differ elsewhere share them."""
    design = PimDesignConfig.model_validate_json(design_json)
    found = run_operation(design, Attention(1, 1, head_dim, contexts, element_bytes))
    time_ps = found.cycles * design.tCK
    energy_pj = fsum(stream_energy_pj(design, found.commands).values())
    check_limits(cap_of(design, energy_pj / max(time_ps, 1), "pim.power_cap_w"))
    return time_ps, energy_pj
