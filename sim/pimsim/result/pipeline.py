"""The stages of a pipeline: how long each takes for a batch, and what that costs.

A sample of the model's blocks is simulated; each stage has its own of them, and its own work beside
them. Batches move on together, so that the slowest stage sets the pace, and the others wait for it
at the power of a device that has nothing to do. Where fewer batches are under way than there are
stages, a batch's way through all of them sets it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from math import fsum, hypot
from typing import TYPE_CHECKING

from pimsim.engine.estimates import block_estimates
from pimsim.engine.iteration import Outcome, StepOutcome
from pimsim.engine.records import WorkTotals
from pimsim.hardware.dram.phase_costs import phase_costs
from pimsim.result.accounts import run_energy
from pimsim.result.phase_variance import phase_variances
from pimsim.result.scale import Extrapolation, extrapolate, model_blocks
from pimsim.result.steady import block_times
from pimsim.result.types import Energy, PipelineStage
from pimsim.result.works import work_by_kind
from pimsim.workload.stages import stage_kinds

if TYPE_CHECKING:
    from pimsim.engine.xpu_machine import XpuOutcome

__all__ = ["Pipeline", "RunPipeline", "StageTime", "pipeline_of", "total_energy"]

_PS_PER_S = 10**12


@dataclass(frozen=True)
class StageTime:
    """One stage and a batch."""

    blocks: Mapping[str, int]
    """How many of its blocks are of which kind."""
    outside: tuple[int, ...]
    """Numbers of its work beside the blocks (``Device.outside``)."""
    simulated_ps: int
    """Of all simulated blocks and its own work beside them."""
    missing: Extrapolation
    """From the simulated blocks to its own."""

    @property
    def time_ps(self) -> int:
        """Until the stage takes up the next batch."""
        return self.simulated_ps + self.missing.missing_ps

    def interval_ps(self) -> tuple[float, float] | None:
        """95 % interval of ``time_ps``; None: not known."""
        found = self.missing
        if found.half_width_ps is None:
            return None
        shortest = max(found.missing_ps - found.half_width_ps, found.least_ps)
        return self.simulated_ps + shortest, float(self.time_ps) + found.half_width_ps


@dataclass(frozen=True)
class Pipeline:
    """All stages of a model, and how many batches are under way in them."""

    stages: tuple[StageTime, ...]
    batches: int

    @property
    def interval_ps(self) -> int:
        """From one batch to the next one that leaves the pipeline."""
        return self._interval([stage.time_ps for stage in self.stages])

    @property
    def slowest(self) -> StageTime:
        """The stage that takes longest, the first of equals."""
        return max(self.stages, key=lambda stage: stage.time_ps)

    def _interval(self, times: Sequence[int]) -> int:
        return max(*times, -(-sum(times) // self.batches))

    def bounds_ps(self) -> tuple[float, float] | None:
        """95 % interval of ``interval_ps``, for the blocks that were not simulated; None: not
        known."""
        found = [stage.interval_ps() for stage in self.stages]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        if not any(stage.missing.half_width_ps for stage in self.stages):
            return float(self.interval_ps), float(self.interval_ps)
        low, high = ([side[end] for side in known] for end in (0, 1))
        return max(*low, fsum(low) / self.batches), max(*high, fsum(high) / self.batches)

    @property
    def spread(self) -> float | None:
        """Of the times of simulated blocks that differ (``Extrapolation``), where any do."""
        return next((s.missing.spread for s in self.stages if s.missing.spread is not None), None)

    def stage_works(self, step: StepOutcome, number: int) -> list[_Share]:
        """What stage ``number`` does in ``step``: each work for so many blocks of so many
        simulated."""
        stage, simulated = self.stages[number], _simulated(step)
        own: list[_Share] = []
        for key, work in work_by_kind(step).items():
            if isinstance(key, str):
                own.append((work, (stage.blocks.get(key, 0), simulated[key])))
            elif key in stage.outside:
                own.append((work, (1, 1)))
        return own


_Share = tuple[WorkTotals, tuple[int, int]]


@dataclass(frozen=True)
class RunPipeline:
    """The pipeline at each step of a run, of which one follows the other."""

    steps: tuple[Pipeline, ...]

    @property
    def interval_ps(self) -> int:
        """From one batch to the next one that leaves the pipeline, over all steps."""
        return sum(each.interval_ps for each in self.steps)

    @property
    def slowest(self) -> StageTime:
        """Of the first step."""
        return self.steps[0].slowest

    @property
    def stages(self) -> tuple[StageTime, ...]:
        """Of all steps."""
        return tuple(stage for each in self.steps for stage in each.stages)

    @property
    def spread(self) -> float | None:
        """Of the times of simulated blocks that differ, of the first step that knows any."""
        return next((each.spread for each in self.steps if each.spread is not None), None)

    def tokens_per_s(self, tokens: int) -> float:
        """Of ``tokens`` in all steps."""
        return tokens / (self.interval_ps / _PS_PER_S)

    def tokens_per_s_interval(self, tokens: int, error: float = 0.0) -> tuple[float, float] | None:
        """95 % interval of the rate, for the blocks that were not simulated and for rates in place
        of commands; None: not known.

        Parameters
        ----------
        tokens
            In all steps.
        error
            Half width of the 95 % interval of what is simulated, relative; 0: it is exact.
        """
        found = [each.bounds_ps() for each in self.steps]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        rate = self.tokens_per_s(tokens)
        low = high = rate
        if any(low < high for low, high in known):
            shortest, longest = (fsum(each[end] for each in known) for end in (0, 1))
            low, high = tokens * _PS_PER_S / longest, tokens * _PS_PER_S / shortest
        if not error:
            return low, high
        below, above = hypot(1 - low / rate, error), hypot(high / rate - 1, error)
        return rate * max(1 - below, 0.0), rate * (1 + above)

    def stage_energy(self, outcome: Outcome) -> tuple[Energy, ...]:
        """Joule of one device of each stage, from one batch to the next, in all steps."""
        found = []
        for number in range(len(self.steps[0].stages)):
            own: list[_Share] = []
            time_ps = idle_ps = 0
            for each, step in zip(self.steps, outcome.steps, strict=True):
                own += each.stage_works(step, number)
                time_ps += each.stages[number].time_ps
                idle_ps += each.interval_ps - each.stages[number].time_ps
            found.append(run_energy(outcome, time_ps / _PS_PER_S, own, idle_ps / _PS_PER_S))
        return tuple(found)

    def summary(
        self, outcome: Outcome | XpuOutcome, energies: Sequence[Energy]
    ) -> tuple[PipelineStage, ...]:
        """For a reader; empty where there is one stage."""
        if len(self.steps[0].stages) == 1:
            return ()
        found = []
        needs = zip(outcome.device.work.needs, energies, strict=True)
        for number, (need, energy) in enumerate(needs):
            time_ps = sum(each.stages[number].time_ps for each in self.steps)
            found.append(
                PipelineStage(
                    blocks=sum(self.steps[0].stages[number].blocks.values()),
                    time_s=time_ps / _PS_PER_S, busy=time_ps / self.interval_ps,
                    weights_bytes=need.weights_bytes, kv_bytes=need.kv_bytes,
                    energy_j=energy.total,
                )
            )  # fmt: skip
        return tuple(found)


def total_energy(energies: Sequence[Energy], devices_each: int) -> Energy:
    """Of all devices of all stages.

    Parameters
    ----------
    energies
        Of one device of each stage.
    devices_each
        Devices of a stage, ``tp``.
    """
    parts = {item.name: fsum(getattr(each, item.name) for each in energies) * devices_each
             for item in fields(Energy) if item.name != "total"}  # fmt: skip
    return Energy.of(**parts)


def pipeline_of(outcome: Outcome) -> RunPipeline:
    """The stages of a run's model at each step, from what was simulated of it.

    Parameters
    ----------
    outcome
        Of a run.
    """
    return RunPipeline(tuple(_step_pipeline(step) for step in outcome.steps))


def _step_pipeline(step: StepOutcome) -> Pipeline:
    device = step.device
    whole, work = device.whole, device.work
    kinds = [block.kind for block in whole.blocks]
    start = step.record.start_ps
    ends = [stage.end_ps for stage in step.stages]
    times = block_times(step.operators, ends, kinds)
    estimates = block_estimates(device)
    variances = phase_variances(times, step.operators, phase_costs(device.memory))
    if whole.pp == 1:
        missing = extrapolate(
            times, kinds, whole.model_blocks, whole.layer_numbers, estimates, variances=variances
        )
        every = tuple(range(len(device.outside)))
        blocks = model_blocks(kinds, whole.model_blocks)
        return Pipeline((StageTime(blocks, every, step.time_ps, missing),), 1)
    # what lies outside the blocks ran after them, one stage of the schedule each
    beside = len(device.outside)
    marks = [start, *ends][-beside - 1 :]
    took = [end - begin for begin, end in pairwise(marks)]
    of_blocks = step.time_ps - sum(took)
    stages = []
    for number, numbers in enumerate(work.stages):
        own = stage_kinds(work.kinds, numbers)
        outside = tuple(at for at, each in enumerate(device.outside) if number in each.stages)
        missing = extrapolate(
            times, kinds, tuple(own.items()), whole.layer_numbers, estimates, numbers, variances
        )
        simulated_ps = of_blocks + sum(took[at] for at in outside)
        stages.append(StageTime(own, outside, simulated_ps, missing))
    return Pipeline(tuple(stages), work.batches)


def _simulated(step: StepOutcome) -> Mapping[str, int]:
    return Counter(block.kind for block in step.device.whole.blocks)
