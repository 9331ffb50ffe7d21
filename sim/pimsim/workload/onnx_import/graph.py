"""A graph to look around in: who makes and uses a value, and which weight a value is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.formats import (
    FLOATS,
    FormatPiece,
    Stored,
    element_type,
    tensor_bytes,
)
from pimsim.workload.onnx_import.fused_shapes import Given, packing
from pimsim.workload.onnx_import.reading import LoadedGraph, count_elements
from pimsim.workload.onnx_import.shapes import Value, attributes_of

__all__ = ["GEMMS", "MOVEMENT", "GraphView"]

MOVEMENT = frozenset({
    "Reshape", "Transpose", "Cast", "CastLike", "Shape", "Size", "Gather", "GatherND",
    "GatherElements", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Expand", "Identity",
    "Constant", "ConstantOfShape", "Range", "Where", "Tile", "Pad", "Flatten", "ScatterND",
    "ScatterElements", "Trilu", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And",
    "Or", "Not", "IsNaN", "Dropout", "DequantizeLinear", "QuantizeLinear", "Clip", "Min", "Max",
    "TopK", "ArgMax", "NonZero", "OneHot", "CumSum", "EyeLike", "Sign", "Floor", "ReduceSum",
    "ReduceMax", "Mod", "DynamicQuantizeLinear", "TensorScatter", "Xor", "IsInf",
})  # fmt: skip
"""Moves, choices, comparisons and bookkeeping of shapes: no arithmetic by our conventions."""

GEMMS = frozenset({"MatMul", "Gemm", "MatMulNBits", "FusedMatMul", "MatMulInteger"})
"""Products."""

_VIEWS = frozenset({
    "Transpose", "Cast", "CastLike", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten",
})  # fmt: skip
_FAR = 12


@dataclass
class GraphView:
    """Nodes of a graph and what is known of its values at one size."""

    loaded: LoadedGraph
    values: Mapping[str, Value]
    nodes: list[Any] = field(default_factory=list)
    maker: dict[str, Any] = field(default_factory=dict)
    users: dict[str, list[Any]] = field(default_factory=dict)
    place: dict[int, int] = field(default_factory=dict)
    """Where a node stands, by its identity."""
    _attributes: dict[int, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = list(self.loaded.graph.node)
        for at, node in enumerate(self.nodes):
            self.place[id(node)] = at
            for name in node.output:
                self.maker[name] = node
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def attributes(self, node: Any) -> dict[str, Any]:
        """A node's attributes by name."""
        if id(node) not in self._attributes:
            self._attributes[id(node)] = attributes_of(node)
        return self._attributes[id(node)]

    def shape(self, name: str) -> tuple[int, ...]:
        """A value's shape; empty where it is not known."""
        value = self.values.get(name)
        return () if value is None or value.shape is None else value.shape

    def width(self, name: str) -> int:
        """Features of a value's vectors, 0 where its shape is not known."""
        shape = self.shape(name)
        return shape[-1] if shape else 0

    def dtype(self, name: str) -> int:
        """A value's element type."""
        value = self.values.get(name)
        return 1 if value is None else value.dtype

    def floating(self, name: str) -> bool:
        """Whether a value is of real numbers that are computed from the graph's inputs."""
        value = self.values.get(name)
        return value is not None and value.dtype in FLOATS and value.constant is None

    def scalar(self, name: str) -> bool:
        """Whether a value is one number, whatever the graph is given."""
        value = self.values.get(name)
        if value is None or value.shape is None or count_elements(value.shape) != 1:
            return False
        return value.constant is not None or name in self.loaded.weights

    def constant(self, name: str) -> Any:
        """A value's numbers, None where they are not known."""
        value = self.values.get(name)
        return None if value is None else value.constant

    def literal(self, name: str) -> Any:
        """A number that the file holds, whatever the graph is given; None where it is computed."""
        for _ in range(_FAR):
            node = self.maker.get(name)
            if name in self.loaded.weights or (node is not None and node.op_type == "Constant"):
                return self.constant(name)
            if node is None or node.op_type not in _VIEWS:
                return None
            name = node.input[0]
        return None

    def where(self, node: Any) -> str:
        """File and node, for errors."""
        return f"{self.loaded.path}: node {node.name or node.op_type!r}"

    def given(self, node: Any) -> Given:
        """What is known of a node."""
        return Given(
            self.attributes(node), [self.shape(name) or None for name in node.input],
            [self.dtype(name) for name in node.input], self.where(node),
        )  # fmt: skip

    # weights ----------------------------------------------------------------------------------
    def stored(self, name: str) -> Stored | None:
        """The weight that a value is a view of; None: it is computed."""
        for _ in range(_FAR):
            if name in self.loaded.weights:
                return self._plain(name)
            node = self.maker.get(name)
            if node is None or not node.input:
                return None
            if node.op_type == "DequantizeLinear":
                return self._dequantised(node)
            if node.op_type in ("Add", "Mul", "Sub", "Div") and len(node.input) == 2:
                # a gain that is kept as its distance from 1
                others = [each for each in node.input if not self.scalar(each)]
                if len(others) != 1:
                    return None
                name = others[0]
            elif node.op_type in _VIEWS:
                name = node.input[0]
            else:
                return None
        return None

    def _plain(self, name: str) -> Stored:
        shape, code = self.loaded.weights[name]
        kind, elements = element_type(code), count_elements(shape)
        piece = FormatPiece("weight", kind.name, tensor_bytes(elements, kind.bits))
        return Stored(name, shape, elements, (piece,))

    def _piece(self, what: str, name: str) -> FormatPiece:
        kind = element_type(self.dtype(name))
        return FormatPiece(
            what, kind.name, tensor_bytes(count_elements(self.shape(name)), kind.bits)
        )

    def _dequantised(self, node: Any) -> Stored | None:
        """``DequantizeLinear`` of a stored tensor, by tensor, by axis or by block."""
        whole = self.stored(node.input[0])
        if whole is None:
            return None
        pieces = list(whole.pieces)
        for at, what in ((1, "scales"), (2, "zero points")):
            if len(node.input) > at and self.stored(node.input[at]) is not None:
                pieces.append(self._piece(what, node.input[at]))
        return Stored(whole.name, whole.shape, whole.elements, tuple(pieces))

    def packed(self, node: Any) -> Stored:
        """The weight of a ``MatMulNBits``: N x K elements in blocks along K.

        Raises ``InputError`` where its tensors are not as large as its attributes say.
        """
        given = self.given(node)
        width, depth = given.attribute("N"), given.attribute("K")
        bits, block = given.attribute("bits", 4), given.attribute("block_size")
        if bits not in (2, 4, 8):
            raise InputError(f"{given.where}: its attribute bits is {bits}; 2, 4, 8 are allowed")
        blocks = -(-depth // block)
        data, scales = self._initializer(node, 1), self._initializer(node, 2)
        size = width * blocks * tensor_bytes(block, bits)
        pieces = [FormatPiece("weight", f"int{bits}", size), self._piece("scales", scales)]
        held = self._piece("weight", data).bytes
        if held != size or count_elements(self.shape(scales)) != width * blocks:
            raise InputError(
                f"{given.where}: N {width}, K {depth} in blocks of {block} at {bits} bits need "
                f"{size:,} bytes and {width * blocks:,} scales; its tensors have {held:,} and "
                f"{count_elements(self.shape(scales)):,}"
            )
        if len(node.input) > 3 and node.input[3]:
            pieces.append(self._piece("zero points", node.input[3]))
        return Stored(data, self.shape(data), width * depth, tuple(pieces))

    def _initializer(self, node: Any, at: int) -> str:
        name = node.input[at] if at < len(node.input) else ""
        found = self.stored(name) if name else None
        if found is None:
            raise InputError(f"{self.where(node)}: input {at} must be a weight of the file")
        return found.name

    def integer(self, node: Any) -> Stored | None:
        """The weight of a ``MatMulInteger``, with the scale that its result is multiplied by."""
        whole = self.stored(node.input[1])
        if whole is None:
            return None
        pieces = list(whole.pieces)
        if len(node.input) > 3 and node.input[3] and self.stored(node.input[3]) is not None:
            pieces.append(self._piece("zero points", node.input[3]))
        scale = self._scale_after(node)
        if scale is not None:
            pieces.append(FormatPiece("scales", scale.pieces[0].dtype, scale.bytes))
        return Stored(whole.name, whole.shape, whole.elements, tuple(pieces))

    def _scale_after(self, node: Any) -> Stored | None:
        """The weight's scale, by which a product of whole numbers is multiplied with the data's."""
        name = node.output[0]
        for _ in range(4):
            users = self.users.get(name, [])
            if len(users) != 1:
                return None
            if users[0].op_type == "Mul":
                other = next((each for each in users[0].input if each != name), "")
                maker = self.maker.get(other)
                names = [other] if maker is None else list(maker.input)
                return next((found for each in names if (found := self.stored(each))), None)
            name = users[0].output[0]
        return None

    def table(self, node: Any) -> tuple[Stored, int] | None:
        """The table that a ``Gather`` takes rows of, and its number of rows."""
        whole = self.stored(node.input[0])
        if whole is None:
            return None
        shape = self.shape(node.input[0])
        if node.op_type == "Gather":
            return (whole, shape[0]) if len(shape) == 2 else None
        given = self.given(node)
        elements = count_elements(shape) * packing(given)
        pieces = [FormatPiece("weight", f"int{given.attribute('bits', 4)}", whole.pieces[0].bytes)]
        for at, what in ((2, "scales"), (3, "zero points")):
            if len(node.input) > at and node.input[at]:
                pieces.append(self._piece(what, node.input[at]))
        return Stored(whole.name, whole.shape, elements, tuple(pieces)), shape[0]
