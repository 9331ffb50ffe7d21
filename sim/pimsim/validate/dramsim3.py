"""Against DRAMsim3: cycles, commands, energy and command traces of the runs in its tables.

The memories are our presets, which have the numbers of its files; with ``--reference`` the files
themselves are read, and its golden command traces are compared command by command.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from pimsim.config.energy import EnergyConfig
from pimsim.config.loader import load_energy, load_memory
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.command_trace import read_command_trace
from pimsim.hardware.dram.dramsim3_ini import read_dramsim3_ini
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.replay import ReplayResult, replay
from pimsim.hardware.energy.dram import count_dram, dram_energy
from pimsim.validate.dram_patterns import requests
from pimsim.validate.types import References, Row

__all__ = ["TABLES", "command_rows", "energy_pj", "legality_rows", "memory_of", "rows", "run_rows"]

TABLES = ("dramsim3.csv", "dramsim3_lpddr4.csv", "dramsim3_closed.csv")
"""The second: the LPDDR4 runs of the reference's NOTES.md, section 1.4. The third: runs of the
same files with ``row_buf_policy = CLOSE_PAGE``, at DRAMsim3 2981759."""
NEVER = 2 * 10**9
"""tREFI of the runs without refresh."""
_PRESETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "DDR4_8Gb_x8_3200": ("ddr4-3200", ()),
    "GDDR6_8Gb_x16": ("gddr6", ()),
    "LPDDR4_8Gb_x16_2400": ("lpddr4-2400", ()),
    "HBM2_8Gb_x128": ("hbm2", ()),
    "HBM2_8Gb_x128_1ch": ("hbm2", ("organization.channels=1",)),
    "HBM2_8Gb_x128_1ch_bgint": (
        "hbm2", ("organization.channels=1", "address_map=rorabacobgch"),
    ),
    "HBM2_8Gb_x128_1ch_nodual": (
        "hbm2", ("organization.channels=1", "controller.commands_per_cycle=1"),
    ),
}  # fmt: skip
"""Our memory for each of DRAMsim3's files."""
_COUNTS = {
    "acts": "ACT", "pres": "PRE", "reads": "RD", "writes_issued": "WR", "refs": "REF",
    "row_hits": "row_hits", "undrained_writes": "undrained_writes",
}  # fmt: skip
_NO_FILE = {"LPDDR4_8Gb_x16_2400"}
"""Not among the reference's files: always our preset."""
_PER_BANK_REFRESH = (
    "DRAMsim3 issue 24: it bars all banks but the refreshed one, whose ACT follows REFpb at once"
)


def memory_of(references: References, config: str) -> MemoryConfig:
    """The memory of a run: DRAMsim3's file where there is one, else our preset.

    Parameters
    ----------
    references
        With DRAMsim3's files, of ``--reference``.
    config
        Its name for a file; ends in ``__noref`` where refresh is out of reach, in ``_refpb`` where
        it is per bank, in ``_closed`` where every access closes its row.
    """
    given, _, without = config.partition("__")
    name = given.removesuffix("_refpb").removesuffix("_closed")
    path = None if name in _NO_FILE else references.file(f"dram/configs/{name}.ini")
    if path is not None:
        memory = read_dramsim3_ini(path)
    else:
        preset, overrides = _PRESETS[name]
        memory = load_memory(preset, overrides).config
    if given.endswith("_closed"):
        closing = memory.controller.model_copy(update={"page_policy": "auto-precharge"})
        memory = memory.model_copy(update={"controller": closing})
    if without:
        return memory.model_copy(update={"timings": memory.timings | {"tREFI": NEVER}})
    return memory


def energy_pj(memory: MemoryConfig, result: ReplayResult, constants: EnergyConfig) -> float:
    """Energy of a replay without I/O, which DRAMsim3 does not count either.

    Parameters
    ----------
    memory
        That was replayed.
    result
        Of the replay.
    constants
        With ``dram_model: currents``.

    Returns
    -------
    float
        Picojoule.
    """
    counts = count_dram(
        memory, result.commands, result.active_rank_cycles, result.cycles, result.time_ps(memory)
    )
    return dram_energy(counts, memory, constants).core_j * 1e12


