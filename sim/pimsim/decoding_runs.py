"""Runs under a decoding strategy: what the model is asked, and the drafter on the same device.

The drafter's passes and the model's follow one another, since each needs what the other found out;
so both are simulated, each with the device to itself, and their times add up. Both hold their
weights and caches at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

from pimsim.config.documents import Resolved
from pimsim.config.errors import InputError
from pimsim.config.loader import AnyRun, ResolvedAny, ResolvedRun
from pimsim.config.run import ParallelConfig, RunConfig
from pimsim.config.system import SystemConfig
from pimsim.result.decoding import with_rounds
from pimsim.result.invariants import check_invariants
from pimsim.result.types import Result
from pimsim.workload.batch import load_run_routing
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, parallelism
from pimsim.workload.pipeline import MemoryNeed
from pimsim.workload.requests import RequestTrace
from pimsim.workload.rounds import Rounds, plan_rounds
from pimsim.workload.trace import OperatorTrace

__all__ = ["rounds_of", "whole_rounds"]


def rounds_of(
    config: AnyRun, model: ModelCard | OperatorTrace, requests: RequestTrace
) -> tuple[Rounds, ParallelConfig]:
    """What the strategy of a run asks of its model, and the degrees that this is cut by.

    Parameters
    ----------
    config
        Of the run.
    model
        Card or trace.
    requests
        Of the batch.

    Raises
    ------
    InputError
        Where the strategy does not suit the run.
    """
    parallel = config.parallel
    if isinstance(model, ModelCard):
        own = parallelism(model, parallel.tp, parallel.pp)
        if isinstance(config, RunConfig):
            parallel = parallel.model_copy(update={"tp": own.tp, "pp": own.pp})
        model = card_trace(model)
    if (parallel.pp or 1) > 1:
        raise InputError(
            f"parallel.pp is {parallel.pp} beside workload.decoding {config.workload.decoding!r}: "
            "stages of a pipeline work on several batches at once, each of which waits for drafts "
            "of its own; allowed: 1"
        )
    workload = config.workload
    return plan_rounds(workload, model, requests.requests, workload.outside), parallel


def whole_rounds(
    result: Result, resolved: ResolvedAny, rounds: Rounds, requests: RequestTrace,
    needs: Sequence[MemoryNeed],
) -> Result:  # fmt: skip
    """The run of the model's passes with the drafter's and the host's time.

    Parameters
    ----------
    result
        Of the passes that verify.
    resolved
        Config of the run.
    rounds
        What the strategy asks.
    requests
        Of the batch.
    needs
        What a device holds for the model.

    Raises
    ------
    InputError
        Where the drafter does not fit beside the model.
    """
    draft = None
    if rounds.drafter is not None:
        draft = _drafts(result, resolved, rounds, requests, needs)
    return with_rounds(result, resolved.config.workload.decoding, rounds, draft)


def _drafts(
    result: Result, resolved: ResolvedAny, rounds: Rounds, requests: RequestTrace,
    needs: Sequence[MemoryNeed],
) -> Result:  # fmt: skip
    """The run of the drafter's passes, on devices of as many as share the model."""
    config, drafter = resolved.config, rounds.drafter
    assert drafter is not None
    trace, start = drafter.trace, time.perf_counter()
    workload = config.workload.model_copy(update={"layers": "auto"})
    parallel = config.parallel.model_copy(update={"tp": result.devices, "pp": 1})
    if not trace.facts.experts:
        parallel = parallel.model_copy(update={"ep": 1})
    changes = {"workload": workload, "parallel": parallel}
    routing = load_run_routing(config, trace) if trace.facts.experts else None
    if isinstance(config, SystemConfig):
        from pimsim.engine.xpu_device import build_xpu_devices
        from pimsim.engine.xpu_machine import run_xpu_devices
        from pimsim.result.xpu_build import build_xpu_result

        xpus = build_xpu_devices(
            config.model_copy(update=changes), trace, rounds.draft_steps, routing
        )
        outcome = run_xpu_devices(xpus)
        asked = cast("Resolved[SystemConfig]", resolved)
        found, facts = build_xpu_result(
            outcome, asked, requests, time.perf_counter() - start, over_time=False
        )
    else:
        from pimsim.engine.device_building import build_devices
        from pimsim.engine.iteration import run_devices
        from pimsim.result.build import build_result

        devices = build_devices(
            config.model_copy(update=changes), trace, rounds.draft_steps, routing
        )
        kept = devices[0].work.needs[0].kv_bytes
        _check_room(config, trace, needs, -(-drafter.held_bytes // result.devices) + kept)
        own = run_devices(devices, over_time=False)
        found, facts = build_result(
            own, cast("ResolvedRun", resolved), requests, time.perf_counter() - start
        )
    check_invariants(found, facts)
    return found


def _check_room(
    config: RunConfig, trace: OperatorTrace, needs: Sequence[MemoryNeed], own_bytes: int
) -> None:
    """Raises ``InputError`` where the drafter has no room beside the model."""
    capacity = config.memory.organization.capacity_bytes
    whole = max(each.total_bytes for each in needs) + own_bytes
    if whole > capacity:
        raise InputError(
            f"workload.decoding: model and drafter ({trace.model}) need {whole / 2**30:.2f} GiB "
            f"on each device, memory has {capacity / 2**30:.2f} GiB"
        )
