"""Energy of PIM: of designs whose commands go through the memory's controller, and of those with
one of their own.

The former by what is done in commands of the memory, in bytes and in multiplications; the latter by
their papers' picojoule of a command in a bank. Both are costs of counts (``counts.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from pimsim.config.energy import EnergyConfig
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.energy.counts import Costs, energy_j, energy_pj
from pimsim.hardware.energy.dram import command_energy
from pimsim.hardware.energy.limits import PowerLimit

__all__ = [
    "PimCounts", "PimEnergy", "cap_of", "fullest_stack_w", "pim_costs", "pim_energy",
    "read_pj_per_byte",
    "static_stack_w", "stream_costs", "stream_energy_pj", "stream_peak_w",
]  # fmt: skip

_BITS = 8


# designs whose commands go through the memory's controller ----------------------------------------


@dataclass(frozen=True)
class PimCounts:
    """What PIM's commands cost energy for, over all channels: bytes, multiplications, commands."""

    gact_banks: int = 0
    """Banks opened by group activations (G_ACT of a bank group of four counts four)."""
    read_bytes: int = 0
    """Bytes that dot products read from open rows, all banks together."""
    macs: int = 0
    """Multiplications of the lanes beside the banks."""
    broadcast_bytes: int = 0
    """Bytes that leave global buffers for dot products, once for all banks of a channel."""
    gwrite: int = 0
    """GWRITE commands: each reads one row into the global buffer."""
    readres: int = 0
    """Result bursts that leave a channel."""


@dataclass(frozen=True)
class PimEnergy:
    """Joule by part."""

    activate_j: float
    """Rows opened by group activations."""
    array_j: float
    """Columns read inside the banks for dot products."""
    mac_j: float
    buffer_j: float
    """Global buffer, filled by GWRITE and read by each dot product."""
    gwrite_j: float
    """The row that GWRITE reads from the array."""
    readres_j: float
    """Result bursts, inside the stack."""
    io_j: float
    """Result bursts, on their way out."""

    @property
    def total_j(self) -> float:
        """All parts."""
        return fsum(vars(self).values())


def pim_costs(memory: MemoryConfig, energy: EnergyConfig) -> Costs:
    """What one of each of ``PimCounts`` costs.

    In commands of the same memory, as the NeuPIMs artifact counts them (MECHANISMS, Parameters): a
    bank of G_ACT is an ACT, GWRITE reads every burst of a row (16 of HBM2's), READRES is one read.
    A byte that a dot product reads costs ``pim_array_factor`` times a read's byte, I/O apart. Then,
    of our own, the multipliers and the operand buffer: one broadcast from the buffer serves all
    banks of the channel at once.

    Parameters
    ----------
    memory
        Its commands' energy, columns and bytes of a row.
    energy
        Its ``pim_*`` keys, and what ``command_energy`` reads.

    Returns
    -------
    Costs
        pJ by field of ``PimCounts`` and part of ``PimEnergy``.
    """
    one = command_energy(memory, energy)
    org = memory.organization
    byte_pj = _BITS * energy.pim_buffer_pj_per_bit
    return {
        "gact_banks": {"activate_j": one.activate_pj},
        "read_bytes": {"array_j": energy.pim_array_factor * one.read_pj / org.burst_bytes},
        "macs": {"mac_j": energy.pim_mac_pj},
        "broadcast_bytes": {"buffer_j": byte_pj},
        "gwrite": {"gwrite_j": org.columns * one.read_pj, "buffer_j": org.row_bytes * byte_pj},
        "readres": {"readres_j": one.read_pj, "io_j": one.burst_io_pj},
    }


def pim_energy(counts: PimCounts, memory: MemoryConfig, energy: EnergyConfig) -> PimEnergy:
    """Energy of the PIM commands in ``counts``.

    Parameters
    ----------
    counts
        Over all channels.
    memory
        That the design is on.
    energy
        What commands, multiplications and bytes cost.

    Returns
    -------
    PimEnergy
        J.
    """
    return PimEnergy(**energy_j(vars(counts), pim_costs(memory, energy)))


