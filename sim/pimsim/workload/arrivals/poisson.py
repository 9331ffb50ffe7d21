"""Requests that know nothing of one another: exponential gaps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from pimsim.config.traffic import ArrivalSettings
from pimsim.workload.draws import RandomStream
from pimsim.workload.traffic import Traffic, whole_ps

__all__ = ["SETTINGS", "Poisson", "arrive"]

_PS_PER_S = 10**12


class Poisson(ArrivalSettings):
    """So many a second on average."""

    rate_per_s: float = Field(gt=0, le=1e6)
    """Requests that arrive in a second."""


SETTINGS = Poisson


def arrive(traffic: Traffic, settings: Poisson, draw: RandomStream) -> Traffic:
    """Gaps by inverse transform; the first request comes after one.

    Parameters
    ----------
    traffic
        Requests without times.
    settings
        Requests a second.
    draw
        Of arrivals alone.
    """
    gaps_s = -np.log(1 - draw.uniform(len(traffic))) / settings.rate_per_s
    return replace(traffic, arrival_ps=whole_ps(np.cumsum(gaps_s), _PS_PER_S))
