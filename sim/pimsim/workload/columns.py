"""Tables of others as columns: a CSV's header is checked, its numbers are read as whole arrays."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError, near_miss
from pimsim.config.reading import read_text
from pimsim.config.resources import display_path

__all__ = ["MAX_COLUMNS", "CsvColumns", "read_columns", "read_csv", "shown_cell"]

MAX_COLUMNS = 1000
"""Of a table that is read; well over what anybody records."""

_WHOLE = re.compile(r"\s*[0-9]{1,18}\s*")
_NUMBER = re.compile(r"\s*[+-]?([0-9]{1,18}(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,2})?\s*")


class CsvColumns:
    """The lines of a CSV file by column, as text; numbers are read where they are asked for."""

    def __init__(
        self, path: Path, header: Sequence[str], lines: list[list[str]], numbers: Sequence[int],
        header_number: int = 1,
    ) -> None:  # fmt: skip
        """``numbers``: of the file's lines, where each of ``lines`` ends; ``header_number``: the
        header's."""
        self.shown = display_path(path)
        self.header_where = f"{self.shown}:{header_number}"
        """File and line of the header."""
        self.header = tuple(header)
        self._lines = lines
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._lines)

    def line(self, row: int) -> int:
        """Number of the file's line in which a row, from 0, ends."""
        return self._numbers[row]

    def where(self, row: int) -> str:
        """File and line of a row, from 0."""
        return f"{self.shown}:{self.line(row)}"

    @property
    def lines(self) -> Sequence[Sequence[str]]:
        """The cells of each line, in the header's order."""
        return self._lines

    def text(self, column: str) -> list[str]:
        """A column as it stands."""
        at = self.header.index(column)
        return [line[at] for line in self._lines]

    def whole(self, column: str) -> NDArray[np.int64]:
        """A column of whole numbers of at least 0. Raises ``InputError`` with file and line."""
        found: NDArray[np.int64] = self._checked(column, _WHOLE, "a whole number").astype(np.int64)
        return found

    def numbers(self, column: str) -> NDArray[np.float64]:
        """A column of numbers. Raises ``InputError`` with file and line."""
        found: NDArray[np.float64] = self._checked(column, _NUMBER, "a number").astype(np.float64)
        return found

    def _checked(self, column: str, pattern: re.Pattern[str], what: str) -> NDArray[np.str_]:
        cells = self.text(column)
        for row, cell in enumerate(cells):
            if pattern.fullmatch(cell) is None:
                raise InputError(
                    f"{self.where(row)}: {column} is {shown_cell(cell)}; {what} is expected"
                )
        return np.array(cells, dtype=np.str_)


def shown_cell(cell: str) -> str:
    """A cell as an error message shows it: quoted, on one line, not too long.

    Parameters
    ----------
    cell
        Its text.
    """
    return repr(cell if len(cell) <= 40 else f"{cell[:37]}...")


def read_csv(path: Path, what: str, content: str | None = None) -> CsvColumns:
    """A CSV file with a header; lines whose cells are all blank are none.

    Parameters
    ----------
    path
        Of the file.
    what
        What is expected, as in "a request trace".
    content
        The text, where it was read before.

    Raises
    ------
    InputError
        For what is no CSV, for a column that stands there twice, for more than ``MAX_COLUMNS`` of
        them, and for lines with more or fewer cells than the header.
    """
    text = read_text(path, what) if content is None else content
    shown = display_path(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    numbers: list[int] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append(row)
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{shown}:{reader.line_num}: not a CSV row: {error}") from None
    if not rows:
        raise InputError(f"{shown}: {what} is expected, the file is empty")
    header = [cell.strip() for cell in rows[0]]
    if len(header) > MAX_COLUMNS:
        raise InputError(
            f"{shown}:{numbers[0]}: {len(header)} columns; {what} has at most {MAX_COLUMNS}"
        )
    twice = next((name for at, name in enumerate(header) if name and name in header[:at]), None)
    if twice is not None:
        raise InputError(f"{shown}:{numbers[0]}: column {shown_cell(twice)} stands there twice")
    for number, row in zip(numbers, rows, strict=True):
        if len(row) != len(header):
            raise InputError(
                f"{shown}:{number}: {len(row)} fields, where the header names {len(header)} "
                f"({', '.join(header[:12])})"
            )
    return CsvColumns(path, header, rows[1:], numbers[1:], numbers[0])


def read_columns(
    path: Path, what: str, text: Iterable[str] = (), whole: Iterable[str] = (),
    numbers: Iterable[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The columns of these names, texts as lists and numbers as arrays.

    Parameters
    ----------
    path
        Of a CSV file.
    what
        Is expected, for messages.
    text
        Names of columns of texts.
    whole
        Names of columns of whole numbers.
    numbers
        Names of columns of numbers.

    Returns
    -------
    dict
        (lines,) of each column.

    Raises
    ------
    InputError
        As ``read_csv`` does, and for a column that is missing.
    """
    table = read_csv(path, what)
    text, whole, numbers = tuple(text), tuple(whole), tuple(numbers)
    for name in (*text, *whole, *numbers):
        if name not in table.header:
            raise InputError(
                f"{table.header_where}: column {name!r} is missing"
                f"{near_miss(name, table.header)}; found {', '.join(table.header)}"
            )
    if not len(table):
        raise InputError(f"{table.shown}: a header, but no lines; {what} is expected")
    return {
        **{name: table.text(name) for name in text},
        **{name: table.whole(name) for name in whole},
        **{name: table.numbers(name) for name in numbers},
    }
