"""The ranges of errors by group as a block of a page: written by ``validate``, never by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pimsim.config.errors import InputError
from pimsim.config.files import write_whole
from pimsim.config.reading import read_text
from pimsim.validate.judge import GroupSummary, verdict_of

__all__ = ["BEGIN", "END", "range_lines", "split_page", "write_ranges"]

BEGIN = "<!-- ranges: written by `pimsim validate --ranges FILE` -->"
END = "<!-- end of ranges -->"
_HEAD = ("| group | rows | exact | median | from | to | |", "|---|---|---|---|---|---|---|")
_MAX_PAGE_BYTES = 4 * 2**20


def range_lines(groups: Sequence[GroupSummary]) -> dict[str, str]:
    """A line of the table for each group.

    Parameters
    ----------
    groups
        Summaries of their rows.

    Returns
    -------
    dict[str, str]
        By group, a line of Markdown.
    """
    return {
        group.group: f"| {group.group} | {group.rows:,} | {group.exact:,} | {group.median:.2%} | "
        f"{group.least:+.2%} | {group.greatest:+.2%} | {verdict_of(group)} |"
        for group in groups
    }


def split_page(path: Path) -> tuple[str, str, str]:
    """What stands before, in and after the block of a page.

    Parameters
    ----------
    path
        Of the page.

    Raises
    ------
    InputError
        For what cannot be read, or has no block.
    """
    text = read_text(path, "a page", _MAX_PAGE_BYTES)
    before, begin, rest = text.partition(BEGIN)
    block, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path}: no block between {BEGIN!r} and {END!r}")
    return before, block, after


def write_ranges(path: Path, groups: Sequence[GroupSummary]) -> None:
    """Put the groups' lines into the block of a page; those of groups that did not run stay.

    Parameters
    ----------
    path
        Of the page.
    groups
        Summaries of their rows.

    Raises
    ------
    InputError
        Where the page has no block.
    """
    before, block, after = split_page(path)
    kept = {
        line.split("|")[1].strip(): line
        for line in block.splitlines()
        if line.startswith("| ") and line not in _HEAD
    }
    lines = kept | range_lines(groups)
    table = "\n".join([*_HEAD, *(lines[name] for name in sorted(lines))])
    write_whole(str(path), f"{before}{BEGIN}\n\n{table}\n\n{END}{after}".encode())