def run_rows(references: References, longest: int | None = None) -> Iterator[Row]:
    """Each run's cycles, counts, latency and energy.

    DRAMsim3's energy lacks the factor tCK (NOTES 1.2), so the reference is its figure times tCK.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    longest
        Most requests of a run that is compared; None: all.
    """
    constants = load_energy("default").config.model_copy(update={"dram_model": "currents"})
    for table in TABLES:
        for row in references.table(table):
            count = int(row["n"])
            if longest is not None and count > longest:
                continue
            refresh = row["refresh"] == "1"
            memory = memory_of(references, row["config"] + ("" if refresh else "__noref"))
            result = replay(memory, *requests(memory, row["pattern"], count))
            case = "/".join(
                (row["config"], row["pattern"], row["n"], "refresh" if refresh else "no refresh")
            )
            yield Row("dramsim3.cycles", case, "cycles", float(row["cycles"]), result.cycles)
            ours = result.commands | {
                "RD": result.commands["RD"] + result.commands["RDA"],
                "WR": result.commands["WR"] + result.commands["WRA"],
                "row_hits": result.row_hits,
                "undrained_writes": result.undrained_writes,
            }
            for column, metric in _COUNTS.items():
                if column in row:
                    yield Row("dramsim3.counts", case, metric, float(row[column]), ours[metric])
            if "avg_read_latency" in row:
                latency, found = float(row["avg_read_latency"]), result.avg_read_latency_cycles
                yield Row("dramsim3.latency", case, "avg_read_latency_cycles", latency, found)
            total_pj = float(row["total_energy_pJ"]) * float(row["tCK_ns"])
            ours_pj = energy_pj(memory, result, constants)
            yield Row("dramsim3.energy", case, "energy_pj", total_pj, ours_pj)


def _golden(references: References) -> Iterator[tuple[Path, str, str, int]]:
    """Golden command traces: file, config, pattern, requests."""
    if references.folder is None:
        return
    for path in sorted((references.folder / "dram" / "commands").glob("*.cmd.gz")):
        config, pattern, count = path.name.removesuffix(".cmd.gz").split(".")
        yield path, config, pattern, int(count.removeprefix("n"))


def command_rows(references: References, part: str = "") -> Iterator[Row]:
    """Commands at which our trace and the golden one differ: cycle, command, bank, row, column.

    Those with per-bank refresh are left out: what DRAMsim3 does there is not legal.

    Parameters
    ----------
    references
        With the golden traces, of ``--reference``.
    part
        Only traces whose file name holds it.
    """
    for path, config, pattern, count in _golden(references):
        if config.endswith("_refpb") or part not in path.name:
            continue
        memory = memory_of(references, config)
        golden = read_command_trace(path, memory)
        found = replay(
            memory, *requests(memory, pattern, count), log_entries=2 * len(golden)
        ).trace_lines()
        differences = sum(
            theirs is None
            or ours is None
            or (theirs.entry, theirs.column) != (ours.entry, ours.column)
            for theirs, ours in zip_longest(golden, found)
        )
        case = f"{config}/{pattern}/{count}"
        yield Row("dramsim3.commands", case, "commands_that_differ", 0, differences)


def legality_rows(references: References, part: str = "") -> Iterator[Row]:
    """Whether our checker finds a golden trace illegal: 0, or 1 with the rule it breaks.

    Parameters
    ----------
    references
        With the golden traces, of ``--reference``.
    part
        Only traces whose file name holds it.
    """
    for path, config, pattern, count in _golden(references):
        if part not in path.name:
            continue
        memory = memory_of(references, config)
        lines = read_command_trace(path, memory)
        found = check_commands((item.entry for item in lines), memory)
        per_bank = config.endswith("_refpb")
        yield Row(
            "dramsim3.commands",
            f"{config}/{pattern}/{count}",
            "illegal",
            0,
            int(found is not None),
            known_wrong=f"{_PER_BANK_REFRESH} ({found})" if per_bank and found else "",
        )


def rows(references: References) -> Iterator[Row]:
    """All comparisons; command traces only with ``--reference``.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    yield from run_rows(references)
    yield from command_rows(references)
    yield from legality_rows(references)
