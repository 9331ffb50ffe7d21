"""Which operator of the cards' vocabulary each node is a part of, by structure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pimsim.workload.onnx_import.reading import LoadedGraph
from pimsim.workload.onnx_import.shapes import Value

__all__ = ["Part", "Unknown", "recognise"]

_MOVEMENT = {
    "Reshape", "Transpose", "Cast", "CastLike", "Shape", "Size", "Gather", "GatherND",
    "GatherElements", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Expand", "Identity",
    "Constant", "ConstantOfShape", "Range", "Where", "Tile", "Pad", "Flatten", "ScatterND",
    "ScatterElements", "Trilu", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And",
    "Or", "Not", "IsNaN", "Dropout", "DequantizeLinear", "QuantizeLinear", "Clip", "Min", "Max",
    "TopK", "ArgMax", "NonZero", "OneHot", "CumSum", "EyeLike", "Sign", "Floor", "ReduceSum",
    "ReduceMax", "Mod",
}  # fmt: skip
"""Moves, choices, comparisons and bookkeeping of shapes: no arithmetic by our conventions."""
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Neg", "Pow", "Sqrt", "Reciprocal", "Abs"}
_GEMMS = {"MatMul", "Gemm", "MatMulNBits", "FusedMatMul", "MatMulInteger"}
_NORMS = {
    "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "LayerNormalization",
    "SkipLayerNormalization", "RMSNormalization",
}  # fmt: skip
_ACTIVATIONS = {
    "Sigmoid": "silu", "Swish": "silu", "Relu": "relu", "Gelu": "gelu", "FastGelu": "gelu",
    "QuickGelu": "gelu", "BiasGelu": "gelu", "Tanh": "gelu", "Erf": "gelu",
}  # fmt: skip
_FLOATS = {1, 10, 11, 16}
_LAYER = re.compile(r"(?:layers|h|blocks|block|layer)[./_](\d+)(?=[./_]|$)")


@dataclass(frozen=True)
class Unknown:
    """A node whose arithmetic belongs to no operator that is known."""

    name: str
    op_type: str
    domain: str


@dataclass
class Part:
    """An operator of one block, with the nodes that do it."""

    what: str
    """``gemm``, ``norm``, ``act``, ``rope``, ``residual``, ``attention``, ``embed``, ``append``."""
    layer: int
    """-1 before the blocks, -2 after them."""
    nodes: list[Any] = field(default_factory=list)
    out: str = ""
    """The value that it makes."""
    facts: dict[str, Any] = field(default_factory=dict)


class _Graph:
    """Who makes and who uses each value."""

    def __init__(self, loaded: LoadedGraph, values: Mapping[str, Value]) -> None:
        self.loaded, self.values = loaded, values
        self.nodes = list(loaded.graph.node)
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.users: dict[str, list[Any]] = {}
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def weight(self, name: str) -> str:
        """The initializer that a value is a view of; empty: it is computed."""
        for _ in range(8):
            if name in self.loaded.weights:
                return name
            node = self.maker.get(name)
            if node is None or node.op_type not in (
                "Transpose", "Cast", "Identity", "DequantizeLinear", "Reshape", "Squeeze",
            ):  # fmt: skip
                return ""
            name = node.input[0]
        return ""

    def floating(self, node: Any) -> bool:
        value = self.values.get(node.output[0])
        return value is not None and value.dtype in _FLOATS and value.constant is None


def recognise(loaded: LoadedGraph, values: Mapping[str, Value]) -> tuple[list[Part], list[Unknown]]:
    """Parts in the graph's order, and what is left over."""
    graph = _Graph(loaded, values)
    taken: dict[int, Part] = {}
    parts: list[Part] = []

    def add(part: Part) -> None:
        parts.append(part)
        for node in part.nodes:
            taken[id(node)] = part

    for node in graph.nodes:
        if node.op_type in _NORMS:
            add(_fused_norm(graph, node))
        elif node.op_type in _GEMMS and any(graph.weight(name) for name in node.input[:2]):
            add(_gemm(graph, node))
        elif node.op_type in ("GroupQueryAttention", "MultiHeadAttention", "Attention"):
            add(_fused_attention(graph, node))
        elif (
            node.op_type == "Gather"
            and len(_shape(graph, node.input[0])) == 2
            and (graph.weight(node.input[0]))
        ):
            out = _shape(graph, node.output[0])
            add(Part("embed", -1, [node], node.output[0], {"width": out[-1]}))
    for node in graph.nodes:
        if node.op_type == "ReduceMean" and id(node) not in taken:
            norm = _norm(graph, node, taken)
            if norm is not None:
                add(norm)
        elif node.op_type == "Softmax" and id(node) not in taken:
            attention = _attention(graph, node)
            if attention is not None:
                add(attention)
    for node in graph.nodes:
        if id(node) in taken or node.op_type not in _ACTIVATIONS or not graph.floating(node):
            continue
        add(_act(graph, node, taken))
    _layers(graph, parts)
    _elementwise(graph, parts, taken)
    unknown = [
        Unknown(node.name, node.op_type, node.domain or "ai.onnx")
        for node in graph.nodes
        if id(node) not in taken and node.op_type not in _MOVEMENT and graph.floating(node)
    ]
    order = {id(node): at for at, node in enumerate(graph.nodes)}
    parts.sort(key=lambda part: order[id(part.nodes[0])])
    return parts, unknown


