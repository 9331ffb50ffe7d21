"""A decoder's graph at several sizes to an operator trace."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from pimsim import __version__
from pimsim.config.errors import InputError
from pimsim.workload.canonical import block_labels
from pimsim.workload.onnx_import.assemble import Runs, block_operators
from pimsim.workload.onnx_import.blocks import place_parts
from pimsim.workload.onnx_import.formats import ElementType, Stored, element_type
from pimsim.workload.onnx_import.graph import GraphView
from pimsim.workload.onnx_import.inputs import InputSizes, Sample
from pimsim.workload.onnx_import.parts import HEAD, START, GraphPart, Unknown
from pimsim.workload.onnx_import.reading import LoadedGraph, read_graph
from pimsim.workload.onnx_import.recognise import recognise
from pimsim.workload.onnx_import.shapes import ShapeRules, Value
from pimsim.workload.trace import (
    BlockRun,
    ModelFacts,
    OperandRole,
    OperatorTrace,
    Phase,
    SymbolicOperator,
)

__all__ = ["Imported", "import_onnx"]

PhaseName = Literal["prefill", "decode"]
_PREFILLS = (Sample(1, 7, 0), Sample(1, 11, 0), Sample(2, 5, 0))
_DECODES = (Sample(1, 1, 5), Sample(2, 1, 5), Sample(3, 1, 4))
_LOOKED_AT = Sample(2, 5, 3)
"""What is recognised: more than one of each, so that no dimension is taken for another."""
_ANY_GRAPH = ("model", "decoder_model", "decoder_model_merged", "decoder_with_past_model")
"""Names of files that onnxruntime-genai's builder and optimum give."""
_UNKNOWN_CONTEXT = 1_000_000
_MOST_BLOCKS = 10_000


@dataclass(frozen=True)
class Imported:
    """A trace, and the nodes that are in none of its operators."""

    trace: OperatorTrace
    unknown: tuple[Unknown, ...]
    formats: str
    """Of weights, activations and cache, in words."""


def import_onnx(path: Path, model: str | None = None) -> Imported:
    """The operator trace of a decoder's graph.

    A graph with a KV cache among its inputs gives prefill and decode; one without gives prefill,
    and a decode that does the same work for one token.

    Parameters
    ----------
    path
        Of the file.
    model
        What it is called; None: as the file, or the folder of a ``model.onnx``.

    Raises
    ------
    InputError
        For what is no decoder, for sizes that are fixed, or shapes that cannot be found.
    """
    try:
        return _import(path, model)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{path}: its sizes make no operator: {first['loc'][-1]}: {first['msg']}"
        ) from error


def _import(path: Path, model: str | None) -> Imported:
    loaded = read_graph(path)
    sizes = InputSizes.of(loaded)
    rules = ShapeRules(loaded)
    seen = _LOOKED_AT if sizes.pasts else Sample(2, 5, 0)
    graph = GraphView(loaded, rules.values(sizes.bound(seen)))
    found, unknown = recognise(graph, sizes.ids)
    parts = place_parts(found, path)
    kind = _activations(graph, parts)
    names: tuple[PhaseName, ...] = ("prefill", "decode") if sizes.pasts else ("prefill",)
    phases: dict[PhaseName, Phase] = {}
    for name in names:
        samples = _DECODES if name == "decode" else _PREFILLS
        runs = Runs(
            [rules.values(sizes.bound(sample)) for sample in samples],
            [{"T": s.requests * s.new, "B": s.requests} for s in samples], name == "decode", kind,
        )  # fmt: skip
        phases[name] = _phase(parts, runs, path)
    phases.setdefault("decode", phases["prefill"])
    formats = _formats(parts, kind)
    trace = OperatorTrace(
        model=model or _name(path), source=_source(loaded, sizes, formats),
        facts=_facts(graph, parts, phases["decode"], kind), phases=phases,
    )  # fmt: skip
    return Imported(trace, tuple(unknown), formats)


def _name(path: Path) -> str:
    """The file's, or its folder's where it has the name that exporters give all graphs."""
    folder = path.absolute().parent.name
    return folder if path.stem in _ANY_GRAPH and folder else path.stem


