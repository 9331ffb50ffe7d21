"""One way to write a block down, whatever it was read from.

An exporter, a library and a card each have an order of their own for operators that do not wait for
each other, and some keep several products as one matrix. A trace has the cards' order, and a
product of queries, keys and values, or of a gate and its partner, as its parts: how many heads a
device has decides what it holds of each. ``instantiate`` runs such parts as one product again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pimsim.workload.trace import Operand, OperandRole, SymbolicOperator

__all__ = ["block_labels", "canonical_block"]

_ORDER = (
    "embed", "embed_norm", "ln1", "q_a", "q_a_norm", "q_b", "kv_a", "kv_a_norm", "q", "k", "v",
    "q_norm", "k_norm", "rope", "kv_append", "absorb_k", "kv_b", "score", "softmax", "value",
    "absorb_v", "proj", "post_ln1", "res1", "ln2", "router", "route", "expert_fc1", "expert_act",
    "expert_fc2", "gate", "up", "fc1", "act", "fc2", "shared_gate", "shared_up", "shared_fc1",
    "shared_act", "shared_fc2", "shared_expert_gate", "combine", "post_ln2", "res2", "res3",
    "final_norm", "lm_head",
)  # fmt: skip
"""The cards' order; an operator still comes after all that it waits for."""
_RANKS = {name: at for at, name in enumerate(_ORDER)}
_HEADS = ("q", "k", "q_norm", "k_norm")
_CHOSEN = ("expert_fc1", "expert_fc2", "combine")


def canonical_block(operators: Sequence[SymbolicOperator]) -> tuple[SymbolicOperator, ...]:
    """The operators of a block in the cards' order and parts.

    Parameters
    ----------
    operators
        In any order of which each is after those that it needs.
    """
    found = _unpack_heads(list(operators))
    for prefix in ("", "shared_"):
        found = _unpack_gate(found, prefix)
    return _ordered(_past_rope(_chosen_by_route(found)))


def block_labels(experts: Sequence[bool], windows: Sequence[int | None]) -> list[str]:
    """Names for kinds of block by what tells them apart.

    Parameters
    ----------
    experts
        Whether each kind has experts.
    windows
        Tokens of each kind's sliding window; None: it has none.
    """
    labels: list[str] = []
    for has_experts, window in zip(experts, windows, strict=True):
        parts = []
        if len(set(experts)) > 1:
            parts.append("moe" if has_experts else "dense")
        if len(set(windows)) > 1:
            parts.append("full" if window is None else "sliding")
        label, number = "-".join(parts) or "decoder", 2
        plain = label
        while label in labels:
            label, number = f"{plain}-{number}", number + 1
        labels.append(label)
    return labels


def _by_name(operators: Sequence[SymbolicOperator]) -> dict[str, SymbolicOperator]:
    return {operator.name: operator for operator in operators}


def _unpack_heads(operators: list[SymbolicOperator]) -> list[SymbolicOperator]:
    """``qkv`` (or ``kv``) as ``q``, ``k`` and ``v``."""
    known = _by_name(operators)
    packed = known.get("qkv") or known.get("kv")
    if packed is None or "score" not in known or "kv_append" not in known:
        return operators
    score, value = known["score"], known["value"]
    keys = {"k": score.head_dim, "v": value.head_dim}
    sizes = {name: score.kv_heads * dim for name, dim in keys.items()}
    if packed.name == "qkv":
        sizes = {"q": score.heads * score.head_dim, **sizes}
    if sum(sizes.values()) != packed.n:
        return operators  # heads of several models in one; kept as it is
    parts = []
    for name, part in _split(packed, sizes).items():
        of = {"heads": score.heads} if name == "q" else {"kv_heads": score.kv_heads}
        parts.append(part.model_copy(update={**of, "head_dim": score.head_dim}))
    names = set(known)

    def needs(operator: SymbolicOperator) -> list[str]:
        turned = "rope" in operator.depends_on
        key = ["k"] if not turned and "k_norm" not in operator.depends_on else []
        return {
            "q_norm": ["q"], "k_norm": ["k"], "kv_append": [*key, "v"], "score": ["q"],
            "rope": [n for n in ("q", "k") if f"{n}_norm" not in operator.depends_on],
        }.get(operator.name, list(sizes))  # fmt: skip

    return _replaced(operators, packed, parts, {name: needs(known[name]) for name in names})


