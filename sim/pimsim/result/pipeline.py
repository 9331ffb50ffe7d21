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
from math import fsum

from pimsim.engine.estimates import block_estimates
from pimsim.engine.iteration import Outcome
from pimsim.engine.records import WorkTotals
from pimsim.result.accounts import run_energy
from pimsim.result.scale import Extrapolation, extrapolate, model_blocks
from pimsim.result.steady import block_times
from pimsim.result.types import Energy, PipelineStage
from pimsim.result.works import WorkKey, work_by_kind
from pimsim.workload.stages import stage_kinds

__all__ = ["Pipeline", "StageTime", "pipeline_of", "total_energy"]

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

    def tokens_per_s(self, tokens: int) -> float:
        """Of batches of ``tokens``."""
        return tokens / (self.interval_ps / _PS_PER_S)

    def tokens_per_s_interval(self, tokens: int) -> tuple[float, float] | None:
        """95 % interval of the rate, for the blocks that were not simulated; None: not known."""
        found = [stage.interval_ps() for stage in self.stages]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        if not any(stage.missing.half_width_ps for stage in self.stages):
            return self.tokens_per_s(tokens), self.tokens_per_s(tokens)
        low, high = ([side[end] for side in known] for end in (0, 1))
        shortest = max(*low, fsum(low) / self.batches)
        longest = max(*high, fsum(high) / self.batches)
        return tokens * _PS_PER_S / longest, tokens * _PS_PER_S / shortest

    @property
    def spread(self) -> float | None:
        """Of the times of simulated blocks that differ (``Extrapolation``), where any do."""
        return next((s.missing.spread for s in self.stages if s.missing.spread is not None), None)

    def stage_energy(self, outcome: Outcome) -> tuple[Energy, ...]:
        """Joule of one device of each stage, from one batch to the next."""
        works, simulated = work_by_kind(outcome), _simulated(outcome)
        return tuple(self._energy(outcome, stage, works, simulated) for stage in self.stages)

    def _energy(
        self, outcome: Outcome, stage: StageTime, works: Mapping[WorkKey, WorkTotals],
        simulated: Mapping[str, int],
    ) -> Energy:  # fmt: skip
        own: list[tuple[WorkTotals, tuple[int, int]]] = []
        for key, work in works.items():
            if isinstance(key, str):
                own.append((work, (stage.blocks.get(key, 0), simulated[key])))
            elif key in stage.outside:
                own.append((work, (1, 1)))
        idle_ps = self.interval_ps - stage.time_ps
        return run_energy(outcome, stage.time_ps / _PS_PER_S, own, idle_ps / _PS_PER_S)

    def summary(self, outcome: Outcome, energies: Sequence[Energy]) -> tuple[PipelineStage, ...]:
        """For a reader; empty where there is one stage."""
        if len(self.stages) == 1:
            return ()
        needs = outcome.device.work.needs
        return tuple(
            PipelineStage(
                blocks=sum(stage.blocks.values()), time_s=stage.time_ps / _PS_PER_S,
                busy=stage.time_ps / self.interval_ps, weights_bytes=need.weights_bytes,
                kv_bytes=need.kv_bytes, energy_j=energy.total,
            )
            for stage, need, energy in zip(self.stages, needs, energies, strict=True)
        )  # fmt: skip


def total_energy(energies: Sequence[Energy], devices_each: int) -> Energy:
    """Of all devices of all stages."""
    parts = {item.name: fsum(getattr(each, item.name) for each in energies) * devices_each
             for item in fields(Energy) if item.name != "total"}  # fmt: skip
    return Energy.of(**parts)


def pipeline_of(outcome: Outcome) -> Pipeline:
    """The stages of a run's model, from what was simulated of it."""
    device, recorder = outcome.device, outcome.recorder
    whole, work = device.whole, device.work
    kinds = [block.kind for block in whole.blocks]
    ends = [stage.end_ps for stage in recorder.stages]
    times = block_times(recorder.operators, ends, kinds)
    estimates = block_estimates(device)
    if whole.pp == 1:
        missing = extrapolate(times, kinds, whole.model_blocks, whole.layer_numbers, estimates)
        every = tuple(range(len(device.outside)))
        blocks = model_blocks(kinds, whole.model_blocks)
        return Pipeline((StageTime(blocks, every, outcome.time_ps, missing),), 1)
    # what lies outside the blocks ran after them, one stage of the schedule each
    beside = len(device.outside)
    marks = [0, *ends][-beside - 1 :]
    took = [end - begin for begin, end in pairwise(marks)]
    of_blocks = outcome.time_ps - sum(took)
    stages = []
    for number, numbers in enumerate(work.stages):
        own = stage_kinds(work.kinds, numbers)
        outside = tuple(at for at, each in enumerate(device.outside) if number in each.stages)
        missing = extrapolate(
            times, kinds, tuple(own.items()), whole.layer_numbers, estimates, numbers
        )
        simulated_ps = of_blocks + sum(took[at] for at in outside)
        stages.append(StageTime(own, outside, simulated_ps, missing))
    return Pipeline(tuple(stages), work.batches)


def _simulated(outcome: Outcome) -> Mapping[str, int]:
    return Counter(block.kind for block in outcome.device.whole.blocks)
