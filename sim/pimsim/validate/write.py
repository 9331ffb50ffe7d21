"""A validation on disk: the rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pimsim.config.files import write_whole
from pimsim.validate.judge import status_of
from pimsim.validate.types import Row

__all__ = ["write_rows"]

COLUMNS = (
    "suite", "group", "case", "metric", "reference", "ours", "error", "status", "known_wrong",
)  # fmt: skip


def write_rows(path: Path, rows: Sequence[tuple[str, Row]]) -> None:
    """All rows, one a line.

    Parameters
    ----------
    path
        Of the file.
    rows
        Pairs of suite and row.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for suite, row in rows:
        writer.writerow(
            [
                suite,
                row.group,
                row.case,
                row.metric,
                f"{row.reference:.12g}",
                f"{row.ours:.12g}",
                f"{row.error:.6f}",
                status_of(row),
                row.known_wrong,
            ]
        )
    write_whole(path, text.getvalue().encode())
