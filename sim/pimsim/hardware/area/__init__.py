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
    """Multipliers beside the banks."""
    row_buffers: float
    """Second row buffers."""
    arrays: float
    vector: float
    sram: float

    @property
    def dram_dies(self) -> float:
        """What is made in a DRAM process: banks, and PIM beside them."""
        return self.dram + self.pim + self.row_buffers

    @property
    def logic_dies(self) -> float:
        """What is made in a logic process."""
        return self.arrays + self.vector + self.sram

    @property
    def total(self) -> float:
        """All parts."""
        return self.dram_dies + self.logic_dies


def device_area(
    npu: NpuConfig, memory: MemoryConfig, pim: PimConfig | None, area: AreaConfig
) -> DeviceArea:
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

    Returns
    -------
    DeviceArea
        In mm2.
    """
    org = memory.organization
    banks = org.channels * org.pseudo_channels * org.ranks * org.banks
    bits = org.capacity_bytes * 8 // banks
    bank = area.bank_mm2 * bits / area.bank_bits
    lanes = pim.multipliers(memory) if pim is not None else 0
    double = pim is not None and pim.row_buffers == 2
    systolic, vector, pad = npu.systolic, npu.vector, npu.scratchpad
    macs = npu.cores * systolic.arrays * systolic.rows * systolic.cols
    sram_bytes = npu.cores * (pad.capacity + (pad.accumulator or 0))
    return DeviceArea(
        dram=banks * bank,
        pim=lanes * area.pim_lane_mm2,
        row_buffers=banks * bank * area.second_row_buffer_share if double else 0.0,
        arrays=macs * area.mac_um2 * 1e-6,
        vector=vector.units * vector.lanes * area.vector_lane_um2 * 1e-6,
        sram=sram_bytes * 8 * area.sram_um2_per_bit * 1e-6,
    )
