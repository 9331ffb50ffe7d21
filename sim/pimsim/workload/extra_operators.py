"""Operators and weights that a technique adds to a model: all of them symbolic, as the model's."""

from __future__ import annotations

from collections.abc import Sequence

from pimsim.config.errors import InputError
from pimsim.workload.operators import OperatorKind
from pimsim.workload.symbolic import OperatorMaker
from pimsim.workload.trace import OperandRole, OperatorTrace, Shard, SymbolicOperator

__all__ = ["kept_branch", "maker_of", "output_layer", "with_operators_behind"]


def maker_of(trace: OperatorTrace) -> OperatorMaker:
    """Makes operators of the model's element sizes.

    Parameters
    ----------
    trace
        Of the model.
    """
    return OperatorMaker(trace.facts.dtype_bytes, trace.facts.kv_dtype_bytes)


def output_layer(trace: OperatorTrace) -> tuple[tuple[str, ...], SymbolicOperator]:
    """Names of what the output layer works on, the last hidden state, and the layer.

    Parameters
    ----------
    trace
        Of the model.

    Raises
    ------
    InputError
        Where the trace has no product behind its blocks.
    """
    phase = trace.phases["decode"]
    operators = phase.blocks[phase.after] if phase.after is not None else ()
    for operator in operators:
        if operator.kind is OperatorKind.GEMM:
            return operator.depends_on, operator
    raise InputError(
        f"model {trace.model}: its trace has no output layer, which the decoding strategy needs"
    )


def with_operators_behind(trace: OperatorTrace, added: Sequence[SymbolicOperator]) -> OperatorTrace:
    """The model with more behind its blocks, and with their weights.

    Parameters
    ----------
    trace
        Of the model.
    added
        Each behind what it depends on.
    """
    phase = trace.phases["decode"]
    assert phase.after is not None, "output_layer was asked"
    blocks = {**phase.blocks, phase.after: (*phase.blocks[phase.after], *added)}
    weights = sum(each.bytes_of(OperandRole.WEIGHT, write=False).get("1", 0) for each in added)
    facts = trace.facts.model_copy(
        update={
            "parameters": trace.facts.parameters + weights // trace.facts.dtype_bytes,
            "parameter_bytes": trace.facts.parameter_bytes + weights,
        }
    )
    decode = phase.model_copy(update={"blocks": blocks})
    return trace.model_copy(update={"facts": facts, "phases": {**trace.phases, "decode": decode}})


def kept_branch(
    trace: OperatorTrace, name: str, requests: int, made: float, after: tuple[str, ...]
) -> SymbolicOperator:
    """Copies keys and values of a tree's branch to their places behind the context.

    Parameters
    ----------
    trace
        Of the model, whose cache it is.
    name
        Of the operator.
    requests
        Of a step.
    made
        Tokens of each that are kept, on average.
    after
        What says which these are.
    """
    facts, make = trace.facts, maker_of(trace)
    tokens = max(round(requests * made), 1)
    size = tokens * facts.kv_bytes_per_token
    operands = tuple(
        make.activation({"1": 1}, which, write=which == "to").model_copy(
            update={"bytes": {"1": size}}
        )
        for which in ("from", "to")
    )
    return SymbolicOperator(
        name=name, kind=OperatorKind.ELEMENTWISE, group=name, shard=Shard.HEADS,
        rows={"1": tokens * facts.layers},
        width=facts.kv_bytes_per_token // facts.kv_dtype_bytes // facts.layers,
        operands=operands, depends_on=after,
    )  # fmt: skip
