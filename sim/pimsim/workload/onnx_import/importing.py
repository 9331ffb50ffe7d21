"""Parts of a graph at several sizes to an operator trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from pimsim import __version__
from pimsim.config.errors import InputError
from pimsim.workload.fit_forms import fit_form
from pimsim.workload.onnx_import.reading import LoadedGraph, read_graph
from pimsim.workload.onnx_import.recognise import Part, Unknown, recognise
from pimsim.workload.onnx_import.shapes import Value, infer_values
from pimsim.workload.symbolic import OperatorMaker
from pimsim.workload.trace import (
    BlockRun,
    ModelFacts,
    OperandRole,
    OperatorTrace,
    Phase,
    Shard,
    SymbolicOperator,
)

__all__ = ["Imported", "import_onnx"]

PhaseName = Literal["prefill", "decode"]
_BYTES = {1: 4, 10: 2, 16: 2}
_PREFILLS = ((1, 7, 0), (1, 11, 0), (2, 5, 0))
_DECODES = ((1, 1, 5), (2, 1, 5), (3, 1, 4))
"""Requests, new tokens and tokens in the cache of the sizes that forms are found from."""
_UNKNOWN_CONTEXT = 1_000_000


@dataclass(frozen=True)
class Imported:
    """A trace, and the nodes that are in none of its operators."""

    trace: OperatorTrace
    unknown: tuple[Unknown, ...]


def import_onnx(path: Path, model: str | None = None) -> Imported:
    """The operator trace of a decoder's graph.

    A graph with a KV cache among its inputs gives prefill and decode; one without gives prefill,
    and a decode that does the same work for one token. Raises ``InputError`` for what is no
    decoder, for sizes that are fixed, or shapes that cannot be found.
    """
    loaded = read_graph(path)
    sizes = _Sizes.of(loaded)
    phases: dict[PhaseName, Phase] = {}
    unknown: dict[Unknown, None] = {}
    names: tuple[PhaseName, ...] = ("prefill", "decode") if sizes.past else ("prefill",)
    facts: dict[str, int] = {}
    for name in names:
        samples = _DECODES if name == "decode" else _PREFILLS
        runs = []
        for sample in samples:
            values = infer_values(loaded, sizes.bound(sample))
            parts, missing = recognise(loaded, values)
            unknown |= dict.fromkeys(missing)
            runs.append((parts, values))
        phases[name] = _phase(loaded, runs, samples, name == "decode", sizes.past, facts)
    if "decode" not in phases:
        phases["decode"] = phases["prefill"]
    decode = phases["decode"]
    cached = sum(
        operator.bytes_of(OperandRole.KV, write=True).get("T", 0)
        for kind in decode.sequence() for operator in decode.blocks[kind]
    )  # fmt: skip
    floats = [(shape, dtype) for shape, dtype in loaded.weights.values() if dtype in _BYTES]
    count = sum(_elements(shape) for shape, _ in floats)
    element = facts["element"]
    trace = OperatorTrace(
        model=model or path.stem,
        source=_source(loaded, sizes),
        facts=ModelFacts(
            architecture="ONNX graph", layers=sum(run.count for run in decode.layers),
            hidden=facts["hidden"], heads=facts["heads"], kv_heads=facts["kv_heads"],
            vocab=facts.get("vocab", 1), max_context=_UNKNOWN_CONTEXT, parameters=max(count, 1),
            parameter_bytes=max(sum(_elements(s) * _BYTES[d] for s, d in floats), 1),
            kv_bytes_per_token=cached, dtype_bytes=element, kv_dtype_bytes=element,
        ),
        phases=phases,
    )  # fmt: skip
    return Imported(trace, tuple(unknown))


def _elements(shape: Sequence[int]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _source(loaded: LoadedGraph, sizes: _Sizes) -> str:
    note = "" if sizes.past else "; no KV cache in the graph: decode is its work for one token"
    return (
        f"pimsim {__version__} import-onnx {loaded.path.name}: made by {loaded.producer}, opset "
        f"{loaded.opset.get('ai.onnx', 0)}{note}; longest context not known"
    )


@dataclass(frozen=True)
class _Sizes:
    """What the free dimensions of the inputs stand for."""

    inputs: tuple[tuple[str, tuple[Any, ...], int], ...]
    """Name, dimensions (number or name), element type."""
    past: bool

    @classmethod
    def of(cls, loaded: LoadedGraph) -> _Sizes:
        """Raises ``InputError`` where there are no token ids, or their sizes are fixed."""
        inputs = []
        for each in loaded.graph.input:
            if each.name in loaded.weights:
                continue
            tensor = each.type.tensor_type
            dims = tuple(
                dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?")
                for dim in tensor.shape.dim
            )
            inputs.append((each.name, dims, int(tensor.elem_type)))
        ids = [dims for name, dims, _ in inputs if _is_ids(name, dims)]
        if not ids:
            names = ", ".join(name for name, _, _ in inputs) or "none"
            raise InputError(
                f"{loaded.path}: no decoder: none of its inputs ({names}) is input_ids, shape "
                "(requests, tokens)"
            )
        if isinstance(ids[0][1], int):
            raise InputError(
                f"{loaded.path}: its number of tokens is fixed ({ids[0][1]}); export it with "
                "dynamic axes, so that sizes can be told from constants"
            )
        past = any(_is_past(name) for name, _, _ in inputs)
        return cls(tuple(inputs), past)

    def bound(self, sample: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
        """Shapes of all inputs for requests, new tokens and cached tokens."""
        requests, new, cached = sample
        known: dict[str, int] = {}
        for name, dims, _ in self.inputs:
            if _is_ids(name, dims):
                for dim, size in zip(dims, (requests, new), strict=True):
                    if isinstance(dim, str):
                        known.setdefault(dim, size)
        for name, dims, _ in self.inputs:
            if _is_past(name) and len(dims) == 4:
                for axis, size in ((0, requests), (2, cached)):
                    if isinstance(dims[axis], str):
                        known.setdefault(dims[axis], size)
        shapes = {}
        for name, dims, _ in self.inputs:
            sizes = []
            for axis, dim in enumerate(dims):
                if isinstance(dim, int):
                    sizes.append(dim)
                elif dim in known:
                    sizes.append(known[dim])
                else:
                    # a mask's length: all tokens
                    sizes.append(requests if axis == 0 else new + cached)
            shapes[name] = tuple(sizes)
        return shapes


def _is_ids(name: str, dims: tuple[Any, ...]) -> bool:
    return len(dims) == 2 and ("input_ids" in name or name in ("ids", "tokens", "input"))


def _is_past(name: str) -> bool:
    return "past" in name or "cache" in name


Run = tuple[list[Part], dict[str, Value]]


def _phase(
    loaded: LoadedGraph, runs: Sequence[Run], samples: Sequence[tuple[int, int, int]],
    decode: bool, has_past: bool, facts: dict[str, int],
) -> Phase:  # fmt: skip
    layers = sorted({part.layer for part in runs[0][0] if part.layer >= 0})
    if not layers:
        raise InputError(f"{loaded.path}: no decoder: no blocks with attention were found")
    made: list[tuple[SymbolicOperator, ...]] = []
    for layer in layers:
        made.append(tuple(_Block(loaded, runs, samples, layer, decode, facts).operators()))
    kinds: list[tuple[SymbolicOperator, ...]] = []
    shapes: list[tuple[SymbolicOperator, ...]] = []
    order = []
    for operators in made:
        plain = tuple(_anonymous(operator) for operator in operators)
        if plain not in shapes:
            shapes.append(plain)
            kinds.append(tuple(_nameless(operator) for operator in operators))
        order.append(shapes.index(plain))
    labels = ["decoder"] if len(kinds) == 1 else [f"decoder-{at + 1}" for at in range(len(kinds))]
    blocks = {labels[at]: operators for at, operators in enumerate(kinds)}
    outer: dict[str, str | None] = {"before": None, "after": None}
    for side, number, label in (("before", -1, "embed"), ("after", -2, "head")):
        rest = _Block(loaded, runs, samples, number, decode, facts).outside()
        if rest:
            blocks[label] = tuple(_nameless(operator) for operator in rest)
            outer[side] = label
    runs_of = [BlockRun(block=labels[k], count=len(list(g))) for k, g in groupby(order)]
    return Phase(blocks=blocks, layers=tuple(runs_of), before=outer["before"],
                 after=outer["after"])  # fmt: skip


def _anonymous(operator: SymbolicOperator) -> SymbolicOperator:
    """The operator without the names of its weights, which exporters make up."""
    operands = tuple(each.model_copy(update={"name": str(each.role)}) for each in operator.operands)
    return operator.model_copy(update={"operands": operands, "module": ""})


def _nameless(operator: SymbolicOperator) -> SymbolicOperator:
    """The operator with the block's number left open in the names of its weights."""
    import re

    def folded(name: str) -> str:
        return re.sub(r"(layers|h|blocks|block|layer)([./_])\d+", r"\1\2{layer}", name)

    operands = tuple(
        each.model_copy(update={"name": folded(each.name)}) for each in operator.operands
    )
    return operator.model_copy(update={"operands": operands, "module": folded(operator.module)})


