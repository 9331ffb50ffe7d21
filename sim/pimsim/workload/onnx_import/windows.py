"""How many last tokens a query sees, from the mask that is spelt out in a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pimsim.workload.onnx_import.graph import GEMMS, GraphView

__all__ = ["mask_window"]

_MOST_NODES = 400
_STOPS = GEMMS | {"Shape", "Size"}
"""Sizes, and what comes from a token's vectors, are no positions."""
_ORDER = {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}


def mask_window(graph: GraphView, masks: Sequence[str]) -> int | None:
    """The window of the masks that are added to scores; None: queries see all that is before.

    A mask of a window compares the position of a key with that of the query less a number: key >
    query - window. The narrowest such comparison counts.

    Parameters
    ----------
    graph
        With shapes.
    masks
        Names of the values that are added to scores.
    """
    found: list[int] = []
    names, seen = list(masks), set[str]()
    while names and len(seen) < _MOST_NODES:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        node = graph.maker.get(name)
        if node is None or node.op_type in _STOPS:
            continue
        if node.op_type in _ORDER:
            window = _compared(graph, node.op_type, list(node.input))
            if window is not None and window > 1:
                found.append(window)
        names += [each for each in node.input if each]
    return min(found, default=None)


def _compared(graph: GraphView, op_type: str, inputs: list[str]) -> int | None:
    """The window that ``a < b`` stands for, where a number is taken from a position."""
    left, right = inputs
    if op_type.startswith("Less"):
        left, right = right, left  # now left > right, or left >= right
    closed = 1 if op_type.endswith("OrEqual") else 0
    # key > query - w
    taken = _less(graph, right)
    if taken is not None:
        return taken + closed
    # w > query - key
    number = _number(graph, left)
    if number is not None and _difference(graph, right):
        return number + closed
    # key + w > query
    added = _more(graph, left)
    return None if added is None else added + closed


def _number(graph: GraphView, name: str) -> int | None:
    held = graph.literal(name)
    if held is None or np.size(held) != 1:
        return None
    value = float(np.reshape(held, -1)[0])
    return int(value) if value == int(value) and 0 < abs(value) < 2**31 else None


def _step(graph: GraphView, name: str) -> tuple[str, list[str]]:
    """The sum or difference behind a view of it."""
    for _ in range(8):
        node = graph.maker.get(name)
        if node is None:
            return "", []
        if node.op_type in ("Add", "Sub"):
            return node.op_type, list(node.input)
        if node.op_type not in ("Unsqueeze", "Reshape", "Cast", "Expand", "Squeeze", "Identity"):
            return "", []
        name = node.input[0]
    return "", []


def _less(graph: GraphView, name: str) -> int | None:
    kind, inputs = _step(graph, name)
    if kind == "Sub" and _number(graph, inputs[0]) is None:
        number = _number(graph, inputs[1])
        return number if number is not None and number > 0 else None
    if kind == "Add":
        numbers = [n for each in inputs if (n := _number(graph, each)) is not None]
        return -numbers[0] if len(numbers) == 1 and numbers[0] < 0 else None
    return None


def _more(graph: GraphView, name: str) -> int | None:
    kind, inputs = _step(graph, name)
    if kind != "Add":
        return None
    numbers = [n for each in inputs if (n := _number(graph, each)) is not None]
    return numbers[0] if len(numbers) == 1 and numbers[0] > 1 else None


def _difference(graph: GraphView, name: str) -> bool:
    kind, inputs = _step(graph, name)
    return kind == "Sub" and all(_number(graph, each) is None for each in inputs)
