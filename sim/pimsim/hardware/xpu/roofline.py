"""What all models of a GPU or a host share: peaks, kernels that stream, energies.

The roofline of Williams et al. (CACM 2009) with utilisations below the peaks. Times are in seconds,
energies in picojoule, both of one device.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pimsim.config.xpu import HostConfig, KernelConfig, RooflineConfig, XpuConfig
from pimsim.hardware.xpu.tiling import Product, traffic, wave_utilisation

__all__ = [
    "Bound",
    "Cost",
    "bandwidth",
    "host_stream",
    "peak_flops",
    "product_energy",
    "stream",
    "waves",
]

Bound = Literal["compute", "exponentials", "memory", "launch"]

_BITS = 8


@dataclass(frozen=True, slots=True)
class Cost:
    """What one kernel takes."""

    time_s: float
    bound: Bound
    memory_pj: float = 0.0
    """Off-chip memory."""
    core_pj: float = 0.0
    """Caches, registers and arithmetic."""

    @property
    def energy_pj(self) -> float:
        """All of it."""
        return self.memory_pj + self.core_pj


def peak_flops(processor: RooflineConfig, element_bytes: int | Fraction) -> float:
    """Operations a second at the peak, with elements of ``element_bytes``.

    Those of one byte go at twice the rate of two unless a GPU's config says otherwise, and narrower
    ones at that of one byte: products in FP4 are not modelled.

    Parameters
    ----------
    processor
        GPU or host.
    element_bytes
        May be below 1, as of a packed format.
    """
    peak = processor.peak_tflops * 1e12
    if element_bytes <= 1 and isinstance(processor, XpuConfig):
        return processor.fp8_tflops * 1e12 if processor.fp8_tflops is not None else 2 * peak
    return float(peak * 2 / element_bytes)


def bandwidth(processor: RooflineConfig) -> float:
    """Peak bytes a second of the memory.

    Parameters
    ----------
    processor
        GPU or host.
    """
    return processor.memory_bandwidth_gb_per_s * 1e9


def product_energy(work: Product, xpu: XpuConfig) -> tuple[int, float, float]:
    """Bytes that memory moves for matrix products, and the energy of memory and of the rest.

    Parameters
    ----------
    work
        Equal products.
    xpu
        Its caches and ``energy``.

    Returns
    -------
    tuple[int, float, float]
        Bytes; picojoule of memory; picojoule of caches, registers and multipliers.
    """
    moved = traffic(work, xpu)
    energy = xpu.energy
    caches = moved.l2_bytes * energy.l2_pj_per_bit + moved.l1_bytes * energy.l1_pj_per_bit
    memory_pj = moved.memory_bytes * _BITS * energy.memory_pj_per_bit
    core_pj = caches * _BITS + work.macs * (3 * energy.register_pj + energy.mac_pj)
    return moved.memory_bytes, memory_pj, core_pj


def _stream_energy(moved_bytes: int, flops: int, xpu: XpuConfig) -> tuple[float, float]:
    """Memory, and the rest, when every byte passes all levels once, as elements of two bytes."""
    energy = xpu.energy
    bits = moved_bytes * _BITS
    core = bits * (energy.l2_pj_per_bit + energy.l1_pj_per_bit)
    core += moved_bytes / 2 * energy.register_pj + flops / 2 * energy.mac_pj
    return bits * energy.memory_pj_per_bit, core


def stream(moved_bytes: int, flops: int, kernel: KernelConfig, xpu: XpuConfig) -> Cost:
    """A kernel that a launch and a rate describe (activation, residual sum and norm).

    Parameters
    ----------
    moved_bytes
        Read and written.
    flops
        For energy.
    kernel
        Its launch, and its share of the memory's bandwidth.
    xpu
        The device.

    Returns
    -------
    Cost
        Seconds and picojoule.
    """
    moving_s = moved_bytes / (bandwidth(xpu) * kernel.bandwidth_share)
    launch_s = kernel.launch_ns * 1e-9
    memory_pj, core_pj = _stream_energy(moved_bytes, flops, xpu)
    bound: Bound = "launch" if launch_s > moving_s else "memory"
    return Cost(launch_s + moving_s, bound, memory_pj, core_pj)


def waves(moved_bytes: int, flops: int, blocks: int, xpu: XpuConfig) -> Cost:
    """A kernel that streams through thread blocks (softmax, a block for each head).

    Parameters
    ----------
    moved_bytes
        Read and written.
    flops
        For energy.
    blocks
        Thread blocks of the launch.
    xpu
        The device.

    Returns
    -------
    Cost
        Seconds and picojoule.
    """
    rate = bandwidth(xpu) * xpu.memory_utilisation * wave_utilisation(blocks, xpu.cores)
    memory_pj, core_pj = _stream_energy(moved_bytes, flops, xpu)
    return Cost(moved_bytes / rate, "memory", memory_pj, core_pj)


def host_stream(moved_bytes: int, flops: int, element_bytes: int, host: HostConfig) -> Cost:
    """One socket reads all once. (AttAcc's simulator models no energy of it.)

    Parameters
    ----------
    moved_bytes
        That it reads.
    flops
        On them.
    element_bytes
        Of what it multiplies.
    host
        The socket.

    Returns
    -------
    Cost
        Seconds and picojoule.
    """
    compute_s = flops / (peak_flops(host, element_bytes) * host.compute_utilisation)
    memory_s = moved_bytes / (bandwidth(host) * host.memory_utilisation)
    return Cost(
        max(compute_s, memory_s),
        "compute" if compute_s > memory_s else "memory",
        moved_bytes * _BITS * host.memory_pj_per_bit,
        flops * host.flop_pj,
    )
