"""Decoding on devices that share every layer: time, energy and bounds of the mean step.

A step is one token of every request. Embedding, output layer and sampling are not counted, and
neither is prefill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from pimsim.config.errors import InputError
from pimsim.config.system import SystemConfig
from pimsim.engine.contexts import sampled
from pimsim.engine.xpu_block import BlockCost, FixedCosts, KernelTime, block_cost
from pimsim.hardware.energy.limits import PowerLimit, check_limits
from pimsim.hardware.energy.pim_stream import cap_of
from pimsim.hardware.energy.system_static import processor_w, system_static
from pimsim.mapping.kernels import BlockKernels, block_kernels, decode_step
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard
from pimsim.workload.trace import OperatorTrace

__all__ = ["PIM_CONTEXTS", "Decoding", "decode"]

PIM_CONTEXTS = 3
"""Steps whose attention on PIM is simulated, unless the caller wants more."""

_ROOFLINE_CONTEXTS = 4096
"""The same for attention elsewhere, where a step is some formulas."""

_PJ_PER_J = 1e12


@dataclass(frozen=True, slots=True)
class Decoding:
    """The mean step of ``batch`` requests from their second token to their last.

    The first token is prefill's. Times in seconds, energies in joule of all devices; a step has all
    decoder blocks.
    """

    step_s: float
    tokens_per_s: float
    steps: int
    simulated_contexts: int
    """Steps whose attention was simulated; the others are interpolated."""
    parts_s: Mapping[str, float]
    """What adds up to the step: ``attention``, ``softmax``, ``gemm``, ``communication``,
    ``elementwise``. Where work overlaps, attention counts in full."""
    gemm_s: Mapping[str, float]
    """``gemm`` by its products."""
    energy_j: Mapping[str, float]
    """Of a step: ``memory`` (of the devices), ``core`` (their caches and arithmetic), ``pim``,
    ``host``, ``link``, and ``static`` of all of them."""
    power_w: Mapping[str, float]
    """Mean power of one device, with its PIM stacks and its share of the host: the parts of
    ``energy_j``, and ``total``."""
    static_w: Mapping[str, float]
    """Of one device: ``cores``, ``sram``, ``memory``, ``link``, ``rest``, and where there are any
    ``pim`` and ``host``; ``total``."""
    tdp_w: float | None
    """The most that a device draws, stacks and host apart; None: not known."""
    bound_s: Mapping[str, float]
    """The least time of each unit for the step's work, everything perfect."""
    kernels: tuple[KernelTime, ...]
    """Of the last step's block, of each kind where there are several."""
    need_bytes: int
    """Weights of the blocks, and the KV cache of the last step, on all devices."""
    capacity_bytes: int
    warnings: tuple[str, ...]

    @property
    def bound(self) -> str:
        """The unit whose least time is the largest."""
        return max(self.bound_s, key=self.bound_s.__getitem__)

    @property
    def total_j(self) -> float:
        """Energy of a step."""
        return fsum(self.energy_j.values())

    @property
    def dynamic_j(self) -> float:
        """Energy of a step without static power."""
        return fsum(joule for part, joule in self.energy_j.items() if part != "static")


def decode(
    config: SystemConfig,
    model: ModelCard | OperatorTrace,
    batch: int,
    input_tokens: int,
    output_tokens: int,
    pim_contexts: int = PIM_CONTEXTS,
) -> Decoding:
    """Decode ``batch`` requests of the same lengths; see ``Decoding``.

    Attention on PIM is simulated at ``pim_contexts`` of the steps and interpolated between.
    Raises ``InputError`` for sizes that leave no step, devices that do not divide the model,
    blocks that are not dense, or a KV cache that the PIM cannot lay out.
    """
    if output_tokens < 2:
        raise InputError(
            f"output of {output_tokens} tokens: at least 2 are needed, as the first is prefill's"
        )
    if input_tokens < 1 or pim_contexts < 1:
        what, size = ("input", input_tokens) if input_tokens < 1 else ("contexts", pim_contexts)
        raise InputError(f"{what}: {size}; at least 1 is needed")
    contexts = range(input_tokens + 1, input_tokens + output_tokens)
    limit = pim_contexts if config.attention == "pim" else _ROOFLINE_CONTEXTS
    weights = sampled(contexts, limit)

    trace = card_trace(model) if isinstance(model, ModelCard) else model

    def kernels_at(context: int) -> tuple[BlockKernels, ...]:
        step = decode_step(model, batch, context, config.devices)
        return block_kernels(step, fused_gate=config.fused_gate)

    last = kernels_at(contexts[-1])
    fixed = [FixedCosts.of(each, config) for each in last]

    def cost_at(context: int) -> BlockCost:
        return _all_blocks(
            [
                (kernels, block_cost(kernels, costs, config))
                for kernels, costs in zip(kernels_at(context), fixed, strict=True)
            ]
        )

    mean = _mean([cost_at(context) for context in weights], tuple(weights.values()))
    step_s = fsum(mean.parts_s.values())
    static_w = system_static(config)
    energy_j = {name: config.devices * pj / _PJ_PER_J for name, pj in mean.energy_pj.items()}
    energy_j["static"] = config.devices * static_w["total"] * step_s
    power_w = {name: joule / config.devices / step_s for name, joule in energy_j.items()}
    power_w["total"] = fsum(power_w.values())
    check_limits(_limits(config, power_w, static_w))
    need = config.devices * sum(
        each.count * (each.weight_bytes + each.attention.kv_bytes) for each in last
    )
    capacity = _capacity(config)
    return Decoding(
        step_s=step_s,
        tokens_per_s=batch / step_s,
        steps=len(contexts),
        simulated_contexts=len(weights),
        parts_s=mean.parts_s,
        gemm_s=mean.gemm_s,
        energy_j=energy_j,
        power_w=power_w,
        static_w=static_w,
        tdp_w=config.xpu.tdp_w,
        bound_s=mean.bound_s,
        kernels=mean.kernels,
        need_bytes=need,
        capacity_bytes=capacity,
        warnings=tuple(_warnings(trace, contexts[-1], need, capacity)),
    )


