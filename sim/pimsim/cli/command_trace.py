"""``pimsim kernel dram --check-commands``: whether a command trace keeps a memory's rules."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pimsim.config.errors import CheckFailed
from pimsim.hardware.dram.command_trace import read_command_trace
from pimsim.hardware.dram.legality import check_commands

if TYPE_CHECKING:
    from pimsim.config.memory import MemoryConfig

__all__ = ["check_command_trace"]


def check_command_trace(path: Path, memory: MemoryConfig, as_json: bool) -> None:
    """Say whether a command trace is legal.

    Parameters
    ----------
    path
        Of the trace.
    memory
        Whose rules it is held to.
    as_json
        Whether one JSON object is printed.

    Raises
    ------
    CheckFailed
        With the first command that breaks a rule; exit code 1.
    typer.Exit
        The same with ``as_json``, the command in the object.
    """
    lines = read_command_trace(path, memory)
    found = check_commands((item.entry for item in lines), memory)
    counts = Counter(item.command.name for item in lines)
    violation = None
    if found is not None:
        earlier = found.earlier
        violation = {
            "line": lines[found.index].line,
            "cycle": found.command.cycle,
            "command": found.command.command.name,
            "channel": found.command.channel,
            "bank": found.command.bank,
            "kind": found.kind,
            "rule": found.rule,
            "level": found.level,
            "delay": found.delay,
            "earlier_command": None if earlier is None else earlier.command.name,
            "earlier_cycle": None if earlier is None else earlier.cycle,
            "earliest_legal_cycle": found.required,
            "message": found.message,
        }
    if as_json:
        report = {
            "legal": found is None,
            "commands": dict(counts),
            "violation": violation,
            "memory": memory.name,
        }
        typer.echo(json.dumps(report, indent=2))
        if found is not None:
            raise typer.Exit(1)
        return
    if found is not None:
        earliest = "" if found.required is None else f"; earliest legal cycle {found.required}"
        raise CheckFailed(f"{path}:{lines[found.index].line}: {found}{earliest}")
    shown = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    typer.echo(f"{path}: {len(lines):,} commands keep the rules of {memory.name} ({shown})")
