"""What a graph's trace and the export of the same model must have in common, written out apart from
both: operator by operator, in elements, as the two may keep them in other formats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pimsim.workload.trace import OperandRole, OperatorTrace, SymbolicOperator

__all__ = ["differences", "elements_of"]

_FIELDS = (
    "name", "kind", "group", "function", "shard", "m", "n", "k", "count", "rows", "width", "heads",
    "kv_heads", "head_dim", "window", "flops", "depends_on",
)  # fmt: skip
_BITS = {
    "f64": 64, "f32": 32, "f16": 16, "bf16": 16, "int8": 8, "uint8": 8, "int4": 4, "uint4": 4,
    "f8e4m3fn": 8, "int2": 2, "f4": 4,
}  # fmt: skip


def elements_of(operator: SymbolicOperator, role: OperandRole, write: bool) -> dict[str, Any]:
    """Elements of an operator's operands, scales and zero points left out; whole ones apart."""
    found: dict[str, Any] = {}
    for operand in operator.operands:
        scale = operand.name.endswith((".scales", ".zero points"))
        if operand.role is not role or operand.write != write or scale:
            continue
        for symbol, size in operand.bytes.items():
            key = f"{symbol} whole" if operand.whole else symbol
            found[key] = found.get(key, 0) + size * 8 / _BITS[operand.dtype]
    return found


def _pairs(ours: OperatorTrace, theirs: OperatorTrace) -> Iterator[tuple[str, Any, Any]]:
    for name in ("prefill", "decode"):
        a, b = ours.phases[name], theirs.phases[name]  # type: ignore[index]
        one, two = list(a.sequence()), list(b.sequence())
        yield f"{name}: kinds", *_kinds(a, one, two)
        for left, right in dict.fromkeys(
            [*zip(one, two, strict=True), (a.before, b.before), (a.after, b.after)]
        ):
            yield f"{name} {left}", a.blocks[left], b.blocks[right]  # type: ignore[index]


def _kinds(ours: Any, one: list[str], two: list[str]) -> tuple[Any, Any]:
    """Kinds of block; blocks of one kind may be kept in several formats."""
    finer = {k: dict.fromkeys(a for a, b in zip(one, two, strict=True) if b == k) for k in two}
    for kinds in finer.values():
        sizes = [
            tuple(str(o.bytes) + o.dtype for op in ours.blocks[kind] for o in op.operands)
            for kind in kinds
        ]
        if len(set(sizes)) != len(sizes):
            return "several kinds of one format", list(kinds)
    coarse = [next(k for k, kinds in finer.items() if each in kinds) for each in one]
    return coarse, two


def differences(
    graph: OperatorTrace, export: OperatorTrace, copies: int = 0, longest: bool = True
) -> list[str]:
    """Everything that is not the same; ``copies``: elements that the file keeps twice."""
    found = []
    for where, ours, theirs in _pairs(graph, export):
        if where.endswith("kinds"):
            if ours != theirs:
                found.append(f"{where}: {ours} and {theirs}")
            continue
        names = [[o.name for o in each] for each in (ours, theirs)]
        if names[0] != names[1]:
            found.append(f"{where}: {names[0]} and {names[1]}")
            continue
        for a, b in zip(ours, theirs, strict=True):
            pairs = {field: (getattr(a, field), getattr(b, field)) for field in _FIELDS}
            for role in OperandRole:
                for write in (False, True):
                    pairs[f"{role} {write}"] = (
                        elements_of(a, role, write), elements_of(b, role, write)
                    )  # fmt: skip
            found += [
                f"{where} {a.name}: {field} {one} and {two}"
                for field, (one, two) in pairs.items() if one != two
            ]  # fmt: skip
    facts = ["layers", "hidden", "heads", "kv_heads", "vocab", "experts", "experts_per_token"]
    facts += ["max_context"] if longest else []
    for fact in facts:
        one, two = getattr(graph.facts, fact), getattr(export.facts, fact)
        if one != two:
            found.append(f"facts.{fact}: {one} and {two}")
    if graph.facts.parameters != export.facts.parameters + copies:
        found.append(f"parameters: {graph.facts.parameters} and {export.facts.parameters}")
    per_token = [
        trace.facts.kv_bytes_per_token
        / _BITS[next(o.dtype for block in trace.phases["decode"].blocks.values() for each in block
                     for o in each.operands if o.role is OperandRole.KV)]
        for trace in (graph, export)
    ]  # fmt: skip
    if per_token[0] != per_token[1]:
        found.append(f"cache of a token: {per_token[0]} and {per_token[1]} elements / 8")
    return found
