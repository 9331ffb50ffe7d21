"""Ramulator 2.1: HBM2 and HBM3 channels with two pseudo channels, every run and count.

The reference drained its requests (a front end of its own that offers one request a tick, in order,
with unique addresses, and ends when all are answered). Its patterns: sequential with the pseudo
channel fastest, then bank group, column, bank, SID, row; the rest touch pseudo channel 0 and bank 0
where the pattern does not say otherwise; random draws each level with Python's ``randrange``, from
the pseudo channel to the column, seed 1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pimsim.config.loader import load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.replay import ReplayResult, replay
from pimsim.validate.types import References, Row

__all__ = ["PATTERNS", "memory_of", "pattern", "rows"]

TABLE = "ramulator2.csv"
_MEMORIES = {
    "HBM2_8Gb_2000": "hbm2-2000",
    "HBM2_8Gb_2400": "hbm2-2400",
    "HBM3_8Gb_8hi_6400": "hbm3-6400",
    "HBM3_16Gb_8hi_6400": "hbm3-6400-16gb",
}
"""Our preset of each of the reference's configs."""
_REFRESH = {"0": "none", "1": "all-bank", "2": "per-bank"}
_SEED = 1
PATTERNS = (
    "seq_read", "seq_write", "mix_2r1w", "rand_read", "rand_mix_2r1w", "conflict_read",
    "bg_stride_read", "samebg_stride_read", "act_stream_read", "pc_stride_read",
)  # fmt: skip

Ints = NDArray[np.int64]


def memory_of(config: str, refresh: str) -> MemoryConfig:
    """One channel of the preset that stands for ``config``.

    Parameters
    ----------
    config
        As the table has it.
    refresh
        As the table has it.
    """
    overrides = ["organization.channels=1", f"controller.refresh={_REFRESH[refresh]}"]
    return load_memory(_MEMORIES[config], overrides).config


def _random(mapping: AddressMap, requests: int, seed: int) -> Ints:
    """Every level drawn for itself, also a SID where there is only one."""
    draw = random.Random(seed).randrange
    names = ("pc", "ra", "bg", "ba", "ro", "co")
    sizes = [1 << mapping.width[name] for name in names]
    drawn = np.array([[draw(size) for size in sizes] for _ in range(requests)], dtype=np.int64)
    return mapping.encode(dict(zip(names, drawn.T, strict=True)))


def pattern(
    name: str, memory: MemoryConfig, requests: int, seed: int = _SEED
) -> tuple[Ints, Ints]:  # fmt: skip
    """Byte addresses and write flags of a pattern.

    Parameters
    ----------
    name
        As the table has it.
    memory
        Whose addresses they are.
    requests
        How many.
    seed
        Of patterns that are drawn.

    Returns
    -------
    tuple[Ints, Ints]
        (requests,) each.

    Raises
    ------
    ValueError
        For another name.
    """
    org = memory.organization
    mapping = AddressMap.parse(memory.address_map, org)
    at = np.arange(requests, dtype=np.int64)

    def strided(level: str, count: int) -> Ints:
        """Bank 0 of each unit in turn, a row from its first column to its last."""
        visit = at // count
        place = {level: at % count, "co": visit % org.columns, "ro": visit // org.columns}
        return mapping.encode(place)

    if name in ("seq_read", "seq_write", "mix_2r1w"):
        addresses = at * org.burst_bytes
    elif name in ("rand_read", "rand_mix_2r1w"):
        addresses = _random(mapping, requests, seed)
    elif name == "conflict_read":
        addresses = mapping.encode({"ro": at % org.rows, "co": at // org.rows})
    elif name == "bg_stride_read":
        addresses = strided("bg", org.bank_groups)
    elif name == "samebg_stride_read":
        addresses = strided("ba", org.banks_per_group)
    elif name == "pc_stride_read":
        addresses = strided("pc", org.pseudo_channels)
    elif name == "act_stream_read":
        groups, banks = org.bank_groups, org.bank_groups * org.banks_per_group
        visit, bank = at // banks, at % banks
        place = {"bg": bank % groups, "ba": bank // groups, "ro": visit % org.rows}
        addresses = mapping.encode({**place, "co": visit // org.rows})
    else:
        raise ValueError(f"no pattern {name!r}")
    writes = np.full(requests, int(name == "seq_write"), dtype=np.int64)
    if "mix" in name:
        writes = (at % 3 == 2).astype(np.int64)
    return addresses, writes


def _counts(result: ReplayResult) -> dict[str, int]:
    """Our counts by the table's columns. Its precharges and refreshes are of either scope."""
    commands = result.commands
    assert result.row_misses is not None and result.row_conflicts is not None
    return {
        "acts": commands["ACT"],
        "pres": commands["PRE"] + commands["PREA"],
        "reads": commands["RD"],
        "writes": commands["WR"],
        "refs": commands["REF"] + commands["REFpb"],
        "row_hits": result.row_hits,
        "row_misses": result.row_misses,
        "row_conflicts": result.row_conflicts,
    }


def _compared(line: Mapping[str, str]) -> Iterator[Row]:
    memory = memory_of(line["config"], line["refresh"])
    addresses, writes = pattern(line["pattern"], memory, int(line["n"]))
    result = replay(memory, addresses, writes)
    case = "/".join((line["config"], line["pattern"], line["n"], f"refresh {line['refresh']}"))
    yield Row("ramulator2.cycles", case, "cycles", float(line["cycles"]), result.cycles)
    for metric, ours in _counts(result).items():
        yield Row("ramulator2.counts", case, metric, float(line[metric]), ours)
    latency = float(line["avg_read_latency"])
    yield Row(
        "ramulator2.latency", case, "avg_read_latency", latency, result.avg_read_latency_cycles
    )


def rows(references: References) -> Iterator[Row]:
    """Every run of the table. Cycles are ticks: clocks for HBM2, half clocks for HBM3.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    for line in references.table(TABLE):
        yield from _compared(line)
