"""Which block each part belongs to and what it is there, by what it needs and what needs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.parts import HEAD, START, GraphPart

__all__ = ["place_parts"]


def place_parts(parts: Sequence[GraphPart], path: Path) -> list[GraphPart]:
    """The parts with ``layer``, ``name`` and ``group``, each after those that it needs.

    A block begins at the value that the norm before its attention reads; what needs that value is
    of this block or a later one.

    Parameters
    ----------
    parts
        Of the graph.
    path
        Of the file, for messages.

    Raises
    ------
    InputError
        For what is no decoder of such blocks.
    """
    found = _with_routes(list(parts), path)
    attentions = [part for part in found if part.what == "attention"]
    if not attentions:
        raise InputError(f"{path}: no decoder: no blocks with attention were found")
    cores = [_Core(attention, f"{path}: block {at}") for at, attention in enumerate(attentions)]
    for core in cores:
        found = _one_rope(found, core)
    found = _one_combine(found)
    _layers(found, cores, path)
    users = _users(found)
    for at, core in enumerate(cores):
        mine = [part for part in found if part.layer == at]
        _Roles(core, mine, users, f"{path}: block {at}").name()
    _outside(found, path)
    return found


def _users(parts: Iterable[GraphPart]) -> dict[GraphPart, list[GraphPart]]:
    users: dict[GraphPart, list[GraphPart]] = {}
    for part in parts:
        for other in part.after:
            users.setdefault(other, []).append(part)
    return users


def _swap(parts: Iterable[GraphPart], old: GraphPart, new: GraphPart) -> None:
    """All that needed ``old`` needs ``new``."""
    for part in parts:
        if old in part.after and part is not new:
            part.after = {(new if each is old else each): None for each in part.after}


def _with_routes(parts: list[GraphPart], path: Path) -> list[GraphPart]:
    """Behind each router the step from scores to weights of chosen experts."""
    found: list[GraphPart] = []
    routes: dict[GraphPart, GraphPart] = {}
    for part in parts:
        found.append(part)
        if part.what == "product" and part.facts.get("router"):
            scores = part.facts.get("scores")
            if scores is None:
                raise InputError(f"{path}: a router ({part.module}) without softmax or sigmoid")
            scoring, width = scores
            route = GraphPart("route", part.out, {part: None}, {"scoring": scoring, "width": width})
            routes[part] = route
            found.append(route)
    for part in found:
        if part.what in ("product", "act", "combine"):
            part.after = {routes.get(each, each): None for each in part.after}
            chosen = part.facts.get("chosen")
            if chosen in routes and not any(each.what == "act" for each in part.after):
                part.after[routes[chosen]] = None
    return found


def _behind(start: Iterable[GraphPart]) -> list[GraphPart]:
    """Parts before attention, back to its products."""
    found: dict[GraphPart, None] = {}
    waiting = list(start)
    while waiting:
        part = waiting.pop()
        if part in found:
            continue
        found[part] = None
        if part.what in ("rope", "norm", "append"):
            waiting += part.after
    return list(found)


def _one_rope(parts: list[GraphPart], core: _Core) -> list[GraphPart]:
    """Queries and keys are turned by one operator."""
    first, second = (
        next((part for part in core.paths[key] if part.what == "rope"), None)
        for key in ("query", "key")
    )
    if first is None or second is None or first is second or first.facts != second.facts:
        return parts
    second.after = {**first.after, **second.after}
    left = [part for part in parts if part is not first]
    _swap(left, first, second)
    # what needs the first one may stand before the second
    return _sorted(left)


def _one_combine(parts: list[GraphPart]) -> list[GraphPart]:
    """A sum with the shared expert's result is a part of the sum of experts."""
    for part in [each for each in parts if each.what == "combine"]:
        inner = next((each for each in part.after if each.what == "combine"), None)
        if inner is not None:
            part.after = {**inner.after, **{p: None for p in part.after if p is not inner}}
            part.facts["shared"] = True
            parts = [each for each in parts if each is not inner]
    return parts


def _sorted(parts: Sequence[GraphPart]) -> list[GraphPart]:
    """The same parts, each after those that it needs, else in their order."""
    done: dict[GraphPart, None] = {}
    inside = set(parts)

    for root in parts:
        stack = [root]
        while stack:
            part = stack[-1]
            missing = [each for each in part.after if each in inside and each not in done]
            if missing and len(stack) <= len(parts):
                stack.append(missing[0])
            else:
                stack.pop()
                done[part] = None
    return list(done)


class _Core:
    """Attention with all that is before it in its block."""

    def __init__(self, attention: GraphPart, where: str) -> None:
        self.attention = attention
        self.paths = {
            key: _behind(attention.facts[key].sources) for key in ("query", "key", "value")
        }
        self.products: dict[str, GraphPart] = {}
        for key, path in self.paths.items():
            products = [part for part in path if part.what == "product"]
            if len(products) != 1 or any(p.what in ("residual", "embed") for p in path):
                latent = any(
                    each in other.after or any(each in norm.after for norm in other.after)
                    for each in products for other in products
                )  # fmt: skip
                raise InputError(
                    f"{where}: {'latent attention (MLA): ' if latent else ''}the {key} of its "
                    f"attention comes from {len(products)} products; attention whose queries, "
                    "keys and values are each one product is read"
                )
            self.products[key] = products[0]
        before = {each: None for product in self.products.values() for each in product.after}
        self.norms = [part for part in before if part.what == "norm"]
        self.stream = {
            each: None for part in before
            for each in (part.after if part.what == "norm" else (part,))
        }  # fmt: skip
        if len(before) != 1 or not self.stream:
            raise InputError(
                f"{where}: its queries, keys and values are made from {len(before)} vectors of a "
                "token; one is expected (attention across, or to an encoder, is not read)"
            )