def _activations(graph: GraphView, parts: Sequence[GraphPart]) -> ElementType:
    """The type that most products work in."""
    codes = [graph.dtype(part.facts["data"]) for part in parts if "data" in part.facts]
    codes = [code for code in codes if element_type(code).bits >= 16 and code in (1, 10, 11, 16)]
    if not codes:
        codes = [graph.dtype(part.out) for part in parts if part.what == "norm"]
    return element_type(max(set(codes), key=codes.count) if codes else 1)


def _phase(parts: Sequence[GraphPart], runs: Runs, path: Path) -> Phase:
    layers = sorted({part.layer for part in parts if part.layer >= 0})
    if len(layers) > _MOST_BLOCKS:
        raise InputError(f"{path}: {len(layers):,} blocks; {_MOST_BLOCKS:,} are allowed")
    of_layer: dict[int, list[GraphPart]] = {}
    for part in parts:
        of_layer.setdefault(part.layer, []).append(part)
    kinds: list[tuple[SymbolicOperator, ...]] = []
    named: list[tuple[SymbolicOperator, ...]] = []
    known: dict[tuple[object, ...], int] = {}
    order = []
    for layer in layers:
        key = _signature(of_layer[layer], runs.values)
        if key not in known:
            operators = block_operators(of_layer[layer], runs, f"{path}: block {layer}")
            plain = tuple(_anonymous(operator) for operator in operators)
            if plain not in kinds:
                kinds.append(plain)
                named.append(tuple(_nameless(operator) for operator in operators))
            known[key] = kinds.index(plain)
        order.append(known[key])
    labels = block_labels(
        [any(o.group == "expert_fc1" for o in operators) for operators in named],
        [next((o.window for o in operators if o.name == "score"), None) for operators in named],
    )
    blocks = dict(zip(labels, named, strict=True))
    outer: dict[str, str | None] = {"before": None, "after": None}
    for side, number, label in (("before", START, "embed"), ("after", HEAD, "head")):
        if of_layer.get(number):
            blocks[label] = block_operators(of_layer[number], runs, f"{path}, {side} the blocks")
            outer[side] = label
    of_kind = [BlockRun(block=labels[k], count=len(list(g))) for k, g in groupby(order)]
    return Phase(blocks=blocks, layers=tuple(of_kind), before=outer["before"],
                 after=outer["after"])  # fmt: skip


def _signature(
    parts: Sequence[GraphPart], values: Sequence[Mapping[str, Value]]
) -> tuple[object, ...]:
    """Equal where two blocks have the same operators."""
    place = {part: at for at, part in enumerate(parts)}
    return tuple(
        (
            part.what, part.name, part.group,
            tuple(place[each] for each in part.after if each in place),
            tuple((weight.elements, weight.pieces) for weight in part.weights),
            tuple(
                (key, value) for key, value in sorted(part.facts.items())
                if isinstance(value, (int, str, ElementType)) and key != "data"
            ),
            tuple(None if (v := each.get(part.out)) is None else v.shape for each in values),
        )
        for part in parts
    )  # fmt: skip


def _anonymous(operator: SymbolicOperator) -> SymbolicOperator:
    """The operator without the names of its weights, which exporters make up."""
    operands = tuple(each.model_copy(update={"name": str(each.role)}) for each in operator.operands)
    return operator.model_copy(update={"operands": operands, "module": ""})


def _nameless(operator: SymbolicOperator) -> SymbolicOperator:
    """The operator with the block's number left open in the names of its weights."""

    def folded(name: str) -> str:
        return re.sub(r"(layers|h|blocks|block|layer)([./_])\d+", r"\1\2{layer}", name)

    operands = tuple(
        each.model_copy(update={"name": folded(each.name)}) for each in operator.operands
    )
    return operator.model_copy(update={"operands": operands, "module": folded(operator.module)})


def _weights(parts: Sequence[GraphPart]) -> list[Stored]:
    """All weights of the model: a matrix or table once, whoever reads it.

    An exporter lays vectors with the same numbers into one tensor (a gain of ones at the start of
    training), so each gain and bias counts where it is read.
    """
    found: list[Stored] = []
    matrices: set[str] = set()
    for part in parts:
        vector = part.facts.get("n", 0) * max(part.facts.get("experts", 0), 1)
        for weight in part.weights:
            if part.what in ("product", "embed") and weight.elements != vector:
                if weight.name in matrices:
                    continue
                matrices.add(weight.name)
            found.append(weight)
    return found


