"""Address streams of the DRAM references, made anew for any memory (seed 1, Python's generator).

``conflict_read`` visits a new row of one bank each time, ``act_stream_read`` a new row of all banks
in turn, the strides row hits of the bank groups in turn or of the banks of one group, all in
channel 0; the rest go through the linear address space.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError, near_miss
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap

__all__ = ["PATTERNS", "requests"]

PATTERNS = (
    "seq_read", "seq_write", "mix_2r1w", "rand_read", "rand_mix_2r1w", "conflict_read",
    "bg_stride_read", "samebg_stride_read", "act_stream_read",
)  # fmt: skip

Ints = NDArray[np.int64]


def _fields(pattern: str, index: Ints, memory: MemoryConfig) -> dict[str, Ints]:
    """Row, column, bank group and bank of request ``index``; what is left out is 0."""
    org = memory.organization
    if pattern == "conflict_read":
        return {"ro": index % org.rows, "co": index // org.rows}
    if pattern == "act_stream_read":
        visit, bank = divmod(index, org.banks)
        return {"bg": bank % org.bank_groups, "ba": bank // org.bank_groups,
                "ro": visit % org.rows, "co": visit // org.rows}  # fmt: skip
    name, count = (
        ("bg", org.bank_groups) if pattern == "bg_stride_read" else ("ba", org.banks_per_group)
    )
    turn, member = divmod(index, count)
    visit, column = divmod(turn, org.columns)
    return {name: member, "co": column, "ro": visit % org.rows}


def requests(memory: MemoryConfig, pattern: str, count: int, seed: int = 1) -> tuple[Ints, Ints]:
    """Byte addresses and write flags.

    Parameters
    ----------
    memory
        Whose addresses they are.
    pattern
        One of ``PATTERNS``.
    count
        Requests.
    seed
        Of patterns that are drawn.

    Returns
    -------
    tuple[Ints, Ints]
        (count,) each.

    Raises
    ------
    InputError
        For another pattern.
    """
    if pattern not in PATTERNS:
        raise InputError(
            f"pattern {pattern!r}{near_miss(pattern, PATTERNS)}; allowed: {', '.join(PATTERNS)}"
        )
    index = np.arange(count, dtype=np.int64)
    mapping = AddressMap.parse(memory.address_map, memory.organization)
    if pattern.startswith("rand"):
        bits = sum(mapping.width.values())
        draw = random.Random(seed)
        bursts = np.array([draw.getrandbits(bits) for _ in range(count)], dtype=np.int64)
    elif pattern.startswith(("seq", "mix")):
        bursts = index
    else:
        bursts = np.zeros(count, dtype=np.int64)
        for name, value in _fields(pattern, index, memory).items():
            mask = (1 << mapping.width[name]) - 1
            bursts |= (value & mask) << mapping.position[name]
    writes = np.zeros(count, dtype=np.int64)
    if pattern == "seq_write":
        writes[:] = 1
    elif pattern.endswith("mix_2r1w"):
        writes[2::3] = 1
    return bursts * memory.organization.burst_bytes, writes
