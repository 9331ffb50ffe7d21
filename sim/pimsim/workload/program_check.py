"""Whether an operator trace is a program that a machine can run, operator by operator.

JSON of the right shape may still say what nothing can do: a product of no rows, experts in a model
without any, weights of a thousandth of their elements. All is said when the trace is read, by
block and operator, so that no later step has to ask.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pimsim.workload.operators import OperatorKind

if TYPE_CHECKING:
    from pimsim.workload.trace import ModelFacts, Phase, SymbolicOperator

__all__ = ["check_program"]

_PRODUCTS = {
    OperatorKind.GEMM: ("T", "B", "L"),
    OperatorKind.ROUTER: ("T", "B", "L"),
    OperatorKind.EXPERT_GEMM: ("A",),
}
"""Kinds with weights, and what their rows can count."""
_ATTENTION = (
    OperatorKind.ATTENTION_SCORE,
    OperatorKind.SOFTMAX,
    OperatorKind.ATTENTION_VALUE,
)
_NO_ROWS = (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)
_CACHE = (*_ATTENTION, OperatorKind.KV_APPEND)
_BITS = (0.5, 128)
"""Least and most bits of a stored element, scales and biases beside it included."""


def check_program(facts: ModelFacts, phases: Mapping[Literal["prefill", "decode"], Phase]) -> None:
    """Raise for the first thing that cannot be.

    Parameters
    ----------
    facts
        Of the model.
    phases
        Their blocks and operators.

    Raises
    ------
    ValueError
        With phase, block and operator.
    """
    if facts.heads % facts.kv_heads:
        raise ValueError(
            f"facts.heads is {facts.heads}, which {facts.kv_heads} key heads cannot share evenly"
        )
    if facts.experts_per_token > facts.experts:
        raise ValueError(
            f"facts.experts_per_token is {facts.experts_per_token}, of {facts.experts} experts"
        )
    for name, phase in phases.items():
        outside = (phase.before, phase.after)
        for kind, operators in phase.blocks.items():
            where = f"{name}, block {kind!r}"
            _check_block(where, operators, facts, is_outside=kind in outside)


def _check_block(
    where: str, operators: Sequence[SymbolicOperator], facts: ModelFacts, *, is_outside: bool
) -> None:
    kinds = [operator.kind for operator in operators]
    experts = OperatorKind.EXPERT_GEMM in kinds
    if experts and not facts.experts:
        raise ValueError(f"{where}: has experts, facts.experts is 0")
    if is_outside and (experts or set(kinds) & set(_CACHE)):
        raise ValueError(f"{where}: runs before or after the blocks, where no attention and no "
                         "experts can be")  # fmt: skip
    counts = {kind: kinds.count(kind) for kind in _CACHE}
    if len({counts[kind] for kind in _ATTENTION}) > 1 or max(counts.values()) > 1:
        found = ", ".join(f"{count} {kind}" for kind, count in counts.items())
        raise ValueError(f"{where}: one of each, or none, is expected, found {found}")
    for operator in operators:
        problem = _problem(operator, experts)
        if problem:
            raise ValueError(f"{where}, operator {operator.name!r}: {problem}")
    _check_order(where, operators)


def _check_order(where: str, operators: Sequence[SymbolicOperator]) -> None:
    """Values need the softmax, and that the scores."""
    needs: dict[str, set[OperatorKind]] = {}
    for operator in operators:
        found = {operator.kind}
        for name in operator.depends_on:
            found |= needs[name]
        needs[operator.name] = found
        at = _ATTENTION.index(operator.kind) if operator.kind in _ATTENTION else 0
        for before in _ATTENTION[:at]:
            if before not in found:
                raise ValueError(
                    f"{where}, operator {operator.name!r}: a {operator.kind} that does not depend "
                    f"on the block's {before}"
                )


def _problem(operator: SymbolicOperator, experts: bool) -> str:
    """What cannot be; empty where all can."""
    if operator.page or operator.keys_a_column:
        return "page and keys_a_column are of techniques that choose keys (workload.kv_view)"
    forms = [operator.m, operator.rows, operator.flops, *(x.bytes for x in operator.operands)]
    symbols = {symbol for form in forms for symbol in form}
    if symbols & {"A", "E"} and not experts:
        return "counts tokens or experts of a routing (A, E), but the block has no experts"
    pairs = {symbol for symbol in symbols if symbol[0] in "PK"}
    if pairs and operator.kind not in _ATTENTION:
        return f"counts {min(pairs)}, which only attention has"
    suffix = f"@{operator.window}" if operator.window else ""
    other = next((symbol for symbol in sorted(pairs) if symbol[1:] != suffix), None)
    if other is not None:
        return f"counts {other}, its window is {operator.window or 'none'}"
    return _size_problem(operator)


def _size_problem(operator: SymbolicOperator) -> str:
    kind = operator.kind
    if kind in _PRODUCTS:
        return _product_problem(operator, _PRODUCTS[kind])
    if operator.m:
        return f"m is of a matrix product, found {dict(operator.m)} of a {kind}"
    if kind in _NO_ROWS:
        sizes = {"heads": operator.heads, "kv_heads": operator.kv_heads,
                 "head_dim": operator.head_dim}  # fmt: skip
        missing = next((name for name, size in sizes.items() if not size), None)
        if missing is not None:
            return f"{missing} is 0"
        if operator.heads % operator.kv_heads:
            return f"{operator.heads} heads cannot share {operator.kv_heads} key heads evenly"
        return _cache_problem(operator)
    if not set(operator.rows) & {"T", "B", "L", "A"} or not set(operator.rows) <= {
        "1", "T", "B", "L", "A",
    }:  # fmt: skip
        return f"rows is {dict(operator.rows) or 0}; vectors are counted by T, B, L or A"
    if kind is OperatorKind.SOFTMAX:
        return "" if operator.heads else "heads is 0"
    return "" if operator.width else "width is 0"


def _product_problem(operator: SymbolicOperator, counted: Sequence[str]) -> str:
    if not set(operator.m) & set(counted) or not set(operator.m) <= {"1", *counted}:
        return f"m is {dict(operator.m) or 0}; rows of a {operator.kind} are {', '.join(counted)}"
    for name, size in (("n", operator.n), ("k", operator.k)):
        if not size:
            return f"{name} is 0"
    weights = _bytes(operator, "weight")
    unit = "E" if operator.kind is OperatorKind.EXPERT_GEMM else "1"
    if set(weights) != {unit}:
        of = "one each expert (E)" if unit == "E" else "a constant"
        return f"weights of {weights or 0} bytes; {of} is expected"
    return _storage_problem(operator.n * operator.k * operator.count, weights[unit], "weights")


def _cache_problem(operator: SymbolicOperator) -> str:
    """Keys and values are read once a context; values may be a part of the keys (MLA)."""
    read = _bytes(operator, "kv")
    if not read:
        return "" if operator.kind is OperatorKind.ATTENTION_VALUE else "reads no keys"
    if len(read) > 1 or next(iter(read))[0] != "K":
        return f"reads {read} bytes of KV cache; they go by K"
    return _storage_problem(
        operator.kv_heads * operator.head_dim, next(iter(read.values())), "KV cache a token"
    )


def _storage_problem(elements: int, size: int, what: str) -> str:
    low, high = (elements * bits / 8 for bits in _BITS)
    if low <= size <= high:
        return ""
    return (
        f"{size} bytes of {what} for {elements} elements: {8 * size / elements:.3g} bits each, "
        f"{_BITS[0]} to {_BITS[1]} can be"
    )


def _bytes(operator: SymbolicOperator, role: str) -> dict[str, int]:
    total: dict[str, int] = {}
    for operand in operator.operands:
        if operand.role == role and not operand.write:
            for symbol, coefficient in operand.bytes.items():
                total[symbol] = total.get(symbol, 0) + coefficient
    return total
