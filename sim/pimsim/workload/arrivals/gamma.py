"""Bursts: gamma-distributed gaps, more alike or more different than a Poisson process's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from pimsim.config.traffic import ArrivalSettings
from pimsim.workload.draws import RandomStream
from pimsim.workload.traffic import Traffic, whole_ps

__all__ = ["SETTINGS", "Gamma", "arrive"]

_PS_PER_S = 10**12


class Gamma(ArrivalSettings):
    """So many a second on average, with gaps that vary so much."""

    rate_per_s: float = Field(gt=0, le=1e6)
    """Requests that arrive in a second."""
    cv: float = Field(gt=0.01, le=100)
    """Standard deviation of the gaps over their mean; 1 is a Poisson process, more are bursts."""


SETTINGS = Gamma


def arrive(traffic: Traffic, settings: Gamma, draw: RandomStream) -> Traffic:
    """Gaps of shape 1 / cv^2; the first request comes after one.

    Parameters
    ----------
    traffic
        Requests without times.
    settings
        Requests a second, and the gaps' coefficient of variation.
    draw
        Of arrivals alone.
    """
    shape = settings.cv**-2
    gaps_s = draw.gamma(shape, len(traffic)) / (shape * settings.rate_per_s)
    return replace(traffic, arrival_ps=whole_ps(np.cumsum(gaps_s), _PS_PER_S))
