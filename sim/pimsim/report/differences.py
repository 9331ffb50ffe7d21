"""In what configs differ, on a page."""

from __future__ import annotations

from collections.abc import Sequence

from pimsim.config.differences import Difference
from pimsim.report.page import TableData

__all__ = ["differences_table"]

_FOLDED = 40


def differences_table(found: Sequence[Difference], names: Sequence[str]) -> TableData:
    """In what configs differ, a key a row.

    Parameters
    ----------
    found
        Differences.
    names
        Of the configs.
    """
    rows = tuple((each.key, *(value or "absent" for value in each.values)) for each in found)
    return TableData("Keys that differ", ("key", *names), rows, folded=len(rows) > _FOLDED)