def _shape(graph: _Graph, name: str) -> tuple[int, ...]:
    value = graph.values.get(name)
    return () if value is None or value.shape is None else value.shape


def _gemm(graph: _Graph, node: Any) -> Part:
    names = [graph.weight(name) for name in node.input[:2]]
    weight = next(name for name in names if name)
    data = node.input[0] if not names[0] else node.input[1]
    out, depth = _shape(graph, node.output[0]), _shape(graph, data)
    facts = {
        "n": out[-1] if out else 0, "k": depth[-1] if depth else 0, "weight": weight,
        "bias": node.op_type == "Gemm" and len(node.input) > 2, "input": data,
    }  # fmt: skip
    nodes = [node]
    users = graph.users.get(node.output[0], [])
    if len(users) == 1 and users[0].op_type == "Add":
        other = [name for name in users[0].input if name != node.output[0]]
        bias = graph.weight(other[0]) if other else ""
        if bias and graph.loaded.weights[bias][0] == (facts["n"],):
            facts["bias"] = True
            nodes.append(users[0])
    return Part("gemm", -1, nodes, nodes[-1].output[0], facts)


def _fused_norm(graph: _Graph, node: Any) -> Part:
    shape = _shape(graph, node.output[0])
    rms = "Simplified" in node.op_type or node.op_type == "RMSNormalization"
    facts = {
        "width": shape[-1] if shape else 0, "function": "rmsnorm" if rms else "layernorm",
        "rows_of": shape, "weight": next((graph.weight(n) for n in node.input[1:]
                                          if graph.weight(n)), ""),
        "skip": node.op_type.startswith("Skip"), "input": node.input[0],
    }  # fmt: skip
    return Part("norm", -1, [node], node.output[0], facts)


def _norm(graph: _Graph, mean: Any, taken: Mapping[int, Part]) -> Part | None:
    """A norm spelt out: everything between a mean over the last axis and the gain's product."""
    nodes, frontier, gain = [mean], list(mean.output), None
    centred = False
    back = graph.maker.get(mean.input[0])
    if back is not None and back.op_type in ("Pow", "Mul"):
        nodes.insert(0, back)
    for _ in range(14):
        if not frontier:
            break
        name = frontier.pop(0)
        for user in graph.users.get(name, []):
            if id(user) in taken or user in nodes:
                continue
            if user.op_type not in _ELEMENTWISE | {"ReduceMean", "Cast"}:
                continue
            nodes.append(user)
            centred |= user.op_type == "Sub"
            weights = [graph.weight(other) for other in user.input if graph.weight(other)]
            wide = [w for w in weights if len(graph.loaded.weights[w][0]) == 1
                    and graph.loaded.weights[w][0][0] > 1]  # fmt: skip
            if user.op_type == "Mul" and wide:
                gain = (user, wide[0])
                continue
            frontier += user.output
    if gain is None:
        return None
    node, weight = gain
    shape = _shape(graph, node.output[0])
    out = node.output[0]
    users = graph.users.get(out, [])
    if centred and len(users) == 1 and users[0].op_type == "Add":
        nodes.append(users[0])
        out = users[0].output[0]
    facts = {
        "width": shape[-1] if shape else 0, "function": "layernorm" if centred else "rmsnorm",
        "rows_of": shape, "weight": weight, "skip": False,
    }  # fmt: skip
    return Part("norm", -1, nodes, out, facts)


