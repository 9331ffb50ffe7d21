"""Experts of a mixture on a GPU, as vLLM's fused MoE makes them.

Each expert's tokens are padded to whole tiles; one launch makes the first products (gate and up) of
all experts that got tokens, one the second. Nothing is cut along the depth, so few tiles leave
cores, and the loads that they would have under way, unused (Little's law). A step of the summed
dimension takes its arithmetic and ``step_ns``, for which the block waits. Where experts are spread
over devices, rows of other devices' experts are filled with zeros and summed all the same, unless
``skips_remote``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.config.xpu import ExpertsKernel, ExpertTile, XpuConfig
from pimsim.hardware.xpu.gemm import overlapped, silicon_of
from pimsim.hardware.xpu.roofline import bandwidth, peak_flops

__all__ = ["Experts", "expert_tile", "experts_s"]


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of one layer on one device."""

    tokens: int
    """Of the step."""
    loads: Sequence[int]
    """Tokens of each of the device's experts."""
    choices: int
    """Experts of a token, on all devices."""
    hidden: int
    inner: int
    """Width between the products, of one of gate and up."""
    element_bytes: int = 2


def expert_tile(work: Experts, kernel: ExpertsKernel) -> ExpertTile:
    """The first tile whose bounds ``work`` is within."""

    def fits(tile: ExpertTile) -> bool:
        share = work.tokens / len(work.loads)
        return (
            (tile.most_tokens is None or work.tokens <= tile.most_tokens)
            and (tile.most_tokens_per_expert is None or share <= tile.most_tokens_per_expert)
            and 2 * work.inner >= tile.least_columns
        )

    return next(each for each in kernel.tiles if fits(each))


def experts_s(work: Experts, xpu: XpuConfig) -> float:
    """Seconds of the experts of one layer, routing and sum included.

    Raises ``InputError`` for a device without a section for them.
    """
    kernel = silicon_of(xpu).experts
    if kernel is None:
        raise InputError(f"xpu {xpu.name}: experts were not measured on it (silicon.experts)")
    tile = expert_tile(work, kernel)
    rows = sum(work.loads)
    touched = sum(load > 0 for load in work.loads)
    tiles = sum(-(-load // tile.rows) for load in work.loads)
    stream = bandwidth(xpu) * kernel.memory_utilisation
    time_s = kernel.launch_ns * 1e-9
    all_rows = rows if kernel.skips_remote else work.tokens * work.choices
    for n, k in ((2 * work.inner, work.hidden), (work.hidden, work.inner)):
        time_s += _product_s(n, k, tiles, touched, rows, tile, kernel, work, xpu)
        time_s += (all_rows - rows) * n * work.element_bytes / stream
    activated = 0 if kernel.fuses_activation else 3 * work.inner * all_rows
    summed = all_rows * work.hidden + 2 * work.tokens * work.hidden
    return time_s + (activated + summed) * work.element_bytes / stream


def _product_s(
    n: int, k: int, tiles: int, touched: int, rows: int, tile: ExpertTile,
    kernel: ExpertsKernel, work: Experts, xpu: XpuConfig,
) -> float:  # fmt: skip
    """One launch: ``tiles`` tiles of rows with all columns."""
    silicon = silicon_of(xpu)
    if not tiles:
        return 0.0
    blocks = tiles * -(-n // tile.columns)
    rate = peak_flops(xpu, work.element_bytes) * xpu.compute_utilisation / xpu.cores
    step_s = 2 * tile.rows * tile.columns * tile.depth / rate + kernel.step_ns * 1e-9
    compute_s = -(-blocks // xpu.cores) * -(-k // tile.depth) * step_s
    moved = (touched * n * k + rows * (n + k)) * work.element_bytes
    stream = bandwidth(xpu) * kernel.memory_utilisation
    loaded = (tile.rows + tile.columns) * tile.depth * work.element_bytes
    resident = min(blocks, xpu.cores * max(1, xpu.l1_per_core // (kernel.stages * loaded)))
    flying = resident * (kernel.stages - 1) * loaded
    memory_s = max(moved / stream, moved * silicon.memory_latency_ns * 1e-9 / flying)
    l2_s = blocks * (tile.rows + tile.columns) * k * work.element_bytes
    return overlapped(
        compute_s, memory_s, l2_s / (silicon.l2_gb_per_s * 1e9), exponent=kernel.overlap
    )
