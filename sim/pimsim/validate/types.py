"""What a comparison with a reference is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pimsim.config.errors import InputError

__all__ = ["References", "Row", "Suite"]


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


@dataclass(frozen=True)
class References:
    """Where reference figures lie."""

    tables: Path
    """Tables that ship with pimsim (``tests/data``)."""
    folder: Path | None
    """``--reference DIR``: other projects' own files, which do not ship; None without."""

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
