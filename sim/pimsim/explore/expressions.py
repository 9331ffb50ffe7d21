"""Constraints as text: arithmetic and comparisons over config keys, such as
``npu.systolic.arrays * npu.systolic.rows <= 2048 and workload.batch > 1``. No code is run."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pimsim.config.errors import InputError, near_miss

__all__ = ["check_expression", "holds"]

_LONGEST = 500
_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


def holds(text: str, values: Mapping[str, Any], where: str) -> bool:
    """Whether an expression is true.

    Parameters
    ----------
    text
        Of the expression.
    values
        Of its names.
    where
        File and key, for messages.

    Raises
    ------
    InputError
        For what is no expression of the allowed kind, a name that is none of ``values``, or values
        that cannot be compared.
    """
    try:
        return bool(_value(_parsed(text, where), values, where))
    except (TypeError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"{where}: {_shown(text)}: {error}") from error
    except RecursionError:
        raise InputError(f"{where}: {_shown(text)} is nested too deeply") from None


def check_expression(
    text: str, names: Mapping[str, Any], where: str, prefixes: tuple[str, ...] = ()
) -> None:
    """Raise where a text is no expression over some names. Their values do not matter.

    Parameters
    ----------
    text
        Of the expression.
    names
        That it may use, each with a value of its type.
    where
        File and key, for messages.
    prefixes
        It may also use names that begin with one of these.

    Raises
    ------
    InputError
        With what is wrong.
    """
    try:
        _value(_parsed(text, where), _Open(names, prefixes), where, dry=True)
    except RecursionError:
        raise InputError(f"{where}: {_shown(text)} is nested too deeply") from None


class _Open(Mapping[str, Any]):
    """Names, and all that begin with some prefixes."""

    def __init__(self, names: Mapping[str, Any], prefixes: tuple[str, ...]) -> None:
        self._names, self._prefixes = names, prefixes

    def __getitem__(self, name: str) -> Any:
        if name not in self._names and self._prefixes and name.startswith(self._prefixes):
            return 1
        return self._names[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _parsed(text: str, where: str) -> ast.AST:
    if len(text) > _LONGEST:
        raise InputError(f"{where}: longer than {_LONGEST} characters")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise InputError(f"{where}: {_shown(text)} is no expression") from None


def _shown(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:60]!r}..."


def _value(node: ast.AST, values: Mapping[str, Any], where: str, dry: bool = False) -> Any:
    def inner(child: ast.AST) -> Any:
        return _value(child, values, where, dry)

    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float, str, bool)):
        return node.value
    if isinstance(node, (ast.Name, ast.Attribute)):
        name = _dotted(node, where)
        if name in ("true", "false"):
            return name == "true"
        if name not in values:
            raise InputError(
                f"{where}: {name!r} is unknown{near_miss(name, values)}; known: {', '.join(values)}"
            )
        return values[name]
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        left, right = inner(node.left), inner(node.right)
        if not dry and (isinstance(left, str) or isinstance(right, str)):
            raise InputError(f"{where}: arithmetic is of numbers, found text")
        return 0 if dry else _BINARY[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.Not)):
        value = inner(node.operand)
        return 0 if dry else (not value if isinstance(node.op, ast.Not) else -value)
    if isinstance(node, ast.BoolOp):
        parts = [inner(part) for part in node.values]
        return all(parts) if isinstance(node.op, ast.And) else any(parts)
    if isinstance(node, ast.Compare) and all(type(op) in _COMPARE for op in node.ops):
        sides = [inner(node.left), *map(inner, node.comparators)]
        if dry:
            return True
        return all(
            _COMPARE[type(op)](a, b) for op, a, b in zip(node.ops, sides, sides[1:], strict=False)
        )
    raise InputError(f"{where}: {type(node).__name__} is not allowed in a constraint")


def _dotted(node: ast.AST, where: str) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, where)}.{node.attr}"
    raise InputError(f"{where}: {type(node).__name__} is not allowed in a constraint")
