"""The stages of a pipeline of GPUs: the blocks that were simulated, and those that were not.

Blocks of a kind are equal or differ in their experts; what each takes is worked out, not guessed,
so that what was not simulated is known exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from pimsim.engine.xpu_machine import XpuOutcome, XpuStepOutcome
from pimsim.result.pipeline import Pipeline, RunPipeline, StageTime
from pimsim.result.scale import extrapolate, model_blocks
from pimsim.workload.stages import stage_kinds

__all__ = ["xpu_pipeline"]

_PS_PER_S = 10**12


def xpu_pipeline(outcome: XpuOutcome, every: bool = True) -> RunPipeline:
    """The stages of a run's model at each step.

    Parameters
    ----------
    outcome
        What the engine left behind.
    every
        Blocks that differ and were not simulated are worked out, each; else they take the mean of
        those that were, which of a large mixture of experts takes a tenth of the time.
    """
    return RunPipeline(tuple(_step_pipeline(outcome, step, every) for step in outcome.steps))


def _step_pipeline(outcome: XpuOutcome, step: XpuStepOutcome, worked_out: bool) -> Pipeline:
    device = step.device
    whole, work = device.whole, device.work
    kinds = [block.kind for block in whole.blocks]
    times = {each.layer: each.time_ps for each in step.works if each.layer < whole.layers}
    every = _every_block(outcome, step) if worked_out else None
    if whole.pp == 1:
        missing = extrapolate(times, kinds, whole.model_blocks, whole.layer_numbers, every)
        beside = tuple(range(len(device.outside)))
        blocks = model_blocks(kinds, whole.model_blocks)
        return Pipeline((StageTime(blocks, beside, step.time_ps, missing),), 1)
    took = {each.layer - whole.layers: each.time_ps for each in step.works
            if each.layer >= whole.layers}  # fmt: skip
    of_blocks = sum(times.values())
    stages = []
    for number, numbers in enumerate(work.stages):
        own = stage_kinds(work.kinds, numbers)
        outside = tuple(at for at, each in enumerate(device.outside) if number in each.stages)
        missing = extrapolate(times, kinds, tuple(own.items()), whole.layer_numbers, every, numbers)
        simulated_ps = of_blocks + sum(took[at] for at in outside)
        stages.append(StageTime(own, outside, simulated_ps, missing))
    return Pipeline(tuple(stages), work.batches)


def _every_block(
    outcome: XpuOutcome, step: XpuStepOutcome
) -> Mapping[str, Mapping[int, int]] | None:
    """Time of each of the model's blocks by kind and number, ps, where they differ."""
    device = step.device
    work, whole = device.work, device.whole
    layers = sum(count for _, count in whole.model_blocks)
    enough = whole.layers >= layers if whole.pp == 1 else whole.layers > layers
    if not work.differ or enough:
        return None
    every = replace(work, layers=layers, _passes={}).forward(range(len(whole.step.entries)))
    found: dict[str, dict[int, int]] = {}
    costs = outcome.costs.costs_of(device, every)
    for number, block, cost in zip(every.layer_numbers, every.blocks, costs, strict=True):
        found.setdefault(block.kind, {})[number] = round(cost.time_s * _PS_PER_S)
    differ = Counter({kind: len(set(own.values())) for kind, own in found.items()})
    return {kind: own for kind, own in found.items() if differ[kind] > 1}
