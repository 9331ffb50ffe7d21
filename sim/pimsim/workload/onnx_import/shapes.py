"""Shapes of every value of a graph, for sizes that are bound to numbers.

Small integers (shapes, axes, positions) are computed; all else is inferred node by node with
ONNX's own rules. Operators of ``com.microsoft`` have rules here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pimsim.workload.onnx_import.reading import LoadedGraph

__all__ = ["FUSED", "Value", "infer_values"]

_SMALL = 4096
FUSED = {
    "GroupQueryAttention", "MultiHeadAttention", "RotaryEmbedding", "MatMulNBits",
    "SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization", "SkipLayerNormalization",
    "QuickGelu", "FastGelu", "Gelu", "BiasGelu", "FusedMatMul",
}  # fmt: skip
"""Operators of com.microsoft whose shapes are known here."""


@dataclass(frozen=True)
class Value:
    """What is known of a value."""

    shape: tuple[int, ...] | None
    dtype: int
    """ONNX element type."""
    constant: Any = None
    """Its numbers, where they are few and whole."""


def infer_values(loaded: LoadedGraph, bound: Mapping[str, tuple[int, ...]]) -> dict[str, Value]:
    """Values by name; ``bound``: shapes of the graph's inputs."""
    import onnx
    from onnx import numpy_helper

    values: dict[str, Value] = {}
    for each in loaded.graph.input:
        if each.name in bound:
            values[each.name] = Value(bound[each.name], each.type.tensor_type.elem_type)
    for tensor in loaded.graph.initializer:
        shape, dtype = loaded.weights[tensor.name]
        constant = None
        small = int(np.prod(shape, dtype=np.int64)) <= _SMALL if shape else True
        if small and tensor.data_location != onnx.TensorProto.EXTERNAL:
            constant = numpy_helper.to_array(tensor)
        values[tensor.name] = Value(shape, dtype, constant)
    for node in loaded.graph.node:
        for name, value in _outputs(loaded, node, values).items():
            values[name] = value
    return values


def _outputs(loaded: LoadedGraph, node: Any, values: dict[str, Value]) -> dict[str, Value]:
    inputs = [values.get(name) for name in node.input if name]
    if node.op_type == "Shape" and inputs and inputs[0] and inputs[0].shape is not None:
        return {node.output[0]: _shape_of(node, inputs[0].shape)}
    if node.op_type == "Constant" or (
        inputs and all(each is not None and each.constant is not None for each in inputs)
    ):
        computed = _computed(node, values)
        if computed is not None:
            return computed
    # onnxruntime writes some of its own without their domain
    if node.domain == "com.microsoft" or "Simplified" in node.op_type:
        return _fused(node, values)
    return _inferred(loaded, node, values)


def _shape_of(node: Any, shape: tuple[int, ...]) -> Value:
    attributes = {each.name: each.i for each in node.attribute}
    part = shape[attributes.get("start", 0) : attributes.get("end", len(shape))]
    return Value((len(part),), 7, np.array(part, dtype=np.int64))


def _computed(node: Any, values: dict[str, Value]) -> dict[str, Value] | None:
    """The outputs' numbers, if they are few."""
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    feed = {name: values[name].constant for name in node.input if name}
    try:
        results = ReferenceEvaluator(node).run(None, feed)
    except Exception:  # the reference lacks the operator: its shape is inferred instead
        return None
    found = {}
    for name, array in zip(node.output, results, strict=False):
        array = np.asarray(array)
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        found[name] = Value(array.shape, dtype, array if array.size <= _SMALL else None)
    return found


def _inferred(loaded: LoadedGraph, node: Any, values: dict[str, Value]) -> dict[str, Value]:
    import onnx
    from onnx import helper, numpy_helper
    from onnx.shape_inference import infer_node_outputs

    types, data = {}, {}
    for name in node.input:
        value = values.get(name)
        if not name or value is None or value.shape is None:
            continue
        types[name] = helper.make_tensor_type_proto(value.dtype, value.shape)
        if value.constant is not None:
            data[name] = numpy_helper.from_array(np.asarray(value.constant), name)
    domain = node.domain if node.domain != "ai.onnx" else ""
    version = loaded.opset.get(domain or "ai.onnx", 0)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, domain)
        made = infer_node_outputs(
            schema, node, types, data,
            opset_imports=[helper.make_opsetid(domain, version)],
            ir_version=10,
        )  # fmt: skip
    except Exception:  # an operator without a schema or without inputs that are known
        made = {}
    found = {}
    for name in node.output:
        tensor = made[name].tensor_type if name in made else None
        if tensor is None or not tensor.HasField("shape"):
            found[name] = Value(None, 1)
            continue
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        found[name] = Value(tuple(dims) if -1 not in dims else None, tensor.elem_type)
    return found


def _fused(node: Any, values: dict[str, Value]) -> dict[str, Value]:
    first = values.get(node.input[0])
    if first is None or first.shape is None:
        return {name: Value(None, 1) for name in node.output}
    number = {each.name: each.i for each in node.attribute}
    shape = first.shape
    found = {name: Value(None, first.dtype) for name in node.output}
    if node.op_type == "MatMulNBits":
        shape = (*shape[:-1], number["N"])
    elif node.op_type == "GroupQueryAttention" and not (len(node.input) > 1 and node.input[1]):
        heads, keys = number["num_heads"], number["kv_num_heads"]
        shape = (*shape[:-1], shape[-1] * heads // (heads + 2 * keys))
    elif node.op_type == "FusedMatMul":
        other = values.get(node.input[1])
        if other is None or other.shape is None:
            return found
        shape = (*shape[:-1], other.shape[-2 if number.get("transB") else -1])
    elif node.op_type not in FUSED:
        return found
    found[node.output[0]] = Value(shape, first.dtype)
    if node.op_type.startswith("Skip") and len(node.output) > 3:
        found[node.output[3]] = Value(shape, first.dtype)
    return found