def _unpack_gate(operators: list[SymbolicOperator], prefix: str) -> list[SymbolicOperator]:
    """``fc1`` of a gated network as ``gate`` and ``up``; a lone ``up`` is ``fc1``."""
    known = _by_name(operators)
    first, act = known.get(f"{prefix}fc1"), known.get(f"{prefix}act")
    lone = known.get(f"{prefix}up")
    if lone is not None and first is None and f"{prefix}gate" not in known:
        renamed = lone.model_copy(update={"name": f"{prefix}fc1"})
        return _replaced(operators, lone, [renamed], {})
    if first is None or act is None or first.n != 2 * act.width:
        return operators
    parts = _split(first, {f"{prefix}gate": act.width, f"{prefix}up": act.width})
    return _replaced(operators, first, list(parts.values()), {})


def _split(packed: SymbolicOperator, sizes: Mapping[str, int]) -> dict[str, SymbolicOperator]:
    """A product's columns as products of their own."""
    parts, start = {}, 0
    for name, size in sizes.items():
        end = start + size
        operands = tuple(_share(operand, start, end, packed.n) for operand in packed.operands)
        flops = {symbol: each * size // packed.n for symbol, each in packed.flops.items()}
        parts[name] = packed.model_copy(
            update={"name": name, "n": size, "operands": operands, "flops": flops}
        )
        start = end
    return parts


def _share(operand: Operand, start: int, end: int, columns: int) -> Operand:
    if operand.role is OperandRole.ACTIVATION and not operand.write:
        return operand  # each reads the whole input
    parts = {
        symbol: each * end // columns - each * start // columns
        for symbol, each in operand.bytes.items()
    }
    return operand.model_copy(update={"bytes": parts})


def _replaced(
    operators: Sequence[SymbolicOperator], old: SymbolicOperator,
    new: Sequence[SymbolicOperator], needs: Mapping[str, Sequence[str]],
) -> list[SymbolicOperator]:  # fmt: skip
    found: list[SymbolicOperator] = []
    for operator in operators:
        if operator.name == old.name:
            found += new
            continue
        if old.name in operator.depends_on:
            mine = needs.get(operator.name, [each.name for each in new])
            after = [
                other for name in operator.depends_on
                for other in (mine if name == old.name else (name,))
            ]  # fmt: skip
            operator = operator.model_copy(update={"depends_on": tuple(dict.fromkeys(after))})
        found.append(operator)
    return found


def _chosen_by_route(operators: Sequence[SymbolicOperator]) -> list[SymbolicOperator]:
    """Experts wait for the route, which chooses them, wherever in it the choice is made."""
    if "route" not in _by_name(operators):
        return list(operators)
    found = []
    for operator in operators:
        if operator.name in _CHOSEN:
            after = dict.fromkeys(
                "route" if name == "router" else name for name in operator.depends_on
            )
            if operator.name == "expert_fc2":
                after.pop("route", None)  # it waits for the activation, which waited
            operator = operator.model_copy(update={"depends_on": tuple(after)})
        found.append(operator)
    return found


def _past_rope(operators: Sequence[SymbolicOperator]) -> list[SymbolicOperator]:
    """What waits for rotary positions does not say again what they waited for: features that are
    not turned come with those that are."""
    found = []
    for operator in operators:
        after = operator.depends_on
        if operator.name in ("kv_append", "score") and "rope" in after:
            turned = [name for name in _HEADS if _waits_for(operators, "rope", name)]
            after = tuple(name for name in after if name not in turned)
            operator = operator.model_copy(update={"depends_on": after})
        found.append(operator)
    return found


def _waits_for(operators: Sequence[SymbolicOperator], name: str, other: str) -> bool:
    return other in _by_name(operators)[name].depends_on


def _ordered(operators: Sequence[SymbolicOperator]) -> tuple[SymbolicOperator, ...]:
    """The cards' order, kept among operators that do not wait for each other."""
    waiting = {operator.name: operator for operator in operators}
    done: dict[str, SymbolicOperator] = {}
    while waiting:
        ready = [
            operator for operator in waiting.values()
            if all(name in done or name not in waiting for name in operator.depends_on)
        ]  # fmt: skip
        first = min(ready, key=lambda each: _RANKS.get(each.name, len(_RANKS)))
        done[first.name] = waiting.pop(first.name)
    place = {name: at for at, name in enumerate(done)}
    return tuple(
        operator.model_copy(
            update={
                "depends_on": tuple(
                    sorted((n for n in operator.depends_on if n in place), key=place.__getitem__)
                )
            }
        )
        for operator in done.values()
    )