class _Block:
    """The operators of one block, from the same parts at several sizes."""

    def __init__(
        self, loaded: LoadedGraph, runs: Sequence[Run],
        samples: Sequence[tuple[int, int, int]], layer: int, decode: bool, facts: dict[str, int],
    ) -> None:  # fmt: skip
        self.loaded, self.layer, self.decode, self.facts = loaded, layer, decode, facts
        self.where = f"{loaded.path}: block {layer}"
        self.parts = [[p for p in parts if p.layer == layer] for parts, _ in runs]
        self.values = [values for _, values in runs]
        self.samples = [{"T": b * s, "B": b} for b, s, _ in samples]
        whats = [[p.what for p in parts] for parts in self.parts]
        if any(other != whats[0] for other in whats[1:]):
            raise InputError(f"{self.where}: its operations depend on the sizes of its inputs")
        weights = [d for _, d in loaded.weights.values() if d in _BYTES]
        element = min((_BYTES[d] for d in weights), default=2)
        facts.setdefault("element", element)
        self.make = OperatorMaker(element, element)
        self.done: list[SymbolicOperator] = []

    def _rows(self, at: int) -> dict[str, int]:
        """Rows of a part's output as a form."""
        sizes = []
        for parts, values in zip(self.parts, self.values, strict=True):
            value = values.get(parts[at].out)
            if value is None or value.shape is None:
                raise InputError(f"{self.where}: the shape of {parts[at].out!r} could not be found")
            sizes.append(_elements(value.shape[:-1]))
        form = fit_form(sizes, self.samples, ("1", "T") if self.decode else ("1", "T", "B"))
        if form is None:
            raise InputError(f"{self.where}: {self.parts[0][at].out!r} has {sizes} rows, no whole "
                             "form of tokens and requests")  # fmt: skip
        return form

    def _add(self, operator: SymbolicOperator) -> None:
        while any(other.name == operator.name for other in self.done):
            operator = operator.model_copy(update={"name": operator.name + "'"})
        self.done.append(operator)

    def _last(self) -> tuple[str, ...]:
        return (self.done[-1].name,) if self.done else ()

    def operators(self) -> list[SymbolicOperator]:
        """Of a decoder block."""
        first = self.parts[0]
        attention = [at for at, part in enumerate(first) if part.what == "attention"]
        if len(attention) != 1:
            raise InputError(f"{self.where}: {len(attention)} attentions, one is expected")
        middle = attention[0]
        acts = [at for at, part in enumerate(first) if part.what == "act" and at > middle]
        norms_after = sum(part.what == "norm" for part in first[middle:])
        seen_norms = residuals = 0
        heads, keys, dim = self._heads(first, middle)
        for at, part in enumerate(first):
            if part.what == "gemm":
                self._gemm(at, part, middle, acts, heads, keys, dim)
            elif part.what == "norm":
                if at > middle:
                    seen_norms += 1
                if part.facts["skip"] and at > middle:
                    residuals += 1
                    self._add(self.make.residual(f"res{residuals}", part.facts["width"],
                                                 self._last()))  # fmt: skip
                self._norm(at, part, middle, norms_after, seen_norms, heads, keys, dim)
            elif part.what == "rope":
                self._rope(heads, keys, dim)
            elif part.what == "attention":
                if part.facts["rotates"]:
                    self._rope(heads, keys, dim)
                self._add(self.make.append(2 * keys * dim, keys, dim, self._last()))
                for operator in self.make.scores(
                    heads, keys, dim, dim, part.facts["window"], self._last(), ("softmax",)
                ):
                    self._add(operator)
            elif part.what == "act":
                self._act(at, part)
            elif part.what == "residual":
                residuals += 1
                self._add(self.make.residual(f"res{residuals}", part.facts["width"], self._last()))
        if residuals == 1:  # the second sum is in the next block's first norm
            width = self.facts["hidden"]
            self._add(self.make.residual("res2", width, self._last()))
        return self.done

    def _heads(self, parts: Sequence[Part], middle: int) -> tuple[int, int, int]:
        part = parts[middle]
        heads, dim, keys = part.facts["heads"], part.facts["dim"], part.facts["kv_heads"]
        before = [p for p in parts[:middle] if p.what == "gemm"]
        if not keys and len(before) >= 2:
            keys = min(p.facts["n"] for p in before) // max(dim, 1)
        keys = keys or heads
        if not heads or not dim:
            raise InputError(f"{self.where}: heads of its attention could not be found")
        self.facts.setdefault("heads", heads)
        self.facts.setdefault("kv_heads", keys)
        if before:
            self.facts.setdefault("hidden", before[0].facts["k"])
        return heads, keys, dim

    def _gemm(
        self, at: int, part: Part, middle: int, acts: Sequence[int], heads: int, keys: int, dim: int
    ) -> None:
        facts = part.facts
        after = self._last()
        if at < middle:
            before = [p for p in self.parts[0][:middle] if p.what == "gemm"]
            names = {1: ["qkv"], 3: ["q", "k", "v"]}.get(len(before))
            if names is None:
                raise InputError(f"{self.where}: {len(before)} products before attention; "
                                 "1 or 3 are known")  # fmt: skip
            name, group = names[before.index(part)], "qkv"
            after = tuple(o.name for o in self.done if o.group == "ln1")[-1:]
        elif not any(o.group == "proj" for o in self.done):
            name = group = "proj"
        elif not acts or at < acts[0]:
            own = [p for i, p in enumerate(self.parts[0]) if p.what == "gemm" and i > middle]
            inside = [p for p in own[1:] if self.parts[0].index(p) < (acts[0] if acts else 10**9)]
            name = ["gate", "up"][inside.index(part)] if len(inside) == 2 else "fc1"
            group = "fc1"
            after = tuple(o.name for o in self.done if o.group == "ln2")[-1:]
        else:
            later = [i for i, p in enumerate(self.parts[0]) if p.what == "gemm" and i > acts[0]]
            if at == later[-1]:
                name = group = "fc2"
            else:  # the gate's partner may follow the activation
                name, group = "up", "fc1"
                self._rename("fc1", "gate")
                after = tuple(o.name for o in self.done if o.group == "ln2")[-1:]
        form = self._rows(at)
        if form != {"T": 1}:
            raise InputError(f"{self.where}: {name} has {form} rows, which is no number of tokens")
        shard = Shard.ROWS if group in ("proj", "fc2") else Shard.COLUMNS
        self._add(
            self.make.gemm(
                name, facts["n"], facts["k"], after, group=group, shard=shard, bias=facts["bias"],
                heads=heads if name == "q" else 0, kv_heads=keys if name in ("k", "v") else 0,
                dim=dim if group == "qkv" else 0, weight_name=facts["weight"],
            )
        )  # fmt: skip

    def _rename(self, old: str, new: str) -> None:
        self.done = [
            o.model_copy(
                update={
                    "name": new if o.name == old else o.name,
                    "depends_on": tuple(new if n == old else n for n in o.depends_on),
                }
            )
            for o in self.done
        ]

    def _norm(
        self, at: int, part: Part, middle: int, after: int, seen: int, heads: int, keys: int,
        dim: int,
    ) -> None:  # fmt: skip
        facts = part.facts
        if at < middle:
            if facts["width"] == dim and any(o.group == "qkv" for o in self.done):
                first = not any(o.group == "qk_norm" for o in self.done)
                count = heads if first else keys
                self._add(
                    self.make.norm(
                        "q_norm" if first else "k_norm", dim, facts["function"], self._last(),
                        group="qk_norm", rows={"T": count}, shard=Shard.HEADS,
                        heads=heads if first else 0, kv_heads=0 if first else keys,
                    )
                )  # fmt: skip
                return
            group = "ln1"
        elif after == 3:
            group = ("post_ln1", "ln2", "post_ln2")[min(seen, 3) - 1]
        else:
            group = "ln2"
        self._add(self.make.norm(group, facts["width"], facts["function"], self._last()))

    def _rope(self, heads: int, keys: int, dim: int) -> None:
        after = tuple(o.name for o in self.done if o.group in ("qkv", "qk_norm"))
        if not any(o.group == "rope" for o in self.done):
            self._add(self.make.rope(heads, keys, dim, dim, after))

    def _act(self, at: int, part: Part) -> None:
        after = tuple(o.name for o in self.done if o.group == "fc1")
        self._add(
            self.make.activate(
                "act", {"T": 1}, part.facts["width"], part.facts["function"], part.facts["gated"],
                after,
            )
        )  # fmt: skip

    def outside(self) -> list[SymbolicOperator]:
        """Of what comes before or after the blocks."""
        parts = self.parts[0]
        tables = [part for part in parts if part.what == "embed"]
        if tables:
            self._add(self.make.embed(tables[0].facts["width"], len(tables), False))
            self.facts.setdefault("hidden", tables[0].facts["width"])
        for part in parts:
            if part.what == "norm":
                facts = part.facts
                self._add(
                    self.make.norm("final_norm", facts["width"], facts["function"], self._last())
                )
            elif part.what == "gemm":
                facts = part.facts
                self.facts.setdefault("vocab", facts["n"])
                self._add(
                    self.make.gemm(
                        "lm_head", facts["n"], facts["k"], self._last(), m="L",
                        shard=Shard.COLUMNS, bias=facts["bias"], weight_name=facts["weight"],
                    )
                )  # fmt: skip
        return self.done
