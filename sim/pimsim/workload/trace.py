"""Operator traces: what a forward pass of a decoder does, symbolic in tokens and contexts.

A trace is JSON of format ``pimsim-operator-trace``; ``traces/README.md`` describes it for others.
Sizes that depend on the batch are linear forms over a few symbols, so one trace gives the
operators of any batch: ``{"T": 4096}`` is 4096 for each token of the step. Sizes are those of the
whole model; the instance for a device divides by what ``shard`` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError, first_fault, near_miss
from pimsim.config.reading import parse_json, read_text
from pimsim.workload.operators import OperatorKind
from pimsim.workload.program_check import check_program

__all__ = [
    "FORMAT", "VERSION", "BlockRun", "Linear", "ModelFacts", "Operand", "OperandRole",
    "OperatorTrace", "Phase", "Shard", "SymbolicOperator", "dump_trace", "evaluate", "load_trace",
    "window_symbol", "windowed",
]  # fmt: skip

FORMAT = "pimsim-operator-trace"
VERSION = 1

MAX_TRACE_BYTES = 64 * 2**20
"""Largest operator trace accepted, in bytes; one of 60 different blocks has 2 MB."""

SYMBOLS = {
    "1": "a constant",
    "T": "tokens of the step, over all requests",
    "B": "requests",
    "L": "rows of logits: one a request",
    "P": "pairs of a query and a key that it attends to, over all requests (causal)",
    "K": "keys read: contexts, summed over requests",
    "A": "pairs of a token and an expert that it goes to, after capacity drops",
    "E": "experts that at least one token goes to",
}
"""What a linear form counts. ``P@w`` and ``K@w`` are P and K where no query sees more than the
last ``w`` tokens. In decode T = B = L and P = K."""

_WINDOWED = re.compile(r"[PK]@[1-9][0-9]{0,8}")
_MAX_COEFFICIENT = 2**50


def window_symbol(symbol: Literal["P", "K"], window: int | None) -> str:
    """``P`` or ``K``, of a sliding window of ``window`` tokens where there is one.

    Parameters
    ----------
    symbol
        ``P`` (pairs of a token and a key) or ``K`` (keys).
    window
        Tokens; None: there is none.
    """
    return symbol if window is None else f"{symbol}@{window}"


def _linear(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = {"1": value} if value else {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is neither a whole number nor a mapping of symbols")
    for symbol, coefficient in value.items():
        if symbol not in SYMBOLS and not _WINDOWED.fullmatch(str(symbol)):
            known = ", ".join(SYMBOLS)
            raise ValueError(
                f"unknown symbol {symbol!r}{near_miss(str(symbol), SYMBOLS)}; "
                f"known: {known}, P@window, K@window"
            )
        if isinstance(coefficient, bool) or not isinstance(coefficient, int):
            raise ValueError(f"{symbol}: {coefficient!r} is no whole number")
        if not 0 <= coefficient <= _MAX_COEFFICIENT:
            raise ValueError(f"{symbol}: {coefficient} is not in 0 to 2^50")
    return dict(value)


def _short(form: Mapping[str, int]) -> int | dict[str, int]:
    if not form:
        return 0
    return form["1"] if set(form) == {"1"} else dict(form)


Linear = Annotated[Mapping[str, int], BeforeValidator(_linear), PlainSerializer(_short)]
"""A sum of symbols with whole, non-negative coefficients; a plain number is a constant."""


def evaluate(form: Mapping[str, int], symbols: Mapping[str, int]) -> int:
    """The form's value.

    Parameters
    ----------
    form
        Coefficients by symbol; ``"1"`` is a constant.
    symbols
        Their values.

    Raises
    ------
    KeyError
        Where it uses a symbol that has no value.
    """
    return sum(
        coefficient * (1 if symbol == "1" else symbols[symbol])
        for symbol, coefficient in form.items()
    )


class OperandRole(StrEnum):
    """What an operand is."""

    WEIGHT = "weight"
    ACTIVATION = "activation"
    KV = "kv"


class Shard(StrEnum):
    """How tensor parallelism cuts an operator (Megatron, arXiv 1909.08053 section 3)."""

    NONE = "none"
    """Whole on every device."""
    COLUMNS = "columns"
    """Output features; inputs are whole."""
    ROWS = "rows"
    """Input features; results are partial sums, an all-reduce follows."""
    HEADS = "heads"
    """Query heads, and key heads where there are as many."""


class Operand(ConfigModel):
    """A tensor that an operator reads or writes."""

    name: str = Field(min_length=1)
    """A weight's name in the checkpoint (``{layer}`` for the block's number), or what it is."""
    role: OperandRole
    write: bool = False
    dtype: str = Field(min_length=1)
    """``bf16``, ``f16``, ``f32``, ``f8``, ``int8``, ``mxfp4``, ``q4_1``, ..."""
    bytes: Linear
    whole: bool = False
    """On every device as a whole, though ``shard`` cuts the operator: the bias of a product that
    is cut by rows, the gain of a norm of each head."""


class SymbolicOperator(ConfigModel):
    """One operation of a block, for any batch. Sizes that do not apply are 0."""

    name: str = Field(min_length=1)
    """Unique in its block."""
    kind: OperatorKind
    group: str = Field(min_length=1)
    """The operator of the card's vocabulary that it is or is a part of (``qkv``, ``fc1``, ...)."""
    module: str = ""
    """Path of the module that did it, ``{layer}`` for the block's number."""
    function: str = ""
    """What a norm or an activation computes: ``rmsnorm``, ``layernorm``, ``silu``, ``gelu``,
    ``relu``."""
    shard: Shard = Shard.NONE
    m: Linear = Field(default_factory=dict)
    """Rows of a matrix product."""
    n: int = Field(default=0, ge=0, le=2**28)
    k: int = Field(default=0, ge=0, le=2**28)
    count: int = Field(default=1, ge=1, le=2**16)
    """Products of this size, each with weights of its own (one a head, where MLA's up-projections
    are absorbed)."""
    rows: Linear = Field(default_factory=dict)
    """Vector work: this many vectors ..."""
    width: int = Field(default=0, ge=0, le=2**28)
    """... of this many elements. 0 for softmax: as wide as each context."""
    heads: int = Field(default=0, ge=0, le=2**16)
    kv_heads: int = Field(default=0, ge=0, le=2**16)
    head_dim: int = Field(default=0, ge=0, le=2**16)
    """Elements of a key (scores, rope, appended) or of a value (values)."""
    window: int | None = Field(default=None, ge=1)
    """A query sees this many last tokens at most."""
    page: int = Field(default=0, ge=0, le=2**20)
    """The ``window`` tokens are pages of so many, chosen anywhere in a context that is kept as a
    whole; 0: the last tokens. Techniques say so, no file does."""
    keys_a_column: int = Field(default=0, ge=0, le=2**20)
    """Of work on what is kept of each request beside keys and values (summaries of pages, keys of
    an index): tokens that a column of a product, or an element of a vector, stands for; ``m``,
    ``count`` and ``rows`` are then of a request, weights and ``flops`` of a column. 0: it is no
    such work."""
    flops: Linear = Field(default_factory=dict)
    """By the conventions of ``workload.arithmetic``."""
    operands: tuple[Operand, ...] = ()
    depends_on: tuple[str, ...] = ()
    """Operators of the block whose results this one needs; none: the block's input."""

    def bytes_of(self, role: OperandRole, *, write: bool) -> dict[str, int]:
        """The bytes of all its operands of a role, as a linear form."""
        total: dict[str, int] = {}
        for operand in self.operands:
            if operand.role is role and operand.write == write:
                for symbol, coefficient in operand.bytes.items():
                    total[symbol] = total.get(symbol, 0) + coefficient
        return total


