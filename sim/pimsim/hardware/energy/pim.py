"""Energy of PIM commands: rows opened, dot products in the banks, operands, results."""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.energy import EnergyConfig
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.energy.dram import DramCounts, command_energy

__all__ = ["PimEnergy", "pim_energy"]

_J_PER_PJ = 1e-12


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
        return (
            self.activate_j
            + self.array_j
            + self.mac_j
            + self.buffer_j
            + self.gwrite_j
            + self.readres_j
            + self.io_j
        )


def pim_energy(
    counts: DramCounts,
    memory: MemoryConfig,
    pim: PimConfig,
    energy: EnergyConfig,
    dtype_bytes: int = 2,
) -> PimEnergy:
    """Energy of the PIM commands in ``counts``.

    In commands of the same memory, as the NeuPIMs artifact counts them (MECHANISMS, Parameters):
    a bank of G_ACT is an ACT, GWRITE reads every burst of a row (16 of HBM2's), READRES is one
    read, and a bank's share of a COMP is ``pim_read_factor`` reads. Then, of our own, the
    multipliers and the operand buffer: one broadcast from the buffer serves all banks of the
    channel at once.
    """
    one = command_energy(memory, energy)
    org = memory.organization
    macs = counts.comp_bank_columns * pim.elements_per_comp
    broadcast_bits = macs / (org.ranks * org.banks) * dtype_bytes * 8
    fill_bits = counts.gwrite * org.row_bytes * 8
    return PimEnergy(
        activate_j=counts.gact_banks * one.activate_pj * _J_PER_PJ,
        array_j=counts.comp_bank_columns * energy.pim_read_factor * one.read_pj * _J_PER_PJ,
        mac_j=macs * energy.pim_mac_pj * _J_PER_PJ,
        buffer_j=(broadcast_bits + fill_bits) * energy.pim_buffer_pj_per_bit * _J_PER_PJ,
        gwrite_j=counts.gwrite * org.columns * one.read_pj * _J_PER_PJ,
        readres_j=counts.readres * one.read_pj * _J_PER_PJ,
        io_j=counts.readres * one.burst_io_pj * _J_PER_PJ,
    )
