"""A step's kernels on a GPU, one block of each kind: what tests of kernels are about."""

from __future__ import annotations

from pimsim.mapping.kernels import BlockKernels, kernels_of
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, parallelism
from pimsim.workload.degrees import check_degrees
from pimsim.workload.instantiate import instantiate
from pimsim.workload.operators import ForwardPass
from pimsim.workload.requests import Request
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace


def decode_step(
    model: ModelCard | OperatorTrace, batch: int, context: int, devices: int
) -> ForwardPass:
    """A step in which each of ``batch`` requests attends to ``context`` tokens, one block of each
    kind.

    Contexts longer than the model's ``max_context`` are taken: they are a matter of quality, not of
    time.

    Parameters
    ----------
    model
        Card or trace.
    batch
        Requests.
    context
        Tokens of each.
    devices
        That share each block.
    """
    request = Request(
        id=0, arrival_s=0.0, prompt_tokens=context, output_tokens=1, generated_tokens=0
    )
    return forward_pass(model, Step.decode([request] * batch), devices)


def forward_pass(model: ModelCard | OperatorTrace, step: Step, devices: int) -> ForwardPass:
    """``step`` on one of ``devices``, one block of each kind; see ``decode_step``.

    Parameters
    ----------
    model
        Card or trace.
    step
        What each request is asked.
    devices
        That share each block.
    """
    if isinstance(model, ModelCard):
        parallelism(model, devices, 1)
        model = card_trace(model)
    else:
        check_degrees(model, devices, 1)
    facts = model.facts
    roomy = facts.model_copy(update={"max_context": max(facts.max_context, *step.contexts)})
    kinds = set(model.phases["decode"].sequence())
    return instantiate(
        model.model_copy(update={"facts": roomy}), step, tp=devices, layers=len(kinds)
    )


def block_kernels(step: ForwardPass, *, fused_gate: bool) -> tuple[BlockKernels, ...]:
    """The kernels of each kind of block of a step.

    Parameters
    ----------
    step
        On one device.
    fused_gate
        Gate and up projections are one product.
    """
    blocks = {block.kind: block for block in step.blocks}
    return tuple(
        kernels_of(step, blocks[kind], count, fused_gate=fused_gate)
        for kind, count in step.model_blocks
    )
