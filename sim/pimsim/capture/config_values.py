"""What a value of a model's config may be."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["MOST_LAYERS", "MOST_SIZE", "positive", "shown", "whole"]

MOST_LAYERS = 10_000
MOST_SIZE = 100_000_000
"""Of a width; the widest vocabularies are a thousandth of it."""


def whole(value: Any) -> bool:
    """A whole number; ``true`` is none.

    Parameters
    ----------
    value
        As the config has it.
    """
    return isinstance(value, int) and not isinstance(value, bool)


def positive(value: Any) -> bool:
    """A whole number above 0.

    Parameters
    ----------
    value
        As the config has it.
    """
    return whole(value) and value > 0


def shown(value: Any) -> str:
    """The value as a message shows it.

    Parameters
    ----------
    value
        As the config has it.

    Returns
    -------
    str
        At most 40 characters.
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "no finite number"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
