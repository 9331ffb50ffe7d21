"""What a forward pass does: operators, and the blocks they make up.

Every size is that of one device, after tensor parallelism. Bytes are the operands' sizes; which of
them cross the memory bus, and how often, is the mapping's decision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from pimsim.workload.requests import Request
from pimsim.workload.step import Step

__all__ = ["Block", "CollectiveKind", "ForwardPass", "Operator", "OperatorKind", "map_operators"]


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


class CollectiveKind(StrEnum):
    """What devices do together."""

    ALL_REDUCE = "allreduce"
    """Each has the sum of all."""
    ALL_GATHER = "allgather"
    """Each has the parts of all."""
    SEND = "send"
    """Each hands what it has to its like in the next pipeline stage."""


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
    ``ForwardPass.step``."""
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
    group: str = ""
    """What it is in the vocabulary of cards (``qkv``, ``proj``, ``expert_fc1``, ...)."""
    function: str = ""
    """What vector work computes: ``layernorm``, ``rmsnorm``, ``gelu``, ``silu``, ``relu``."""
    collective: CollectiveKind = CollectiveKind.ALL_REDUCE
    """Which one a collective is; ``input_bytes`` and ``output_bytes`` are what one device puts in
    and has in the end."""
    count: int = 1
    """Matrix products of this size, each with weights of its own; ``flops`` and bytes are of all
    of them."""
    window: int = 0
    """Attention reads this many last tokens of a context at most; 0: all."""
    page: int = 0
    """The ``window`` tokens are pages of so many that each query chooses anywhere in its context;
    0: the last tokens."""
    expert_tokens: tuple[int, ...] = ()
    """Tokens of each expert that has any, in the experts' order; ``m`` is their sum, and
    ``weight_bytes`` those of these experts."""
    experts: tuple[int, ...] = ()
    """Which experts these are."""
    entries: tuple[int, ...] = ()
    """Numbers of the step's entries that it works on; empty: all of them."""
    weights_chosen: bool = False
    """Which of its weights it reads is known only from the result of an operator before it: experts
    from the router's, features that turned out active from the activation's."""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of a forward pass whose operators run as one unit: a decoder block, as a rule.

    ``operators`` are each after everything that they depend on. Raises ``ValueError`` where that
    does not hold or a name is there twice.
    """

    kind: str
    """Blocks of one kind have the same operators (``dense``, ``moe``, ``sliding``); their sizes
    differ where the routing of tokens to experts does."""
    operators: tuple[Operator, ...]

    def __post_init__(self) -> None:
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


@dataclass(frozen=True, slots=True)
class ForwardPass:
    """A step on one device: the blocks that are simulated, one after the other.

    Raises ``ValueError`` where there is no block.
    """

    model: str
    step: Step
    blocks: tuple[Block, ...]
    """Simulated blocks, in the model's order; equal ones are one object."""
    model_blocks: tuple[tuple[str, int], ...]
    """How many blocks of each kind the model has, on all pipeline stages."""
    layer_numbers: tuple[int, ...]
    """Which of the model's blocks each of ``blocks`` is."""
    tp: int
    pp: int
    dtype_bytes: int
    """Bytes of a weight or an activation element."""
    kv_dtype_bytes: int
    """Bytes of an element of the KV cache."""

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError("a forward pass without blocks")
        if len(self.layer_numbers) != len(self.blocks):
            raise ValueError(f"{len(self.layer_numbers)} numbers for {len(self.blocks)} blocks")

    @property
    def tokens(self) -> int:
        """Tokens that are fed."""
        return self.step.tokens

    @property
    def contexts(self) -> tuple[int, ...]:
        """Tokens that attention reads of each request, the new ones included."""
        return self.step.contexts

    @property
    def requests(self) -> tuple[Request, ...]:
        """In the order of ``contexts``."""
        return self.step.requests

    @property
    def layers(self) -> int:
        """Blocks that are simulated."""
        return len(self.blocks)

    def _sum(self, size: Callable[[Operator], int]) -> int:
        return sum(size(operator) for block in self.blocks for operator in block.operators)

    @property
    def flops(self) -> int:
        """Arithmetic operations of all blocks on this device."""
        return self._sum(lambda operator: operator.flops)

    @property
    def weight_bytes(self) -> int:
        """Parameter bytes read by all blocks on this device."""
        return self._sum(lambda operator: operator.weight_bytes)

    @property
    def input_bytes(self) -> int:
        """Activation bytes read by all blocks on this device."""
        return self._sum(lambda operator: operator.input_bytes)

    @property
    def output_bytes(self) -> int:
        """Activation bytes written by all blocks on this device."""
        return self._sum(lambda operator: operator.output_bytes)

    @property
    def kv_read_bytes(self) -> int:
        """KV cache bytes read by all blocks on this device."""
        return self._sum(lambda operator: operator.kv_read_bytes)

    @property
    def kv_write_bytes(self) -> int:
        """KV cache bytes written by all blocks on this device."""
        return self._sum(lambda operator: operator.kv_write_bytes)


def map_operators(forward: ForwardPass, change: Callable[[Operator], Operator]) -> ForwardPass:
    """The forward pass with each operator replaced; blocks that were one object stay one.

    Parameters
    ----------
    forward
        Not changed.
    change
        Makes an operator of an operator.
    """
    done: dict[int, Block] = {}
    for block in forward.blocks:
        if id(block) not in done:
            done[id(block)] = replace(block, operators=tuple(map(change, block.operators)))
    return replace(forward, blocks=tuple(done[id(block)] for block in forward.blocks))
