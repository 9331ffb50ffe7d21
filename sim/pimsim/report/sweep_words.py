"""A sweep in words, each linked to the points that it is of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pimsim.config.differences import named, short_names
from pimsim.report.page import Link, Sentence
from pimsim.report.sweep_groups import Entry, Reign, Values, reigns

if TYPE_CHECKING:
    from pimsim.report.sweeps import Sweep

__all__ = ["linked_rows", "row_id", "story"]

_MOST_SENTENCES = 12


def row_id(row: int) -> str:
    """Of a point in the table of points.

    Parameters
    ----------
    row
        Its number in the sweep's table.
    """
    return f"point-{row}"


def linked_rows(sentences: Sequence[Sentence]) -> list[int]:
    """Rows of the table of points that words link to.

    Parameters
    ----------
    sentences
        Of a page.
    """
    links = (part for each in sentences if not isinstance(each, str) for part in each)
    found = (part.target for part in links if isinstance(part, Link))
    return [int(target.rpartition("-")[2]) for target in dict.fromkeys(found)]


def finding(sweep: Sweep) -> str:
    """Which machine is the fastest at most of what is asked; empty where there is one alone.

    Parameters
    ----------
    sweep
        With its points.
    """
    best: dict[Values, Entry] = {}
    for each in sweep.entries:
        if each.group not in best or each.rate > best[each.group].rate:
            best[each.group] = each
    won = Counter(each.machine for each in best.values())
    ((machine, count),) = won.most_common(1)
    if len({each.machine for each in sweep.entries}) < 2 or machine == ():
        return ""
    where = f" at {count} of {len(best)} loads" if len(best) > 1 else ""
    return f"{sweep.machine(machine)} is the fastest{where}"


def story(sweep: Sweep) -> Iterator[Sentence]:
    """Who wins where, of each of what is asked, with links to the points.

    Parameters
    ----------
    sweep
        With its points.
    """
    found = list(reigns(sweep.entries))
    for number, reign in enumerate(found):
        if number == _MOST_SENTENCES:
            yield f"{len(found) - number} more such stretches stand in the table of fronts."
            return
        yield _reign(sweep, reign)


def _other(sweep: Sweep, machine: Values, other: Values) -> str:
    """Words for a machine beside another one: the keys in which it differs."""
    keys = sweep.roles.machine
    apart = [at for at in range(len(keys)) if machine[at] != other[at]]
    return named([keys[at] for at in apart], [other[at] for at in apart])


def _reign(sweep: Sweep, reign: Reign) -> Sentence:
    axis = sweep.roles.axis
    where = []
    if reign.asked:
        where.append(sweep.asked(reign.asked))
    if axis is not None:
        short = short_names((axis,))[0]
        if reign.first == reign.last:
            where.append(f"{short} {reign.first:g}")
        else:
            where.append(f"{short} {reign.first:g} to {reign.last:g}")
    place = f"At {', '.join(where)}" if where else "Of all"
    said = f"{place}: "
    winner = Link(sweep.machine(reign.machine), row_id(reign.row))
    if reign.next_machine is None or reign.next_row is None:
        return (said, winner, " is the fastest; no other machine ran there.")
    second = Link(_other(sweep, reign.machine, reign.next_machine), row_id(reign.next_row))
    last = f" at {reign.last:g}" if reign.first != reign.last else ""
    if reign.level:
        off = " within what their rates may be off by."
        return (said, winner, f" is the fastest, level{last} with ", second, off)
    return (said, winner, f" is the fastest, {reign.over:.2f} times ", second, f"{last}.")
