"""Symbolic operators from dims: one way to count operands and arithmetic for cards and exports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pimsim.workload.arithmetic import (
    ACTIVATION_FLOPS,
    COMBINE_FLOPS,
    GATE_FLOPS,
    NORM_FLOPS,
    RESIDUAL_FLOPS,
    ROPE_FLOPS,
    ROUTE_FLOPS,
    SOFTMAX_FLOPS,
)
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import Operand, OperandRole, Shard, SymbolicOperator, window_symbol

__all__ = ["OperatorMaker"]

Form = Mapping[str, int]
_DTYPES = {1: "int8", 2: "bf16", 4: "f32"}


@dataclass(frozen=True)
class OperatorMaker:
    """Makes operators of a model whose elements have these sizes."""

    dtype_bytes: int
    kv_dtype_bytes: int
    dtype: str = ""
    """What an element is called; by its size where it is empty."""
    kv_dtype: str = ""

    def _named(self) -> tuple[str, str]:
        return (
            self.dtype or _DTYPES[self.dtype_bytes],
            self.kv_dtype or _DTYPES[self.kv_dtype_bytes],
        )

    def weight(self, name: str, elements: Form | int, whole: bool = False) -> Operand:
        """A weight, or weights, of so many elements."""
        size = self.dtype_bytes
        form = {"1": elements} if isinstance(elements, int) else elements
        return Operand(
            name=name, role=OperandRole.WEIGHT, dtype=self._named()[0], bytes=_times(form, size),
            whole=whole,
        )  # fmt: skip

    def activation(self, elements: Form, name: str, write: bool = False) -> Operand:
        """An activation of so many elements."""
        size = self.dtype_bytes
        return Operand(
            name=name, role=OperandRole.ACTIVATION, write=write, dtype=self._named()[0],
            bytes=_times(elements, size),
        )  # fmt: skip

    def cache(self, elements: Form, name: str, write: bool = False) -> Operand:
        """A part of the KV cache of so many elements."""
        size = self.kv_dtype_bytes
        return Operand(
            name=name, role=OperandRole.KV, write=write, dtype=self._named()[1],
            bytes=_times(elements, size),
        )  # fmt: skip

    def gemm(
        self, name: str, n: int, k: int, after: tuple[str, ...], *, group: str = "",
        shard: Shard = Shard.NONE, bias: bool = False, m: str = "T", count: int = 1,
        kind: OperatorKind = OperatorKind.GEMM, heads: int = 0, kv_heads: int = 0, dim: int = 0,
        weight_name: str = "",
    ) -> SymbolicOperator:  # fmt: skip
        """``count`` products of (m, k) by (k, n), each with weights of its own."""
        # an expert's weights are read when it has a token
        once = "E" if kind is OperatorKind.EXPERT_GEMM else "1"
        operands = [self.weight(weight_name or f"{name}.weight", {once: count * n * k})]
        if bias:
            operands.append(
                self.weight(f"{name}.bias", {once: count * n}, whole=shard is Shard.ROWS)
            )
        operands += [
            self.activation({m: count * k}, "input"),
            self.activation({m: count * n}, "output", write=True),
        ]
        return SymbolicOperator(
            name=name, kind=kind, group=group or name, shard=shard, m={m: 1}, n=n, k=k,
            count=count, heads=heads, kv_heads=kv_heads, head_dim=dim,
            flops={m: 2 * count * n * k}, operands=tuple(operands), depends_on=after,
        )  # fmt: skip

    def vector(
        self, name: str, kind: OperatorKind, rows: Form, width: int, flops: int,
        after: tuple[str, ...], *, group: str = "", function: str = "", shard: Shard = Shard.NONE,
        inputs: int = 1, weights: tuple[Operand, ...] = (), heads: int = 0, kv_heads: int = 0,
        dim: int = 0,
    ) -> SymbolicOperator:  # fmt: skip
        """Vector work of ``flops`` an element on ``inputs`` vectors for each of ``rows``."""
        elements = _times(rows, width)
        return SymbolicOperator(
            name=name, kind=kind, group=group or name, shard=shard, function=function, rows=rows,
            width=width, heads=heads, kv_heads=kv_heads, head_dim=dim,
            flops=_times(elements, flops), depends_on=after,
            operands=(
                *weights,
                self.activation(_times(elements, inputs), "input"),
                self.activation(elements, "output", write=True),
            ),
        )  # fmt: skip

    def norm(
        self, name: str, width: int, function: str, after: tuple[str, ...], *, group: str = "",
        rows: Form | None = None, shard: Shard = Shard.NONE, heads: int = 0, kv_heads: int = 0,
        parameters: int | None = None, weight_name: str = "",
    ) -> SymbolicOperator:  # fmt: skip
        """A norm of vectors of ``width``, one a token unless ``rows`` says otherwise, with a gain
        (and a bias, of a layernorm) unless ``parameters`` says how many numbers it has."""
        if parameters is None:
            parameters = width * (2 if function == "layernorm" else 1)
        gains = () if not parameters else (
            self.weight(
                weight_name or f"{name}.weight", parameters,
                # one gain for all heads is on every device
                whole=shard is Shard.HEADS and parameters <= 2 * width,
            ),
        )  # fmt: skip
        return self.vector(
            name, OperatorKind.NORM, {"T": 1} if rows is None else rows, width,
            NORM_FLOPS[function], after, group=group, function=function, shard=shard,
            weights=gains, heads=heads, kv_heads=kv_heads,
        )  # fmt: skip

    def residual(self, name: str, width: int, after: tuple[str, ...]) -> SymbolicOperator:
        """The sum of the residual stream and what a part of the block adds to it."""
        return self.vector(
            name, OperatorKind.ELEMENTWISE, {"T": 1}, width, RESIDUAL_FLOPS, after, inputs=2
        )

    def rope(
        self, heads: int, kv_heads: int, turned: int, dim: int, after: tuple[str, ...]
    ) -> SymbolicOperator:
        """Turn ``turned`` of the ``dim`` features of each query and key head; the table of angles
        is small and reused, hence not counted."""
        return self.vector(
            "rope",
            OperatorKind.ROPE,
            {"T": heads + kv_heads},
            turned,
            ROPE_FLOPS,
            after,
            shard=Shard.HEADS,
            heads=heads,
            kv_heads=kv_heads,
            dim=dim,
        )

    def activate(
        self, name: str, rows: Form, width: int, function: str, gated: bool,
        after: tuple[str, ...],
    ) -> SymbolicOperator:  # fmt: skip
        """An activation function, and the product with its gate where it is ``gated``."""
        return self.vector(
            name, OperatorKind.ACTIVATION, rows, width,
            ACTIVATION_FLOPS[function] + (GATE_FLOPS if gated else 0), after, function=function,
            shard=Shard.COLUMNS, inputs=2 if gated else 1,
        )  # fmt: skip

    def route(self, scores: int, scoring: str, after: tuple[str, ...]) -> SymbolicOperator:
        """From the router's outputs to weights of the chosen experts; ``scores`` a token."""
        return self.vector(
            "route", OperatorKind.ELEMENTWISE, {"T": 1}, scores, ROUTE_FLOPS[scoring], after
        )

    def combine(self, width: int, shared: bool, after: tuple[str, ...]) -> SymbolicOperator:
        """The weighted sum of a token's experts, plus the ``shared`` one."""
        elements = {"A": width} | ({"T": width} if shared else {})
        flops = {"A": COMBINE_FLOPS * width} | ({"T": RESIDUAL_FLOPS * width} if shared else {})
        return SymbolicOperator(
            name="combine", kind=OperatorKind.ELEMENTWISE, group="combine", rows={"T": 1},
            width=width, flops=flops, depends_on=after,
            operands=(
                self.activation(elements, "input"),
                self.activation({"T": width}, "output", write=True),
            ),
        )  # fmt: skip

    def embed(self, width: int, tables: int, scaled: bool) -> SymbolicOperator:
        """Rows of the tables, one a token, added up and scaled."""
        return self.vector(
            "embed", OperatorKind.EMBEDDING, {"T": 1}, width, tables - 1 + (1 if scaled else 0),
            (), inputs=0, weights=(self.weight("embed.weight", {"T": tables * width}),),
        )  # fmt: skip

    def append(
        self, elements: int, kv_heads: int, dim: int, after: tuple[str, ...]
    ) -> SymbolicOperator:
        """New keys and values, ``elements`` a token together, go to the cache."""
        return SymbolicOperator(
            name="kv_append", kind=OperatorKind.KV_APPEND, group="kv_append", shard=Shard.HEADS,
            rows={"T": 1}, width=elements, kv_heads=kv_heads, head_dim=dim, depends_on=after,
            operands=(
                self.activation({"T": elements}, "input"),
                self.cache({"T": elements}, "cache", write=True),
            ),
        )  # fmt: skip

    def scores(
        self, heads: int, kv_heads: int, key_dim: int, value_dim: int, window: int | None,
        after: tuple[str, ...], value_after: tuple[str, ...], shared: bool = False,
        sinks: bool = False,
    ) -> list[SymbolicOperator]:  # fmt: skip
        """Scores, softmax, weighted values; ``shared``: values are a part of the cached keys;
        ``sinks``: each head has a learned logit."""
        pairs, keys = window_symbol("P", window), window_symbol("K", window)
        learned = (self.weight("sinks", heads),) if sinks else ()
        score = SymbolicOperator(
            name="score", kind=OperatorKind.ATTENTION_SCORE, group="score", shard=Shard.HEADS,
            heads=heads, kv_heads=kv_heads, head_dim=key_dim, window=window,
            flops={pairs: 2 * heads * key_dim}, depends_on=after,
            operands=(
                self.activation({"T": heads * key_dim}, "query"),
                self.cache({keys: kv_heads * key_dim}, "keys"),
                self.activation({pairs: heads}, "scores", write=True),
            ),
        )  # fmt: skip
        softmax = SymbolicOperator(
            name="softmax", kind=OperatorKind.SOFTMAX, group="softmax", shard=Shard.HEADS,
            rows={"T": heads}, heads=heads, window=window,
            flops={pairs: SOFTMAX_FLOPS * heads}, depends_on=("score",),
            operands=(
                *learned,
                self.activation({pairs: heads}, "scores"),
                self.activation({pairs: heads}, "weights", write=True),
            ),
        )  # fmt: skip
        read = () if shared else (self.cache({keys: kv_heads * value_dim}, "values"),)
        value = SymbolicOperator(
            name="value", kind=OperatorKind.ATTENTION_VALUE, group="value", shard=Shard.HEADS,
            heads=heads, kv_heads=kv_heads, head_dim=value_dim, window=window,
            flops={pairs: 2 * heads * value_dim}, depends_on=value_after,
            operands=(
                self.activation({pairs: heads}, "weights"), *read,
                self.activation({"T": heads * value_dim}, "output", write=True),
            ),
        )  # fmt: skip
        return [score, softmax, value]


def _times(form: Form, factor: int) -> dict[str, int]:
    return {symbol: coefficient * factor for symbol, coefficient in form.items() if factor}