def _fused_attention(graph: _Graph, node: Any) -> Part:
    number = {each.name: each.i for each in node.attribute}
    heads = number.get("num_heads") or number.get("q_num_heads") or 0
    keys = number.get("kv_num_heads") or heads
    query, out = _shape(graph, node.input[0]), _shape(graph, node.output[0])
    if len(query) == 4:
        heads, keys = query[1], _shape(graph, node.input[1])[1]
        dim = query[-1]
    else:
        dim = out[-1] // heads if out and heads else 0
    window = number.get("local_window_size", -1)
    facts = {
        "heads": heads, "kv_heads": keys, "dim": dim, "window": window if window > 0 else None,
        "appends": node.op_type != "MultiHeadAttention" and len(node.output) > 1,
        "rotates": bool(number.get("do_rotary")), "inputs": list(node.input[:3]),
    }  # fmt: skip
    return Part("attention", -1, [node], node.output[0], facts)


def _attention(graph: _Graph, softmax: Any) -> Part | None:
    """Scores, softmax and values spelt out: the products around a softmax."""
    nodes = [softmax]
    before = graph.maker.get(softmax.input[0])
    for _ in range(8):
        if before is None or before.op_type in _GEMMS:
            break
        nodes.append(before)
        names = [n for n in before.input if len(_shape(graph, n)) == 4]
        before = graph.maker.get(names[0]) if names else None
    if before is None or before.op_type not in _GEMMS:
        return None
    nodes.append(before)
    names = list(softmax.output)
    for _ in range(6):
        users = graph.users.get(names[0], [])
        if not users:
            return None
        nodes.append(users[0])
        if users[0].op_type in _GEMMS:
            break
        names = list(users[0].output)
    else:
        return None
    query = _shape(graph, before.input[0])
    if len(query) != 4:
        return None
    facts = {
        "heads": query[1], "kv_heads": 0, "dim": query[-1], "window": None, "appends": False,
        "rotates": False, "inputs": [before.input[0], before.input[1], nodes[-1].input[1]],
    }  # fmt: skip
    return Part("attention", -1, nodes, nodes[-1].output[0], facts)


def _act(graph: _Graph, node: Any, taken: Mapping[int, Part]) -> Part:
    nodes, out, gated = [node], node.output[0], False
    for _ in range(4):
        users = [u for u in graph.users.get(out, []) if u.op_type == "Mul" and id(u) not in taken]
        if not users or len(graph.users.get(out, [])) > 2:
            break
        other = [n for n in users[0].input if n != out]
        own = {n for each in nodes for n in each.input}
        gated |= bool(other) and other[0] not in own and not graph.weight(other[0])
        nodes.append(users[0])
        out = users[0].output[0]
        if gated:
            break
    shape = _shape(graph, out)
    facts = {
        "function": _ACTIVATIONS[node.op_type], "gated": gated,
        "width": shape[-1] if shape else 0,
    }  # fmt: skip
    return Part("act", -1, nodes, out, facts)


def _layers(graph: _Graph, parts: Sequence[Part]) -> None:
    """The block of each part: from numbers in names where every product has one, else from the
    attentions between them (exporters fold weights under names of their own)."""
    order = {id(node): at for at, node in enumerate(graph.nodes)}
    ordered = sorted(parts, key=lambda part: order[id(part.nodes[0])])
    for part in ordered:
        texts = [str(part.facts.get("weight", "")), *(node.name for node in part.nodes)]
        found = next((m for text in texts if (m := _LAYER.search(text))), None)
        if found:
            part.layer = int(found.group(1))
    gemms = [part for part in ordered if part.what == "gemm"]
    if sum(part.layer < 0 for part in gemms) > 1:  # the output layer has none
        _by_attention(ordered)
        return
    last = max((part.layer for part in ordered), default=-1)
    seen = -1
    for part in ordered:
        if part.layer >= 0:
            seen = max(seen, part.layer)
        elif part.what != "embed":
            inside = part.what in ("attention", "act")
            part.layer = seen if inside else (-2 if seen == last else -1)


