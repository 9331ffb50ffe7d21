"""Silicon area of a device, so that a trade-off has a cost."""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.area import AreaConfig
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimConfig

__all__ = ["DeviceArea", "device_area"]


@dataclass(frozen=True)
class DeviceArea:
    """Square millimetres of one device. No controllers, networks, pads and PHYs."""

    dram: float
    """Banks without PIM."""
    pim: float
    """Units of PIM: beside the banks, or on a logic die of the memory."""
    row_buffers: float
    """Second row buffers."""
    arrays: float
    vector: float
    sram: float
    pim_on_logic_die: bool = False
    """Whether ``pim`` is made in a logic process."""

    @property
    def dram_dies(self) -> float:
        """What is made in a DRAM process: banks, and PIM beside them."""
        return self.dram + self.row_buffers + (0.0 if self.pim_on_logic_die else self.pim)

    @property
    def logic_dies(self) -> float:
        """What is made in a logic process."""
        chip = self.arrays + self.vector + self.sram
        return chip + (self.pim if self.pim_on_logic_die else 0.0)

    @property
    def total(self) -> float:
        """All parts."""
        return self.dram_dies + self.logic_dies

    def by_part(self) -> dict[str, float]:
        """Each part, then their sums by process and the total."""
        parts = {part: mm2 for part, mm2 in vars(self).items() if part != "pim_on_logic_die"}
        return {
            **parts, "dram_dies": self.dram_dies, "logic_dies": self.logic_dies,
            "total": self.total,
        }  # fmt: skip


def device_area(
    npu: NpuConfig, memory: MemoryConfig, pim: PimConfig | None, area: AreaConfig,
    pim_memory: MemoryConfig | None = None,
) -> DeviceArea:  # fmt: skip
    """Parts by count: banks by their bits, lanes, multiply-accumulates, bits of scratchpads.

    Parameters
    ----------
    npu
        Its cores, arrays, lanes and scratchpads.
    memory
        Its banks.
    pim
        What the DRAM dies carry, used by the schedule or not; None: plain dies.
    area
        Of one of each part.
    pim_memory
        Whose dies carry ``pim``, beside ``memory``; None: that one's do.

    Returns
    -------
    DeviceArea
        In mm2.
    """
    of_pim = memory if pim_memory is None else pim_memory
    dram = _banks_mm2(memory, area)
    double = pim is not None and pim.row_buffers == 2
    systolic, vector, pad = npu.systolic, npu.vector, npu.scratchpad
    macs = npu.cores * systolic.arrays * systolic.rows * systolic.cols
    sram_bytes = npu.cores * (pad.capacity + (pad.accumulator or 0))
    return DeviceArea(
        dram=dram if pim_memory is None else dram + _banks_mm2(pim_memory, area),
        pim=_pim_mm2(pim, of_pim, area),
        row_buffers=_banks_mm2(of_pim, area) * area.second_row_buffer_share if double else 0.0,
        arrays=macs * area.mac_um2 * 1e-6,
        vector=vector.units * vector.lanes * area.vector_lane_um2 * 1e-6,
        sram=sram_bytes * 8 * area.sram_um2_per_bit * 1e-6,
        pim_on_logic_die=_on_logic_die(pim),
    )


def _banks_mm2(memory: MemoryConfig, area: AreaConfig) -> float:
    """Of all banks, by their bits."""
    org = memory.organization
    banks = org.channels * org.pseudo_channels * org.ranks * org.banks
    bits = org.capacity_bytes * 8 // banks
    return banks * (area.bank_mm2 * bits / area.bank_bits)


def _on_logic_die(pim: PimConfig | None) -> bool:
    return pim is not None and pim.units is not None and pim.units.die == "logic"


def _pim_mm2(pim: PimConfig | None, memory: MemoryConfig, area: AreaConfig) -> float:
    """Of all channels' units: as the design states it, else by multipliers."""
    if pim is None:
        return 0.0
    if pim.units is not None and pim.units.mm2_per_channel is not None:
        return memory.organization.channels * pim.units.mm2_per_channel
    each = area.mac_um2 * 1e-6 if _on_logic_die(pim) else area.pim_lane_mm2
    return pim.multipliers(memory) * each
