"""Decoding on devices that share every layer: time, energy and bounds of the mean step.

A step is one token of every request. Embedding, output layer and sampling are not counted;
``xpu_prefill`` has what comes before.
"""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.config.system import SystemConfig
from pimsim.engine.contexts import sampled
from pimsim.engine.xpu_block import BlockCost, FixedCosts, block_cost
from pimsim.engine.xpu_steps import (
    Accounts,
    MeanStep,
    all_blocks,
    capacity_bytes,
    mean_cost,
    refuse_keys_of_runs,
    room_warnings,
)
from pimsim.mapping.kernels import BlockKernels, block_kernels, decode_step
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard
from pimsim.workload.trace import OperatorTrace

__all__ = ["PIM_CONTEXTS", "Decoding", "decode"]

PIM_CONTEXTS = 3
"""Steps whose attention on PIM is simulated, unless the caller wants more."""

_ROOFLINE_CONTEXTS = 4096
"""The same for attention elsewhere, where a step is some formulas."""


@dataclass(frozen=True, slots=True)
class Decoding(MeanStep):
    """The mean step of ``batch`` requests from their second token to their last, the first being
    prefill's."""

    simulated_contexts: int
    """Steps whose attention was simulated; the others are interpolated."""


def decode(
    config: SystemConfig,
    model: ModelCard | OperatorTrace,
    batch: int,
    input_tokens: int,
    output_tokens: int,
    pim_contexts: int = PIM_CONTEXTS,
) -> Decoding:
    """Decode requests of the same lengths; see ``Decoding``.

    Attention on PIM is simulated at a few of the steps and interpolated between.

    Parameters
    ----------
    config
        Of the server.
    model
        A card, or a trace of its operators.
    batch
        Requests.
    input_tokens
        Of each prompt.
    output_tokens
        That each request makes.
    pim_contexts
        Contexts at which attention on PIM is simulated, at most.

    Returns
    -------
    Decoding
        Times and energies, of a mean step and in all.

    Raises
    ------
    InputError
        For sizes that leave no step, devices that do not divide the model, blocks that are not
        dense, a KV cache that the PIM cannot lay out, or keys that only runs read.
    """
    refuse_keys_of_runs(config)
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
        return all_blocks(
            [
                (kernels, block_cost(kernels, costs, config))
                for kernels, costs in zip(kernels_at(context), fixed, strict=True)
            ]
        )

    mean = mean_cost([cost_at(context) for context in weights], tuple(weights.values()))
    accounts = Accounts.of(mean, config)
    need = config.devices * sum(each.count * (each.weight_bytes + each.kv_bytes) for each in last)
    capacity = capacity_bytes(config)
    return Decoding(
        step_s=accounts.step_s,
        tokens_per_s=batch / accounts.step_s,
        steps=len(contexts),
        simulated_contexts=len(weights),
        parts_s=mean.parts_s,
        gemm_s=mean.gemm_s,
        energy_j=accounts.energy_j,
        power_w=accounts.power_w,
        static_w=accounts.static_w,
        tdp_w=config.xpu.tdp_w,
        bound_s=mean.bound_s,
        kernels=mean.kernels,
        need_bytes=need,
        capacity_bytes=capacity,
        warnings=tuple(room_warnings(trace, contexts[-1], need, capacity)),
    )
