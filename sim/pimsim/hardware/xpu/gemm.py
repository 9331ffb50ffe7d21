"""Dense products on a GPU, as cuBLAS makes them.

A thread block makes one tile of the result; the tile is the one of least time among those that the
matrix units' instructions allow. A launch takes

    launch + |compute, memory, L2| (+ reduction),

with |...| the norm of ``OVERLAP``: the three go on at once, and hide one another but for what
happens when they take alike.

- Compute: waves of blocks over the cores, each whole (tile and wave quantisation), or, cut along
  the depth (split-K; stream-K, Osama et al., PPoPP 2023), as many equal shares as there are cores,
  for the price of a second pass over the tiles. A tile of a x b passes a b multiply-adds for a + b
  operands, so that small ones keep the matrix units waiting for shared memory.
- The rate falls from that of a burst to the sustained one as a product lasts, as power lowers the
  clock.
- Memory: each byte once. Little's law: loads under way are half of the L1 of the cores that work
  (the other half is being multiplied), and bandwidth is no more than they over the latency.
- L2: each tile's operands; one of them is shared by a cluster of blocks.
"""

from __future__ import annotations

from math import fsum

from pimsim.config.xpu import SiliconConfig, XpuConfig
from pimsim.hardware.xpu.roofline import Bound, Cost, bandwidth, peak_flops, product_energy
from pimsim.hardware.xpu.tiling import Product

__all__ = [
    "OVERLAP",
    "burst_rate",
    "gemm",
    "gemm_time",
    "overlapped",
    "saturating_cores",
    "silicon_of",
]

OVERLAP = 4
"""Assumed: two that take alike together take 19 % more than one."""
_OPERAND_EDGE = 3
"""Assumed: operands from shared memory hold a tile of a x b back by this over a b / (a + b)."""
_LEAST_DEPTH = 256
"""Assumed: a share of a tile is at least so deep."""
_SUM_BYTES = 4
"""Of a sum that is not complete."""


def silicon_of(xpu: XpuConfig) -> SiliconConfig:
    """The section of ``xpu`` that this model reads.

    Parameters
    ----------
    xpu
        With a section ``silicon``.
    """
    assert xpu.silicon is not None
    return xpu.silicon


def overlapped(*times_s: float, exponent: float = OVERLAP) -> float:
    """Time of what goes on at once: a norm, between the longest and the sum.

    Parameters
    ----------
    *times_s
        Seconds of each, 0 or more.
    exponent
        Of the norm: 1 is the sum, infinity the longest.
    """
    longest = max(times_s)
    if longest == 0:
        return 0.0
    return longest * float(fsum((each / longest) ** exponent for each in times_s) ** (1 / exponent))


def saturating_cores(xpu: XpuConfig, utilisation: float) -> float:
    """Cores whose loads under way keep the memory busy at ``utilisation``: Little's law.

    Parameters
    ----------
    xpu
        With ``silicon.memory_latency_ns``.
    utilisation
        Part of the memory's peak.

    Returns
    -------
    float
        Not rounded.
    """
    flying = bandwidth(xpu) * utilisation * silicon_of(xpu).memory_latency_ns * 1e-9
    return flying / (xpu.l1_per_core / 2)


def burst_rate(compute_s: float, xpu: XpuConfig) -> float:
    """Part of the peak that arithmetic of ``compute_s`` at the peak reaches on average.

    Parameters
    ----------
    compute_s
        Seconds.
    xpu
        With ``silicon.gemm``.

    Returns
    -------
    float
        Between ``compute_utilisation`` (long products) and ``silicon.gemm.burst_utilisation``
        (short ones).
    """
    kernel = silicon_of(xpu).gemm
    settle_s = kernel.settle_us * 1e-6
    fresh = settle_s / (settle_s + compute_s)
    return xpu.compute_utilisation + (kernel.burst_utilisation - xpu.compute_utilisation) * fresh


def gemm_time(work: Product, xpu: XpuConfig) -> tuple[float, Bound]:
    """Seconds of ``work`` in one launch, and what bounds it.

    Parameters
    ----------
    work
        Equal products.
    xpu
        With ``silicon.gemm``.
    """
    silicon = silicon_of(xpu)
    kernel = silicon.gemm
    core_rate = peak_flops(xpu, work.element_bytes) / xpu.cores
    stream = bandwidth(xpu) * xpu.memory_utilisation
    l2_rate = silicon.l2_gb_per_s * 1e9
    memory_s = work.least_bytes / stream
    need = saturating_cores(xpu, xpu.memory_utilisation)
    best: tuple[float, Bound] = (float("inf"), "compute")
    shapes = dict.fromkeys(
        (min(a, _padded(work.m)), min(b, _padded(work.n)))
        for rows, columns in kernel.tiles
        for a, b in ((rows, columns), (columns, rows))
    )
    for a, b in shapes:
        blocks = work.count * -(-work.m // a) * -(-work.n // b)
        edge = a * b / (a + b)
        tile_s = 2 * a * b * work.k / core_rate * (edge + _OPERAND_EDGE) / edge
        operands = (a * work.element_bytes, b * work.b_bytes)
        loaded = min(operands) + max(operands) / kernel.cluster_blocks
        l2_s = blocks * float(loaded) * work.k / l2_rate
        whole = -(-blocks // xpu.cores)
        shared = min(xpu.cores, max(1, blocks * work.k // _LEAST_DEPTH))
        added = 2 * shared * a * b * _SUM_BYTES / l2_rate + kernel.reduction_ns * 1e-9
        for waves, cores, more in (
            (float(whole), min(blocks, xpu.cores), 0.0),
            (blocks / shared, shared, added),
        ):
            arithmetic_s = waves * tile_s
            compute_s = arithmetic_s / burst_rate(arithmetic_s, xpu)
            loading_s = memory_s * max(1.0, need / cores)
            time_s = overlapped(compute_s, loading_s, l2_s) + more
            if time_s < best[0]:
                best = (time_s, "compute" if compute_s > loading_s else "memory")
    launch_s = kernel.launch_ns * 1e-9
    return launch_s + best[0], "launch" if launch_s > best[0] else best[1]


def _padded(size: int) -> int:
    """The least side of a tile that covers ``size``: matrix units take eight at a time."""
    return -(-size // 8) * 8


def gemm(work: Product, xpu: XpuConfig) -> Cost:
    """Time and energy of matrix products in one launch.

    Parameters
    ----------
    work
        Equal products.
    xpu
        With ``silicon.gemm``.

    Returns
    -------
    Cost
        Seconds and picojoule.
    """
    time_s, bound = gemm_time(work, xpu)
    _, memory_pj, core_pj = product_energy(work, xpu)
    return Cost(time_s, bound, memory_pj, core_pj)
