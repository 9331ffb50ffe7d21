"""Rows of a result's tables, from what a run left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pimsim.engine.iteration import Outcome, StepOutcome
from pimsim.engine.records import OperatorRecord
from pimsim.result.pipeline import RunPipeline
from pimsim.result.rows import OperatorResult, RequestResult, StageResult, StepResult

if TYPE_CHECKING:
    from pimsim.engine.xpu_machine import XpuOutcome, XpuStepOutcome

__all__ = ["id_ranges", "operator_rows", "request_rows", "stage_rows", "step_rows"]

_PS_PER_S = 10**12
_MOST_RANGES = 200
"""Of a request group that are named."""


def step_rows(outcome: Outcome | XpuOutcome, pipeline: RunPipeline) -> tuple[StepResult, ...]:
    """A row a forward pass, in their order.

    Parameters
    ----------
    outcome
        Of a run.
    pipeline
        Of the same run.
    """
    clock = outcome.clock
    found = []
    steps: tuple[StepOutcome | XpuStepOutcome, ...] = outcome.steps
    for each, of_model in zip(steps, pipeline.steps, strict=True):
        step, record = each.device.whole.step, each.record
        found.append(
            StepResult(
                step=each.number, requests=len(step.entries), tokens=step.tokens,
                logits=step.logits, made=step.made, context_max=max(step.contexts),
                cycles=clock.npu_cycle(record.end_ps) - clock.npu_cycle(record.start_ps),
                time_s=each.time_ps / _PS_PER_S, iteration_s=of_model.interval_ps / _PS_PER_S,
            )
        )  # fmt: skip
    return tuple(found)


def request_rows(outcome: Outcome | XpuOutcome) -> tuple[RequestResult, ...]:
    """A row a request, in the order in which the steps first name them.

    Parameters
    ----------
    outcome
        Of a run.
    """
    found: dict[int, RequestResult] = {}
    for each in outcome.steps:
        for row in _entries(each):
            before = found.get(row.id)
            found[row.id] = row if before is None else RequestResult(
                row.id, before.first_step, row.last_step, row.context,
                before.new_tokens + row.new_tokens, before.made + row.made, before.part,
                row.channel,
            )  # fmt: skip
    return tuple(found.values())


def _entries(step: StepOutcome | XpuStepOutcome) -> list[RequestResult]:
    """What a step is asked of each request, in its order; one row each."""
    device, entries = step.device, step.device.whole.step.entries
    # a cache lies on one channel only in the layout of PIM
    placed = any(kv.shape is not None for kv in device.kv)
    at = {
        entry: (part, device.channel[member] if placed else None)
        for part, pairs in enumerate(zip(device.entries, device.members, strict=True))
        for entry, member in zip(*pairs, strict=True)
    }
    return [
        RequestResult(
            entry.request.id, step.number, step.number, entry.context, entry.new_tokens,
            entry.made, *at[number],
        )
        for number, entry in enumerate(entries)
    ]  # fmt: skip


def stage_rows(outcome: Outcome | XpuOutcome) -> tuple[StageResult, ...]:
    """A row a stage, in the order of the run.

    Parameters
    ----------
    outcome
        Of a run.
    """
    clock = outcome.clock
    return tuple(
        StageResult(
            step=step.number,
            name=stage.name,
            cycles=clock.npu_cycle(stage.end_ps) - clock.npu_cycle(stage.start_ps),
            npu_busy_cycles=stage.npu_busy_cycles,
            pim_busy_cycles=stage.pim_busy_cycles,
            bound_cycles=int(stage.bound_ps // clock.npu_ps),
        )
        for step in outcome.steps
        for stage in step.stages
    )


def operator_rows(outcome: Outcome | XpuOutcome) -> tuple[OperatorResult, ...]:
    """A row an operator of a (sub-)batch and block, in the order in which they end.

    Parameters
    ----------
    outcome
        Of a run.
    """
    # what is outside the blocks is behind the last one, of each pipeline stage in turn
    clock, whole = outcome.clock, outcome.device.whole
    behind = outcome.device.work.trace.facts.layers
    numbers = (*whole.layer_numbers, *range(behind, behind + len(outcome.device.outside)))
    return tuple(
        OperatorResult(
            name=record.name,
            kind=record.kind,
            unit=record.unit,
            layer=numbers[record.layer],
            cycles=clock.npu_cycle(record.end_ps) - clock.npu_cycle(record.start_ps),
            stage=record.stage,
            start_cycle=clock.npu_cycle(record.start_ps),
            flops=record.flops,
            bytes=record.bytes,
            bound_cycles=int(record.bound_ps // clock.npu_ps),
            lead_cycles=(
                clock.npu_cycle(record.start_ps) - clock.npu_cycle(record.start_ps - record.lead_ps)
            ),
            posted_bytes=record.posted_bytes,
            step=step.number,
            executed_flops=record.executed_flops,
            part=record.part,
            requests=_group_words(step, record),
        )
        for step in outcome.steps
        for record in step.operators
    )


def _group_words(step: StepOutcome | XpuStepOutcome, record: OperatorRecord) -> str:
    """Ids of the requests that an operator works for; empty: all of its (sub-)batch."""
    if not record.entries:
        return ""
    device = step.device
    of = device.whole if record.part < 0 else device.passes[record.part]
    return id_ranges(sorted({of.step.entries[at].request.id for at in record.entries}))


def id_ranges(ids: Sequence[int]) -> str:
    """``0-2, 7`` for 0, 1, 2 and 7, which ascend; the first 200 ranges, then ``...``.

    Parameters
    ----------
    ids
        Ascending.
    """
    runs: list[list[int]] = []
    for each in ids:
        if runs and each == runs[-1][1] + 1:
            runs[-1][1] = each
        else:
            runs.append([each, each])
    words = [f"{first}-{last}" if first < last else str(first) for first, last in runs]
    more = ["..."] if len(words) > _MOST_RANGES else []
    return ", ".join(words[:_MOST_RANGES] + more)
