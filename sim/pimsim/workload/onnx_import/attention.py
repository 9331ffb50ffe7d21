"""Attention, fused or spelt out, with the cache that it reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.formats import ElementType, Stored, element_type
from pimsim.workload.onnx_import.parts import Flow, GraphPart
from pimsim.workload.onnx_import.reading import count_elements
from pimsim.workload.onnx_import.spelt import SpeltAttention, behind_repeats
from pimsim.workload.onnx_import.windows import mask_window

if TYPE_CHECKING:
    from pimsim.workload.onnx_import.recognise import Recogniser

__all__ = ["fused_attention", "plain_attention"]


@dataclass(frozen=True)
class _Inputs:
    """Where an operator of attention has its inputs; -1: it has none of that kind."""

    past: int
    cosine: int = -1
    sinks: int = -1
    norms: tuple[int, int] = (-1, -1)
    bias: int = -1
    mask: int = -1


_OPERATORS = {
    "GroupQueryAttention": _Inputs(past=3, cosine=7, sinks=11, norms=(14, 15)),
    "PagedAttention": _Inputs(past=3, cosine=8, sinks=11, norms=(14, 15)),
    "MultiHeadAttention": _Inputs(past=6, bias=3, mask=5),
    "Attention": _Inputs(past=4, mask=3),
}
"""onnxruntime's docs/ContribOperators.md, and ONNX's Attention (opset 23)."""


def fused_attention(reader: Recogniser, node: Any) -> None:
    """The parts that one operator of attention stands for.

    Parameters
    ----------
    reader
        Takes the parts.
    node
        ``onnx.NodeProto``.

    Raises
    ------
    InputError
        For heads that do not fit its inputs.
    """
    if node.op_type == "Attention" and node.domain == "com.microsoft":
        raise InputError(
            f"{reader.graph.where(node)}: com.microsoft.Attention, with its products inside, is "
            "that of encoders and is not read"
        )
    places = _OPERATORS[node.op_type]
    graph = reader.graph
    heads, keys, key_dim, value_dim = _sizes(reader, node)
    attributes = graph.attributes(node)
    queries, key, value = _input(node, 0), _input(node, 1), _input(node, 2)
    flows = _flows(reader, queries, key, value)
    if bias := graph.stored(_input(node, places.bias)) if _input(node, places.bias) else None:
        _split_bias(flows, bias, heads, keys, key_dim, value_dim)
    for at, count in zip((0, 1), (heads, keys), strict=True):
        name = _input(node, places.norms[at])
        gain = graph.stored(name) if name else None
        if gain is not None:
            flows[at] = _norm(reader, flows[at], gain, key_dim, count, node)
    if attributes.get("do_rotary"):
        turned = (
            attributes.get("rotary_embedding_dim", 0)
            or 2 * graph.width(_input(node, places.cosine))
            or key_dim
        )
        for at in (0, 1):
            part = GraphPart("rope", "", dict(flows[at].sources), {"width": turned})
            reader.parts.append(part)
            flows[at] = Flow({part: None})
    window = attributes.get("local_window_size", -1)
    if window > 0:
        window = graph.given(node).attribute("local_window_size")
    masks = [_input(node, places.mask)] if _input(node, places.mask) else []
    sink = _input(node, places.sinks)
    past = _input(node, places.past)
    kind = element_type(graph.dtype(past or key or queries))
    width = attributes.get("kv_cache_bit_width", 0)
    if past and 0 < width < kind.bits:
        kind = ElementType(f"int{width}", width)
    _attend(
        reader, node.output[0], flows, heads, keys, key_dim, value_dim,
        window if window > 0 else mask_window(graph, masks),
        graph.stored(sink) if sink else None, kind, list(node.output[1:3]), node.name,
    )  # fmt: skip


def _input(node: Any, at: int) -> str:
    return node.input[at] if 0 <= at < len(node.input) else ""


def _sizes(reader: Recogniser, node: Any) -> tuple[int, int, int, int]:
    """Query heads, key heads, features of a key and of a value."""
    graph, given = reader.graph, reader.graph.given(node)
    query, out = graph.shape(node.input[0]), graph.shape(node.output[0])
    if node.op_type == "Attention":
        key, value = graph.shape(_input(node, 1)), graph.shape(_input(node, 2))
        if len(query) == 4 and len(key) == 4 and len(value) == 4:
            return query[1], key[1], query[3], value[3]
        heads = given.attribute("q_num_heads")
        keys = given.attribute("kv_num_heads")
        if len(query) != 3 or len(value) != 3 or query[2] % heads or value[2] % keys:
            raise InputError(f"{given.where}: heads of its attention could not be found")
        return heads, keys, query[2] // heads, value[2] // keys
    heads = given.attribute("num_heads")
    keys = given.attribute("kv_num_heads", heads)
    if not out or out[-1] % heads or not query:
        raise InputError(f"{given.where}: heads of its attention could not be found")
    dim = out[-1] // heads
    key = graph.shape(_input(node, 1))
    if len(key) == 3 and key[-1] != keys * dim:
        raise InputError(
            f"{given.where}: {key[-1]} features of keys are not those of {keys} heads of {dim}"
        )
    return heads, keys, dim, dim


def _flows(reader: Recogniser, queries: str, key: str, value: str) -> list[Flow]:
    """Of queries, keys and values; of one that is packed, three times the same."""
    if not key:
        flow = reader.consume(queries)
        return [flow, flow, flow]
    return [reader.glue.rope(queries), reader.glue.rope(key), reader.consume(value)]


def _split_bias(
    flows: list[Flow], bias: Stored, heads: int, keys: int, key_dim: int, value_dim: int
) -> None:
    """A bias that attention adds belongs to the three products before it."""
    for flow, size in zip(flows, (heads * key_dim, keys * key_dim, keys * value_dim), strict=True):
        part = flow.only("product")
        if part is not None and part.facts["n"] == size and not part.facts.get("bias"):
            share = tuple(
                type(piece)(piece.what, piece.dtype, piece.bytes * size // bias.elements)
                for piece in bias.pieces
            )
            part.facts["bias"] = True
            part.weights.append(Stored(f"{bias.name}[{size}]", (size,), size, share))


def _norm(reader: Recogniser, flow: Flow, gain: Stored, dim: int, count: int, node: Any) -> Flow:
    part = GraphPart(
        "norm", "", dict(flow.sources), {"width": dim, "function": "rmsnorm", "count": count},
        [gain], module=node.name,
    )  # fmt: skip
    reader.parts.append(part)
    return Flow({part: None})


def _attend(
    reader: Recogniser, out: str, flows: list[Flow], heads: int, keys: int, key_dim: int,
    value_dim: int, window: int | None, sinks: Stored | None, cache: ElementType,
    present: list[str], module: str,
) -> None:  # fmt: skip
    if min(heads, keys, key_dim, value_dim) < 1 or heads % keys:
        raise InputError(
            f"{reader.graph.loaded.path}: attention {module!r} with {heads} query heads, {keys} "
            f"key heads, keys of {key_dim} and values of {value_dim} features"
        )
    facts = {
        "heads": heads, "kv_heads": keys, "key_dim": key_dim, "value_dim": value_dim,
        "window": window, "sinks": sinks, "cache": cache, "query": flows[0], "key": flows[1],
        "value": flows[2],
    }  # fmt: skip
    append = GraphPart("append", "", {**flows[1].sources, **flows[2].sources}, dict(facts))
    reader.parts.append(append)
    part = GraphPart("attention", out, {**flows[0].sources, append: None}, facts, module=module)
    if sinks is not None:
        part.weights.append(sinks)
    reader.add(part)
    for name in present:
        if name:
            reader.flows[name] = Flow({append: None})


def plain_attention(reader: Recogniser, found: SpeltAttention) -> None:
    """Attention that is spelt out: its sizes from the shapes around the softmax.

    Parameters
    ----------
    reader
        Takes the parts.
    found
        Its nodes and values.

    Raises
    ------
    InputError
        Where its key heads cannot be found.
    """
    graph = reader.graph
    query, value = graph.shape(found.query), graph.shape(found.value)
    heads, key_dim, tokens = query[1], query[3], query[0] * query[2]
    value_dim = value[-1] if len(value) == 4 else 0

    def is_past(name: str) -> bool:
        return not reader.flow(name).sources

    new = [list(behind_repeats(graph, name, is_past))[-1] for name in (found.key, found.value)]
    for name in (found.key, found.value):
        reader.glue.claim_scales(reader.flow(name))
    size = tokens * value_dim
    elements = count_elements(graph.shape(new[1]))
    if not size or elements % size:
        raise InputError(
            f"{graph.loaded.path}: attention at {found.nodes[0].name!r}: its key heads could not "
            "be found"
        )
    flows = [reader.glue.rope(found.query), reader.glue.rope(new[0]), reader.consume(new[1])]
    _attend(
        reader, found.out, flows, heads, elements // size, key_dim, value_dim,
        mask_window(graph, found.masks), found.sinks, element_type(graph.dtype(found.value)), [],
        found.nodes[-1].name,
    )  # fmt: skip