def _layers(parts: Sequence[GraphPart], cores: Sequence[_Core], path: Path) -> None:
    begins: dict[GraphPart, int] = {}
    for at, core in enumerate(cores):
        for part in core.stream:
            begins[part] = at
    for part in parts:
        part.layer = max((max(p.layer, begins.get(p, START)) for p in part.after), default=START)
    last = [part for part in parts if part.what == "residual" and part.layer == len(cores) - 1]
    if not last:
        raise InputError(f"{path}: its last block adds nothing to the residual stream")
    ends = {last[-1]}
    for part in parts:
        if part not in ends and any(each in ends for each in part.after):
            part.layer = HEAD
            ends.add(part)
    for at, core in enumerate(cores):
        if core.attention.layer != at:
            raise InputError(f"{path}: attention {at} does not follow the one before it")


class _Roles:
    """Names of one block's parts."""

    def __init__(
        self,
        core: _Core,
        parts: Sequence[GraphPart],
        users: dict[GraphPart, list[GraphPart]],
        where: str,
    ) -> None:
        self.core, self.parts, self.users, self.where = core, parts, users, where

    def name(self) -> None:
        """All of them. Raises ``InputError`` for a part without a role, or two of one."""
        self._attention()
        residuals = 0
        for part in self.parts:
            if part.name:
                continue
            if part.what == "residual":
                residuals += 1
                part.name = part.group = f"res{residuals}"
            elif part.what in ("route", "combine"):
                part.name = part.group = part.what
            elif part.what == "product":
                self._product(part)
            elif part.what == "act":
                self._act(part)
            elif part.what == "norm":
                self._norm(part)
            if not part.name:
                raise InputError(
                    f"{self.where}: {part.what} {part.module or part.out!r} has no place in a "
                    "decoder block"
                )
        seen: dict[str, GraphPart] = {}
        for part in self.parts:
            if part.name in seen:
                raise InputError(
                    f"{self.where}: two of its operators are its {part.name} "
                    f"({seen[part.name].module or seen[part.name].out!r} and "
                    f"{part.module or part.out!r})"
                )
            seen[part.name] = part

    def _attention(self) -> None:
        core = self.core
        distinct = dict.fromkeys(core.products.values())
        short = {"query": "q", "key": "k", "value": "v"}
        for product in distinct:
            names = [short[key] for key in core.products if core.products[key] is product]
            product.name, product.group = "".join(names), "qkv"
        for key, name in (("query", "q_norm"), ("key", "k_norm")):
            for part in core.paths[key]:
                if part.what == "norm":
                    part.name, part.group = name, "qk_norm"
                elif part.what == "rope":
                    part.name = part.group = "rope"
        for part in core.norms:
            part.name = part.group = "ln1"
        core.attention.name, core.attention.group = "attention", "score"
        for part in core.attention.after:
            if part.what == "append":
                part.name = part.group = "kv_append"

    def _product(self, part: GraphPart) -> None:
        users = self.users.get(part, [])
        experts = bool(part.facts["experts"])
        after_act = any(each.what == "act" for each in part.after)
        to_combine = any(each.what == "combine" for each in users)
        prefix = "shared_" if self._is_shared(part) else ""
        if part.facts.get("router"):
            part.name = part.group = "router"
        elif experts:
            part.name = part.group = "expert_fc2" if after_act else "expert_fc1"
        elif self.core.attention in part.after:
            part.name = part.group = "proj"
        elif after_act:
            part.name = part.group = f"{prefix}fc2"
        elif to_combine and part.facts["n"] == 1:
            part.name, part.group = "shared_expert_gate", "shared_gate"
        elif (act := next((each for each in users if each.what == "act"), None)) is not None:
            part.group = f"{prefix}fc1"
            two = sum(each.what == "product" for each in act.after) == 2
            name = ("gate" if part.facts.get("passes") else "up") if two else "fc1"
            part.name = f"{prefix}{name}"

    def _is_shared(self, part: GraphPart) -> bool:
        """Whether it leads to the sum of experts, as a network of its own."""
        waiting, seen = [part], set[GraphPart]()
        while waiting:
            each = waiting.pop()
            if each in seen or each.what == "residual":
                continue
            seen.add(each)
            if each.what == "combine":
                return not part.facts.get("experts")
            if each.what in ("product", "act"):
                waiting += self.users.get(each, [])
        return False

    def _act(self, part: GraphPart) -> None:
        if part.facts["experts"]:
            part.name = part.group = "expert_act"
        else:
            prefix = "shared_" if self._is_shared(part) else ""
            part.name = part.group = f"{prefix}act"

    def _norm(self, part: GraphPart) -> None:
        sources = {each.name for each in part.after}
        if sources == {"proj"}:
            part.name = "post_ln1"
        elif sources and sources <= {"fc2", "combine"}:
            part.name = "post_ln2"
        elif all(each.what in ("residual", "embed", "norm") for each in part.after):
            part.name = "ln2"
        part.group = part.name


def _outside(parts: Sequence[GraphPart], path: Path) -> None:
    names = {
        START: {"embed": "embed", "norm": "embed_norm"},
        HEAD: {"norm": "final_norm", "product": "lm_head"},
    }
    for part in parts:
        if part.layer in names:
            part.name = part.group = names[part.layer].get(part.what, "")
            if not part.name:
                side = "before" if part.layer == START else "after"
                raise InputError(
                    f"{path}: {part.what} {part.module or part.out!r} {side} the blocks is no part "
                    "of a decoder that is known"
                )
