"""Public functions say what their parameters are, in numpydoc sections.

A function is public where its module's ``__all__`` has it. Commands of the command line are left
out: typer's help says what each option is. ``tests/data/undocumented_functions.txt`` lists what has
no section yet; it may only shrink.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "sim" / "pimsim"
LISTED = Path(__file__).parents[1] / "data" / "undocumented_functions.txt"
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


def parameters(function: ast.FunctionDef) -> list[str]:
    """Names, without those that typer documents."""
    given = function.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return [each.arg for each in every if "Annotated" not in ast.unparse(each.annotation or each)]


def functions(source: str) -> Iterator[ast.FunctionDef]:
    """Public ones that take parameters."""
    module = ast.parse(source)
    names = exported(module)
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name in names and parameters(node):
            yield node


def described(function: ast.FunctionDef) -> list[str] | None:
    """Parameters that the docstring's section names; None: there is no section."""
    text = ast.get_docstring(function) or ""
    if SECTION not in text:
        return None
    section = re.split(r"\n\n[A-Z]\w+\n-{3,}\n", text.split(SECTION, 1)[1])[0]
    heads = re.findall(r"^(\w[\w, ]*)(?: : .*)?$", section, re.MULTILINE)
    return [name.strip() for head in heads for name in head.split(",")]


def found() -> dict[str, ast.FunctionDef]:
    """All public functions of the package, by module and name."""
    return {
        f"{path.relative_to(PACKAGE).as_posix()} {function.name}": function
        for path in sorted(PACKAGE.rglob("*.py"))
        for function in functions(path.read_text())
    }


def listed() -> list[str]:
    return LISTED.read_text().split("\n")[:-1]


def test_public_functions_describe_their_parameters() -> None:
    lacking = {name for name, each in found().items() if described(each) is None}
    new = sorted(lacking - set(listed()))
    assert not new, f"no section Parameters: {new}"


def test_the_list_of_what_is_not_described_shrinks() -> None:
    lacking = {name for name, each in found().items() if described(each) is None}
    done = sorted(set(listed()) - lacking)
    assert not done, f"take from {LISTED.name}, as they are described or gone: {done}"
    assert listed() == sorted(set(listed()))


def test_sections_name_every_parameter_once_in_order() -> None:
    wrong = {
        name: (parameters(each), said)
        for name, each in found().items()
        if (said := described(each)) is not None and said != parameters(each)
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
        "def f(a: Annotated[int, typer.Option()]) -> None: ...\n"
        "def g() -> None: ...\n"
        "def _h(a: int) -> None: ...\n"
        "def h(a, b: Annotated[int, typer.Option()] = 3): ...\n"
    )
    assert [(each.name, parameters(each)) for each in functions(source)] == [("h", ["a"])]
