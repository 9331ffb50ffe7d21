"""Step times of a machine, each step simulated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.serving.records import Records
from pimsim.serving.schedulers import Batch
from pimsim.serving.step_times import MachineSteps, StepCost
from pimsim.serving.step_times.channels import Channels
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry

__all__ = ["Simulated", "step_of"]

_PS_PER_S = 10**12


def step_of(entries: Any, asked: Records, channel: NDArray[np.int32]) -> Step:
    """The step of a scheduler's entries.

    A request all of whose known tokens are fed makes one more; drafts get rows of logits too.

    Parameters
    ----------
    entries : ``ENTRY`` records
        Of the step.
    asked : ``REQUEST`` records of all requests
        As they are when the step begins.
    channel : by row of ``asked``
        Where its cache lies.
    """
    found = []
    for row, new, context, drafts in entries[["request", "new", "context", "drafts"]].tolist():
        one = asked[row]
        ends = int(one["computed"]) + new - drafts >= int(one["length"])
        request = Request(
            row, 0.0, int(one["prompt"]), int(one["output"]), 0, int(channel[row])
        )  # fmt: skip
        logits = 1 + drafts if ends else 0
        found.append(StepEntry(request, new, max(context, new), logits, min(logits, 1)))
    return Step(tuple(found))


class Simulated:
    """Every step is simulated.

    Parameters
    ----------
    machine
        That is asked.
    """

    def __init__(self, machine: MachineSteps) -> None:
        self.machine = machine
        self.channels = Channels(machine.channels, machine.work, machine.least_loaded)
        self._joule = np.zeros(len(machine.parts))
        self._worked_ps = self._steps = 0
        self._idle_w = machine.idle_w
        self._total_idle_w = float(self._idle_w.sum())

    @property
    def joule(self) -> NDArray[np.float64]:
        """Of all steps so far, by part."""
        return self._joule

    @property
    def worked_ps(self) -> int:
        """Of all steps so far, one after the other."""
        return self._worked_ps

    @property
    def steps(self) -> int:
        """So far."""
        return self._steps

    def duration_ps(self, batch: Batch) -> int:
        """What the machine says."""
        entries = batch.entries[: batch.requests]
        self.channels.place(batch.entries, batch.requests, len(batch.asked))
        return self.note(batch, self.machine.cost(step_of(entries, batch.asked, self.channels.of)))

    def note(self, batch: Batch, cost: StepCost) -> int:
        """Add up the energy of a step; its time."""
        self._steps += 1
        self._worked_ps += cost.time_ps
        self._joule += cost.joule
        idle_j = self._total_idle_w * cost.time_ps / _PS_PER_S
        batch.dynamic_j = float(cost.joule.sum()) - idle_j
        return cost.time_ps

    def describe(self) -> dict[str, Any]:
        """What to say of the times."""
        return {"step_time": "simulated", "simulated": self.steps}
