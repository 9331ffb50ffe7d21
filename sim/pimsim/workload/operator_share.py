"""One operator on one of several devices: symbols get values, sizes the device's part.

Which sizes are cut is said by the operator's ``shard`` (Megatron's columns, rows or heads). Where
a size does not come out even, the device has the larger part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pimsim.workload.moe import ExpertLoad
from pimsim.workload.operators import Operator, OperatorKind
from pimsim.workload.step_operators import StepOperator
from pimsim.workload.trace import OperandRole, Shard, SymbolicOperator, evaluate

__all__ = ["operator_share"]

Fraction = tuple[int, int]
_ONE: Fraction = (1, 1)
_OF_HEADS = (OperatorKind.ROPE, OperatorKind.NORM)


def operator_share(
    each: StepOperator, values: Mapping[str, int], tp: int, load: ExpertLoad | None
) -> Operator:
    """The operator's part on one of ``tp`` devices, under its own name.

    Parameters
    ----------
    each
        The operator and the entries of the step that it works for.
    values
        Of its symbols in that step.
    tp
        Devices that share it.
    load
        Of the experts of its block; None: it has none.
    """
    operator, step = each.symbolic, each.step
    cut = _Cut.of(operator, tp)
    if operator.keys_a_column:
        return _kept_share(each, cut)
    rows = evaluate(operator.rows, values)
    if operator.shard is Shard.HEADS and rows:
        rows = _part(rows, cut.heads)
    width = _part(operator.width, cut.columns)
    softmax = operator.kind is OperatorKind.SOFTMAX
    if softmax:
        window = operator.window
        width = max(step.contexts)
        width = width if window is None else min(width, window)
    if operator.kind is OperatorKind.KV_APPEND:
        width = _part(operator.width, cut.keys)
    experts = load if operator.kind is OperatorKind.EXPERT_GEMM else None
    read, written = _bytes(operator, values, cut)
    return Operator(
        name=operator.name,
        kind=operator.kind,
        group=operator.group,
        function=operator.function,
        m=evaluate(operator.m, values),
        n=_part(operator.n, cut.columns),
        k=_part(operator.k, cut.rows),
        count=_part(operator.count, cut.counted),
        rows=rows,
        width=width,
        heads=_part(operator.heads, cut.queries),
        kv_heads=_part(operator.kv_heads, cut.keys),
        head_dim=operator.head_dim,
        window=operator.window or 0,
        page=operator.page,
        flops=_part(evaluate(operator.flops, values), cut.work),
        weight_bytes=read[OperandRole.WEIGHT],
        input_bytes=read[OperandRole.ACTIVATION],
        output_bytes=written[OperandRole.ACTIVATION],
        kv_read_bytes=read[OperandRole.KV],
        kv_write_bytes=written[OperandRole.KV],
        depends_on=operator.depends_on,
        expert_tokens=experts.tokens if experts else (),
        weights_chosen=experts is not None and operator.group == "expert_fc1",
        experts=experts.experts if experts else (),
        entries=each.entries,
    )


def _kept_share(each: StepOperator, cut: _Cut) -> Operator:
    """Work on what is kept of each request's tokens: as many columns as the mean request has, of
    which each request has its own."""
    operator, step = each.symbolic, each.step
    requests = len(step.entries)
    columns = sum(-(-context // operator.keys_a_column) for context in step.contexts)
    mean = -(-columns // requests)
    one = dict.fromkeys(("1", "K", "T", "B"), 1)
    count = _part(operator.count, cut.keys)
    share = (count, operator.count)
    read, written = _bytes(operator, one, _ONE_CUT)
    rows = _part(evaluate(operator.rows, one), share) * requests
    is_product = operator.kind is OperatorKind.GEMM
    results = mean if is_product else 1
    return Operator(
        name=operator.name,
        kind=operator.kind,
        group=operator.group,
        function=operator.function,
        m=evaluate(operator.m, one),
        n=mean if is_product else 0,
        k=operator.k,
        count=count * requests if is_product else 1,
        rows=rows,
        width=0 if is_product else mean,
        flops=_part(evaluate(operator.flops, one), share) * mean * requests,
        weight_bytes=_part(read[OperandRole.WEIGHT], share) * mean * requests,
        input_bytes=_part(read[OperandRole.ACTIVATION], share)
        * requests
        * (1 if is_product else mean),
        output_bytes=_part(written[OperandRole.ACTIVATION], share) * requests * results,
        depends_on=operator.depends_on,
        entries=each.entries,
    )


@dataclass(frozen=True)
class _Cut:
    """Which part of each size one device has."""

    columns: Fraction = _ONE
    rows: Fraction = _ONE
    counted: Fraction = _ONE
    queries: Fraction = _ONE
    keys: Fraction = _ONE
    heads: Fraction = _ONE
    """Of vectors that are one a head: query heads, key heads, or both together."""
    work: Fraction = _ONE
    inputs: Fraction = _ONE
    outputs: Fraction = _ONE
    weights: Fraction = _ONE

    @classmethod
    def of(cls, operator: SymbolicOperator, tp: int) -> _Cut:
        """The cut that ``operator.shard`` asks for."""
        if tp == 1 or operator.shard is Shard.NONE:
            return cls()
        part = (1, tp)
        kv = operator.kv_heads
        keys = (max(kv // tp, 1), kv) if kv else part
        if operator.shard is Shard.COLUMNS:
            own = keys if kv else part
            return cls(columns=own, work=own, outputs=own, weights=own, queries=part, keys=keys,
                       inputs=own if operator.rows else _ONE)  # fmt: skip
        if operator.shard is Shard.ROWS:
            return cls(rows=part, work=part, inputs=part, weights=part)
        both = operator.heads + kv
        mine = operator.heads // tp + (max(kv // tp, 1) if kv else 0)
        heads = (mine, both) if operator.kind in _OF_HEADS and both else part
        if operator.kind is OperatorKind.KV_APPEND:
            heads = keys
        rows = heads if operator.kind is not OperatorKind.KV_APPEND else _ONE
        return cls(
            counted=part if operator.count > 1 else _ONE, queries=part, keys=keys, heads=rows,
            work=heads, inputs=heads, outputs=heads, weights=heads,
        )  # fmt: skip


_ONE_CUT = _Cut()


def _part(size: int, fraction: Fraction) -> int:
    """The larger part where it does not come out even."""
    return -(-size * fraction[0] // fraction[1])


def _bytes(
    operator: SymbolicOperator, values: Mapping[str, int], cut: _Cut
) -> tuple[dict[OperandRole, int], dict[OperandRole, int]]:
    """What is read and what is written, by role."""
    read, written = dict.fromkeys(OperandRole, 0), dict.fromkeys(OperandRole, 0)
    for operand in operator.operands:
        size, role = evaluate(operand.bytes, values), operand.role
        if operand.whole:
            pass
        elif role is OperandRole.WEIGHT:
            size = _part(size, cut.weights)
        elif role is OperandRole.KV:
            size = _part(size, cut.keys)
        else:
            size = _part(size, cut.outputs if operand.write else cut.inputs)
        (written if operand.write else read)[role] += size
    return read, written
