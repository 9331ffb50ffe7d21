"""Energy of PIM commands: rows opened, dot products in the banks, operands, results."""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

from pimsim.config.energy import EnergyConfig
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.energy.dram import command_energy

__all__ = ["PimCounts", "PimEnergy", "pim_energy"]

_J_PER_PJ = 1e-12
_BITS = 8


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
        return fsum(
            (
                self.activate_j, self.array_j, self.mac_j, self.buffer_j, self.gwrite_j,
                self.readres_j, self.io_j,
            )
        )  # fmt: skip


def pim_energy(counts: PimCounts, memory: MemoryConfig, energy: EnergyConfig) -> PimEnergy:
    """Energy of the PIM commands in ``counts``.

    In commands of the same memory, as the NeuPIMs artifact counts them (MECHANISMS, Parameters):
    a bank of G_ACT is an ACT, GWRITE reads every burst of a row (16 of HBM2's), READRES is one
    read. A byte that a dot product reads costs ``pim_array_factor`` times a read's byte, I/O
    apart. Then, of our own, the multipliers and the operand buffer: one broadcast from the buffer
    serves all banks of the channel at once.
    """
    one = command_energy(memory, energy)
    org = memory.organization
    byte_pj = one.read_pj / org.burst_bytes
    buffer_bytes = counts.broadcast_bytes + counts.gwrite * org.row_bytes
    return PimEnergy(
        activate_j=counts.gact_banks * one.activate_pj * _J_PER_PJ,
        array_j=counts.read_bytes * energy.pim_array_factor * byte_pj * _J_PER_PJ,
        mac_j=counts.macs * energy.pim_mac_pj * _J_PER_PJ,
        buffer_j=buffer_bytes * _BITS * energy.pim_buffer_pj_per_bit * _J_PER_PJ,
        gwrite_j=counts.gwrite * org.columns * one.read_pj * _J_PER_PJ,
        readres_j=counts.readres * one.read_pj * _J_PER_PJ,
        io_j=counts.readres * one.burst_io_pj * _J_PER_PJ,
    )
