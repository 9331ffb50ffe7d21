"""Mixtures of experts: one operator of onnxruntime, or products with gathered weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.formats import FormatPiece, Stored
from pimsim.workload.onnx_import.graph import GraphView
from pimsim.workload.onnx_import.parts import GraphPart
from pimsim.workload.onnx_import.reading import count_elements

if TYPE_CHECKING:
    from pimsim.workload.onnx_import.recognise import Recogniser

__all__ = ["fused_experts", "gathered_weight"]

_VIEWS = ("Transpose", "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Slice")
_FUNCTIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swiglu": "silu"}
_MOST_EXPERTS = 2**16


def gathered_weight(graph: GraphView, name: str) -> tuple[Stored, int] | None:
    """A weight of which a value holds the rows of chosen experts, and the number of experts.

    Parameters
    ----------
    graph
        With shapes.
    name
        Of the value.

    Returns
    -------
    tuple | None
        None where it is something else.
    """
    for _ in range(8):
        node = graph.maker.get(name)
        if node is None or not node.input:
            return None
        if node.op_type in ("Gather", "GatherND"):
            break
        if node.op_type not in _VIEWS:
            return None
        name = node.input[0]
    else:
        return None
    attributes = graph.attributes(node)
    if attributes.get("axis", 0) or attributes.get("batch_dims", 0):
        return None
    weight, shape = graph.stored(node.input[0]), graph.shape(node.input[0])
    if weight is None or len(shape) < 2 or graph.constant(node.input[1]) is not None:
        return None
    return weight, shape[0]


def fused_experts(reader: Recogniser, node: Any) -> None:
    """``MoE`` and ``QMoE``: route, two products of each chosen expert, their weighted sum.

    Parameters
    ----------
    reader
        Takes the parts.
    node
        ``onnx.NodeProto``.

    Raises
    ------
    InputError
        For weights that do not fit the router and the input.

    References
    ----------
    onnxruntime, docs/ContribOperators.md.
    """
    graph, given = reader.graph, reader.graph.given(node)
    router = reader.consume(node.input[1])
    experts, chosen = graph.width(node.input[1]), given.attribute("k", 1)
    hidden = graph.width(node.input[0])
    if not 1 <= chosen <= experts <= _MOST_EXPERTS or not hidden:
        raise InputError(f"{given.where}: {chosen} of {experts} experts of {hidden} features")
    first, second = _weights(graph, node, 1), _weights(graph, node, 2)
    third = _weights(graph, node, 3)
    width = second[0].elements // (experts * hidden)
    columns = sum(each.elements for each in (first[0], *third[:1])) // (experts * hidden)
    if second[0].elements != experts * hidden * width or columns not in (width, 2 * width):
        raise InputError(
            f"{given.where}: weights {first[0].shape} and {second[0].shape} are not those of "
            f"{experts} experts of {hidden} features"
        )
    kind = graph.attributes(node).get("activation_type", b"relu")
    kind = kind.decode(errors="replace") if isinstance(kind, bytes) else str(kind)
    if kind not in _FUNCTIONS:
        raise InputError(f"{given.where}: activation {kind!r}; {', '.join(_FUNCTIONS)} are known")
    for part in router.sources:
        if part.what == "product":
            part.facts["router"] = True
    source = next((part for part in router.sources if part.what == "product"), None)
    if source is None:
        raise InputError(f"{given.where}: what chooses its experts is no product")
    if "scores" not in source.facts:
        # weights that are made to add up to 1 are a softmax over the chosen
        over = chosen if graph.attributes(node).get("normalize_routing_weights") else experts
        source.facts["scores"] = ("softmax", over)
    data = reader.consume(node.input[0])
    common = {"experts": experts, "chosen": source, "per_token": chosen}
    one = GraphPart("product", "", dict(data.sources), {"n": columns, "k": hidden, **common},
               [*first, *third], module=node.name)  # fmt: skip
    one.facts["bias"] = any(_is_bias(each, experts) for each in one.weights)
    act = GraphPart("act", "", {one: None}, {
        "function": _FUNCTIONS[kind], "gated": columns == 2 * width, "width": width,
        "experts": experts, "packed": True,
    })  # fmt: skip
    two = GraphPart("product", "", {act: None}, {"n": hidden, "k": width, **common}, second,
               module=node.name)  # fmt: skip
    two.facts["bias"] = any(_is_bias(each, experts) for each in two.weights)
    reader.parts += [one, act, two]
    reader.add(GraphPart("combine", node.output[0], {two: None, source: None},
                    {"width": hidden, "shared": False}, module=node.name))  # fmt: skip


def _is_bias(weight: Stored, experts: int) -> bool:
    return len(weight.shape) == 2 and weight.shape[0] == experts


def _weights(graph: GraphView, node: Any, number: int) -> list[Stored]:
    """The weight and the bias of one of an operator's products; empty where it has none."""
    plain = node.op_type == "MoE"
    at = 2 + (2 if plain else 3) * (number - 1)
    names = {"weight": at, "bias": at + 1 if plain else at + 2}
    if not plain:
        names |= {"scales": at + 1, "zero points": 10 + number}
    found = {
        what: graph.stored(node.input[place]) for what, place in names.items()
        if place < len(node.input) and node.input[place]
    }  # fmt: skip
    weight = found.get("weight")
    if weight is None:
        if number == 3:
            return []
        raise InputError(f"{graph.where(node)}: weights of its product {number} are not in it")
    if not plain:
        bits = graph.given(node).attribute("expert_weight_bits", 4)
        if bits not in (2, 4, 8):
            raise InputError(f"{graph.where(node)}: {bits} bits a weight; 2, 4, 8 are allowed")
        stored = weight.pieces[0].bytes
        kind = graph.attributes(node).get("quant_type", b"int")
        name = "int" if kind in (b"int", "int") else "f"
        pieces = [FormatPiece("weight", f"{name}{bits}", stored)]
        pieces += [
            FormatPiece(what, each.pieces[0].dtype, each.pieces[0].bytes)
            for what in ("scales", "zero points") if (each := found.get(what)) is not None
        ]  # fmt: skip
        weight = Stored(weight.name, weight.shape, stored * 8 // bits, tuple(pieces))
    bias = found.get("bias")
    if count_elements(weight.shape) < 1:
        raise InputError(f"{graph.where(node)}: the weight {weight.name!r} has no elements")
    return [weight] if bias is None else [weight, bias]
