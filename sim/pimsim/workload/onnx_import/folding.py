"""The small whole numbers of a graph (shapes, axes, positions, masks), computed within bounds.

Only operators of the table are computed, in numpy, each after a bound of its result's size: a file
cannot make this allocate more than a few MB or run for long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["MOST_ELEMENTS", "fold"]

MOST_ELEMENTS = 4096
"""Of a result; larger ones have a shape alone."""

Arrays = Sequence[Any]


def fold(op_type: str, attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> list[Any]:
    """The results of one node.

    Parameters
    ----------
    op_type
        Of the node.
    attributes
        By name.
    inputs
        Arrays, None for one that is left out.
    outputs
        How many the node has.

    Returns
    -------
    list
        Empty where they are not computed.
    """
    rule = _RULES.get(op_type)
    if rule is None or (not inputs and op_type not in ("Constant",)):
        return []
    try:
        with np.errstate(all="ignore"):
            made = rule(attributes, inputs, outputs)
    except (ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError):
        return []  # the file asks for what cannot be done: its shape rule will say so
    results = made if isinstance(made, list) else [made]
    return [] if any(_size(each.shape) > MOST_ELEMENTS for each in results) else results


def _size(shape: Sequence[int]) -> int:
    count = 1
    for dim in shape:
        count *= int(dim)
    return count


def _bounded(shape: Sequence[int]) -> tuple[int, ...]:
    dims = tuple(int(dim) for dim in shape)
    if any(dim < 0 for dim in dims) or _size(dims) > MOST_ELEMENTS:
        raise ValueError("too large to compute")
    return dims


def _ints(array: Any) -> list[int]:
    return [int(each) for each in np.asarray(array).reshape(-1)]


def _elementwise(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
        _bounded(np.broadcast_shapes(*(np.shape(each) for each in inputs)))
        return np.asarray(function(*inputs))

    return rule


def _divided(a: Any, b: Any) -> Any:
    if np.issubdtype(np.asarray(a).dtype, np.integer):
        return np.trunc(np.asarray(a) / np.asarray(b)).astype(np.asarray(a).dtype)
    return np.asarray(a) / b


def _constant(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    from onnx import numpy_helper

    if "value" in attributes:
        tensor = attributes["value"]
        if _size(tensor.dims) > MOST_ELEMENTS or tensor.data_location == 1:
            raise ValueError("too large, or not in the file")
        return numpy_helper.to_array(tensor)
    for name, kind in (("value_int", np.int64), ("value_ints", np.int64),
                       ("value_float", np.float32), ("value_floats", np.float32)):  # fmt: skip
        if name in attributes:
            return np.asarray(attributes[name], dtype=kind)
    raise KeyError("value")


def _range(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    start, limit, step = (np.asarray(each).reshape(-1)[0] for each in inputs)
    _bounded([max(int(-(-(limit - start) // step)), 0)])
    return np.arange(start, limit, step).astype(start.dtype)


def _expand(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    shape = _bounded(np.broadcast_shapes(np.shape(inputs[0]), tuple(_ints(inputs[1]))))
    return np.broadcast_to(inputs[0], shape).copy()


def _filled(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    from onnx import numpy_helper

    shape = _bounded(_ints(inputs[0]))
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return np.full(shape, fill.reshape(-1)[0], dtype=fill.dtype)


def _reshape(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    data, shape = np.asarray(inputs[0]), _ints(inputs[1])
    if not attributes.get("allowzero"):
        shape = [data.shape[at] if dim == 0 else dim for at, dim in enumerate(shape)]
    return data.reshape(shape)


def _axes(attributes: Mapping[str, Any], inputs: Arrays) -> list[int] | None:
    if len(inputs) > 1 and inputs[1] is not None:
        return _ints(inputs[1])
    return list(attributes["axes"]) if "axes" in attributes else None


def _squeeze(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    axes = _axes(attributes, inputs)
    return np.squeeze(inputs[0], None if axes is None else tuple(axes))


def _unsqueeze(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    return np.expand_dims(inputs[0], tuple(_axes(attributes, inputs) or ()))


def _slice(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    data = np.asarray(inputs[0])
    if len(inputs) > 2:
        starts, ends = _ints(inputs[1]), _ints(inputs[2])
        axes = _ints(inputs[3]) if len(inputs) > 3 and inputs[3] is not None else None
        steps = _ints(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else None
    else:
        starts, ends = list(attributes["starts"]), list(attributes["ends"])
        axes, steps = list(attributes["axes"]) if "axes" in attributes else None, None
    cut = [slice(None)] * data.ndim
    for at, axis in enumerate(axes or range(len(starts))):
        step = steps[at] if steps else 1
        end: int | None = ends[at]
        if step < 0 and ends[at] <= -(2**31):
            end = None
        cut[axis] = slice(starts[at], end, step)
    return data[tuple(cut)]


def _gather(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    data, index = np.asarray(inputs[0]), np.asarray(inputs[1])
    axis = attributes.get("axis", 0)
    _bounded([*data.shape[:axis], *index.shape, *data.shape[axis + 1 :]])
    return np.take(data, index, axis=axis)


def _concat(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    _bounded([sum(_size(np.shape(each)) for each in inputs)])
    return np.concatenate([np.asarray(each) for each in inputs], axis=attributes["axis"])


def _cast(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    from onnx import helper

    return np.asarray(inputs[0]).astype(helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _transpose(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    return np.transpose(inputs[0], attributes.get("perm"))


def _split(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    axis = attributes.get("axis", 0)
    sizes = _ints(inputs[1]) if len(inputs) > 1 else attributes.get("split")
    if sizes is None:
        return [np.asarray(each) for each in np.array_split(inputs[0], outputs, axis=axis)]
    return [np.asarray(p) for p in np.split(inputs[0], np.cumsum(sizes)[:-1], axis=axis)]


def _reduced(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
        axes = _axes(attributes, inputs)
        keep = bool(attributes.get("keepdims", 1))
        whole = None if axes is None else tuple(axes)
        return np.asarray(function(inputs[0], axis=whole, keepdims=keep))

    return rule


def _size_of(attributes: Mapping[str, Any], inputs: Arrays, outputs: int) -> Any:
    return np.asarray(np.size(inputs[0]), dtype=np.int64)


_RULES: dict[str, Callable[..., Any]] = {
    "Constant": _constant, "Range": _range, "Expand": _expand, "ConstantOfShape": _filled,
    "Reshape": _reshape, "Squeeze": _squeeze, "Unsqueeze": _unsqueeze, "Slice": _slice,
    "Gather": _gather, "Concat": _concat, "Cast": _cast, "Transpose": _transpose, "Split": _split,
    "Size": _size_of, "Identity": _elementwise(np.asarray), "Add": _elementwise(np.add),
    "Sub": _elementwise(np.subtract), "Mul": _elementwise(np.multiply),
    "Div": _elementwise(_divided), "Mod": _elementwise(np.mod), "Neg": _elementwise(np.negative),
    "Abs": _elementwise(np.abs), "Floor": _elementwise(np.floor), "Ceil": _elementwise(np.ceil),
    "Sqrt": _elementwise(np.sqrt), "Equal": _elementwise(np.equal), "Not": _elementwise(np.invert),
    "Less": _elementwise(np.less), "LessOrEqual": _elementwise(np.less_equal),
    "Greater": _elementwise(np.greater), "GreaterOrEqual": _elementwise(np.greater_equal),
    "And": _elementwise(np.logical_and), "Or": _elementwise(np.logical_or),
    "Where": _elementwise(np.where), "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum), "ReduceMax": _reduced(np.max), "ReduceMin": _reduced(np.min),
}  # fmt: skip
"""Operators that shapes and positions are computed with."""
