"""Energy of a command stream: what each command costs in each bank that it reaches."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from pimsim.config.pim_stream import LEVELS, CommandConfig, StreamPimConfig

__all__ = ["banks_reached", "stream_energy_pj"]


def banks_reached(design: StreamPimConfig, command: CommandConfig) -> int:
    """Banks of a channel to which one command goes."""
    counts = design.organization.counts
    return prod(n for level, n in zip(LEVELS[1:], counts, strict=True)
                if level in command.broadcast)  # fmt: skip


def stream_energy_pj(design: StreamPimConfig, commands: Mapping[str, int]) -> dict[str, float]:
    """pJ by energy class of ``commands`` (counts over all channels); dynamic energy only."""
    parts: dict[str, float] = {}
    for name, count in commands.items():
        command = design.commands[name]
        if command.energy is not None:
            each = design.energy_pj[command.energy] * banks_reached(design, command)
            parts[command.energy] = parts.get(command.energy, 0.0) + count * each
    return parts
