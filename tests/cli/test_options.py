"""Options of all commands: every number has a range; what an extra brings is asked for by name."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pimsim.cli.commands import app
from pimsim.config.errors import InputError
from pimsim.config.extras import EXTRAS, require_extra

CHECKED = {
    "m", "n", "k", "arrays", "cores",  # kernel gemm: by the product and the config that they make
    "capacity_factor",  # routing: by the command, in its own words
}  # fmt: skip
"""Numbers that something else than the option checks, with a range and a name."""


def _options(command: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for option in command.params:
        yield path, option
    for name, child in getattr(command, "commands", {}).items():
        yield from _options(child, (*path, name))


def test_every_number_of_every_command_has_a_least_and_a_most() -> None:
    without, seen = [], 0
    for path, option in _options(typer.main.get_command(app), ()):
        kind = getattr(option, "type_descriptor", None)
        if kind is None or not any(word in str(kind.annotation) for word in ("int", "float")):
            continue
        seen += 1
        if (option.min is None or option.max is None) and option.name not in CHECKED:
            without.append((*path, option.name))
    assert seen > 20
    assert without == []


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_missing_extra_is_one_line_with_its_name(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in EXTRAS[extra]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=rf"needs .*{EXTRAS[extra][-1]}: .*pimsim\[{extra}\]'"):
        require_extra(extra)
    with pytest.raises(InputError, match=f"needs {EXTRAS[extra][0]}: "):
        require_extra(extra, EXTRAS[extra][0])


BASE_INSTALL = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
from pimsim.cli.main import main
sys.argv = ["pimsim", *{arguments!r}]
main()
"""


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("report", ["report", "somewhere"]),
        ("report", ["report", "somewhere", "--timeline", "t.pftrace"]),
        ("torch", ["export", "llama-3-8b"]),
        ("torch", ["numerics", "llama-3-8b"]),
        ("torch", ["sparsity", "measure", "llama-3-8b", "--out", "a.parquet"]),
    ],
)
def test_commands_of_an_extra_in_a_base_install(
    extra: str, arguments: list[str], tmp_path: Path
) -> None:
    """As a process, since modules that are loaded cannot be missing."""
    code = BASE_INSTALL.format(hidden=EXTRAS[extra], arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert f"pimsim[{extra}]" in done.stderr
    assert list(tmp_path.iterdir()) == []


def _leaves(command: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    children = getattr(command, "commands", {})
    for name in children:
        yield from _leaves(children[name], (*path, name))
    if not children and not command.hidden:
        yield path


LEAVES = list(_leaves(typer.main.get_command(app), ()))


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_help_has_an_example_that_is_a_command_line(path: tuple[str, ...]) -> None:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    (example,) = re.findall(r"^ *Example: (pimsim .*)", command.help, re.MULTILINE)
    line = re.split(r";|,? then | && | > ", example)[0]
    words = shlex.split(line)
    assert tuple(words[1 : 1 + len(path)]) == path
    command.make_context("pimsim", words[1 + len(path) :])  # refuses what it does not know


@pytest.mark.parametrize(
    ("typed", "at", "names"),
    [
        ("pimsim com", 1, {"compare"}),
        ("pimsim run neu", 2, {"neupims"}),
        ("pimsim run --fid", 2, {"--fidelity"}),
        ("pimsim run dgx-h1", 2, {"dgx-h100"}),
        ("pimsim run --model llama-3-8", 3, {"llama-3-8b"}),
        ("pimsim serve cha", 2, {"chat"}),
    ],
)
def test_a_shell_completes_commands_options_and_presets(
    typed: str, at: int, names: set[str], repo_dir: Path
) -> None:
    asked = {"_PIMSIM_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(at)}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv = ['pimsim']\n"
         "from pimsim.cli.main import main; main()"],
        env={**os.environ, **asked}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert names <= set(done.stdout.split()), (done.stdout, done.stderr)
    assert all(each.startswith(typed.split()[-1]) for each in done.stdout.split())
