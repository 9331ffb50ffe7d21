"""Energy of a command stream: what each command costs in each bank that it reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum

from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.energy.limits import PowerLimit

__all__ = [
    "cap_of", "fullest_stack_w", "static_stack_w", "stream_energy_pj",
]  # fmt: skip


def stream_energy_pj(design: PimDesignConfig, commands: Mapping[str, int]) -> dict[str, float]:
    """pJ by energy class of ``commands`` (counts over all channels); dynamic energy only."""
    parts: dict[str, float] = {}
    known = design.all_commands
    for name, count in commands.items():
        command = known[name]
        if command.energy is not None:
            each = design.energy_pj[command.energy] * design.banks_reached(name)
            parts[command.energy] = parts.get(command.energy, 0.0) + count * each
    return parts


def fullest_stack_w(
    design: PimDesignConfig, channels: Sequence[Mapping[str, int]], time_ps: int
) -> float:
    """Watt that the commands of the fullest stack draw over ``time_ps``; ``channels``: commands of
    each channel by name."""
    each = design.organization.channels_per_stack
    joule_pj = [fsum(stream_energy_pj(design, commands).values()) for commands in channels]
    stacks = [fsum(joule_pj[at : at + each]) for at in range(0, len(joule_pj), each)]
    return max(stacks, default=0.0) / time_ps if time_ps else 0.0


def static_stack_w(design: PimDesignConfig) -> float:
    """Watt of one full stack at rest."""
    org = design.organization
    return min(org.channels, org.channels_per_stack) * design.static_w_per_channel


def cap_of(design: PimDesignConfig, found_w: float, key: str) -> list[PowerLimit]:
    """The limit of the power of a stack, if the design has one; ``key`` names it."""
    if design.power_cap_w is None:
        return []
    return [PowerLimit(key, f"PIM {design.name} in a stack", found_w, design.power_cap_w)]
