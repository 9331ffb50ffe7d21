"""Prefill on devices that share every layer: prompts whole or in chunks, up to the first token.

The devices do all of it, attention fused. Where a host or PIM stacks hold the KV cache, new keys
and values are sent there, and those of earlier chunks come back; nothing hides that. The output
layer runs for the rows whose logits are wanted: the last token of each prompt. Embedding and
sampling are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_attention import kv_transfer_s
from pimsim.engine.xpu_block import BlockCost, FixedCosts, KernelTime, added, block_cost, gemm_cost
from pimsim.engine.xpu_steps import (
    Accounts,
    MeanStep,
    all_blocks,
    capacity_bytes,
    mean_cost,
    refuse_keys_of_runs,
    room_warnings,
)
from pimsim.hardware.xpu.flash import flash_work
from pimsim.mapping.kernels import BlockKernels, block_kernels, forward_pass, output_layer
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard
from pimsim.workload.instantiate import held_bytes
from pimsim.workload.requests import Request
from pimsim.workload.run_steps import prompt_pieces
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace

__all__ = ["Prefilling", "prefill", "prefill_steps"]

_MAX_STEPS = 16_384
_BITS = 8


@dataclass(frozen=True, slots=True)
class Prefilling(MeanStep):
    """The mean step of a prefill, and what all of its steps take and do together."""

    time_s: float
    """All steps: from the first piece of the prompts to the logits of their first tokens."""
    chunk: int
    """Most new tokens of a request in a step."""
    flops: int
    """Needed by products and attention, of all devices; a multiply-add is two."""
    attention_flops: int
    """Of them, those of pairs of a token and a key that the mask leaves."""
    executed_attention_flops: int
    """With what whole tiles multiply beside them."""
    kv_written_bytes: int
    """New keys and values, of all devices."""


def prefill_steps(batch: int, input_tokens: int, chunk: int | None = None) -> tuple[Step, ...]:
    """The steps of prompts of the same length. Logits are wanted of the last token alone.

    Parameters
    ----------
    batch
        Prompts.
    input_tokens
        Of each.
    chunk
        Of them, fed in a step; None: all at once.

    Returns
    -------
    tuple
        In their order.

    Raises
    ------
    InputError
        For sizes below 1, or more than 16,384 steps.
    """
    for what, size in (("batch", batch), ("input", input_tokens), ("chunk", chunk)):
        if size is not None and size < 1:
            raise InputError(f"{what}: {size}; at least 1 is needed")
    piece = min(chunk or input_tokens, input_tokens)
    count = -(-input_tokens // piece)
    if count > _MAX_STEPS:
        raise InputError(
            f"chunk: {chunk} cuts prompts of {input_tokens} tokens into {count:,} steps; at most "
            f"{_MAX_STEPS:,} are simulated, so at least {-(-input_tokens // _MAX_STEPS)} is needed"
        )
    request = Request(
        id=0, arrival_s=0.0, prompt_tokens=input_tokens, output_tokens=1, generated_tokens=0
    )
    pieces = prompt_pieces(request, 0, input_tokens, piece)
    return tuple(Step((entry,) * batch) for entry in pieces)


def prefill(
    config: SystemConfig,
    model: ModelCard | OperatorTrace,
    batch: int,
    input_tokens: int,
    chunk: int | None = None,
) -> Prefilling:
    """Feed prompts of the same length on a server.

    Parameters
    ----------
    config
        Of the server.
    model
        A card, or a trace of its operators.
    batch
        Prompts.
    input_tokens
        Of each.
    chunk
        Of them, fed in a step at most; None: all at once.

    Returns
    -------
    Prefilling
        Times and energies of the steps.

    Raises
    ------
    InputError
        As ``prefill_steps`` does, for devices that do not divide the model, for blocks that are not
        dense, for a trace without a prefill, for power above a limit and for keys that only runs
        read.
    """
    refuse_keys_of_runs(config)
    trace = card_trace(model) if isinstance(model, ModelCard) else model
    steps = prefill_steps(batch, input_tokens, chunk)
    alone = config.model_copy(update={"attention": "xpu", "overlap": "none", "ffn_split": False})
    costs: list[BlockCost] = []
    attention_macs = macs = executed = written = 0
    for step in steps:
        blocks = block_kernels(
            forward_pass(model, step, config.devices), fused_gate=config.fused_gate
        )
        parts = []
        for block in blocks:
            cost = block_cost(block, FixedCosts.of(block, alone), alone)
            parts.append((block, _with_transfer(cost, block, config)))
            attention_macs += block.count * block.attention_macs
            macs += block.count * sum(each.macs for _, each in (*block.projections, *block.ffn))
            executed += block.count * _executed_macs(block, alone)
            written += block.count * block.kv_written_bytes
        cost = all_blocks(parts)
        for name, product in output_layer(trace, step, config.devices):
            cost = added(cost, gemm_cost(name, product, alone))
            macs += product.macs
        costs.append(cost)
    mean = mean_cost(costs, [1 / len(steps)] * len(steps))
    accounts = Accounts.of(mean, config)
    held = held_bytes(trace, steps[-1], config.devices)
    kinds = trace.phases["decode"].sequence()
    need = config.devices * sum(sum(held[kind]) for kind in kinds)
    capacity = capacity_bytes(config)
    time_s = len(steps) * accounts.step_s
    return Prefilling(
        step_s=accounts.step_s,
        tokens_per_s=batch * input_tokens / time_s,
        steps=len(steps),
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
        warnings=tuple(room_warnings(trace, input_tokens, need, capacity)),
        time_s=time_s,
        chunk=steps[0].new_tokens[0],
        flops=2 * config.devices * (macs + attention_macs),
        attention_flops=2 * config.devices * attention_macs,
        executed_attention_flops=2 * config.devices * executed,
        kv_written_bytes=config.devices * written,
    )


def _executed_macs(block: BlockKernels, config: SystemConfig) -> int:
    if block.attention is not None:
        return block.attention_macs
    return sum(
        flash_work(each, config.xpu).pairs * (each.key_dim + each.value_dim) for each in block.flash
    )


def _with_transfer(cost: BlockCost, block: BlockKernels, config: SystemConfig) -> BlockCost:
    """With new keys and values to who holds the cache, and those of earlier steps from there."""
    if config.attention == "xpu":
        return cost
    moved = block.kv_written_bytes + block.kv_cached_bytes
    time_s = kv_transfer_s(moved, config)
    energy = {"link": moved * _BITS * config.link_pj_per_bit}
    row = KernelTime("keys and values", "link", time_s, "link")
    return added(cost, BlockCost({"communication": time_s}, {}, energy, {}, (row,)))
