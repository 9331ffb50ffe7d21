"""Energy as counts times what one of each costs: the one sum of memories, PIM, NPUs and links.

A count is of whatever energy is known for: commands (in so many banks), bytes, operations,
picoseconds. A watt is a picojoule a picosecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import fsum

__all__ = ["Costs", "energy_j", "energy_pj"]

_J_PER_PJ = 1e-12

Costs = Mapping[str, Mapping[str, float]]
"""By count: what one of it costs, pJ by part of the energy."""


def energy_pj(counts: Mapping[str, int], costs: Costs) -> dict[str, float]:
    """Picojoule by part.

    Parameters
    ----------
    counts
        How many of each; all of them are in ``costs``.
    costs
        pJ of one, by part; none: it costs nothing that is known.

    Returns
    -------
    dict of str to float
        Of each part that a count has a cost in, in the order of the counts.
    """
    terms: dict[str, list[float]] = {}
    for name, amount in counts.items():
        for part, pj in costs[name].items():
            terms.setdefault(part, []).append(amount * pj)
    return {part: fsum(each) for part, each in terms.items()}


def energy_j(counts: Mapping[str, int], costs: Costs) -> dict[str, float]:
    """``energy_pj`` in joule.

    Parameters
    ----------
    counts
        How many of each; all of them are in ``costs``.
    costs
        pJ of one, by part.

    Returns
    -------
    dict of str to float
        J by part, as of ``energy_pj``.
    """
    return {part: pj * _J_PER_PJ for part, pj in energy_pj(counts, costs).items()}
