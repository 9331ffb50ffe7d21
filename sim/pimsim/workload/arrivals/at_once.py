"""An offline batch: all requests are there from the start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pimsim.config.traffic import ArrivalSettings
from pimsim.workload.draws import RandomStream
from pimsim.workload.traffic import Traffic

__all__ = ["SETTINGS", "AtOnce", "arrive"]


class AtOnce(ArrivalSettings):
    """At 0."""


SETTINGS = AtOnce


def arrive(traffic: Traffic, settings: AtOnce, draw: RandomStream) -> Traffic:
    """All at 0.

    Parameters
    ----------
    traffic
        Requests without times.
    settings
        None to read.
    draw
        Not drawn from.
    """
    return replace(traffic, arrival_ps=np.zeros(len(traffic), dtype=np.int64))
