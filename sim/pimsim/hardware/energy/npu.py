"""Energy of the matrix side: multipliers, vector lanes, scratchpad, links."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from pimsim.config.energy import EnergyConfig

__all__ = ["NpuCounts", "NpuEnergy", "npu_energy"]

_J_PER_PJ = 1e-12


@dataclass(frozen=True)
class NpuCounts:
    """What the NPU and its links did."""

    macs: int
    """Multiply-accumulates on the systolic arrays."""
    vector_lane_ops: int
    """Operations of single vector lanes (``vector_lane_ops`` of the vector unit)."""
    sram_bytes: int
    """Bytes read from and written to the scratchpad."""
    link_bytes: int


@dataclass(frozen=True)
class NpuEnergy:
    """Joule by part."""

    mac_j: float
    vector_j: float
    sram_j: float
    link_j: float

    @property
    def compute_j(self) -> float:
        """Multipliers and vector lanes."""
        return self.mac_j + self.vector_j

    @property
    def total_j(self) -> float:
        """All parts."""
        return fsum((self.mac_j, self.vector_j, self.sram_j, self.link_j))


def npu_energy(counts: NpuCounts, energy: EnergyConfig) -> NpuEnergy:
    """Energy of ``counts``; what grows with time is ``static.py``'s."""
    return NpuEnergy(
        mac_j=counts.macs * energy.npu_mac_pj * _J_PER_PJ,
        vector_j=counts.vector_lane_ops * energy.vector_op_pj * _J_PER_PJ,
        sram_j=counts.sram_bytes * 8 * energy.sram_pj_per_bit * _J_PER_PJ,
        link_j=counts.link_bytes * 8 * energy.link_pj_per_bit * _J_PER_PJ,
    )
