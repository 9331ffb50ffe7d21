"""What tasks of the two sides of a device tell each other."""

from __future__ import annotations

from collections.abc import Hashable

import simpy

from pimsim.mapping.tasks import Task

__all__ = ["Signals"]


class Signals:
    """What tasks of one side tell those of the other: an event by name, whoever asks first."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env
        self._events: dict[Hashable, simpy.Event] = {}

    def event(self, name: Hashable) -> simpy.Event:
        """Happens when the task that signals ``name`` is done."""
        return self._events.setdefault(name, self._env.event())

    def done(self, task: Task) -> None:
        """``task`` is done."""
        if task.signals is not None:
            self.event(task.signals).succeed()

    def ready(self, task: Task) -> bool:
        """Whether ``task`` may start."""
        return task.waits_for is None or self.event(task.waits_for).triggered
