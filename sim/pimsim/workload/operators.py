"""What a forward pass does: operators, and the iteration they make up.

Every size is that of one device, after tensor parallelism. Bytes are the operands' sizes; which of
them cross the memory bus, and how often, is the mapping's decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from pimsim.workload.requests import Request

__all__ = ["Iteration", "Operator", "OperatorKind"]


class OperatorKind(StrEnum):
    """What an operator computes."""

    GEMM = "gemm"
    ATTENTION_SCORE = "attention_score"
    SOFTMAX = "softmax"
    ATTENTION_VALUE = "attention_value"
    NORM = "norm"
    ACTIVATION = "activation"
    ELEMENTWISE = "elementwise"
    ROPE = "rope"
    EMBEDDING = "embedding"
    ROUTER = "router"
    EXPERT_GEMM = "expert_gemm"
    KV_APPEND = "kv_append"
    COLLECTIVE = "collective"
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Operator:
    """One operation of a forward pass on one device. Sizes that do not apply are 0."""

    name: str
    kind: OperatorKind
    layer: int = 0
    m: int = 0
    """Rows of a matrix product: tokens of the step."""
    n: int = 0
    """Columns of a matrix product: output features on this device."""
    k: int = 0
    """Depth of a matrix product: input features on this device."""
    rows: int = 0
    """Vector work: this many vectors ..."""
    width: int = 0
    """... of this many output elements. For softmax the widest: each request has its own, see
    ``Iteration.contexts``."""
    heads: int = 0
    """Query heads on this device (attention, softmax, rope)."""
    kv_heads: int = 0
    """Key and value heads on this device."""
    head_dim: int = 0
    """Elements of one head."""
    weight_bytes: int = 0
    """Parameters read, biases and norm gains included."""
    input_bytes: int = 0
    """Activations read; the KV cache is counted apart."""
    output_bytes: int = 0
    """Activations written; the KV cache is counted apart."""
    kv_read_bytes: int = 0
    """KV cache read."""
    kv_write_bytes: int = 0
    """KV cache written."""
    flops: int = 0
    """Arithmetic operations, a multiply-add counting as 2 and a transcendental as 1. A bias is the
    accumulator's start value, hence free; a collective's sums belong to the fabric."""
    depends_on: tuple[str, ...] = ()
    """Names of the operators whose results this one needs."""


@dataclass(frozen=True, slots=True)
class Iteration:
    """One step of a batch on one device: a decoder block, repeated ``layers`` times.

    ``operators`` are those of one block, each after everything it depends on; ``contexts`` and
    ``requests`` are in the same order. Raises ``ValueError`` where that does not hold.
    """

    model: str
    phase: str
    """``decode``: one new token of each request."""
    tokens: int
    """Tokens in the step; in decode the number of requests."""
    contexts: tuple[int, ...]
    """Tokens that each request's attention reads, the current one included."""
    requests: tuple[Request, ...]
    operators: tuple[Operator, ...]
    layers: int
    """How many times the block runs on this device."""
    tp: int
    pp: int
    dtype_bytes: int
    """Bytes of a weight or an activation element."""
    kv_dtype_bytes: int
    """Bytes of an element of the KV cache."""

    def __post_init__(self) -> None:
        if len(self.contexts) != len(self.requests):
            raise ValueError(f"{len(self.contexts)} contexts for {len(self.requests)} requests")
        seen: set[str] = set()
        for operator in self.operators:
            if operator.name in seen:
                raise ValueError(f"operator {operator.name!r} is there twice")
            missing = [name for name in operator.depends_on if name not in seen]
            if missing:
                raise ValueError(
                    f"operator {operator.name!r} depends on {missing[0]!r}, which is not before it"
                )
            seen.add(operator.name)

    def operator(self, name: str) -> Operator:
        """The operator of that name; ``KeyError`` where the block has none."""
        for operator in self.operators:
            if operator.name == name:
                return operator
        raise KeyError(name)

    def has(self, name: str) -> bool:
        """Whether the block has an operator of that name."""
        return any(operator.name == name for operator in self.operators)

    def _sum(self, size: Callable[[Operator], int]) -> int:
        return self.layers * sum(size(operator) for operator in self.operators)

    @property
    def flops(self) -> int:
        """Arithmetic operations of all layers on this device."""
        return self._sum(lambda operator: operator.flops)

    @property
    def weight_bytes(self) -> int:
        """Parameter bytes read by all layers on this device."""
        return self._sum(lambda operator: operator.weight_bytes)

    @property
    def input_bytes(self) -> int:
        """Activation bytes read by all layers on this device."""
        return self._sum(lambda operator: operator.input_bytes)

    @property
    def output_bytes(self) -> int:
        """Activation bytes written by all layers on this device."""
        return self._sum(lambda operator: operator.output_bytes)

    @property
    def kv_read_bytes(self) -> int:
        """KV cache bytes read by all layers on this device."""
        return self._sum(lambda operator: operator.kv_read_bytes)

    @property
    def kv_write_bytes(self) -> int:
        """KV cache bytes written by all layers on this device."""
        return self._sum(lambda operator: operator.kv_write_bytes)
