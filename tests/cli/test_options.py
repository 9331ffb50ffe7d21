"""Options of all commands: every number has a range; what an extra brings is asked for by name."""

from __future__ import annotations

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
