"""Shapes of every value of a graph, for sizes that are bound to numbers.

Small whole numbers (shapes, axes, positions) are computed; all else is inferred node by node with
ONNX's own rules, and those of ``fused_shapes`` for ``com.microsoft``. Blocks of a decoder repeat,
so what a node gives is remembered by its operator, attributes and what is known of its inputs.
The numbers that are looked at and computed are counted, so that no file makes this run for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.folding import MOST_ELEMENTS, fold
from pimsim.workload.onnx_import.fused_shapes import Given, fused_shape, is_fused
from pimsim.workload.onnx_import.reading import LoadedGraph, count_elements

__all__ = ["MOST_NUMBERS", "ShapeRules", "Value", "attributes_of"]

MOST_NUMBERS = 2**28
"""Numbers that all nodes of a graph together may be given and give, over all sizes that it is
looked at with. Graphs of exporters stay below 2^23."""


@dataclass(frozen=True)
class Value:
    """What is known of a value."""

    shape: tuple[int, ...] | None
    dtype: int
    """ONNX element type."""
    constant: Any = None
    """Its numbers, where they are few."""

    @property
    def signature(self) -> tuple[Any, ...]:
        """Equal where the same is known."""
        held = None if self.constant is None else np.ascontiguousarray(self.constant).tobytes()
        return (self.shape, self.dtype, held)


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes by name.

    Parameters
    ----------
    node
        ``onnx.NodeProto``.
    """
    from onnx import helper

    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


@dataclass
class ShapeRules:
    """What the nodes of one graph give; remembers what it found."""

    loaded: LoadedGraph
    most_numbers: int = MOST_NUMBERS
    numbers: int = 0
    """Looked at and computed until now."""
    _keys: list[tuple[Any, ...]] = field(default_factory=list)
    _known: dict[tuple[Any, ...], list[Value]] = field(default_factory=dict)
    _weights: dict[str, Value] = field(default_factory=dict)

    def values(self, bound: Mapping[str, tuple[int, ...]]) -> dict[str, Value]:
        """Values by name; ``bound``: shapes of the graph's inputs."""
        if not self._keys:
            self._keys = [_key(node) for node in self.loaded.graph.node]
            self._weights = _initializers(self.loaded)
        values: dict[str, Value] = {}
        for each in self.loaded.graph.input:
            if each.name in bound:
                values[each.name] = Value(bound[each.name], each.type.tensor_type.elem_type)
        values |= self._weights
        for node, static in zip(self.loaded.graph.node, self._keys, strict=True):
            inputs = [values.get(name) if name else None for name in node.input]
            self._count(each for each in inputs if each is not None)
            key = (static, tuple(None if each is None else each.signature for each in inputs))
            found = self._known.get(key)
            if found is None:
                found = self._known[key] = self._outputs(node, inputs)
                self._count(found)
            for name, value in zip(node.output, found, strict=False):
                if name:
                    values[name] = value
        return values

    def _count(self, values: Iterable[Value]) -> None:
        self.numbers += sum(
            count_elements(each.constant.shape) for each in values if each.constant is not None
        )
        if self.numbers > self.most_numbers:
            raise InputError(
                f"{self.loaded.path}: finding its shapes takes more than {self.most_numbers:,} "
                "numbers (of shapes, positions, masks)"
            )

    def given(self, node: Any, inputs: Sequence[Value | None]) -> Given:
        """What is known of a node whose inputs are these."""
        return Given(
            attributes_of(node), [None if each is None else each.shape for each in inputs],
            [1 if each is None else each.dtype for each in inputs],
            f"{self.loaded.path}: node {node.name or node.op_type!r}",
        )  # fmt: skip

    def _outputs(self, node: Any, inputs: Sequence[Value | None]) -> list[Value]:
        attributes = attributes_of(node)
        given = [each for each, name in zip(inputs, node.input, strict=True) if name]
        first = given[0] if given else None
        if node.op_type == "Shape" and first is not None and first.shape is not None:
            part = first.shape[attributes.get("start", 0) : attributes.get("end")]
            return [Value((len(part),), 7, np.array(part, dtype=np.int64))]
        if all(each is not None and each.constant is not None for each in given):
            arrays = [None if each is None else each.constant for each in inputs]
            made = fold(node.op_type, attributes, arrays, len(node.output))
            if made:
                return [_value(array) for array in made]
        if is_fused(node):
            found = fused_shape(node.op_type, self.given(node, inputs), len(node.output))
            dtype = _fused_dtype(node, inputs)
            return [Value(shape, dtype) for shape in found]
        return self._inferred(node, inputs)

    def _inferred(self, node: Any, inputs: Sequence[Value | None]) -> list[Value]:
        import onnx
        from onnx import helper, numpy_helper
        from onnx.shape_inference import infer_node_outputs

        types, data = {}, {}
        for name, value in zip(node.input, inputs, strict=True):
            if not name or value is None or value.shape is None:
                continue
            types[name] = helper.make_tensor_type_proto(value.dtype, value.shape)
            if value.constant is not None:
                data[name] = numpy_helper.from_array(np.asarray(value.constant), name)
        domain = node.domain if node.domain != "ai.onnx" else ""
        version = self.loaded.opset.get(domain or "ai.onnx", 0)
        try:
            schema = onnx.defs.get_schema(node.op_type, version, domain)
            made = infer_node_outputs(
                schema, node, types, data, opset_imports=[helper.make_opsetid(domain, version)],
                ir_version=10,
            )  # fmt: skip
        except Exception:  # an operator without a schema or without inputs that are known
            made = {}
        found = []
        for name in node.output:
            tensor = made[name].tensor_type if name in made else None
            if tensor is None or not tensor.HasField("shape"):
                found.append(Value(None, 1))
                continue
            dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
            found.append(Value(tuple(dims) if -1 not in dims else None, tensor.elem_type))
        return found


def _key(node: Any) -> tuple[Any, ...]:
    return (
        node.op_type, node.domain, len(node.output), tuple(bool(name) for name in node.input),
        b"".join(each.SerializeToString() for each in node.attribute),
    )  # fmt: skip


def _initializers(loaded: LoadedGraph) -> dict[str, Value]:
    import onnx
    from onnx import numpy_helper

    found = {}
    for tensor in loaded.graph.initializer:
        shape, dtype = loaded.weights[tensor.name]
        constant = None
        inside = tensor.data_location != onnx.TensorProto.EXTERNAL
        if inside and count_elements(shape) <= MOST_ELEMENTS:
            try:
                constant = numpy_helper.to_array(tensor)
            except Exception:  # its bytes are not those of its shape: known by its shape alone
                constant = None
        found[tensor.name] = Value(shape, dtype, constant)
    return found


def _value(array: Any) -> Value:
    from onnx import helper

    array = np.asarray(array)
    return Value(array.shape, helper.np_dtype_to_tensor_dtype(array.dtype), array)


def _fused_dtype(node: Any, inputs: Sequence[Value | None]) -> int:
    """The type of what a fused operator makes: its first input's, or its scales'."""
    at = 2 if node.op_type == "GatherBlockQuantized" and len(inputs) > 2 else 0
    value = inputs[at] if at < len(inputs) else None
    return 1 if value is None else value.dtype
