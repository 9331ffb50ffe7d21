"""Decoding on devices that share every layer: time, energy and bounds of the mean step.

A step is one token of every request. Embedding, output layer and sampling are not counted, and
neither is prefill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from pimsim.config.errors import InputError
from pimsim.config.system import SystemConfig
from pimsim.engine.contexts import sampled
from pimsim.engine.xpu_block import BlockCost, FixedCosts, KernelTime, block_cost
from pimsim.hardware.energy.limits import PowerLimit, check_limits
from pimsim.hardware.energy.pim_stream import cap_of
from pimsim.hardware.energy.system_static import processor_w, system_static
from pimsim.mapping.kernels import BlockKernels, block_kernels, decode_step
from pimsim.workload.cards import ModelCard

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
    """Of the last step's block."""
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
    card: ModelCard,
    batch: int,
    input_tokens: int,
    output_tokens: int,
    pim_contexts: int = PIM_CONTEXTS,
) -> Decoding:
    """Decode ``batch`` requests of the same lengths; see ``Decoding``.

    Attention on PIM is simulated at ``pim_contexts`` of the steps and interpolated between.
    Raises ``InputError`` for sizes that leave no step, devices that do not divide the model, or
    a KV cache that the PIM cannot lay out.
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

    def kernels_at(context: int) -> BlockKernels:
        step = decode_step(card, batch, context, config.devices)
        return block_kernels(step, fused_gate=config.fused_gate)

    last = kernels_at(contexts[-1])
    fixed = FixedCosts.of(last, config)
    heads = card.heads // config.devices
    steps = [block_cost(kernels_at(context), fixed, config, heads) for context in weights]
    mean = _mean(steps, tuple(weights.values()))
    layers = card.layers
    parts = {name: layers * time_s for name, time_s in mean.parts_s.items()}
    step_s = fsum(parts.values())
    static_w = system_static(config)
    energy_j = {
        name: layers * config.devices * pj / _PJ_PER_J for name, pj in mean.energy_pj.items()
    }
    energy_j["static"] = config.devices * static_w["total"] * step_s
    power_w = {name: joule / config.devices / step_s for name, joule in energy_j.items()}
    power_w["total"] = fsum(power_w.values())
    check_limits(_limits(config, power_w, static_w))
    need = config.devices * layers * (last.weight_bytes + last.attention.kv_bytes)
    capacity = _capacity(config)
    return Decoding(
        step_s=step_s,
        tokens_per_s=batch / step_s,
        steps=len(contexts),
        simulated_contexts=len(weights),
        parts_s=parts,
        gemm_s={name: layers * time_s for name, time_s in mean.gemm_s.items()},
        energy_j=energy_j,
        power_w=power_w,
        static_w=static_w,
        tdp_w=config.xpu.tdp_w,
        bound_s={name: layers * time_s for name, time_s in mean.bound_s.items()},
        kernels=mean.kernels,
        need_bytes=need,
        capacity_bytes=capacity,
        warnings=tuple(_warnings(card, contexts[-1], need, capacity)),
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


def _warnings(card: ModelCard, context: int, need: int, capacity: int) -> list[str]:
    found = []
    if context > card.max_context:
        found.append(
            f"contexts reach {context} tokens; model {card.name} takes {card.max_context} "
            "(max_context)"
        )
    if need > capacity:
        found.append(
            f"weights and KV cache need {need / 2**30:.0f} GiB, the system has "
            f"{capacity / 2**30:.0f} GiB"
        )
    return found
