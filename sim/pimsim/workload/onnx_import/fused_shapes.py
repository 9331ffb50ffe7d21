"""Shapes that operators of ``com.microsoft`` give (onnxruntime, docs/ContribOperators.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.formats import element_type

__all__ = ["Given", "fused_shape", "is_fused", "packing"]

Shape = tuple[int, ...] | None
_MOST = 2**24


class Given(NamedTuple):
    """What is known of a node."""

    attributes: Mapping[str, Any]
    shapes: Sequence[Shape]
    """Of its inputs; None for one that is left out or not known."""
    dtypes: Sequence[int]
    where: str
    """File and node, for errors."""

    @property
    def first(self) -> tuple[int, ...]:
        """Shape of the first input; empty where it is not known."""
        return self.shape(0) or ()

    def shape(self, at: int) -> Shape:
        """Shape of an input."""
        return self.shapes[at] if at < len(self.shapes) else None

    def attribute(self, name: str, default: int | None = None) -> int:
        """A whole number of at least 1; ``InputError`` where it is absent or makes no sense."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int) or not 1 <= value <= _MOST:
            found = "is missing" if value is None else f"is {value}"
            raise InputError(f"{self.where}: its attribute {name} {found}; 1 to 2^24 are allowed")
        return value


def is_fused(node: Any) -> bool:
    """Whether an operator is one of onnxruntime's, which writes some without their domain.

    Parameters
    ----------
    node
        ``onnx.NodeProto``.
    """
    return node.domain == "com.microsoft" or node.op_type in (
        "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization",
    )  # fmt: skip


def fused_shape(op_type: str, given: Given, outputs: int) -> list[Shape]:
    """Shapes of a node's outputs, None where one is not known.

    Parameters
    ----------
    op_type
        Of the node.
    given
        Its attributes, and shapes and types of its inputs.
    outputs
        How many it has.

    Raises
    ------
    InputError
        For attributes that are missing or out of range.

    References
    ----------
    onnxruntime, docs/ContribOperators.md.
    """
    rule = _RULES.get(op_type)
    found: list[Shape] = [None] * outputs
    if rule is not None and given.shape(0) is not None:
        found[0] = rule(given)
    if op_type.startswith("Skip") and outputs > 3:
        found[3] = given.shape(0)
    return found


def _same(given: Given) -> Shape:
    return given.first


def _bits(given: Given) -> Shape:
    width, depth, first = given.attribute("N"), given.attribute("K"), given.first
    if not first or first[-1] != depth:
        raise InputError(
            f"{given.where}: its input has {first[-1] if first else 'no'} features, K is {depth}"
        )
    return (*first[:-1], width)


def _attention(given: Given) -> Shape:
    heads, first = given.attribute("num_heads"), given.first
    keys = given.attribute("kv_num_heads", heads)
    if heads % keys:
        raise InputError(f"{given.where}: {heads} query heads cannot share {keys} key heads")
    if given.shape(1) is not None:
        return first if len(first) != 5 else (*first[:2], first[2] * first[4])
    if not first or first[-1] % (heads + 2 * keys):
        raise InputError(
            f"{given.where}: {first[-1] if first else 0} features of packed queries, keys and "
            f"values are no whole heads of {heads} + 2 x {keys}"
        )
    return (*first[:-1], first[-1] // (heads + 2 * keys) * heads)


def _matmul(given: Given) -> Shape:
    other = given.shape(1)
    if other is None or len(other) < 2:
        return None
    return (*given.first[:-1], other[-2 if given.attributes.get("transB") else -1])


def _gathered(given: Given) -> Shape:
    index, scales = given.shape(1), given.shape(2)
    if index is None or scales is None:
        raise InputError(f"{given.where}: its table has no scales, so what it holds is not known")
    if len(given.first) != 2:
        raise InputError(f"{given.where}: a table of shape {given.first} is not known")
    return (*index, given.first[1] * packing(given))


def packing(given: Given) -> int:
    """Elements of a quantised table in each of what its tensor counts as elements.

    Parameters
    ----------
    given
        The node's attributes, and types of its inputs.

    Raises
    ------
    InputError
        For another number of bits than 2, 4 or 8.
    """
    bits = given.attribute("bits", 4)
    if bits not in (2, 4, 8):
        raise InputError(f"{given.where}: its attribute bits is {bits}; 2, 4, 8 are allowed")
    return max(element_type(given.dtypes[0]).bits // bits, 1)


_RULES: dict[str, Callable[[Given], Shape]] = {
    "MatMulNBits": _bits, "FusedMatMul": _matmul, "GatherBlockQuantized": _gathered,
    "GroupQueryAttention": _attention, "MultiHeadAttention": _attention,
    "PagedAttention": _attention, "RotaryEmbedding": _same, "MoE": _same, "QMoE": _same,
    "SimplifiedLayerNormalization": _same, "SkipSimplifiedLayerNormalization": _same,
    "SkipLayerNormalization": _same, "QuickGelu": _same, "FastGelu": _same, "Gelu": _same,
    "BiasGelu": _same,
}  # fmt: skip
