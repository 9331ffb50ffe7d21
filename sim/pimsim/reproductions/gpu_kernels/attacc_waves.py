"""GPU kernels as AttAcc's simulator times them: a roofline and waves of blocks, nothing else.

Utilisations below the peaks are scaled by how full the waves of thread blocks are (ASPLOS 2024,
``src/devices.py``). Launches of products are not counted, softmax of single tokens is a kernel of
its own. Attention of several new tokens, which that simulator does not fuse, follows the same rule:
blocks start longest first, ``cores`` at a time, and a wave takes as long as its longest block.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pimsim.config.errors import InputError
from pimsim.config.xpu import XpuConfig
from pimsim.hardware.xpu.experts import Experts
from pimsim.hardware.xpu.flash import FlashAttention, flash_blocks, flash_energy, flash_work
from pimsim.hardware.xpu.kernels import Kernels as SiliconKernels
from pimsim.hardware.xpu.roofline import Bound, Cost, bandwidth, peak_flops, product_energy
from pimsim.hardware.xpu.tiling import Product, tiles, wave_utilisation

__all__ = ["FlashWaves", "Kernels", "flash_waves"]


@dataclass(frozen=True, slots=True)
class FlashWaves:
    """Pairs of a query row and a key that are multiplied, whole tiles."""

    pairs: int
    wave_pairs: int
    """Those of the longest block of each wave: what each core is given time for."""

    def fill(self, cores: int) -> float:
        """Part of the cores' time in which they have work."""
        return self.pairs / (self.wave_pairs * cores)


def flash_waves(work: FlashAttention, xpu: XpuConfig) -> FlashWaves:
    """The waves of fused attention, longest blocks first.

    Parameters
    ----------
    work
        All parts of a step.
    xpu
        Its tile, and its cores.
    """
    blocks = flash_blocks(work, xpu)
    order = np.argsort(-blocks.tiles, kind="stable")
    length, count = blocks.tiles[order], blocks.counts[order]
    behind = np.cumsum(count)
    # A wave starts at each multiple of the cores: as many in a class of equal blocks as there are
    # multiples among their numbers.
    waves = -(-behind // xpu.cores) + (-(behind - count) // xpu.cores)
    return FlashWaves(
        pairs=blocks.pairs, wave_pairs=blocks.rows * blocks.columns * int((waves * length).sum())
    )


class Kernels(SiliconKernels):
    """Waves."""

    fuses_decode = False

    def product(self, work: Product, xpu: XpuConfig) -> Cost:
        """Matrix products in one launch."""
        full = wave_utilisation(tiles(work, xpu).blocks, xpu.cores)
        memory_bytes, memory_pj, core_pj = product_energy(work, xpu)
        rate = peak_flops(xpu, work.element_bytes) * xpu.compute_utilisation * full
        compute_s = 2 * work.macs / rate
        memory_s = memory_bytes / (bandwidth(xpu) * xpu.memory_utilisation * full)
        bound: Bound = "compute" if compute_s > memory_s else "memory"
        return Cost(max(compute_s, memory_s), bound, memory_pj, core_pj)

    def flash(self, work: FlashAttention, xpu: XpuConfig) -> Cost:
        """The slowest of matrix units, exponentials and memory."""
        done, waves = flash_work(work, xpu), flash_waves(work, xpu)
        dims = work.key_dim + work.value_dim
        rate = peak_flops(xpu, work.element_bytes) * xpu.compute_utilisation / xpu.cores
        stream = bandwidth(xpu) * xpu.memory_utilisation * waves.fill(xpu.cores)
        times: dict[Bound, float] = {
            "compute": 2 * waves.wave_pairs * dims / rate,
            "memory": done.memory_bytes / stream,
        }
        if xpu.exponential_tops is not None:
            times["exponentials"] = waves.wave_pairs / (xpu.exponential_tops * 1e12 / xpu.cores)
        bound = max(times, key=times.__getitem__)
        memory_pj, core_pj = flash_energy(work, xpu)
        return Cost(times[bound], bound, memory_pj, core_pj)

    def experts(self, work: Experts, xpu: XpuConfig) -> Cost:
        """That simulator has none: ``InputError``."""
        del work
        raise InputError(
            f"xpu.kernels: {xpu.kernels} has no experts, and xpu {xpu.name} no others; "
            "silicon has them"
        )
