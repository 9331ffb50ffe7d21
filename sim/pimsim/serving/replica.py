"""A replica: a scheduler, and the stages of a pipeline behind it."""

from __future__ import annotations

from pimsim.serving.schedulers import Scheduler
from pimsim.serving.step_times import StepTime

__all__ = ["Replica"]


class Replica:
    """One machine of a fleet.

    Parameters
    ----------
    number
        Of all replicas.
    scheduler
        Its own.
    stages
        Of its pipeline: as many steps are under way.
    step_time
        What each stage takes for a step.
    """

    def __init__(self, number: int, scheduler: Scheduler, stages: int, step_time: StepTime) -> None:
        self.number = number
        self.scheduler = scheduler
        self.step_time = step_time
        self.free_ps = [0] * stages
        """When each stage has done what it was given."""
        self.under_way = 0
        self.steps = 0
