"""Rows and summaries as tables for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from pimsim.validate.judge import GroupSummary, status_of, verdict_of
from pimsim.validate.tolerances import tolerance_of
from pimsim.validate.types import Row

__all__ = ["row_table", "summary_table"]


def row_table(group: str, rows: Sequence[Row], most: int | None) -> Table:
    """Reference, ours and error, in the order of the rows.

    Parameters
    ----------
    group
        Named in the title.
    rows
        Of the group.
    most
        Rows that are shown: of more the worst; None: all.
    """
    title = group
    if most is not None and len(rows) > most:
        worst = sorted(range(len(rows)), key=lambda i: -abs(rows[i].error))[:most]
        title = f"{group}: the worst {most} of {len(rows)}"
        rows = [rows[i] for i in sorted(worst)]
    table = Table(title=title, title_justify="left")
    table.add_column("case", overflow="fold")
    table.add_column("metric", overflow="fold")
    for name in ("reference", "ours", "error"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    limits = tolerance_of(group)
    for row in rows:
        status = status_of(row)
        note = row.known_wrong or limits.misses.get(f"{row.case} {row.metric}", "")
        said = "" if status in ("exact", "ok", "reported") else status
        table.add_row(
            row.case, row.metric, _figure(row.reference), _figure(row.ours), f"{row.error:+.2%}",
            ": ".join(part for part in (said, note) if part),
        )  # fmt: skip
    return table


def summary_table(groups: Sequence[GroupSummary]) -> Table:
    """One line a group: how many rows, exact ones, errors and their bias, verdict.

    Parameters
    ----------
    groups
        Summaries of their rows.
    """
    table = Table(title="summary", title_justify="left")
    table.add_column("group", no_wrap=True)
    for name in (
        "rows",
        "exact",
        "mean",
        "median",
        "p90",
        "worst",
        "signed",
        "bias",
        "wrong refs",
        "misses",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("limits", overflow="fold")
    table.add_column("", no_wrap=True)
    for group in groups:
        limits = tolerance_of(group.group)
        said = [
            f"{name} {allowed:.3g}" if allowed < 0.001 and allowed else f"{name} {allowed:.2%}"
            for name in ("each", "share", "median", "mean", "bias", "p90", "signed")
            if (allowed := getattr(limits, name)) is not None
        ]
        table.add_row(
            group.group, str(group.rows), str(group.exact), f"{group.mean:.2%}",
            f"{group.median:.2%}", f"{group.p90:.2%}", f"{group.worst:+.2%}",
            f"{group.signed:+.2%}", f"{group.bias:+.2%}",
            str(group.known_wrong or ""), str(group.misses or ""),
            ", ".join(said), verdict_of(group),
        )  # fmt: skip
    return table


def _figure(value: float) -> str:
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}"
