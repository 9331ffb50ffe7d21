"""Static power of a device by part, from its size; and the power of its DRAM at rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import fsum

from pimsim.config.energy import EnergyConfig
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimConfig
from pimsim.config.pim_link import PimLinkConfig
from pimsim.config.run import LinkConfig
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses, peak_bytes_per_s
from pimsim.hardware.energy.dram import command_energy

__all__ = [
    "StaticPower",
    "device_static",
    "dram_peak_w",
    "peak_gb_per_s",
    "refresh_w",
    "standby_w",
    "static_words",
]

_MIB = 2**20


@dataclass(frozen=True)
class StaticPower:
    """Watt of one device by part, whatever it does; DRAM's standby and refresh apart."""

    arrays: float
    vector: float
    sram: float
    memory: float
    """Controllers and PHYs on the device's own die."""
    link: float
    pim: float
    """Multipliers beside the banks."""
    rest: float

    @property
    def total(self) -> float:
        """All parts."""
        return fsum(getattr(self, item.name) for item in fields(self))

    def by_part(self) -> dict[str, float]:
        """The parts, and ``total``."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {
            "total": self.total
        }


@dataclass(frozen=True)
class _Size:
    """What static power is scaled by."""

    macs: int
    lanes: int
    sram_mib: float
    memory_gb_per_s: float
    link_gb_per_s: float
    pim_lanes: int

    @classmethod
    def of(
        cls, npu: NpuConfig, memory: MemoryConfig, pim: PimConfig | None, link: LinkConfig,
        pim_memory: MemoryConfig | None, pim_link: PimLinkConfig | None,
    ) -> _Size:  # fmt: skip
        systolic, pad = npu.systolic, npu.scratchpad
        memory_gb_per_s, link_gb_per_s = peak_gb_per_s(memory), link.bandwidth_gb_per_s
        of_pim = memory if pim_memory is None else pim_memory
        if pim_memory is not None:
            memory_gb_per_s += peak_gb_per_s(pim_memory)
        if pim_link is not None:
            link_gb_per_s += pim_link.bandwidth_gb_per_s
        return cls(
            macs=npu.cores * systolic.arrays * systolic.rows * systolic.cols,
            lanes=npu.vector.units * npu.vector.lanes,
            sram_mib=npu.cores * (pad.capacity + (pad.accumulator or 0)) / _MIB,
            memory_gb_per_s=memory_gb_per_s,
            link_gb_per_s=link_gb_per_s,
            pim_lanes=0 if pim is None else pim.multipliers(of_pim),
        )


def peak_gb_per_s(memory: MemoryConfig) -> float:
    """Bytes of all data pins in a nanosecond, at the memory's one peak rate.

    Parameters
    ----------
    memory
        Its rules and timings are read.

    Returns
    -------
    float
        GB/s, 1e9 bytes a second.
    """
    return peak_bytes_per_s(memory) / 1e9


def device_static(
    npu: NpuConfig, memory: MemoryConfig, pim: PimConfig | None, link: LinkConfig,
    energy: EnergyConfig, pim_memory: MemoryConfig | None = None,
    pim_link: PimLinkConfig | None = None,
) -> StaticPower:  # fmt: skip
    """Static power of one device: each part is its size times what a unit of it draws
    (``configs/energy``, each with its source).

    Parameters
    ----------
    npu
        Cores, arrays, lanes, scratchpads.
    memory
        Its peak rate.
    pim
        What its DRAM dies carry, used by the schedule or not; None: plain dies.
    link
        Bandwidth of one link.
    energy
        Its ``static_*`` keys, W a unit.
    pim_memory
        Whose dies carry ``pim``, beside ``memory``; None: that one's do.
    pim_link
        To that memory.

    Returns
    -------
    StaticPower
        W by part.
    """
    size = _Size.of(npu, memory, pim, link, pim_memory, pim_link)
    return StaticPower(
        arrays=size.macs * energy.static_array_w_per_mac,
        vector=size.lanes * energy.static_vector_w_per_lane,
        sram=size.sram_mib * energy.static_sram_w_per_mib,
        memory=size.memory_gb_per_s * energy.static_memory_w_per_gb_per_s,
        link=size.link_gb_per_s * energy.static_link_w_per_gb_per_s,
        pim=size.pim_lanes * energy.static_pim_w_per_lane,
        rest=energy.static_rest_w,
    )


def static_words(
    npu: NpuConfig, memory: MemoryConfig, pim: PimConfig | None, link: LinkConfig,
    energy: EnergyConfig, pim_memory: MemoryConfig | None = None,
    pim_link: PimLinkConfig | None = None,
) -> Mapping[str, str]:  # fmt: skip
    """By part of ``StaticPower``: its size, what a unit of it draws, and where that is from.

    Parameters
    ----------
    npu, memory, pim, link, energy, pim_memory, pim_link
        As of ``device_static``.

    Returns
    -------
    Mapping of str to str
        By part, without ``total``.
    """
    size = _Size.of(npu, memory, pim, link, pim_memory, pim_link)
    source = energy.sources

    def words(amount: str, key: str, unit: str) -> str:
        return f"{amount} x {getattr(energy, key):g} W/{unit}; {source[key]}"

    return {
        "arrays": words(f"{size.macs:,} multipliers", "static_array_w_per_mac", "multiplier"),
        "vector": words(f"{size.lanes:,} lanes", "static_vector_w_per_lane", "lane"),
        "sram": words(f"{size.sram_mib:g} MiB", "static_sram_w_per_mib", "MiB"),
        "memory": words(
            f"{size.memory_gb_per_s:,.4g} GB/s", "static_memory_w_per_gb_per_s", "(GB/s)"
        ),
        "link": words(f"{size.link_gb_per_s:g} GB/s", "static_link_w_per_gb_per_s", "(GB/s)"),
        "pim": words(f"{size.pim_lanes:,} lanes", "static_pim_w_per_lane", "lane"),
        "rest": source["static_rest_w"],
    }


def standby_w(memory: MemoryConfig, energy: EnergyConfig) -> tuple[float, float]:
    """All ranks with all rows closed, and all ranks with a row open, in watt.

    Parameters
    ----------
    memory
        Its ranks, of all channels and pseudo channels.
    energy
        What ``command_energy`` reads.

    Returns
    -------
    (float, float)
        The lesser and the greater of both, W of one device.
    """
    org, one = memory.organization, command_energy(memory, energy)
    ranks = org.channels * org.pseudo_channels * org.ranks
    least, most = sorted((one.idle_rank_w, one.active_rank_w))
    return ranks * least, ranks * most


def dram_peak_w(memory: MemoryConfig, energy: EnergyConfig, row_buffers: int = 1) -> float:
    """More than the DRAM can draw, PIM's commands apart, in any time that is long beside a command.

    All rows open, every burst slot used by the dearer of RD and WR, every row buffer of every bank
    opened once a tRC, and every rank refreshed all the time.

    Parameters
    ----------
    memory
        Its rules, timings and refresh.
    energy
        What ``command_energy`` reads.
    row_buffers
        Of a bank: 2 where PIM has its own.

    Returns
    -------
    float
        W of one device.
    """
    org, one, t = memory.organization, command_energy(memory, energy), memory.timings
    ranks = org.channels * org.pseudo_channels * org.ranks
    burst_pj = max(one.read_pj, one.write_pj) + one.burst_io_pj
    bursts = float(data_buses(memory) / burst_slot_ps(memory)) * burst_pj
    # no command takes less than a clock, whatever its timing says
    row_ps = max(t["tRAS"] + t["tRP"], 1) * memory.tCK
    rows = ranks * org.banks * row_buffers * one.activate_pj / row_ps
    refresh = one.refresh_pj / (max(t["tRFC"], 1) * memory.tCK)
    if "tRFCpb" in t:
        bank_ps = max(t["tRFCpb"], 1) * memory.tCK
        refresh = max(refresh, org.banks * one.bank_refresh_pj / bank_ps)
    return standby_w(memory, energy)[1] + bursts + rows + ranks * refresh  # pJ/ps: W


def refresh_w(memory: MemoryConfig, energy: EnergyConfig) -> float:
    """Refresh of all ranks, each once in tREFI, or all of its banks in as long; 0 without.

    Parameters
    ----------
    memory
        Its ``controller.refresh`` and tREFI.
    energy
        What ``command_energy`` reads.

    Returns
    -------
    float
        W of one device, on average.
    """
    refresh = memory.controller.refresh
    if refresh == "none":
        return 0.0
    org, one = memory.organization, command_energy(memory, energy)
    ranks = org.channels * org.pseudo_channels * org.ranks
    each_pj = one.refresh_pj if refresh == "all-bank" else org.banks * one.bank_refresh_pj
    return ranks * each_pj / (memory.timings["tREFI"] * memory.tCK)  # pJ/ps: W
