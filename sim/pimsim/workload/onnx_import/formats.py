"""How a graph stores its weights: element types, packing, scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "DTYPES",
    "FLOATS",
    "ElementType",
    "FormatPiece",
    "Stored",
    "element_type",
    "tensor_bytes",
]


class ElementType(NamedTuple):
    """An element of a tensor."""

    name: str
    bits: int


DTYPES = {
    1: ElementType("f32", 32), 2: ElementType("uint8", 8), 3: ElementType("int8", 8),
    4: ElementType("uint16", 16), 5: ElementType("int16", 16), 6: ElementType("int32", 32),
    7: ElementType("int64", 64), 9: ElementType("bool", 8), 10: ElementType("f16", 16),
    11: ElementType("f64", 64), 12: ElementType("uint32", 32), 13: ElementType("uint64", 64),
    16: ElementType("bf16", 16), 17: ElementType("f8e4m3fn", 8), 18: ElementType("f8e4m3fnuz", 8),
    19: ElementType("f8e5m2", 8), 20: ElementType("f8e5m2fnuz", 8), 21: ElementType("uint4", 4),
    22: ElementType("int4", 4), 23: ElementType("f4e2m1", 4), 24: ElementType("f8e8m0", 8),
    25: ElementType("uint2", 2), 26: ElementType("int2", 2),
}  # fmt: skip
"""ONNX element types (onnx.proto3, TensorProto.DataType) that are read."""

FLOATS = frozenset({1, 10, 11, 16})
"""Types that arithmetic is done in."""


def element_type(code: int) -> ElementType:
    """The element type of an ONNX code; f32 where a value has none.

    Parameters
    ----------
    code
        ``onnx.TensorProto.DataType``.
    """
    return DTYPES.get(code, DTYPES[1])


def tensor_bytes(elements: int, bits: int) -> int:
    """Bytes of a tensor whose elements are packed without gaps.

    Parameters
    ----------
    elements
        0 or more.
    bits
        Of an element.
    """
    return -(-elements * bits // 8)


@dataclass(frozen=True)
class FormatPiece:
    """One tensor of the file that is a part of a weight."""

    what: str
    """``weight``, ``scales`` or ``zero points``."""
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Stored:
    """A weight as a decoder has it, and what the file keeps for it."""

    name: str
    """The tensor with its elements."""
    shape: tuple[int, ...]
    """Of the tensor that lies in the file."""
    elements: int
    """Numbers that the model has, however they are packed."""
    pieces: tuple[FormatPiece, ...]

    @property
    def bytes(self) -> int:
        """Elements, scales and zero points together."""
        return sum(piece.bytes for piece in self.pieces)

    @property
    def rank(self) -> int:
        """Dimensions in the file, those of length 1 left out."""
        return sum(dim != 1 for dim in self.shape)
