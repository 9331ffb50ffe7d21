"""``pimsim compare`` of sweeps: point by point."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from pimsim.config.paths import given_path

if TYPE_CHECKING:
    from pimsim.config.prices import Prices
    from pimsim.explore.comparison import Pair, SweepComparison

__all__ = ["print_sweeps"]

_SHOWN = 20
"""Points that are printed; ``--json`` and the page have all."""


def print_sweeps(folders: Sequence[str], as_json: bool, prices: Prices | None = None) -> None:
    """Print what each sweep but the first does beside it.

    Parameters
    ----------
    folders
        Of their stores.
    as_json
        As one object.
    prices
        Of parts and energy; None: no cost is told.

    Raises
    ------
    InputError
        For what is no sweep's store.
    """
    from pimsim.explore.comparison import compare_sweeps

    found = compare_sweeps([given_path(folder) for folder in folders], folders, prices)
    if as_json:
        report = {"sweeps": [_object(each) for each in found]}
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
        return
    from rich.console import Console, Group
    from rich.text import Text

    from pimsim.cli.tables import differences_table, output_width

    parts: list[Any] = []
    for each in found:
        parts += differences_table(each.differences, each.names)
        if not each.differences:
            parts.append(Text(f"{each.names[1]} and {each.names[0]}: the same config and keys"))
        parts += [Text(sentence) for sentence in each.words()]
        parts += _points(each)
    Console(width=output_width(), highlight=False).print(Group(*parts))


def _points(comparison: SweepComparison) -> list[Any]:
    from rich.text import Text

    from pimsim.config.differences import named, short_names
    from pimsim.result.cells import add_rows, new_table

    shown = comparison.furthest(_SHOWN)
    if not shown:
        return []
    keys = short_names(comparison.keys)
    heads = [*keys, *comparison.columns[len(keys) : -2]]
    table = new_table("point by point", heads[0], *heads[1:])
    add_rows(table, *(comparison.cells(pair)[:-2] for pair in shown))
    why = [
        Text(f"{named(comparison.keys, pair.values)}: {comparison.cells(pair)[-1]}")
        for pair in shown
    ]
    left = len(comparison.known) - len(shown)
    if not left:
        return [table, *why]
    of = f"the {len(shown)} whose rates are furthest apart, of {len(comparison.known):,}"
    return [table, *why, Text(f"{of}; --json has all")]


def _object(comparison: SweepComparison) -> dict[str, Any]:
    first, second = comparison.names
    return {
        "names": [first, second],
        "differences": [
            {"key": each.key, "values": each.values} for each in comparison.differences
        ],
        "in_both": len(comparison.pairs),
        "alone": list(comparison.alone),
        "points": [_pair(comparison, pair) for pair in comparison.known],
    }


def _pair(comparison: SweepComparison, pair: Pair) -> dict[str, Any]:
    from dataclasses import asdict

    from pimsim.result.compare import COMPARED
    from pimsim.result.metrics import METRICS

    def number(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "point": dict(zip(comparison.keys, pair.values, strict=True)),
        **{
            name: [number(METRICS[name].of(row)) for row in (pair.before, pair.after)]
            for name in (*COMPARED, *comparison.priced)
        },
        "speedup": number(pair.ratio("tokens_per_s")),
        "energy_ratio": number(pair.ratio("tokens_per_j")),
        "level": pair.level,
        "moved": [asdict(each) | {"words": each.words()} for each in pair.causes],
    }
