"""Energy of DRAM commands, from IDD currents or from constants per bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pimsim.config.energy import EnergyConfig
from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.energy.counts import Costs, energy_j

__all__ = [
    "CommandEnergy",
    "DramCounts",
    "DramEnergy",
    "command_energy",
    "count_dram",
    "dram_energy",
]

_PS_PER_NS = 1000
_W_PER_MW = 1e-3


@dataclass(frozen=True)
class DramCounts:
    """What plain commands, refresh and standby cost energy for, summed over channels and ranks."""

    act: int
    rd: int
    wr: int
    ref: int
    """All-bank refreshes of one rank; ``count_dram`` turns a command that reaches several ranks
    into one of each."""
    active_rank_ps: int
    """Picoseconds times ranks, with any bank of the rank open."""
    idle_rank_ps: int
    """The same with all banks closed."""
    refpb: int = 0
    """Refreshes of one bank."""


def count_dram(
    memory: MemoryConfig,
    commands: Mapping[str, int],
    active_rank_ticks: int,
    ticks: int,
    time_ps: int,
) -> DramCounts:
    """Counts of a run, a replay or a kernel, whatever controller ran it.

    Parameters
    ----------
    memory
        As the controller ran it.
    commands
        Commands over all channels, by name.
    active_rank_ticks
        Ticks of the controller times ranks with any bank open.
    ticks, time_ps
        How long all of it took: in the controller's ticks (clocks, or half clocks where commands
        go at both edges) and in picoseconds.

    Returns
    -------
    DramCounts
        Standby in rank-picoseconds, which no clock and no way to count channels changes.
    """
    org = memory.organization
    ranks = org.channels * org.pseudo_channels * org.ranks
    # REF of the channel-queues controller refreshes a whole pseudo channel
    refreshed = org.ranks if memory.controller.model == "channel-queues" else 1
    active_ps = min(active_rank_ticks, ranks * ticks) * time_ps // max(ticks, 1)
    return DramCounts(
        act=commands.get("ACT", 0),
        rd=commands.get("RD", 0) + commands.get("RDA", 0),
        wr=commands.get("WR", 0) + commands.get("WRA", 0),
        ref=commands.get("REF", 0) * refreshed,
        refpb=commands.get("REFpb", 0),
        active_rank_ps=active_ps,
        idle_rank_ps=ranks * time_ps - active_ps,
    )


@dataclass(frozen=True)
class CommandEnergy:
    """Picojoule of one command in all devices of a rank; inside the stack, I/O apart."""

    activate_pj: float
    read_pj: float
    write_pj: float
    refresh_pj: float
    bank_refresh_pj: float
    active_rank_w: float
    """Standby of one rank with any bank open, in watt: 1 W for 1 ps is 1 pJ."""
    idle_rank_w: float
    """The same with all banks closed."""
    burst_io_pj: float
    """One burst through TSV, interposer and PHY."""


@dataclass(frozen=True)
class DramEnergy:
    """Joule by part."""

    activate_j: float
    read_j: float
    write_j: float
    refresh_j: float
    background_j: float
    io_j: float

    @property
    def core_j(self) -> float:
        """Inside the stack: what IDD currents cover."""
        return self.activate_j + self.read_j + self.write_j + self.refresh_j + self.background_j

    @property
    def total_j(self) -> float:
        """All parts."""
        return self.core_j + self.io_j


def command_energy(memory: MemoryConfig, energy: EnergyConfig) -> CommandEnergy:
    """Energy of each command under the configured model.

    ``currents``: V x mA x ns = pJ with the differences of currents that JESD79 and DRAMsim3 use
    (reference dram/NOTES.md section 1.3; unlike DRAMsim3, times tCK):

    - ACT: VDD (IDD0 tRC - IDD3N tRAS - IDD2N tRP), tRC = tRAS + tRP
    - RD, WR: VDD (IDD4R or IDD4W - IDD3N) nBL
    - REF: VDD (IDD5AB - IDD3N) tRFC
    - REFpb: VDD (IDD5PB - IDD3N) tRFCpb; without IDD5PB a bank's share of REF
    - standby: VDD IDD3N with a bank open, VDD IDD2N without

    ``pj_per_bit``: activation per bit of the opened row, columns per bit moved, REF and
    background as given. I/O energy per bit is added to both.

    Parameters
    ----------
    memory
        Its currents, timings and organisation.
    energy
        Its ``dram_*`` keys; ``dram_model`` says which of the above counts.

    Returns
    -------
    CommandEnergy
        pJ of a command in all devices of a rank; standby in W.

    Raises
    ------
    InputError
        Currents would make an energy negative.
    """
    org = memory.organization
    burst_bits = 8 * org.burst_bytes
    burst_io_pj = burst_bits * energy.dram_io_pj_per_bit
    if energy.dram_model == "pj_per_bit":
        column_pj = burst_bits * energy.dram_column_pj_per_bit
        # a channel's ranks, in all of its pseudo channels, share its power
        rank_w = energy.dram_background_w_per_channel / (org.pseudo_channels * org.ranks)
        return CommandEnergy(
            activate_pj=8 * org.row_bytes * energy.dram_activate_pj_per_bit,
            read_pj=column_pj,
            write_pj=column_pj,
            refresh_pj=energy.dram_refresh_pj,
            bank_refresh_pj=energy.dram_refresh_pj / org.banks,
            active_rank_w=rank_w,
            idle_rank_w=rank_w,
            burst_io_pj=burst_io_pj,
        )
    idd, timings = memory.currents, memory.timings
    ras, rp = timings["tRAS"], timings["tRP"]
    pj_per_ma_cycle = idd.VDD * org.devices_per_rank * memory.tCK / _PS_PER_NS
    activate = idd.IDD0 * (ras + rp) - (idd.IDD3N * ras + idd.IDD2N * rp)
    differences = [
        ("IDD0", activate),
        ("IDD4R", idd.IDD4R - idd.IDD3N),
        ("IDD4W", idd.IDD4W - idd.IDD3N),
        ("IDD5AB", idd.IDD5AB - idd.IDD3N),
    ]
    refresh = pj_per_ma_cycle * (idd.IDD5AB - idd.IDD3N) * timings["tRFC"]
    bank_refresh = refresh / org.banks
    if idd.IDD5PB is not None and "tRFCpb" in timings:
        differences.append(("IDD5PB", idd.IDD5PB - idd.IDD3N))
        bank_refresh = pj_per_ma_cycle * (idd.IDD5PB - idd.IDD3N) * timings["tRFCpb"]
    for key, difference in differences:
        if difference < 0:
            raise InputError(
                f"memory {memory.name}: currents.{key} {getattr(idd, key)} mA is below the standby "
                f"current it includes (IDD3N {idd.IDD3N}, IDD2N {idd.IDD2N}), energy would be "
                "negative"
            )
    return CommandEnergy(
        activate_pj=pj_per_ma_cycle * activate,
        read_pj=pj_per_ma_cycle * (idd.IDD4R - idd.IDD3N) * timings["nBL"],
        write_pj=pj_per_ma_cycle * (idd.IDD4W - idd.IDD3N) * timings["nBL"],
        refresh_pj=refresh,
        bank_refresh_pj=bank_refresh,
        active_rank_w=idd.VDD * org.devices_per_rank * idd.IDD3N * _W_PER_MW,
        idle_rank_w=idd.VDD * org.devices_per_rank * idd.IDD2N * _W_PER_MW,
        burst_io_pj=burst_io_pj,
    )


def dram_energy(counts: DramCounts, memory: MemoryConfig, energy: EnergyConfig) -> DramEnergy:
    """Energy of the normal commands, refresh and background.

    Parameters
    ----------
    counts
        Of ``count_dram``, of any length of time.
    memory
        Its currents, timings and organisation.
    energy
        Its ``dram_*`` keys.

    Returns
    -------
    DramEnergy
        J; PIM's commands are in ``pim_energy``.

    Raises
    ------
    InputError
        Currents would make an energy negative.
    """
    one = command_energy(memory, energy)
    costs: Costs = {
        "act": {"activate_j": one.activate_pj},
        "rd": {"read_j": one.read_pj, "io_j": one.burst_io_pj},
        "wr": {"write_j": one.write_pj, "io_j": one.burst_io_pj},
        "ref": {"refresh_j": one.refresh_pj},
        "refpb": {"refresh_j": one.bank_refresh_pj},
        "active_rank_ps": {"background_j": one.active_rank_w},
        "idle_rank_ps": {"background_j": one.idle_rank_w},
    }
    return DramEnergy(**energy_j(vars(counts), costs))
