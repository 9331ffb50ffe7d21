"""A validation on disk: its folder, and the rows as CSV."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pimsim.config.errors import InputError
from pimsim.config.files import write_whole
from pimsim.validate.judge import status_of
from pimsim.validate.types import Row

__all__ = ["make_folder", "write_rows"]

COLUMNS = (
    "suite", "group", "case", "metric", "reference", "ours", "error", "status", "known_wrong",
)  # fmt: skip


def make_folder(folder: Path) -> None:
    """Create ``folder``, before work starts that would be lost without it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror})") from error


def write_rows(path: Path, rows: Sequence[tuple[str, Row]]) -> None:
    """All rows, one a line; ``rows`` are pairs of suite and row."""
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
