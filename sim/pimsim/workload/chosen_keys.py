"""Attention over keys that each query chooses among all that are kept, as operators say it.

Something smaller is kept beside the keys (summaries of pages, keys of an index). A query is
multiplied with all of that, the best are found, and attention reads their keys and values alone.
Nothing is evicted, so that room for the cache grows as ever. What is kept beside is read like a
matrix with a column for each page or token, which each request has of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import (
    BlockRun,
    Operand,
    OperandRole,
    OperatorTrace,
    Phase,
    Shard,
    SymbolicOperator,
    windowed,
)

__all__ = ["GROUP", "choosing", "kept_product", "kept_vector", "queries_of"]

GROUP = "choice"
"""Of vector work that chooses keys."""
_ATTENTION = (
    OperatorKind.ATTENTION_SCORE, OperatorKind.SOFTMAX, OperatorKind.ATTENTION_VALUE,
)  # fmt: skip
_CHOSEN = "-chosen"
"""Behind the kind of a block whose like do not choose."""

Chooser = Callable[[Sequence[SymbolicOperator]], list[SymbolicOperator]]
"""From a block's operators to those that choose, the last of which knows the keys."""


def choosing(
    trace: OperatorTrace, tokens: int, page: int, chooser: Chooser, first: int = 0
) -> OperatorTrace:
    """The model whose queries choose ``tokens`` keys.

    Parameters
    ----------
    trace
        Of the model, with one attention a block.
    tokens
        That are read, pages as a whole.
    page
        Tokens that are chosen together.
    chooser
        Makes what chooses.
    first
        Blocks at the front whose queries read all keys.
    """
    single = _chosen(trace.phases["decode"], tokens, page, chooser, first)
    held = _weight_bytes(single) - _weight_bytes(trace.phases["decode"])
    facts = trace.facts.model_copy(
        update={
            "parameters": trace.facts.parameters + held // trace.facts.dtype_bytes,
            "parameter_bytes": trace.facts.parameter_bytes + held,
        }
    )
    return trace.model_copy(update={"phases": {**trace.phases, "decode": single}, "facts": facts})


def _weight_bytes(phase: Phase) -> int:
    return sum(
        each.bytes_of(OperandRole.WEIGHT, write=False).get("1", 0)
        for kind in phase.sequence()
        for each in phase.blocks[kind]
    )


def _chosen(phase: Phase, tokens: int, page: int, chooser: Chooser, first: int) -> Phase:
    blocks = dict(phase.blocks)
    runs: list[BlockRun] = []
    left = first
    for run in phase.layers:
        whole = min(left, run.count)
        left -= whole
        rest = run.count - whole
        if whole:
            runs.append(run.model_copy(update={"count": whole}))
        if rest:
            kind = run.block + _CHOSEN
            blocks[kind] = _block(phase.blocks[run.block], tokens, page, chooser)
            runs.append(BlockRun(block=kind, count=rest))
    used = {run.block for run in runs} | {phase.before, phase.after}
    kept = {kind: operators for kind, operators in blocks.items() if kind in used}
    return phase.model_copy(update={"blocks": kept, "layers": tuple(runs)})


def _block(
    operators: tuple[SymbolicOperator, ...], tokens: int, page: int, chooser: Chooser
) -> tuple[SymbolicOperator, ...]:
    found: list[SymbolicOperator] = []
    for each in operators:
        if each.kind is OperatorKind.ATTENTION_SCORE:
            added = chooser(operators)
            found += added
            each = each.model_copy(update={"depends_on": (*each.depends_on, added[-1].name)})
        if each.kind in _ATTENTION:
            each = windowed(each, tokens).model_copy(update={"page": page})
        found.append(each)
    return tuple(found)


def queries_of(
    operators: Sequence[SymbolicOperator], score: SymbolicOperator
) -> tuple[str, ...]:  # fmt: skip
    """What scores need, but for new keys: the new token is always read.

    Parameters
    ----------
    operators
        Of the block.
    score
        Its scores.
    """
    appends = {each.name for each in operators if each.kind is OperatorKind.KV_APPEND}
    return tuple(name for name in score.depends_on if name not in appends)


def kept_product(
    name: str, rows: int, k: int, count: int, page: int, column_bytes: int, element_bytes: int,
    after: tuple[str, ...], kv_heads: int = 0,
) -> SymbolicOperator:  # fmt: skip
    """``count`` products of each request with what is kept of its tokens.

    Parameters
    ----------
    name
        Of the operator.
    rows
        Of each product: queries that share what is kept.
    k
        Elements of a query, and of a column.
    count
        Products of a request, each with columns of its own.
    page
        Tokens of a column.
    column_bytes
        That a column takes, of one product.
    element_bytes
        Of a query and a result.
    after
        What it needs.
    kv_heads
        Heads that devices share; 0: each device does all.
    """

    def activation(which: str, elements: int, write: bool) -> Operand:
        return Operand(
            name=which, role=OperandRole.ACTIVATION, write=write, dtype="bf16",
            bytes={"1": count * elements * element_bytes},
        )  # fmt: skip

    kept = Operand(
        name="kept", role=OperandRole.WEIGHT, dtype="kept", bytes={"K": count * column_bytes}
    )
    return SymbolicOperator(
        name=name, kind=OperatorKind.GEMM, group=name,
        shard=Shard.HEADS if kv_heads else Shard.NONE, m={"1": rows}, k=k, count=count,
        kv_heads=kv_heads, keys_a_column=page, flops={"1": 2 * count * rows * k},
        operands=(kept, activation("input", rows * k, False), activation("output", rows, True)),
        depends_on=after,
    )  # fmt: skip


def kept_vector(
    name: str, rows: int, inputs: int, flops: int, page: int, element_bytes: int,
    after: tuple[str, ...], count: int = 1, output: bool = True,
) -> SymbolicOperator:  # fmt: skip
    """Vector work of ``flops`` on each of a request's columns.

    Parameters
    ----------
    name
        Of the operator.
    rows
        Vectors of a request, as wide as it has columns.
    inputs
        Elements that are read for one of a vector.
    flops
        For one element of a vector.
    page
        Tokens of a column.
    element_bytes
        Of an element.
    after
        What it needs.
    count
        Heads of ``rows`` that devices share.
    output
        A result is written for each request's vectors.
    """
    operands = [
        Operand(name="input", role=OperandRole.ACTIVATION, dtype="bf16",
                bytes={"1": rows * inputs * element_bytes}),
    ]  # fmt: skip
    if output:
        operands.append(
            Operand(name="output", role=OperandRole.ACTIVATION, write=True, dtype="bf16",
                    bytes={"1": rows * element_bytes})
        )  # fmt: skip
    return SymbolicOperator(
        name=name, kind=OperatorKind.ELEMENTWISE, group=GROUP,
        shard=Shard.HEADS if count > 1 else Shard.NONE, rows={"1": rows}, count=count,
        kv_heads=count if count > 1 else 0, keys_a_column=page, flops={"1": rows * flops},
        operands=tuple(operands), depends_on=after,
    )  # fmt: skip
