"""Operators of ONNX graphs that shapes and positions are computed with, on small arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from cases import values


@values("workload/folding", "onnx")
def _folding() -> Iterator[str]:
    """What each makes, and where it makes nothing: of what does not fit, and of what is too
    large."""
    from onnx import numpy_helper

    from pimsim.workload.onnx_import.folding import MOST_ELEMENTS, fold

    three = np.arange(24).reshape(2, 3, 4)
    row, small = np.array([3, -1, 2]), np.array([4, 5, 6])
    one, last = np.array([1]), np.array([-1])
    long = np.zeros((2, MOST_ELEMENTS // 2), np.int8)
    cases: tuple[tuple[str, dict[str, Any], list[Any], int], ...] = (
        ("Range", {}, [np.array(2), np.array(9), np.array(3)], 1),
        ("Range", {}, [np.array(0), np.array(MOST_ELEMENTS), np.array(1)], 1),
        ("Range", {}, [np.array(0), np.array(MOST_ELEMENTS + 1), np.array(1)], 1),
        ("Range", {}, [np.array(0), np.array(9), np.array(0)], 1),
        ("Expand", {}, [row, np.array([2, 3])], 1), ("Expand", {}, [row, np.array([3, 1])], 1),
        ("Expand", {}, [row, np.array([2, 4])], 1),
        ("Expand", {}, [one, np.array([MOST_ELEMENTS + 1])], 1),
        ("ConstantOfShape", {}, [np.array([2, 2])], 1), ("ConstantOfShape", {}, [last], 1),
        ("ConstantOfShape", {"value": numpy_helper.from_array(np.array([7]))}, [np.array([3])], 1),
        ("Reshape", {}, [three, np.array([4, -1])], 1),
        ("Reshape", {}, [three, np.array([0, 12])], 1),
        ("Reshape", {"allowzero": 1}, [np.zeros((0, 3)), np.array([3, 0])], 1),
        ("Reshape", {}, [three, np.array([5, 5])], 1),
        ("Squeeze", {}, [three[:1]], 1), ("Squeeze", {"axes": [0]}, [three[:1, :1]], 1),
        ("Squeeze", {}, [three[:1, :1], np.array([1])], 1), ("Squeeze", {}, [three, one], 1),
        ("Unsqueeze", {"axes": [0, 2]}, [row], 1), ("Unsqueeze", {}, [row, last], 1),
        ("Slice", {}, [three, one, np.array([3]), one], 1),
        ("Slice", {}, [three, np.array([0, -2]), np.array([1, 9]), np.array([0, 2])], 1),
        ("Slice", {}, [row, last, np.array([-(2**31)]), np.array([0]), last], 1),
        ("Slice", {}, [row, np.array([2]), np.array([0]), np.array([0]), last], 1),
        ("Slice", {"starts": [1], "ends": [2**31], "axes": [1]}, [three], 1),
        ("Slice", {}, [three, np.array([1]), np.array([2])], 1),
        ("Slice", {}, [row, np.array([0]), np.array([3]), None, np.array([2])], 1),
        ("Gather", {}, [three, one], 1),
        ("Gather", {"axis": 2}, [three, np.array([[0, 3]])], 1),
        ("Gather", {"axis": -1}, [three, np.array(2)], 1),
        ("Gather", {}, [three, np.array([9])], 1),
        ("Gather", {}, [long, np.array([1])], 1), ("Gather", {}, [long, np.array([1, 0])], 1),
        ("Gather", {"axis": 1}, [long, np.array([1, 0])], 1),
        ("Gather", {}, [long, np.array([1, 0, 1])], 1),
        ("Concat", {"axis": 0}, [row, small], 1), ("Concat", {"axis": 1}, [three, three[:, :1]], 1),
        ("Concat", {"axis": 0}, [long, long], 1), ("Concat", {}, [row, small], 1),
        ("Cast", {"to": 1}, [row], 1), ("Cast", {"to": 9}, [np.array([0, 2])], 1),
        ("Transpose", {}, [three], 1), ("Transpose", {"perm": [1, 0, 2]}, [three], 1),
        ("Split", {"axis": 1}, [three, np.array([1, 2])], 2), ("Split", {"axis": 2}, [three], 3),
        ("Split", {"split": [1, 1]}, [three], 2), ("Size", {}, [three], 1),
        ("Identity", {}, [row], 1), ("Add", {}, [row, small], 1), ("Sub", {}, [row, small], 1),
        ("Mul", {}, [three, row[0]], 1),
        ("Div", {}, [np.array([7, -7, 7]), np.array([2, 2, -2])], 1),
        ("Div", {}, [np.array([7.0]), np.array([2.0])], 1),
        ("Mod", {}, [np.array([7, -7]), np.array([3])], 1), ("Neg", {}, [row], 1),
        ("Abs", {}, [row], 1), ("Floor", {}, [np.array([1.5, -1.5])], 1),
        ("Ceil", {}, [np.array([1.5, -1.5])], 1), ("Sqrt", {}, [np.array([9.0])], 1),
        ("Equal", {}, [row, np.array([3, 0, 2])], 1), ("Not", {}, [row > 0], 1),
        ("Less", {}, [row, np.array(2)], 1), ("LessOrEqual", {}, [row, np.array(2)], 1),
        ("Greater", {}, [row, np.array(2)], 1), ("GreaterOrEqual", {}, [row, np.array(2)], 1),
        ("And", {}, [row > 0, row > 2], 1), ("Or", {}, [row > 2, row < 0], 1),
        ("Where", {}, [row > 0, row, small], 1), ("Where", {}, [row > 0, row, np.arange(4)], 1),
        ("ReduceProd", {}, [small], 1), ("ReduceSum", {"keepdims": 0}, [three, one], 1),
        ("ReduceMax", {"axes": [1, 2]}, [three], 1), ("ReduceMin", {"keepdims": 0}, [three], 1),
        ("Tan", {}, [row], 1), ("Add", {}, [], 1), ("Add", {}, [row, np.arange(5)], 1),
    )  # fmt: skip
    for kind, attributes, inputs, outputs in cases:
        found = fold(kind, attributes, inputs, outputs)
        shapes = [None if each is None else list(np.shape(each)) for each in inputs]
        told = [
            f"{each.dtype} {list(each.shape)} {each.tolist() if each.size < 40 else 'many'}"
            for each in map(np.asarray, found)
        ]
        named = {k: v for k, v in attributes.items() if k != "value"}
        yield f"{kind} {named} of {shapes}: {'; '.join(told) or 'nothing'}"
