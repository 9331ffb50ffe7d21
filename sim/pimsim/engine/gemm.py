"""One matrix product by itself: its tiles on the cores, its operands over the memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.engine.machine import Machine
from pimsim.engine.npu_records import task_streams
from pimsim.engine.schedules import Schedule
from pimsim.hardware.dram.device import make_memory_system
from pimsim.hardware.npu.gemm import steady_cycles
from pimsim.hardware.npu.search import CoreTiling
from pimsim.mapping.gemm import (
    bytes_per_kcycle,
    core_network,
    gemm_steps,
    tile_product,
)
from pimsim.mapping.program import Program
from pimsim.mapping.tasks import NpuTask
from pimsim.mapping.tile_layouts import GemmPlaces

__all__ = ["GemmRun", "run_gemm"]

ALIGNMENT_BYTES = 256
"""Operands start at multiples of it, a piece of it apart (as ONNXim allocates them)."""


@dataclass(frozen=True)
class GemmRun:
    """What a product took, and why. Cycles are NPU cycles."""

    cycles: int
    """From the first request to the last result in memory."""
    compute_cycles: int
    """In which the busiest core's arrays are taken up."""
    memory_cycles: int
    """Least for the bytes that moved, at the memory's full rate."""
    read_bytes: int
    written_bytes: int
    core_folds: tuple[int, ...]
    causes: dict[str, int]
    """NPU cycles by cause, mean over the cores; they add up to ``cycles``."""
    tiling: CoreTiling
    macs: int
    element_bytes: int


def run_gemm(
    m: int,
    n: int,
    k: int,
    npu: NpuConfig,
    memory: MemoryConfig,
    element_bytes: int = 2,
    explain: bool = False,
) -> GemmRun:
    """Run C[m, n] = A[m, k] B[k, n] with everything in memory at first and at the end.

    Parameters
    ----------
    m
        Rows of A and of C.
    n
        Columns of B and of C.
    k
        Columns of A, rows of B.
    npu
        Arrays, scratchpad and vector units.
    memory
        Where A, B and C lie.
    element_bytes
        Of all three.
    explain
        Whether to keep what each tile waits for.

    Returns
    -------
    GemmRun
        Cycles of the NPU's clock, traffic and tiles.

    Raises
    ------
    InputError
        Where the operands do not fit the memory, or no tile the scratchpad.
    """
    org = memory.organization
    for name, size in (("m", m), ("n", n), ("k", k)):
        if size < 1:
            raise InputError(f"gemm {m} x {n} x {k}: {name} is {size}; allowed: at least 1")
    places, end = [], 0
    for size in (n * k, m * k, m * n):
        places.append(end // org.burst_bytes)
        end += (size * element_bytes // ALIGNMENT_BYTES + 1) * ALIGNMENT_BYTES
    if end > org.capacity_bytes:
        raise InputError(
            f"gemm {m} x {n} x {k} of {element_bytes} B takes {end} B, memory {memory.name} has "
            f"{org.capacity_bytes} B"
        )
    tiling = tile_product(m, n, k, element_bytes, npu, memory, explain)
    at = GemmPlaces(*places)
    steps = gemm_steps((m, n, k), tiling, at, element_bytes, npu, memory)
    task = NpuTask(
        "gemm", "gemm", "systolic", 0, 2 * m * n * k, n * k * element_bytes, 0, steps=steps
    )
    with Machine(npu, memory, make_memory_system(memory, network=core_network(npu))) as machine:
        took = machine.run(Program.of(task), Schedule())
    moved = task_streams(task)
    read, written = (
        sum(s.total for s in moved if s.write is write) * org.burst_bytes for write in (False, True)
    )
    folds: Counter[int] = Counter()
    taken: Counter[int] = Counter()
    for step in steps:
        folds[step.core] += step.plan.folds
    for core, tiles in enumerate(tiling.cores):
        taken[core] = sum(steady_cycles(t.m, t.n, t.k, npu.systolic) for t in tiles)
    return GemmRun(
        cycles=machine.clock.npu_cycle(took.end_ps),
        compute_cycles=max(taken.values()),
        memory_cycles=-(-(read + written) * 1000 // bytes_per_kcycle(npu, memory)),
        read_bytes=read,
        written_bytes=written,
        core_folds=tuple(folds[core] for core in range(npu.cores)),
        causes={cause: cycles for cause, cycles in machine.recorder.npu_causes.items() if cycles},
        tiling=tiling,
        macs=m * n * k,
        element_bytes=element_bytes,
    )