def windowed(operator: SymbolicOperator, window: int | None) -> SymbolicOperator:
    """The operator with the symbols of a window in place of those that it has.

    Parameters
    ----------
    operator
        Of attention.
    window
        Tokens that a query sees; None: all.
    """

    def form(given: Mapping[str, int]) -> dict[str, int]:
        return {
            window_symbol(symbol[0], window) if symbol[0] in "PK" else symbol: times  # type: ignore[arg-type]
            for symbol, times in given.items()
        }

    operands = tuple(
        each.model_copy(update={"bytes": form(each.bytes)}) for each in operator.operands
    )
    return operator.model_copy(
        update={"window": window, "flops": form(operator.flops), "operands": operands}
    )


class BlockRun(ConfigModel):
    """Blocks of one kind that follow each other."""

    block: str
    count: int = Field(ge=1, le=100_000)


class Phase(ConfigModel):
    """A forward pass: what comes before the decoder blocks, the blocks, and what comes after."""

    blocks: Mapping[str, tuple[SymbolicOperator, ...]]
    """Operators by kind of block."""
    layers: tuple[BlockRun, ...] = Field(min_length=1)
    """The decoder blocks in their order."""
    before: str | None = None
    """Kind of what runs once before (embedding)."""
    after: str | None = None
    """Kind of what runs once after (last norm, output layer, sampling)."""

    @model_validator(mode="after")
    def _consistent(self) -> Phase:
        used = [run.block for run in self.layers]
        used += [name for name in (self.before, self.after) if name is not None]
        for name in used:
            if name not in self.blocks:
                raise ValueError(f"no block {name!r}{near_miss(name, self.blocks)}")
        for kind, operators in self.blocks.items():
            if kind not in used:
                raise ValueError(f"block {kind!r} is never run")
            seen: set[str] = set()
            for operator in operators:
                if operator.name in seen:
                    raise ValueError(f"block {kind!r}: operator {operator.name!r} is there twice")
                for name in operator.depends_on:
                    if name not in seen:
                        raise ValueError(
                            f"block {kind!r}: {operator.name!r} depends on {name!r}, "
                            "which is not before it"
                        )
                seen.add(operator.name)
        return self

    def sequence(self) -> Iterator[str]:
        """The kind of each decoder block in its order."""
        for run in self.layers:
            yield from [run.block] * run.count


