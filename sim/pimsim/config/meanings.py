"""What fields of types mean: the texts that stand below them in their source.

Read when somebody asks (schemas, the reference of keys), as a run needs none of them.
"""

from __future__ import annotations

import ast
import sys
from functools import cache
from inspect import get_annotations, getsource
from itertools import pairwise
from types import ModuleType

from pydantic import BaseModel

__all__ = ["field_meaning", "meanings"]


@cache
def meanings(module: ModuleType) -> dict[str, dict[str, str]]:
    """What is written below each class of a module, and below each of its fields.

    Parameters
    ----------
    module
        Its source must be at hand.

    Returns
    -------
    dict
        By class, by field, each on one line; ``""``: of the class itself.
    """
    found: dict[str, dict[str, str]] = {}
    for item in ast.parse(getsource(module)).body:
        if isinstance(item, ast.ClassDef):
            own = found[item.name] = {"": _one_line(ast.get_docstring(item) or "")}
            for field, text in pairwise(item.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(text, ast.Expr)
                    and isinstance(text.value, ast.Constant)
                ):
                    own[field.target.id] = _one_line(str(text.value.value))
    return found


def field_meaning(model: type[BaseModel], name: str) -> str:
    """What the field ``name`` says of itself: its own description, or what stands below it in its
    model or in the one that it has it from; empty where nothing does.

    Parameters
    ----------
    model
        With the field, or derived from the one that has it.
    name
        Of the field.
    """
    if said := model.model_fields[name].description:
        return said
    for each in model.__mro__:
        if name in get_annotations(each):
            found = meanings(sys.modules[each.__module__]).get(each.__name__, {}).get(name)
            if found:
                return found
    return ""


def _one_line(text: str) -> str:
    return " ".join(text.split())
