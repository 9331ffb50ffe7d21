"""Tables as the command line prints them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pimsim.config.differences import Difference

__all__ = ["differences_table", "output_width", "print_table"]

_FILE_WIDTH = 160
_MOST_DIFFERENCES = 15


def output_width() -> int | None:
    """Columns of a table: what it needs where it goes to a file or a pipe; None: the terminal's."""
    return None if sys.stdout.isatty() else _FILE_WIDTH


def print_table(title: str, rows: Mapping[str, str], width: int | None = None) -> None:
    """A title and a table of two columns.

    Parameters
    ----------
    title
        A line above the table.
    rows
        Values by name; rows without a value are left out.
    width
        Columns of text; None: the terminal's.
    """
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    # Names come from the user's files: brackets in them are no markup.
    console = Console(markup=False, highlight=False, width=width)
    console.print(title)
    console.print(table)


def differences_table(found: Sequence[Difference], names: Sequence[str]) -> list[Any]:
    """In what configs differ, a key a row, as rich prints it; a line where there are too many.

    Parameters
    ----------
    found
        Differences.
    names
        Of the configs.

    Returns
    -------
    list
        Nothing where they do not differ.
    """
    from rich.text import Text

    from pimsim.result.cells import add_rows, new_table

    if not found:
        return []
    table = new_table("what differs", "key", *names)
    add_rows(table, *((one.key, *one.values) for one in found[:_MOST_DIFFERENCES]))
    left = len(found) - _MOST_DIFFERENCES
    more = [Text(f"{left} more keys differ; --json has all")] if left > 0 else []
    return [table, *more]
