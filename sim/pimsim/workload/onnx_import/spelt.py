"""Norms and attention that an exporter spells out in plain operators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pimsim.workload.onnx_import.formats import Stored
from pimsim.workload.onnx_import.graph import GEMMS, MOVEMENT, GraphView
from pimsim.workload.onnx_import.reading import count_elements

__all__ = ["SpeltAttention", "SpeltNorm", "behind_repeats", "spelt_attention", "spelt_norm"]

_PASS = ("Cast", "Identity", "CastLike")
_FAR = 24


@dataclass
class SpeltNorm:
    """Everything from the square to the gain."""

    nodes: list[Any]
    data: str
    out: str
    function: str
    weights: list[Stored] = field(default_factory=list)


@dataclass
class SpeltAttention:
    """Scores, softmax and weighted values."""

    nodes: list[Any]
    query: str
    key: str
    value: str
    out: str
    masks: list[str]
    """What is added to scores, or chooses among them."""
    sinks: Stored | None


def _through(graph: GraphView, name: str) -> str:
    """The value behind casts."""
    for _ in range(_FAR):
        node = graph.maker.get(name)
        if node is None or node.op_type not in _PASS:
            return name
        name = node.input[0]
    return name


def _next(graph: GraphView, name: str) -> tuple[str, list[Any]]:
    """The value after casts that alone use it."""
    passed = []
    for _ in range(_FAR):
        users = graph.users.get(name, [])
        if len(users) != 1 or users[0].op_type not in _PASS:
            break
        passed.append(users[0])
        name = users[0].output[0]
    return name, passed


def spelt_norm(graph: GraphView, mean: Any) -> SpeltNorm | None:
    """The norm whose second moment a ``ReduceMean`` takes; None where it takes none.

    Parameters
    ----------
    graph
        With shapes.
    mean
        ``onnx.NodeProto``, a ``ReduceMean``.
    """
    square = graph.maker.get(_through(graph, mean.input[0]))
    if square is None or square.op_type not in ("Pow", "Mul"):
        return None
    if square.op_type == "Mul" and square.input[0] != square.input[1]:
        return None
    if square.op_type == "Pow" and not graph.scalar(square.input[1]):
        return None
    width = graph.width(square.input[0])
    if width < 2 or count_elements(graph.shape(mean.output[0])) * width != count_elements(
        graph.shape(square.input[0])
    ):
        return None
    base = _through(graph, square.input[0])
    nodes, data, function = [square, mean], base, "rmsnorm"
    centre = graph.maker.get(base)
    if centre is not None and centre.op_type == "Sub":
        first = graph.maker.get(_through(graph, centre.input[1]))
        if first is not None and first.op_type == "ReduceMean":
            nodes += [first, centre]
            data, function = centre.input[0], "layernorm"
    ends = _recombined(graph, mean, base, width, nodes)
    if ends is None:
        return None
    norm = SpeltNorm(nodes, data, ends, function)
    _gain(graph, norm, width)
    return norm


def _recombined(graph: GraphView, mean: Any, base: str, width: int, nodes: list[Any]) -> str | None:
    """From the mean to the product with the data; adds the nodes on the way."""
    name = mean.output[0]
    for _ in range(_FAR):
        users = graph.users.get(name, [])
        if not users:
            return None
        node = users[0]
        nodes.append(node)
        name = node.output[0]
        if graph.width(name) == width and width > 1:
            others = [_through(graph, each) for each in node.input]
            return name if base in others else None
        if node.op_type not in ("Add", "Sqrt", "Reciprocal", "Pow", "Div", "Max", *_PASS):
            return None
    return None


def _gain(graph: GraphView, norm: SpeltNorm, width: int) -> None:
    """The gain, and the shift of a layer norm, where there are any."""
    for kind in ("Mul", "Add"):
        name, passed = _next(graph, norm.out)
        users = graph.users.get(name, [])
        if len(users) != 1 or users[0].op_type != kind:
            return
        others = [each for each in users[0].input if each != name]
        weight = graph.stored(others[0]) if others else None
        if weight is None or weight.elements != width:
            return
        norm.nodes += [*passed, users[0]]
        norm.weights.append(weight)
        norm.out = users[0].output[0]


def spelt_attention(graph: GraphView, softmax: Any) -> SpeltAttention | None:
    """The attention around a softmax; None where no products are on both sides of it.

    Parameters
    ----------
    graph
        With shapes.
    softmax
        ``onnx.NodeProto``.
    """
    found = _scores(graph, softmax.input[0])
    if found is None:
        return None
    scores, before, sides, sinks = found
    after: list[Any] = []
    name = softmax.output[0]
    for _ in range(_FAR):
        users = graph.users.get(name, [])
        product = next((each for each in users if each.op_type in ("MatMul", "Einsum")), None)
        if product is not None:
            break
        if not users or users[0].op_type not in MOVEMENT | {"Mul", "Div"}:
            return None
        after.append(users[0])
        name = users[0].output[0]
    else:
        return None
    if len(graph.shape(scores.input[0])) != 4 or len(product.input) != 2:
        return None
    values = [each for each in product.input if each != name]
    if not values or graph.stored(values[0]) is not None:
        return None
    return SpeltAttention(
        [scores, *before, softmax, *after, product], scores.input[0], scores.input[1], values[0],
        product.output[0], sides, sinks,
    )  # fmt: skip


def _scores(graph: GraphView, name: str) -> tuple[Any, list[Any], list[str], Stored | None] | None:
    """Back to the product of queries and keys: it, nodes on the way, other inputs, sinks."""
    path: list[tuple[str, list[Any], list[str]]] = [(name, [], [])]
    sinks = None
    seen = 0
    while path and seen < 200:
        seen += 1
        at, nodes, sides = path.pop()
        node = graph.maker.get(at)
        if node is None or not graph.floating(at):
            continue
        if node.op_type in GEMMS or node.op_type == "Einsum":
            if not any(graph.stored(each) for each in node.input[:2]):
                return node, nodes, sides, sinks
            continue
        if len(nodes) >= _FAR:
            continue
        for each in reversed(list(node.input)):
            others = [other for other in node.input if other != each]
            if node.op_type == "Concat" and (learned := _learned(graph, others)) is not None:
                sinks = learned
            path.append((each, [*nodes, node], [*sides, *others]))
    return None


def _learned(graph: GraphView, names: list[str]) -> Stored | None:
    """A weight that is laid beside scores: a logit of each head."""
    for name in names:
        for _ in range(_FAR):
            found = graph.stored(name)
            if found is not None:
                return found
            node = graph.maker.get(name)
            if node is None or node.op_type not in ("Expand", "Reshape", "Unsqueeze", "Tile"):
                break
            name = node.input[0]
    return None


def behind_repeats(graph: GraphView, name: str, is_past: Callable[[str], bool]) -> Iterator[str]:
    """Values before key heads are repeated and the cache is put in front, nearest first.

    Parameters
    ----------
    graph
        With shapes.
    name
        Of the keys, or the values, that attention reads.
    is_past
        Whether a value comes from the cache.
    """
    for _ in range(_FAR):
        yield name
        node = graph.maker.get(name)
        if node is None:
            return
        if node.op_type == "Concat":
            new = [each for each in node.input if not is_past(each)]
            if len(new) == len(node.input) or len(new) != 1:
                return
            name = new[0]
        elif node.op_type in (
            "Reshape", "Expand", "Tile", "Unsqueeze", "Squeeze", "Transpose", "Cast", "Identity",
        ):  # fmt: skip
            name = node.input[0]
        elif node.op_type in ("Mul", "Div") and any(graph.scalar(each) for each in node.input):
            name = next(each for each in node.input if not graph.scalar(each))
        else:
            return
