"""When requests come: one module a process, found by its name.

A module has ``SETTINGS``, its part of a service's ``requests.arrivals``, and ``arrive``, which
gives requests their times.
"""

from __future__ import annotations

from typing import Protocol, cast

from pimsim.config.plugins import load_module
from pimsim.config.traffic import ArrivalSettings
from pimsim.workload.draws import RandomStream
from pimsim.workload.traffic import Traffic

__all__ = ["Arrivals", "load_arrivals"]


class Arrivals(Protocol):
    """What a module offers."""

    SETTINGS: type[ArrivalSettings]

    def arrive(self, traffic: Traffic, settings: ArrivalSettings, draw: RandomStream) -> Traffic:
        """The same requests with other times."""


def load_arrivals(name: str) -> Arrivals:
    """The process of the module ``name``.

    Parameters
    ----------
    name
        As ``requests.arrivals.process`` has it.

    Raises
    ------
    InputError
        With the near miss where there is none.
    """
    return cast(Arrivals, load_module("arrivals", name))
