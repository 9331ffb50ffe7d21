"""Colours by meaning, told apart by the colour-blind.

Okabe and Ito's eight (jfly.uni-koeln.de/color), and for stacks with more causes those of Paul Tol's
schemes (personal.sron.nl/~pault): first the muted one, then of the others what lies farthest in
CIELAB from those before. Neighbours in a stack differ in lightness too.
"""

from __future__ import annotations

from dataclasses import fields

from pimsim.result.types import CYCLE_CAUSES, Energy
from pimsim.validate.figures import COLOURS

__all__ = [
    "OPERATOR_COLOURS", "SERIES_COLOURS", "UNIT_COLOURS", "cause_colour", "energy_colour",
]  # fmt: skip

SERIES_COLOURS = COLOURS
UNIT_COLOURS = {
    "systolic": "#0072B2", "vector": "#56B4E9", "dma": "#999999", "pim": "#D55E00",
    "link": "#CC79A7", "pim_link": "#009E73",
}  # fmt: skip
_IDLE = "#DDDDDD"
_MUTED = (
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255",
    "#AA4499", "#661100", "#6699CC", "#F0A0A0", "#225522", "#EE8866", "#BBCC33", "#225555",
    "#99DDFF", "#FFAABB", "#222255", "#90C987", "#EE3377", "#663333", "#AE76A3", "#DC050C",
    "#EEEEBB",
)  # fmt: skip
OPERATOR_COLOURS = (*COLOURS[:6], *_MUTED)
_FIXED = {"computing": "#0072B2", "weights": "#D55E00", "idle": _IDLE, "npu": "#BBBBBB"}


def energy_colour(part: str) -> str:
    """The same part of the energy has the same colour in every picture.

    Parameters
    ----------
    part
        Field of ``Energy``.

    Returns
    -------
    str
        ``#rrggbb``.
    """
    parts = [item.name for item in fields(Energy) if item.name != "total"]
    return SERIES_COLOURS[parts.index(part) % 7]


def cause_colour(cause: str) -> str:
    """The same cause has the same colour in every picture.

    Parameters
    ----------
    cause
        Of a cycle stack.

    Returns
    -------
    str
        ``#rrggbb``.
    """
    if cause in _FIXED:
        return _FIXED[cause]
    known = [name for name in CYCLE_CAUSES if name not in _FIXED]
    at = known.index(cause) if cause in known else sum(map(ord, cause))
    return _MUTED[at % len(_MUTED)]
