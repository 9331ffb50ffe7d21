"""Energy of the matrix side: multipliers, vector lanes, scratchpad, links."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from pimsim.config.energy import EnergyConfig
from pimsim.hardware.energy.counts import Costs, energy_j

__all__ = ["NpuCounts", "NpuEnergy", "npu_energy"]

_BITS = 8


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
    """Energy of ``counts``; what grows with time is ``static.py``'s.

    Parameters
    ----------
    counts
        Over any length of time.
    energy
        pJ of a multiply-accumulate and of a lane's operation, pJ a bit of SRAM and of links.

    Returns
    -------
    NpuEnergy
        J.
    """
    costs: Costs = {
        "macs": {"mac_j": energy.npu_mac_pj},
        "vector_lane_ops": {"vector_j": energy.vector_op_pj},
        "sram_bytes": {"sram_j": _BITS * energy.sram_pj_per_bit},
        "link_bytes": {"link_j": _BITS * energy.link_pj_per_bit},
    }
    return NpuEnergy(**energy_j(vars(counts), costs))