def _facts(
    graph: GraphView, parts: Sequence[GraphPart], decode: Phase, kind: ElementType
) -> ModelFacts:
    attentions = [part.facts for part in parts if part.what == "attention"]
    embed = next((part for part in parts if part.what == "embed"), None)
    head = next((part for part in parts if part.name == "lm_head"), None)
    weights = _weights(parts)
    cached = sum(
        operator.bytes_of(OperandRole.KV, write=True).get("T", 0)
        for at in decode.sequence() for operator in decode.blocks[at]
    )  # fmt: skip
    hidden = next(part.facts["width"] for part in parts if part.what == "residual")
    vocab = embed.facts["rows"] if embed else (head.facts["n"] if head else 1)
    products = [part.facts for part in parts if part.what == "product"]
    return ModelFacts(
        architecture="ONNX graph", layers=sum(run.count for run in decode.layers), hidden=hidden,
        heads=max(facts["heads"] for facts in attentions),
        kv_heads=max(facts["kv_heads"] for facts in attentions), vocab=vocab,
        max_context=_longest(graph, parts),
        experts=max(facts["experts"] for facts in products),
        experts_per_token=_per_token(graph, parts),
        parameters=max(sum(weight.elements for weight in weights), 1),
        parameter_bytes=max(sum(weight.bytes for weight in weights), 1),
        kv_bytes_per_token=cached, dtype_bytes=max(kind.bits // 8, 1),
        kv_dtype_bytes=max(max(facts["cache"].bits for facts in attentions) // 8, 1),
    )  # fmt: skip


def _per_token(graph: GraphView, parts: Sequence[GraphPart]) -> int:
    """Experts that a token goes to: an operator says so, or the rows of gathered products."""
    found = set()
    for part in parts:
        if part.what != "product" or not part.facts["experts"]:
            continue
        if "per_token" in part.facts:
            found.add(part.facts["per_token"])
            continue
        router = part.facts["chosen"]
        shape = graph.shape(part.out)
        rows = 1
        for dim in shape:
            rows *= dim
        tokens = 1
        for dim in graph.shape(router.out)[:-1]:
            tokens *= dim
        found.add(rows // (part.facts["n"] * tokens))
    if len(found) > 1:
        raise InputError(
            f"{graph.loaded.path}: blocks send a token to different numbers of experts: "
            f"{', '.join(map(str, sorted(found)))}"
        )
    return next(iter(found), 0)


def _longest(graph: GraphView, parts: Sequence[GraphPart]) -> int:
    """Rows of the tables of angles; a number beyond all contexts where angles are computed."""
    rows = []
    for node in graph.nodes:
        if node.op_type in ("GroupQueryAttention", "PagedAttention", "RotaryEmbedding"):
            for name in node.input[1:]:
                shape = graph.shape(name) if name in graph.loaded.weights else ()
                if len(shape) == 2 and shape[0] > 1:
                    rows.append(shape[0])
    return min(rows, default=_UNKNOWN_CONTEXT)


def _formats(parts: Sequence[GraphPart], kind: ElementType) -> str:
    """What weights, activations and cache are kept in."""
    pieces = [
        piece for part in parts if part.what == "product"
        for weight in part.weights[:1] for piece in weight.pieces
    ]  # fmt: skip
    weights = dict.fromkeys(piece.dtype for piece in pieces if piece.what == "weight")
    scales = dict.fromkeys(piece.dtype for piece in pieces if piece.what == "scales")
    zeros = any(piece.what == "zero points" for piece in pieces)
    caches = dict.fromkeys(part.facts["cache"].name for part in parts if part.what == "attention")
    note = f"weights {', '.join(weights)}"
    note += f" with scales {', '.join(scales)}" if scales else ""
    note += " and zero points" if zeros else ""
    return f"{note}; activations {kind.name}; cache {', '.join(caches)}"


def _source(loaded: LoadedGraph, sizes: InputSizes, formats: str) -> str:
    past = "" if sizes.pasts else "; no KV cache in the graph: decode is its work for one token"
    return (
        f"pimsim {__version__} import-onnx {loaded.path.name}: made by {loaded.producer}, opset "
        f"{loaded.opset.get('ai.onnx', 0)}; {formats}{past}"
    )
