"""What a comparison with a reference is made of."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from pimsim.config.errors import InputError, near_miss
from pimsim.config.reading import read_text

T = TypeVar("T")

__all__ = ["OWN_TABLES", "ReferenceLine", "References", "Row", "Suite", "lines_of", "read_lines"]


@dataclass(frozen=True)
class Row:
    """One figure of a reference and ours."""

    group: str
    """Key in ``configs/validate/tolerances.yaml`` whose limits bind this row."""
    case: str
    """What was run, as the reference names it (``HBM2_8Gb_x128/seq_read/10000/refresh``)."""
    metric: str
    """``cycles``, ``ACT``, ``energy_pj``: with its unit where it has one."""
    reference: float
    ours: float
    known_wrong: str = ""
    """Why the reference is wrong here; such rows are shown, and counted apart."""

    @property
    def error(self) -> float:
        """Relative to the reference; infinite where that is 0 and ours is not."""
        if self.reference == 0:
            return 0.0 if self.ours == 0 else float("inf")
        return (self.ours - self.reference) / self.reference


OWN_TABLES: Mapping[str, str] = {
    "aim.csv": "pim/aim.csv",
    "aim_gemv.csv": "pim/aim_gemv.csv",
    "aim_micro.csv": "pim/aim_micro.csv",
    "aim_random.csv": "pim/aim_random.csv",
    "attacc_direct.csv": "attacc/ramulator_direct.csv",
    "attacc_random.csv": "attacc/ramulator_random.csv",
    "attacc_system.csv": "attacc/system.csv",
    "attacc_system_more.csv": "attacc/system_more.csv",
    "collectives.csv": "fabric/collectives.csv",
    "dramsim3.csv": "dram/dramsim3.csv",
    "dramsim3_closed.csv": "dram/dramsim3_closed.csv",
    "dramsim3_lpddr4.csv": "dram/dramsim3_lpddr4.csv",
    "duplex.csv": "papers/duplex.csv",
    "hbm_pim.csv": "pim/hbm_pim.csv",
    "hbm_pim_extra.csv": "pim/hbm_pim_extra.csv",
    "neupims_cycles.csv": "neupims/cycles.csv",
    "onnxim.csv": "npu/onnxim.csv",
    "onnxim_more.csv": "npu/onnxim_more.csv",
    "papers.csv": "papers/papers.csv",
    "ramulator2.csv": "dram/ramulator2.csv",
    "scalesim.csv": "npu/scalesim.csv",
}
"""Shipped tables, and where ``--reference DIR`` may have one in its place."""

_MAX_TABLE_BYTES = 64 * 2**20


_WHOLE = ("[0-9]{1,18}", "a whole number")
_NUMBER = (r"[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?", "a number")


class ReferenceLine(dict[str, str]):
    """One line of a table, which says where it stands when a column is missing."""

    def __init__(self, values: Mapping[str, str], where: str) -> None:
        super().__init__(values)
        self.where = where

    def __missing__(self, column: str) -> str:
        raise InputError(f"{self.where}: no column {column!r}; there are {', '.join(self)}")

    def whole(self, column: str) -> int:
        """A whole number; ``InputError`` for anything else."""
        if not re.fullmatch(_WHOLE[0], self[column]):
            raise InputError(
                f"{self.where}: {column}: {_WHOLE[1]} is expected, found {self[column]!r}"
            )
        return int(self[column])

    def number(self, column: str) -> float:
        """A number; ``InputError`` for anything else."""
        if not re.fullmatch(_NUMBER[0], self[column]):
            raise InputError(
                f"{self.where}: {column}: {_NUMBER[1]} is expected, found {self[column]!r}"
            )
        return float(self[column])

    def known(self, column: str, values: Mapping[str, T]) -> T:
        """What a word stands for. Raises ``InputError`` with the near miss."""
        word = self[column]
        if word not in values:
            raise InputError(
                f"{self.where}: {column}: unknown {word!r}{near_miss(word, values)}; known: "
                f"{', '.join(values)}"
            )
        return values[word]


def read_lines(path: Path) -> Iterator[ReferenceLine]:
    """Lines of a table.

    Parameters
    ----------
    path
        Of a CSV file with a header.

    Raises
    ------
    InputError
        With file and line, for one that is none.
    """
    yield from lines_of(read_text(path, "a table of reference figures", _MAX_TABLE_BYTES), path)


def lines_of(text: str, path: Path) -> Iterator[ReferenceLine]:
    """Lines of the text of a table.

    Parameters
    ----------
    text
        CSV with a header.
    path
        Where it was read, for messages.

    Raises
    ------
    InputError
        With file and line, for one that is none.
    """
    lines = csv.DictReader(text.splitlines())
    try:
        if not lines.fieldnames:
            raise InputError(f"{path}: no table: it is empty")
        for line in lines:
            where = f"{path}:{lines.line_num}"
            if None in line or None in line.values():
                raise InputError(f"{where}: {len(lines.fieldnames)} fields are expected")
            yield ReferenceLine(line, where)
    except csv.Error as error:
        raise InputError(f"{path}:{lines.line_num + 1}: no line of a table: {error}") from None


@cache
def _numbers(shipped: Path) -> Mapping[str, tuple[str, str]]:
    """Patterns of the columns in which the shipped table has numbers alone."""
    lines = list(read_lines(shipped))
    return {
        column: kind
        for column in lines[0]
        for kind in (_NUMBER, _WHOLE)  # the narrower one is kept
        if all(re.fullmatch(kind[0], line[column]) for line in lines)
    }


@dataclass(frozen=True)
class References:
    """Where reference figures lie."""

    tables: Path
    """Tables that ship with pimsim (``tests/data``)."""
    folder: Path | None
    """``--reference DIR``: other projects' own files, which do not ship, and tables that take the
    place of ours (``OWN_TABLES``); None without."""

    def table(self, name: str) -> Iterator[ReferenceLine]:
        """Lines of the shipped table ``name``, or of the one that takes its place in ``folder``.

        Raises ``InputError``, with file and line, for a table that is none, and for text where the
        shipped one has numbers.
        """
        shipped = self.tables / name
        own = None if self.folder is None else self.folder / OWN_TABLES[name]
        if own is None or not own.exists():
            yield from read_lines(shipped)
            return
        patterns = _numbers(shipped)
        for line in read_lines(own):
            for column, (pattern, what) in patterns.items():
                if column in line and not re.fullmatch(pattern, line[column]):
                    raise InputError(
                        f"{line.where}: {column}: {what} is expected, found {line[column]!r}"
                    )
            yield line

    def file(self, path: str) -> Path | None:
        """``path`` below ``folder``; None without a folder, ``InputError`` where it lacks it."""
        if self.folder is None:
            return None
        found = self.folder / path
        if not found.is_file():
            raise InputError(f"--reference {self.folder}: no file {path}")
        return found


@dataclass(frozen=True)
class Suite:
    """A named set of comparisons; rows come as they are simulated."""

    name: str
    title: str
    rows: Callable[[References], Iterator[Row]]