def _by_attention(ordered: Sequence[Part]) -> None:
    """A block begins with the norm before the products that its attention uses."""
    starts = []
    for at, part in enumerate(ordered):
        if part.what != "attention":
            continue
        gemms = [i for i in range(at) if ordered[i].what == "gemm"]
        if not gemms:
            continue
        shared = ordered[gemms[-1]].facts["input"]
        start = gemms[-1]
        for i in reversed(gemms):
            if ordered[i].facts["input"] != shared:
                break
            start = i
        if start > 0 and ordered[start - 1].what == "norm":
            start -= 1
        starts.append(start)
    for part in ordered:
        part.layer = -1
    for number, start in enumerate(starts):
        end = starts[number + 1] if number + 1 < len(starts) else len(ordered)
        for part in ordered[start:end]:
            if part.what != "embed":
                part.layer = number
    # what follows the last product of the last block's FFN is the head
    tail = [part for part in ordered if part.layer == len(starts) - 1 and starts]
    acts = [at for at, part in enumerate(tail) if part.what == "act"]
    if acts:
        norms = [at for at, part in enumerate(tail) if part.what == "norm" and at > acts[-1]]
        head = norms[-1] if norms else len(tail) - 1
        for part in tail[head:]:
            part.layer = -2


def _elementwise(graph: _Graph, parts: list[Part], taken: dict[int, Part]) -> None:
    """What is left: rotary positions before attention, residual sums, scales."""
    order = {id(node): at for at, node in enumerate(graph.nodes)}
    spans: dict[int, tuple[int, int]] = {}
    attends: dict[int, int] = {}
    for part in parts:
        places = [order[id(node)] for node in part.nodes]
        if part.layer >= 0:
            low, high = spans.get(part.layer, (min(places), max(places)))
            spans[part.layer] = (min(low, *places), max(high, *places))
            if part.what == "attention":
                attends[part.layer] = max(places)
    ropes: dict[int, Part] = {}
    for node in graph.nodes:
        if id(node) in taken or not graph.floating(node):
            continue
        at = order[id(node)]
        layer = next((n for n, (low, high) in spans.items() if low <= at <= high), None)
        residual = node.op_type == "Add" and _is_residual(graph, node, taken)
        if residual:
            number = _residual_layer(graph, node, taken, layer)
            part = Part("residual", number, [node], node.output[0],
                        {"width": _shape(graph, node.output[0])[-1]})  # fmt: skip
            parts.append(part)
            taken[id(node)] = part
        elif node.op_type == "RotaryEmbedding" or (
            node.op_type in _ELEMENTWISE and layer is not None and at < attends.get(layer, -1)
        ):
            rope = ropes.get(layer if layer is not None else -1)
            if rope is None:
                rope = Part("rope", layer if layer is not None else -1, [], node.output[0])
                ropes[rope.layer] = rope
                parts.append(rope)
            rope.nodes.append(node)
            taken[id(node)] = rope
        elif (
            node.op_type in (_ELEMENTWISE | {"Sin", "Cos"})
            and layer is None
            and (at < min((low for low, _ in spans.values()), default=0))
        ):
            part = Part("glue", -1, [node], node.output[0])
            taken[id(node)] = part  # angles and masks, for all blocks at once: not counted


def _is_residual(graph: _Graph, node: Any, taken: Mapping[int, Part]) -> bool:
    shapes = [_shape(graph, name) for name in node.input]
    if len(shapes) != 2 or shapes[0] != shapes[1] or len(shapes[0]) not in (2, 3):
        return False
    return not any(graph.weight(name) for name in node.input)


def _residual_layer(graph: _Graph, node: Any, taken: Mapping[int, Part], layer: int | None) -> int:
    """The block whose product it adds."""
    for name in node.input:
        for _ in range(6):
            maker = graph.maker.get(name)
            if maker is None:
                break
            part = taken.get(id(maker))
            if part is not None and part.what in ("gemm", "norm") and part.layer >= 0:
                return part.layer
            if maker.op_type not in _MOVEMENT:
                break
            name = maker.input[0]
    return layer if layer is not None else -2
