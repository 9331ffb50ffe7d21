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
from fractions import Fraction

from pimsim.config.errors import InputError
from pimsim.config.xpu import ExpertsKernel, ExpertTile, XpuConfig
from pimsim.hardware.xpu.gemm import overlapped, silicon_of
from pimsim.hardware.xpu.roofline import Bound, Cost, bandwidth, peak_flops

__all__ = ["Experts", "expert_tile", "experts_cost", "experts_s"]

_BITS = 8


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
    """Of activations."""
    weight_bytes: int | Fraction | None = None
    """Of an element of the weights, with what its format adds to it; None: as activations."""
    first_columns: int | None = None
    """Of the first product; None: gate and up, twice ``inner``."""

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """Columns and depth of both."""
        first = 2 * self.inner if self.first_columns is None else self.first_columns
        return (first, self.hidden), (self.hidden, self.inner)

    @property
    def b_bytes(self) -> int | Fraction:
        """Of an element of the weights."""
        return self.element_bytes if self.weight_bytes is None else self.weight_bytes

    @property
    def hit(self) -> int:
        """Experts with tokens."""
        return sum(load > 0 for load in self.loads)

    @property
    def stored_bytes(self) -> int:
        """Weights of experts with tokens, each once."""
        return int(self.hit * sum(n * k for n, k in self.products) * self.b_bytes)

    @property
    def macs(self) -> int:
        """Of the tokens that go to the device's experts."""
        return sum(self.loads) * sum(n * k for n, k in self.products)


def expert_tile(work: Experts, kernel: ExpertsKernel) -> ExpertTile:
    """The first tile whose bounds ``work`` is within.

    Parameters
    ----------
    work
        Of one layer on a device.
    kernel
        Its tiles are tried in their order.
    """

    def fits(tile: ExpertTile) -> bool:
        share = work.tokens / len(work.loads)
        return (
            (tile.most_tokens is None or work.tokens <= tile.most_tokens)
            and (tile.most_tokens_per_expert is None or share <= tile.most_tokens_per_expert)
            and work.products[0][0] >= tile.least_columns
        )

    return next(each for each in kernel.tiles if fits(each))


def experts_cost(work: Experts, xpu: XpuConfig) -> Cost:
    """Time and energy of the experts of one layer, routing and sum included.

    Parameters
    ----------
    work
        Of one layer on a device.
    xpu
        With ``silicon.experts``.

    Returns
    -------
    Cost
        Seconds and picojoule.

    Raises
    ------
    InputError
        For a device without a section for experts.
    """
    time_s, kernel, energy = experts_s(work, xpu), silicon_of(xpu).experts, xpu.energy
    assert kernel is not None
    tile, edge = expert_tile(work, kernel), xpu.tiling.register_edge
    memory_bytes = l2_bytes = l1_bytes = 0.0
    for n, k in work.products:
        found = _traffic(n, k, tile, work)
        memory_bytes += found.memory_bytes
        l2_bytes += found.l2_bytes
        rows = sum(work.loads)
        l1_bytes += rows * n * k * float(work.element_bytes + work.b_bytes) / edge
    core_pj = _BITS * (l2_bytes * energy.l2_pj_per_bit + l1_bytes * energy.l1_pj_per_bit)
    core_pj += work.macs * (3 * energy.register_pj + energy.mac_pj)
    compute_s = 2 * work.macs / (peak_flops(xpu, work.element_bytes) * xpu.compute_utilisation)
    bound: Bound = "compute" if compute_s > memory_bytes / bandwidth(xpu) else "memory"
    if 2 * kernel.launch_ns * 1e-9 > time_s:
        bound = "launch"
    return Cost(time_s, bound, memory_bytes * _BITS * energy.memory_pj_per_bit, core_pj)


@dataclass(frozen=True, slots=True)
class _Traffic:
    """Of one launch."""

    blocks: int
    """Thread blocks: tiles of rows with all columns."""
    memory_bytes: float
    l2_bytes: float


def _traffic(n: int, k: int, tile: ExpertTile, work: Experts) -> _Traffic:
    """Each weight and each activation once from memory; from L2 what each block takes."""
    rows = sum(work.loads)
    blocks = sum(-(-load // tile.rows) for load in work.loads) * -(-n // tile.columns)
    moved = float(work.hit * n * k * work.b_bytes) + rows * (n + k) * work.element_bytes
    return _Traffic(blocks, moved, blocks * _step_bytes(tile, work) * k)


def _step_bytes(tile: ExpertTile, work: Experts) -> float:
    """Operands of a tile, of one step of the summed dimension."""
    return tile.rows * work.element_bytes + float(tile.columns * work.b_bytes)


def experts_s(work: Experts, xpu: XpuConfig) -> float:
    """Seconds of the experts of one layer, routing and sum included.

    Parameters
    ----------
    work
        Of one layer on a device.
    xpu
        With ``silicon.experts``.

    Raises
    ------
    InputError
        For a device without a section for them.
    """
    kernel = silicon_of(xpu).experts
    if kernel is None:
        raise InputError(f"xpu {xpu.name}: experts were not measured on it (silicon.experts)")
    tile = expert_tile(work, kernel)
    rows = sum(work.loads)
    stream = bandwidth(xpu) * kernel.memory_utilisation
    time_s = kernel.launch_ns * 1e-9
    all_rows = rows if kernel.skips_remote else work.tokens * work.choices
    for n, k in work.products:
        time_s += _product_s(n, k, tile, kernel, work, xpu)
        time_s += (all_rows - rows) * n * work.element_bytes / stream
    activated = 0 if kernel.fuses_activation else 3 * work.inner * all_rows
    summed = all_rows * work.hidden + 2 * work.tokens * work.hidden
    return time_s + (activated + summed) * work.element_bytes / stream


def _product_s(
    n: int, k: int, tile: ExpertTile, kernel: ExpertsKernel, work: Experts, xpu: XpuConfig
) -> float:
    """One launch."""
    silicon, moved = silicon_of(xpu), _traffic(n, k, tile, work)
    if not moved.blocks:
        return 0.0
    rate = peak_flops(xpu, work.element_bytes) * xpu.compute_utilisation / xpu.cores
    step_s = 2 * tile.rows * tile.columns * tile.depth / rate + kernel.step_ns * 1e-9
    compute_s = -(-moved.blocks // xpu.cores) * -(-k // tile.depth) * step_s
    stream = bandwidth(xpu) * kernel.memory_utilisation
    loaded = _step_bytes(tile, work) * tile.depth
    held = xpu.cores * max(1, int(xpu.l1_per_core // (kernel.stages * loaded)))
    flying = min(moved.blocks, held) * (kernel.stages - 1) * loaded
    size = moved.memory_bytes
    memory_s = max(size / stream, size * silicon.memory_latency_ns * 1e-9 / flying)
    return overlapped(
        compute_s, memory_s, moved.l2_bytes / (silicon.l2_gb_per_s * 1e9), exponent=kernel.overlap
    )