class ModelFacts(ConfigModel):
    """What is known of the model beside its operators."""

    architecture: str = Field(min_length=1)
    """As transformers names it (``LlamaForCausalLM``), or ``card``."""
    layers: int = Field(ge=1, le=100_000)
    hidden: int = Field(ge=1, le=2**24)
    heads: int = Field(ge=1, le=2**16)
    kv_heads: int = Field(ge=1, le=2**16)
    vocab: int = Field(ge=1, le=2**28)
    max_context: int = Field(ge=1, le=2**30)
    experts: int = Field(default=0, ge=0, le=65_536)
    """Routed experts of a MoE block."""
    experts_per_token: int = Field(default=0, ge=0, le=65_536)
    parameters: int = Field(ge=1, le=2**50)
    """All of them, tied ones once."""
    parameter_bytes: int = Field(ge=1, le=2**53)
    kv_bytes_per_token: int = Field(ge=0, le=2**40)
    """Over all blocks, of a token that no window has passed."""
    dtype_bytes: int = Field(ge=1, le=8)
    """Bytes of an activation element."""
    kv_dtype_bytes: int = Field(ge=1, le=8)


class OperatorTrace(ConfigModel):
    """The forward passes of one model, and where they come from."""

    format: Literal["pimsim-operator-trace"] = "pimsim-operator-trace"
    version: Literal[1] = 1
    model: str = Field(min_length=1)
    source: str = Field(min_length=1)
    """What was traced, with which versions, and how to make the file again."""
    facts: ModelFacts
    phases: Mapping[Literal["prefill", "decode"], Phase]

    @model_validator(mode="after")
    def _whole(self) -> OperatorTrace:
        if "decode" not in self.phases:
            raise ValueError("phases has no 'decode'")
        for name, phase in self.phases.items():
            blocks = sum(run.count for run in phase.layers)
            if blocks != self.facts.layers:
                raise ValueError(
                    f"{name} runs {blocks} blocks, facts.layers is {self.facts.layers}"
                )
        check_program(self.facts, self.phases)
        return self


def dump_trace(trace: OperatorTrace) -> str:
    """The trace as JSON, an operator a line, without fields at their defaults.

    Parameters
    ----------
    trace
        Of a model.
    """
    data = trace.model_dump(mode="json", exclude_defaults=True)
    head = {"format": FORMAT, "version": VERSION, **data}
    phases = head.pop("phases")
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    parts = []
    for name, phase in phases.items():
        blocks = []
        for kind, operators in phase.pop("blocks").items():
            rows = ",\n".join(json.dumps(operator, separators=(",", ":")) for operator in operators)
            blocks.append(f"{json.dumps(kind)}: [\n{rows}\n]")
        rest = "".join(f", {json.dumps(k)}: {json.dumps(v)}" for k, v in phase.items())
        parts.append(f'{json.dumps(name)}: {{"blocks": {{{", ".join(blocks)}}}{rest}}}')
    lines.append(f'"phases": {{{", ".join(parts)}}}')
    return "{" + ",\n".join(lines) + "}\n"


def load_trace(path: Path) -> OperatorTrace:
    """Read and validate a trace.

    Parameters
    ----------
    path
        Of the file.

    Raises
    ------
    InputError
        One line, for what is no JSON, another format, a newer version, or the first key that is
        wrong.
    """
    if path.suffix == ".onnx":
        raise InputError(
            f"{path}: a graph, not an operator trace; `pimsim import-onnx {path}` makes one of it"
        )
    text = read_text(path, "an operator trace, a JSON file,", MAX_TRACE_BYTES)
    data = parse_json(text, str(path))
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{path}: no operator trace (its format must be {FORMAT!r})")
    version = data.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InputError(
            f"{path}: an operator trace of version {version}; this pimsim reads up to {VERSION}"
        )
    try:
        return OperatorTrace.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: {first_fault(error)}") from error
