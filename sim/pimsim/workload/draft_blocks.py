"""A drafter that is one more block of the model it drafts for (EAGLE, multi-token prediction)."""

from __future__ import annotations

from pimsim.config.errors import InputError
from pimsim.workload.extra_operators import maker_of, output_layer
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import (
    BlockRun,
    OperandRole,
    OperatorTrace,
    Phase,
    Shard,
    SymbolicOperator,
)

__all__ = ["one_block_drafter"]


def one_block_drafter(
    trace: OperatorTrace, name: str, *, fused: int, vocab: int | None = None
) -> tuple[OperatorTrace, int]:
    """One block of the model's last kind between an embedding and an output layer.

    Parameters
    ----------
    trace
        Of the model.
    name
        Of the drafter.
    fused
        Vectors of d that a projection makes the block's input of, so that it has fused d^2 weights.
    vocab
        Words of an output layer of its own; None: the model's.

    Returns
    -------
    tuple
        The drafter, and bytes of the weights that are its own.

    Raises
    ------
    InputError
        Where the trace has no embedding or output layer.
    """
    phase, facts, make = trace.phases["decode"], trace.facts, maker_of(trace)
    logits = output_layer(trace)[1]
    if phase.before is None or phase.after is None:
        raise InputError(f"model {trace.model}: its trace has no embedding, which a drafter needs")
    *_, kind = phase.sequence()
    block = phase.blocks[kind]
    before = phase.blocks[phase.before]
    projection = make.gemm("fuse", facts.hidden, fused * facts.hidden, (before[-1].name,))
    behind = phase.blocks[phase.after]
    own = [*block, projection]
    if vocab is not None:
        reduced = make.gemm(
            logits.name, vocab, logits.k, logits.depends_on, m="L", shard=Shard.COLUMNS,
            group=logits.group,
        )  # fmt: skip
        behind = tuple(reduced if each is logits else each for each in behind)
        own.append(reduced)
    decode = Phase(
        blocks={kind: block, phase.before: (*before, projection), phase.after: behind},
        layers=(BlockRun(block=kind, count=1),), before=phase.before, after=phase.after,
    )  # fmt: skip
    held = sum(_weights(each, facts.experts) for each in own)
    has_experts = any(each.kind is OperatorKind.EXPERT_GEMM for each in block)
    tables = facts.vocab * facts.hidden * facts.dtype_bytes
    found = facts.model_copy(
        update={
            "layers": 1,
            "experts": facts.experts if has_experts else 0,
            "experts_per_token": facts.experts_per_token if has_experts else 0,
            "vocab": vocab or facts.vocab,
            "parameters": (held + tables) // facts.dtype_bytes,
            "parameter_bytes": held + tables,
            "kv_bytes_per_token": sum(
                each.bytes_of(OperandRole.KV, write=True).get("T", 0) for each in block
            ),
        }
    )
    drafter = trace.model_copy(update={"model": name, "facts": found, "phases": {"decode": decode}})
    return drafter, held


def _weights(operator: SymbolicOperator, experts: int) -> int:
    """Bytes of all weights of an operator, those of all experts."""
    form = operator.bytes_of(OperandRole.WEIGHT, write=False)
    return form.get("1", 0) + form.get("E", 0) * experts
