"""A service: requests, machines, and how these share them."""

from __future__ import annotations

from typing import Annotated

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import ModuleName

__all__ = ["MOST_RUNNING", "MOST_TOKENS", "SchedulerSettings"]

MOST_RUNNING = 65_536
"""Requests that run at once on a replica, at most."""
MOST_TOKENS = 100_000_000
"""Tokens of a request or of a step, at most."""


class SchedulerSettings(ConfigModel):
    """Which requests go into a step."""

    name: Annotated[str, ModuleName("scheduler")]
    """A module of ``pimsim.serving.schedulers``, or a plugin's; the other keys are its own."""
