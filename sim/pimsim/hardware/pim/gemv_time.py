"""How long a matrix in the banks takes for a vector: asked of the command engine."""

from __future__ import annotations

import numpy as np

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import INFINITY, N_INSTRUCTION
from pimsim.hardware.dram.system import MemorySystem
from pimsim.hardware.pim.gemv import GemvShape, gemv_program

__all__ = ["gemv_cycles"]

_FEW, _MORE = 2, 6
"""Vectors of the two runs whose difference is the time of a vector."""


def gemv_cycles(shape: GemvShape, memory: MemoryConfig, pim: PimConfig) -> int:
    """Memory cycles of each further vector on the fullest channel, nothing else going on."""
    times = [_run(shape, memory, pim, vectors) for vectors in (_FEW, _MORE)]
    return -(-(times[1] - times[0]) // (_MORE - _FEW))


def _run(shape: GemvShape, memory: MemoryConfig, pim: PimConfig, vectors: int) -> int:
    channels = memory.organization.channels
    runs = [shape.share(channel, channels) for channel in range(channels)]
    run = max(runs, key=lambda own: (own[1] - own[0], len(shape.chunks_of(own))))
    chunks = len(shape.chunks_of(run))
    one = gemv_program(shape, run, chunks, range(chunks), 0, pim.composite_gemv)
    system = MemorySystem(memory, pim)
    empty = np.zeros((0, N_INSTRUCTION), dtype=np.int64)
    programs = [np.tile(one, (vectors, 1)), *[empty] * (channels - 1)]
    system.submit_pim(0, programs, 1)
    while system.active:
        system.advance(INFINITY)
    return system.now
