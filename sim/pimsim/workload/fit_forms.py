"""Integer linear forms from samples: what a size is made of, found by looking at several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

__all__ = ["fit_form"]


def fit_form(
    values: Sequence[int], samples: Sequence[Mapping[str, int]], symbols: Sequence[str]
) -> dict[str, int] | None:
    """Whole, non-negative coefficients of ``symbols`` with which every sample gives its value.

    Exact: no sample may be off.

    Parameters
    ----------
    values
        What was seen, of each sample.
    samples
        The symbols' values at that time; ``"1"`` is a constant and need not be there.
    symbols
        Of the form.

    Returns
    -------
    dict[str, int] | None
        Coefficients but for those that are 0; None where no such form fits, or where the samples do
        not tell the symbols apart.
    """
    rows = [
        [Fraction(1 if symbol == "1" else sample[symbol]) for symbol in symbols] + [Fraction(value)]
        for sample, value in zip(samples, values, strict=True)
    ]
    pivots = []
    at = 0
    for column in range(len(symbols)):
        chosen = next((r for r in range(at, len(rows)) if rows[r][column]), None)
        if chosen is None:
            return None
        rows[at], rows[chosen] = rows[chosen], rows[at]
        pivot = rows[at][column]
        rows[at] = [cell / pivot for cell in rows[at]]
        for other in range(len(rows)):
            if other != at and rows[other][column]:
                factor = rows[other][column]
                rows[other] = [
                    cell - factor * own for cell, own in zip(rows[other], rows[at], strict=True)
                ]
        pivots.append(at)
        at += 1
    if any(row[-1] for row in rows[at:]):
        return None
    found = {symbol: rows[row][-1] for symbol, row in zip(symbols, pivots, strict=True)}
    if any(value.denominator != 1 or value < 0 for value in found.values()):
        return None
    return {symbol: int(value) for symbol, value in found.items() if value}
