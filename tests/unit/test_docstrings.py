"""Public functions say what their parameters are, in numpydoc sections.

A function is public where its module's ``__all__`` has it. Options and arguments of the command
line are left out: typer's help says what each is.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sim" / "pimsim"
SECTION = "Parameters\n----------\n"


def exported(module: ast.Module) -> set[str]:
    """Names in ``__all__``."""
    return {
        element.value
        for node in module.body
        if isinstance(node, ast.Assign)
        and any(isinstance(each, ast.Name) and each.id == "__all__" for each in node.targets)
        and isinstance(node.value, ast.List | ast.Tuple)
        for element in node.value.elts
        if isinstance(element, ast.Constant)
    }


def options(source: str) -> set[str]:
    """Names that stand for an option or argument of typer with its help."""
    return {
        each.id
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and of_typer(node.value)
        for each in node.targets
        if isinstance(each, ast.Name)
    }


def of_typer(annotation: ast.expr) -> bool:
    """Whether it is ``Annotated`` with what typer knows."""
    text = ast.unparse(annotation)
    return text.startswith("Annotated[") and "typer." in text


def parameters(function: ast.FunctionDef, named: Collection[str]) -> list[str]:
    """Names, without those that typer documents; ``named``: of ``options``."""
    given = function.args
    return [
        each.arg
        for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)
        if each.annotation is None
        or not (of_typer(each.annotation) or ast.unparse(each.annotation) in named)
    ]


def functions(source: str, named: Collection[str] = ()) -> Iterator[ast.FunctionDef]:
    """Public ones that take parameters."""
    module = ast.parse(source)
    names = exported(module)
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name in names and parameters(node, named):
            yield node


def described(function: ast.FunctionDef) -> list[str] | None:
    """Parameters that the docstring's section names; None: there is no section."""
    text = ast.get_docstring(function) or ""
    if SECTION not in text:
        return None
    section = re.split(r"\n\n[A-Z]\w+\n-{3,}\n", text.split(SECTION, 1)[1])[0]
    heads = re.findall(r"^(\w[\w, ]*)(?: : .*)?$", section, re.MULTILINE)
    return [name.strip() for head in heads for name in head.split(",")]


@cache
def found() -> dict[str, tuple[list[str], list[str] | None]]:
    """What public functions take and what they describe, by module and name."""
    sources = {path: path.read_text() for path in sorted(PACKAGE.rglob("*.py"))}
    named = {name for source in sources.values() for name in options(source)}
    return {
        f"{path.relative_to(PACKAGE).as_posix()} {each.name}": (
            parameters(each, named), described(each)
        )
        for path, source in sources.items()
        for each in functions(source, named)
    }  # fmt: skip


def test_public_functions_describe_their_parameters() -> None:
    lacking = [name for name, (_, said) in found().items() if said is None]
    assert not lacking, f"no section Parameters: {lacking}"


def test_sections_name_every_parameter_once_in_order() -> None:
    wrong = {
        name: (given, said)
        for name, (given, said) in found().items()
        if said is not None and said != given
    }
    assert not wrong


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (["", SECTION, "a", "    First.", "b : int", "    B."], ["a", "b"]),
        (["", SECTION, "a, b", "    Both.", "", "Returns", "-------", "int", "    C."], ["a", "b"]),
        (["", "Returns", "-------", "int", "    C."], None),
    ],
)  # fmt: skip
def test_what_a_section_is(lines: list[str], expected: list[str] | None) -> None:
    text = "\n    ".join(["Says.", *"\n".join(lines).replace("\n\na", "\na").split("\n")])
    source = f'__all__ = ["f"]\ndef f(a: int, b: int) -> int:\n    """{text}\n    """\n'
    (function,) = functions(source)
    assert described(function) == expected


def test_private_functions_and_options_are_left_out() -> None:
    source = (
        '__all__ = ["f", "g", "h"]\n'
        'Json = Annotated[bool, typer.Option("--json")]\n'
        "Share = Annotated[float, Field(ge=0)]\n"
        "def f(a: Annotated[int, typer.Option()], b: Json = False) -> None: ...\n"
        "def g() -> None: ...\n"
        "def _h(a: int) -> None: ...\n"
        "def h(a, b: Share, c: Annotated[int, typer.Option()] = 3, d: Json = False): ...\n"
    )
    named = options(source)
    assert named == {"Json"}
    assert [(each.name, parameters(each, named)) for each in functions(source, named)] == [
        ("h", ["a", "b"])
    ]
