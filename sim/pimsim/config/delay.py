"""Delays as text: arithmetic over timing names, such as ``CL + nBL - max(CWL, 2)``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pimsim.config.errors import InputError, near_miss

__all__ = ["evaluate_delay", "timing_names"]

_MAX_LENGTH = 200
_NAME = re.compile(r"[A-Za-z_]\w*")
_MAX_CYCLES = 10**9


class _Delay(ast.NodeVisitor):
    """Names, whole numbers, + - * //, max and min."""

    def __init__(self, names: Mapping[str, int], where: str) -> None:
        self.names = names
        self.where = where

    def generic_visit(self, node: ast.AST) -> int:
        raise InputError(f"{self.where}: {type(node).__name__} is not allowed in a delay")

    def visit_Expression(self, node: ast.Expression) -> int:
        return int(self.visit(node.body))

    def visit_Constant(self, node: ast.Constant) -> int:
        if not isinstance(node.value, int) or isinstance(node.value, bool):
            raise InputError(f"{self.where}: {node.value!r} is no whole number")
        return node.value

    def visit_Name(self, node: ast.Name) -> int:
        if node.id not in self.names:
            raise InputError(
                f"{self.where}: no timing {node.id!r}{near_miss(node.id, self.names)}; "
                f"known are {', '.join(sorted(self.names))}"
            )
        return self.names[node.id]

    def visit_UnaryOp(self, node: ast.UnaryOp) -> int:
        value = int(self.visit(node.operand))
        return -value if isinstance(node.op, ast.USub) else value

    def visit_BinOp(self, node: ast.BinOp) -> int:
        left, right = int(self.visit(node.left)), int(self.visit(node.right))
        if isinstance(node.op, ast.Add):
            return left + right
        if isinstance(node.op, ast.Sub):
            return left - right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.FloorDiv) and right != 0:
            return left // right
        raise InputError(f"{self.where}: only + - * // are allowed in a delay")

    def visit_Call(self, node: ast.Call) -> int:
        values = [int(self.visit(argument)) for argument in node.args]
        if isinstance(node.func, ast.Name) and node.func.id in ("max", "min") and values:
            return max(values) if node.func.id == "max" else min(values)
        raise InputError(f"{self.where}: only max() and min() are allowed in a delay")


def evaluate_delay(text: str, names: Mapping[str, int], where: str) -> int:
    """Cycles that a formula stands for.

    Parameters
    ----------
    text
        Sums, products, ``max`` and ``min`` over names and whole numbers.
    names
        Value of each, in cycles.
    where
        Key that it stands at, for messages.

    Raises
    ------
    InputError
        For unknown names or syntax.
    """
    if len(text) > _MAX_LENGTH:
        raise InputError(f"{where}: a delay of {len(text)} characters; {_MAX_LENGTH} are allowed")
    try:
        tree, used = _parsed(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = getattr(error, "msg", None) or str(error) or "nested too deep"
        raise InputError(f"{where}: {text!r} is no delay: {reason}") from error
    try:
        if all(name in names for name in used):
            cycles = _evaluated(text, tuple((name, names[name]) for name in used), where)
        else:
            cycles = int(_Delay(names, where).visit(tree))
    except RecursionError:
        raise InputError(f"{where}: {text[:40]!r}... is nested too deep") from None
    if abs(cycles) > _MAX_CYCLES:
        raise InputError(
            f"{where}: {text!r} is {cycles:.3g} cycles; allowed: at most {_MAX_CYCLES}"
        )
    return cycles


def timing_names(texts: Iterable[str]) -> set[str]:
    """All names that stand in some delays, but for max and min; none of what is no delay.

    Parameters
    ----------
    texts
        Formulas.
    """
    return {name for text in texts for name in _NAME.findall(text)} - {"max", "min"}


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[ast.Expression, tuple[str, ...]]:
    """The expression, and the names that it asks for. The same few are evaluated for every request
    and rule."""
    tree = ast.parse(text, mode="eval")
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in called)
    return tree, tuple(dict.fromkeys(node.id for node in names))


@lru_cache(maxsize=4096)
def _evaluated(text: str, values: tuple[tuple[str, int], ...], where: str) -> int:
    """A delay whose names are all known; peak rates ask for the same ones many times a run."""
    return int(_Delay(dict(values), where).visit(_parsed(text)[0]))
