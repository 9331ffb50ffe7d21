"""Lengths of prompts and outputs that no trace gives."""

from __future__ import annotations

from math import log

import numpy as np
from numpy.typing import NDArray

from pimsim.config.traffic import LengthConfig
from pimsim.workload.draws import RandomStream

__all__ = ["draw_lengths"]


def draw_lengths(config: LengthConfig, count: int, draw: RandomStream) -> NDArray[np.int64]:
    """Tokens of so many prompts or outputs.

    Parameters
    ----------
    config
        One length, a range, or mean and coefficient of variation, in tokens.
    count
        How many.
    draw
        Of these lengths alone.

    Returns
    -------
    NDArray[np.int64]
        (count,).
    """
    if config.fixed is not None:
        return np.full(count, config.fixed)
    if config.low is not None and config.high is not None:
        return config.low + draw.below(config.high - config.low + 1, count)
    assert config.mean is not None
    cv = 1.0 if config.cv is None else config.cv
    variance = log(1 + cv**2)  # of the logarithm
    drawn = np.exp(log(config.mean) - variance / 2 + variance**0.5 * draw.normal(count))
    found: NDArray[np.int64] = np.clip(np.rint(drawn), *config.ends).astype(np.int64)
    return found
