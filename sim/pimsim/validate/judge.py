"""From rows to a verdict: errors by group, against the group's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum
from statistics import fmean, median

import numpy as np

from pimsim.validate.tolerances import Tolerance, tolerance_of
from pimsim.validate.types import Row

__all__ = ["GroupSummary", "judge", "status_of", "verdict_of"]

_ROUNDING = 1e-12
"""Floating-point noise in a relative error; far below one cycle of any row."""


@dataclass(frozen=True)
class GroupSummary:
    """Errors of one group, relative to the references."""

    group: str
    rows: int
    """Rows that are judged; those whose reference is wrong are not."""
    exact: int
    known_wrong: int
    """Rows whose reference is known to be wrong."""
    misses: int
    """Rows listed as known misses."""
    mean: float
    """Of the absolute errors."""
    median: float
    worst: float
    """The signed error of the largest size."""
    worst_row: str
    least: float
    """The signed errors lie between this ..."""
    greatest: float
    """... and this."""
    p90: float
    """90th percentile of the absolute errors."""
    signed: float
    """Mean of the signed errors."""
    bias: float
    """Sum of ours over sum of references, less one."""
    failures: tuple[str, ...]
    """What is outside the limits, in words; empty: passed."""


def status_of(row: Row) -> str:
    """``exact``, ``ok``, ``outside``, ``known miss`` or ``reference wrong``; ``reported`` in a
    group without limits.

    Parameters
    ----------
    row
        Judged by its group's limits.
    """
    if row.known_wrong:
        return "reference wrong"
    if _key(row) in tolerance_of(row.group).misses:
        return "known miss"
    if row.error == 0:
        return "exact"
    if not tolerance_of(row.group).judges:
        return "reported"
    each = tolerance_of(row.group).each
    return "outside" if each is not None and abs(row.error) > each + _ROUNDING else "ok"


def verdict_of(group: GroupSummary) -> str:
    """``ok``, ``FAILED``, or ``reported`` where nothing is judged.

    Parameters
    ----------
    group
        Summary of its rows.
    """
    if not tolerance_of(group.group).judges:
        return "reported"
    return "FAILED" if group.failures else "ok"


def judge(rows: Iterable[Row]) -> list[GroupSummary]:
    """One summary for each group, in the order in which they came.

    Parameters
    ----------
    rows
        Of any groups.
    """
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.group, []).append(row)
    return [_summary(group, members, tolerance_of(group)) for group, members in grouped.items()]


def _key(row: Row) -> str:
    return f"{row.case} {row.metric}"


def _summary(group: str, members: Sequence[Row], limits: Tolerance) -> GroupSummary:
    judged = [row for row in members if not row.known_wrong]
    errors = [row.error for row in judged]
    sizes = [abs(error) for error in errors]
    worst = max(judged, key=lambda row: abs(row.error), default=None)
    total = fsum(row.reference for row in judged)
    bias = fsum(row.ours for row in judged) / total - 1 if total else 0.0
    figures = {
        "mean": fmean(sizes) if sizes else 0.0,
        "median": median(sizes) if sizes else 0.0,
        "bias": bias,
        "p90": float(np.percentile(sizes, 90)) if sizes else 0.0,
        "signed": fmean(errors) if errors else 0.0,
    }
    return GroupSummary(
        group=group,
        rows=len(judged),
        exact=sum(error == 0 for error in errors),
        known_wrong=len(members) - len(judged),
        misses=sum(_key(row) in limits.misses for row in judged),
        worst=worst.error if worst else 0.0,
        worst_row=_key(worst) if worst else "",
        least=min(errors, default=0.0),
        greatest=max(errors, default=0.0),
        failures=tuple(_failures(judged, limits, figures.get)),
        mean=figures["mean"],
        median=figures["median"],
        bias=bias,
        p90=figures["p90"],
        signed=figures["signed"],
    )


def _failures(
    judged: Sequence[Row], limits: Tolerance, figure: Callable[[str], float | None]
) -> Iterable[str]:
    if limits.each is not None and limits.share is not None:
        within = sum(abs(row.error) <= limits.each + _ROUNDING for row in judged)
        if within < limits.share * len(judged):
            yield (
                f"{within} of {len(judged)} rows are within {limits.each:.2%}, allowed "
                f"{limits.share:.2%}"
            )
    elif limits.each is not None:
        for row in judged:
            outside = abs(row.error) > limits.each + _ROUNDING
            if outside and _key(row) not in limits.misses:
                yield f"{_key(row)}: {row.error:+.2%}, allowed {limits.each:.2%}"
            elif not outside and _key(row) in limits.misses:
                yield f"{_key(row)}: within its limit, but listed as a known miss"
    for name in ("median", "mean", "bias", "p90", "signed"):
        allowed: float | None = getattr(limits, name)
        found = figure(name)
        if allowed is not None and found is not None and abs(found) > allowed + _ROUNDING:
            yield f"{name} {found:+.2%}, allowed {allowed:.2%}"