# designs with a controller of their own -----------------------------------------------------------


def stream_costs(design: PimDesignConfig) -> Costs:
    """What each command of ``design`` costs in all banks that it reaches, under its energy class;
    dynamic energy only.

    Parameters
    ----------
    design
        With a controller of its own: its commands, and pJ of each energy class in one bank.

    Returns
    -------
    Costs
        By command; without a part where the command has no energy class.
    """
    return {
        name: {} if command.energy is None
        else {command.energy: design.energy_pj[command.energy] * design.banks_reached(name)}
        for name, command in design.all_commands.items()
    }  # fmt: skip


def stream_energy_pj(design: PimDesignConfig, commands: Mapping[str, int]) -> dict[str, float]:
    """Dynamic energy of ``commands``.

    Parameters
    ----------
    design
        With a controller of its own.
    commands
        By name, over all channels.

    Returns
    -------
    dict of str to float
        pJ by energy class.
    """
    return energy_pj(commands, stream_costs(design))


def read_pj_per_byte(design: PimDesignConfig, command: str) -> float:
    """Energy of a byte that a command reads in the banks, and of what it does with it.

    Parameters
    ----------
    design
        With a controller of its own.
    command
        That reads a column of each bank that it reaches.

    Returns
    -------
    float
        pJ a byte.
    """
    read = design.banks_reached(command) * design.organization.burst_bytes
    return fsum(stream_energy_pj(design, {command: 1}).values()) / read


def stream_peak_w(design: PimDesignConfig) -> float:
    """Watt of all channels at most: the dearest of its commands whenever a bus takes one.

    Parameters
    ----------
    design
        With a controller of its own; its ``tCK`` is in ps.

    Returns
    -------
    float
        W, dynamic energy only.
    """
    dearest = max((fsum(each.values()) for each in stream_costs(design).values()), default=0.0)
    each_cycle = design.own_controller.commands_per_cycle
    return design.organization.channels * each_cycle * dearest / design.tCK


def fullest_stack_w(
    design: PimDesignConfig, channels: Sequence[Mapping[str, int]], time_ps: int
) -> float:
    """Watt that the commands of the fullest stack draw.

    Parameters
    ----------
    design
        Its ``channels_per_stack`` neighbours are a stack.
    channels
        Commands of each channel by name, (channels,).
    time_ps
        In which they went, ps; 0: nothing is drawn.

    Returns
    -------
    float
        W, dynamic energy only.
    """
    each, costs = design.organization.channels_per_stack, stream_costs(design)
    channel_pj = [fsum(energy_pj(commands, costs).values()) for commands in channels]
    stacks = [fsum(channel_pj[at : at + each]) for at in range(0, len(channel_pj), each)]
    return max(stacks, default=0.0) / time_ps if time_ps else 0.0


def static_stack_w(design: PimDesignConfig) -> float:
    """Watt of one full stack at rest.

    Parameters
    ----------
    design
        Its ``static_w_per_channel``.

    Returns
    -------
    float
        W, of the channels of a stack, or of all where they are fewer.
    """
    org = design.organization
    return min(org.channels, org.channels_per_stack) * design.static_w_per_channel


def cap_of(design: PimDesignConfig, found_w: float, key: str) -> list[PowerLimit]:
    """The limit of the power of a stack, if the design has one.

    Parameters
    ----------
    design
        Its ``power_cap_w`` is of one stack.
    found_w
        W of the stack that draws the most.
    key
        Names the limit in messages.

    Returns
    -------
    list of PowerLimit
        One, or none.
    """
    if design.power_cap_w is None:
        return []
    return [PowerLimit(key, f"PIM {design.name} in a stack", found_w, design.power_cap_w)]