def _limits(
    config: SystemConfig, power_w: Mapping[str, float], static_w: dict[str, float]
) -> list[PowerLimit]:
    """What the processor and the PIM stacks may draw."""
    xpu, stacks, design = config.xpu, config.stacks, config.pim
    limits = []
    if xpu.tdp_w is not None:
        own = fsum((power_w["memory"], power_w["core"], power_w["link"], processor_w(static_w)))
        limits.append(PowerLimit("xpu.tdp_w", f"a device ({xpu.name})", own, xpu.tdp_w))
    if config.attention == "pim" and stacks is not None and design is not None:
        limits += cap_of(design, power_w["pim"] / stacks.count, "pim.power_cap_w")
    return limits


def _all_blocks(costs: Sequence[tuple[BlockKernels, BlockCost]]) -> BlockCost:
    """What all blocks take together, of each kind as many as there are."""

    def total(of: Callable[[BlockCost], dict[str, float]]) -> dict[str, float]:
        names = {name: None for _, cost in costs for name in of(cost)}
        return {
            name: fsum(kernels.count * of(cost).get(name, 0.0) for kernels, cost in costs)
            for name in names
        }

    rows = [
        replace(row, name=f"{kernels.kind}: {row.name}") if len(costs) > 1 else row
        for kernels, cost in costs
        for row in cost.kernels
    ]
    return BlockCost(
        parts_s=total(lambda cost: cost.parts_s),
        gemm_s=total(lambda cost: cost.gemm_s),
        energy_pj=total(lambda cost: cost.energy_pj),
        bound_s=total(lambda cost: cost.bound_s),
        kernels=tuple(rows),
    )


def _mean(steps: Sequence[BlockCost], weights: Sequence[float]) -> BlockCost:
    def mean(of: Callable[[BlockCost], dict[str, float]]) -> dict[str, float]:
        return {
            name: fsum(w * of(step)[name] for step, w in zip(steps, weights, strict=True))
            for name in of(steps[0])
        }

    return BlockCost(
        parts_s=mean(lambda step: step.parts_s),
        gemm_s=mean(lambda step: step.gemm_s),
        energy_pj=mean(lambda step: step.energy_pj),
        bound_s=mean(lambda step: step.bound_s),
        kernels=steps[-1].kernels,
    )


def _capacity(config: SystemConfig) -> int:
    """Bytes of all memories that may hold weights or KV cache."""
    capacity = config.devices * config.xpu.memory_capacity
    if config.attention == "host" and config.host is not None:
        capacity += config.host.sockets * config.host.memory_capacity
    elif config.attention == "pim" and config.stacks is not None and config.pim is not None:
        stack = config.pim.organization.capacity_bytes
        capacity += config.devices * config.stacks.count * stack
    return capacity


def _warnings(trace: OperatorTrace, context: int, need: int, capacity: int) -> list[str]:
    found, longest = [], trace.facts.max_context
    if context > longest:
        found.append(
            f"contexts reach {context} tokens; model {trace.model} takes {longest} (max_context)"
        )
    if need > capacity:
        found.append(
            f"weights and KV cache need {need / 2**30:.0f} GiB, the system has "
            f"{capacity / 2**30:.0f} GiB"
        )
    return found
