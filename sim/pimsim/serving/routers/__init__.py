"""Routers: which replica a request goes to. One module each, found by its name.

A module has a subclass of ``Router`` by the name ``ROUTER``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pimsim.config.plugins import load_class
from pimsim.serving.schedulers import Scheduler

__all__ = ["Router", "load_router"]


class Router:
    """Sends the requests of a service to its replicas.

    Parameters
    ----------
    schedulers
        Of the replicas, which say what waits and runs there.
    """

    needs_prefixes: ClassVar[bool] = False
    """It looks for beginnings of prompts in the caches, which schedulers must share."""

    def __init__(self, schedulers: Sequence[Scheduler]) -> None:
        self.schedulers = schedulers

    def replica(self, request: int) -> int:
        """Number of the replica that the request of that row, which arrives now, goes to."""
        raise NotImplementedError


def load_router(name: str) -> type[Router]:
    """The router of the module ``name``.

    Parameters
    ----------
    name
        Of the module.

    Raises
    ------
    InputError
        Where it is not there, or has none.
    """
    return load_class("router", name, "ROUTER", Router)
