"""A closed loop: users who ask, wait for the whole answer, think, and ask again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from pimsim.config.traffic import ArrivalSettings
from pimsim.config.units import Picoseconds
from pimsim.workload.draws import RandomStream
from pimsim.workload.traffic import NOBODY, Traffic

__all__ = ["SETTINGS", "Closed", "arrive"]


class Closed(ArrivalSettings):
    """So many requests under way or thought about."""

    users: int = Field(ge=1, le=1_000_000)
    """Who each have one request at a time; requests are dealt to them in turns."""
    think: Picoseconds = Field(default=0, le=10**17)
    """From an answer's end to the same user's next request."""


SETTINGS = Closed


def arrive(traffic: Traffic, settings: Closed, draw: RandomStream) -> Traffic:
    """The first of each user at 0, each other one a pause after the one before it.

    Parameters
    ----------
    traffic
        Requests without times.
    settings
        Users, and the pause of each in picoseconds.
    draw
        Not drawn from.
    """
    rows = np.arange(len(traffic))
    first = rows < settings.users
    return replace(
        traffic, arrival_ps=np.zeros(len(traffic), dtype=np.int64),
        follows=np.where(first, NOBODY, rows - settings.users),
        pause_ps=np.where(first, 0, settings.think),
    )  # fmt: skip
