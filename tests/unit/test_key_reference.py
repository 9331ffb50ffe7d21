"""Every key of every YAML file says what it is: the reference of keys is made from that."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pimsim.config.meanings import field_meaning

HOOK = Path(__file__).resolve().parents[2] / "docs" / "generate.py"

pytestmark = pytest.mark.skipif(not HOOK.exists(), reason="the documentation is in a checkout only")


def _unsaid(model: type[BaseModel], made: dict[str, Any], seen: set[type]) -> Iterator[str]:
    """Keys at and below ``model`` that neither their field nor their section's model explains."""
    if model in seen:
        return
    seen.add(model)
    for name, field in model.model_fields.items():
        sections = list(made["_models"](field.annotation))
        texts = [field_meaning(model, name), *(section.__doc__ for section in sections)]
        if not any((text or "").strip() for text in texts):
            yield f"{model.__module__}.{model.__name__}.{name}"
        for section in sections:
            yield from _unsaid(section, made, seen)


def test_every_key_has_a_meaning() -> None:
    made = runpy.run_path(str(HOOK))
    seen: set[type] = set()
    found = [
        key for _, name, _ in made["SECTIONS"] for key in _unsaid(made["load"](name), made, seen)
    ]
    assert len(seen) > len(made["SECTIONS"])
    assert not found, f"{len(found)} keys have no description:\n" + "\n".join(found)


def test_every_option_of_the_command_line_has_a_text() -> None:
    import typer.main

    from pimsim.cli.commands import app

    made = runpy.run_path(str(HOOK))
    commands = list(made["_commands"](typer.main.get_command(app), "pimsim"))
    assert len(commands) > 10
    silent = [
        f"{name} {one.opts[-1]}"
        for name, command in commands
        for one in command.params
        if not (getattr(one, "help", "") or "").strip()
    ]
    assert not silent, silent
