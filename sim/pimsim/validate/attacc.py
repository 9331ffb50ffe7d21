"""AttAcc: attention in one stack against its public simulator, fresh runs and the shipped log.

Fresh runs: commit c600051 of scale-snu/attacc_simulator (``attacc_direct.csv``; of random and
small sizes, 1 and 2 B elements ``attacc_random.csv``). The log shipped
with it (``attacc/attention_cycles.csv``) was written by its trace generator as of before that
commit, which repeats softmax and probabilities of an unpaired head in every step; it is held
against that generator (stage rule ``attacc_repeats_softmax``).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from pimsim.config.loader import load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.designs.attacc import attention, attention_commands
from pimsim.hardware.pim.stream import run_stream
from pimsim.validate.types import References, Row

__all__ = ["DIRECT", "LOG", "SIMULATED_COMMANDS", "direct_rows", "log_rows", "rows"]

DIRECT = ("attacc_direct.csv", "attacc_random.csv")
LOG = "attacc/attention_cycles.csv"
SIMULATED_COMMANDS = 1_000_000
"""Rows of the log with more commands (of all channels) are counted but not scheduled: most of
the buffer die's hold millions."""
_LEVELS = {"BA": "bank", "BG": "bg", "BUFFER": "buffer"}
_COUNTS = ("mac", "softmax", "mvgb", "mvsb", "wrgb")


def rows(references: References) -> Iterator[Row]:
    """Fresh runs, then the log where ``--reference`` has it.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    for table in DIRECT:
        yield from direct_rows(references.table(table))
    log = references.file(LOG)
    if log is not None:
        yield from log_rows(log)


def direct_rows(lines: Iterable[Mapping[str, str]]) -> Iterator[Row]:
    """Cycles and command counts of the fresh runs.

    Parameters
    ----------
    lines
        Of a table of fresh runs, by column.

    References
    ----------
    scale-snu/attacc_simulator c600051.
    """
    for line in lines:
        design = _design(line["level"], capped=not line["preset"].endswith("_NPC"))
        heads, head_dim, context = (int(line[key]) for key in ("nhead_per_hbm", "dhead", "L"))
        element_bytes = int(line.get("dbyte", design.element_bytes))
        design = design.model_copy(update={"element_bytes": element_bytes})
        case = f"{design.name}/{heads}x{head_dim}/{context}/{element_bytes}B"
        result = run_stream(design, attention(design, heads, heads, head_dim, context))
        yield Row("attacc.direct_cycles", case, "cycles", int(line["cycles"]), result.cycles)
        yield from _count_rows(case, line, _counts(design, result.commands))


def log_rows(table: Path, simulated_commands: int = SIMULATED_COMMANDS) -> Iterator[Row]:
    """Command counts of every row of the log; cycles of those within ``simulated_commands``.

    Parameters
    ----------
    table
        Path of the log that ships with AttAcc's simulator.
    simulated_commands
        Most commands of a row that is simulated.
    """
    for line in _lines(table):
        design = _of_the_log(
            _design(_LEVELS[line["pim_type"]], capped=line["power_constraint"] == "True"),
            int(line["dbyte"]),
        )
        heads, head_dim, context = (int(line[key]) for key in ("nhead", "dhead", "L"))
        case = f"log/{design.name}/{heads}x{head_dim}/{context}/{design.element_bytes}B"
        commands = attention_commands(design, heads, head_dim, context)
        yield from _count_rows(case, line, _counts(design, commands))
        if sum(commands.values()) > simulated_commands:
            continue
        result = run_stream(design, attention(design, heads, heads, head_dim, context))
        group = "attacc.log_bank_cycles" if line["pim_type"] == "BA" else "attacc.log_cycles"
        yield Row(group, case, "cycles", int(line["cycle"]), result.cycles)


def _lines(table: Path) -> Iterator[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _design(level: str, *, capped: bool) -> PimDesignConfig:
    return load_stream_pim(f"attacc-{level}" + ("" if capped else "-npc")).config


def _of_the_log(design: PimDesignConfig, element_bytes: int) -> PimDesignConfig:
    """``design`` with the trace generator of the log's time."""
    assert design.attention is not None
    rules = [*design.attention.stage_rules, "attacc_repeats_softmax"]
    mapping = design.attention.model_copy(update={"stage_rules": rules})
    return design.model_copy(update={"attention": mapping, "element_bytes": element_bytes})


def _counts(design: PimDesignConfig, commands: Mapping[str, int]) -> dict[str, int]:
    """Commands by the table's names."""
    assert design.attention is not None
    names = design.attention.commands
    by_column = (
        names.mac,
        names.softmax,
        names.move_probability,
        names.move_score,
        names.write_query,
    )
    return {column: commands.get(name, 0) for column, name in zip(_COUNTS, by_column, strict=True)}


def _count_rows(case: str, line: Mapping[str, str], counts: Mapping[str, int]) -> Iterator[Row]:
    for column in _COUNTS:
        yield Row("attacc.counts", case, column, int(line[column]), counts[column])
