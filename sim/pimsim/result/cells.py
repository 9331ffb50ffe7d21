"""Tables of a terminal (rich), and how values are written in them and in pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["add_rows", "duration", "new_table", "percent"]

_WORDS = ("", "unit", "source", "what holds it back")
"""Columns that are no numbers."""


def new_table(title: str, first: str, *columns: str) -> Table:
    """An empty table; numbers are to the right, the first column and words to the left.

    Parameters
    ----------
    title
        Above it.
    first
        Heading of the first column; those of the others follow.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    table.show_header = bool(first) or any(columns)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="left" if column in _WORDS else "right")
    return table


def add_rows(table: Table, *rows: tuple[str, ...]) -> None:
    """Rows of plain text: names come from the user's files and must not be read as markup.

    Parameters
    ----------
    table
        Of ``new_table``.
    """
    from rich.text import Text

    for row in rows:
        table.add_row(*(Text(cell) for cell in row))


def percent(share: float) -> str:
    """A share, 1 as ``100.0%``.

    Parameters
    ----------
    share
        1 is all.
    """
    return f"{share:.1%}"


def duration(seconds: float) -> str:
    """A time in microseconds, milliseconds or seconds.

    Parameters
    ----------
    seconds
        0 or more.
    """
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:,.3f} {unit}"
    return f"{seconds:,.3f} s"
