"""Runs with techniques: the model as its cache is read, and rounds of a decoding strategy, whose
drafter is on the same device.

The drafter's passes and the model's follow one another, since each needs what the other found out;
so both are simulated, each with the device to itself, and their times add up. Both hold their
weights and caches at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from pimsim.config.documents import Resolved
from pimsim.config.errors import InputError
from pimsim.config.loader import AnyRun, ResolvedAny, ResolvedRun
from pimsim.config.run import ParallelConfig, RunConfig
from pimsim.config.settings_text import NONE
from pimsim.config.system import SystemConfig
from pimsim.result.decoding import with_pass_before, with_rounds
from pimsim.result.invariants import check_invariants
from pimsim.result.types import Result
from pimsim.workload.batch import load_run_routing
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, parallelism
from pimsim.workload.formats import load_format
from pimsim.workload.kv_views import load_view
from pimsim.workload.operators import OperatorKind
from pimsim.workload.pipeline import MemoryNeed
from pimsim.workload.requests import RequestTrace
from pimsim.workload.rounds import Rounds, plan_rounds
from pimsim.workload.run_steps import run_steps
from pimsim.workload.step import Step
from pimsim.workload.stored_cache import packed_cache
from pimsim.workload.stored_weights import quantised
from pimsim.workload.trace import OperatorTrace

__all__ = [
    "chosen_from",
    "filtered",
    "left_of",
    "rounds_of",
    "stored",
    "stored_cache",
    "traced",
    "viewed",
    "whole_rounds",
]


def traced(
    config: AnyRun, model: ModelCard | OperatorTrace
) -> tuple[OperatorTrace, ParallelConfig]:
    """The operators of a run's model, and the degrees that they are cut by: a card's own, where the
    run leaves them open.

    Parameters
    ----------
    config
        Of the run.
    model
        Card or trace.
    """
    parallel = config.parallel
    if not isinstance(model, ModelCard):
        return model, parallel
    own = parallelism(model, parallel.tp, parallel.pp)
    if isinstance(config, RunConfig):
        parallel = parallel.model_copy(update={"tp": own.tp, "pp": own.pp})
    return card_trace(model), parallel


def viewed(config: AnyRun, trace: OperatorTrace, longest: int) -> OperatorTrace:
    """The model that reads its cache as the run's view has it.

    Parameters
    ----------
    config
        Of the run.
    trace
        Of the model.
    longest
        Context that the run begins with.

    Raises
    ------
    InputError
        Where the view leaves nothing out, or turns keys that lie in banks.
    """
    text = config.workload.kv_view
    view = load_view(text)
    if not view.cuts_prompts and view.tokens >= longest:
        raise InputError(
            f"workload.kv_view: {text!r} keeps {view.tokens:,} tokens; the longest context has "
            f"{longest:,}, so that nothing would be left out"
        )
    found = view.model(trace)
    if view.gathers_tokens and _attends_in_banks(config):
        raise InputError(
            f"workload.kv_view: {text!r} gathers single tokens, and the keys of a row of all banks "
            "are multiplied together, chosen or not; allowed: attention elsewhere "
            "(schedule.attention_placement=npu)"
        )
    turned = any(
        each.kind is OperatorKind.ROPE
        for operators in trace.phases["decode"].blocks.values() for each in operators
    )  # fmt: skip
    if turned and view.rotates_keys and _attends_in_banks(config):
        raise InputError(
            f"workload.kv_view: {text!r} turns keys when they are read; those that PIM reads stay "
            "in its banks: allowed on it are views that turn queries (lambda_mask:rotation=queries)"
            ", or attention elsewhere"
        )
    return found


def stored(config: AnyRun, trace: OperatorTrace) -> OperatorTrace:
    """The model whose weights lie in memory as the run's format has them.

    Parameters
    ----------
    config
        Of the run.
    trace
        Of the model.

    Raises
    ------
    InputError
        Where something reads weights as they lie, or the format takes as much room as none.
    """
    text = config.workload.weight_format
    other = _reads_whole_elements(config, trace)
    if other:
        raise InputError(f"workload.weight_format: {text!r} beside {other}")
    try:
        found = quantised(trace, load_format(text).weights(8 * trace.facts.dtype_bytes))
    except InputError as error:
        raise InputError(f"workload.weight_format: {text!r}: {error}") from None
    if found.facts.parameter_bytes >= trace.facts.parameter_bytes:
        raise InputError(
            f"workload.weight_format: {text!r} takes {found.facts.parameter_bytes:,} bytes for "
            f"model {trace.model}, which has {trace.facts.parameter_bytes:,}: nothing is saved"
        )
    return found


def stored_cache(config: AnyRun, trace: OperatorTrace) -> OperatorTrace:
    """The model whose KV cache lies in memory as the run's format has it.

    Parameters
    ----------
    config
        Of the run.
    trace
        Of the model, as it reads its cache.

    Raises
    ------
    InputError
        Where PIM reads the cache, or the format does not suit the model or the machine.
    """
    text = config.workload.kv_format
    if _attends_in_banks(config):
        raise InputError(
            f"workload.kv_format: {text!r} beside attention on PIM, which multiplies keys and "
            "values as they lie in a row, in the model's own elements, and has nothing that widens "
            "them; allowed: attention elsewhere"
        )
    try:
        fmt = load_format(text).cache()
        if fmt.residual and isinstance(config, RunConfig):
            raise InputError(
                f"its last {fmt.residual} tokens take more than others, and pages of an NPU's "
                "cache hold tokens of one size; allowed: residual=0"
            )
        return packed_cache(trace, fmt)
    except InputError as error:
        raise InputError(f"workload.kv_format: {text!r}: {error}") from None


def _reads_whole_elements(config: AnyRun, trace: OperatorTrace) -> str:
    """What of the run needs weights as the model has them, and why; empty: nothing does."""
    why = (
        "PIM multiplies weights as they lie in a row, in the model's own elements, and has nothing "
    )
    why += "that widens them; allowed: "
    if isinstance(config, SystemConfig):
        return f"ffn_split: {why}false" if config.ffn_split else ""
    schedule, sparsity = config.schedule, config.workload.sparsity
    if sparsity != "none":
        return (
            f"workload.sparsity {sparsity!r}: features are skipped by columns of whole elements, "
            "which packed weights do not have; allowed: none"
        )
    if config.pim is None or not schedule.declared.uses_pim:
        return ""
    if schedule.product_placement != "npu":
        return f"schedule.product_placement {schedule.product_placement!r}: {why}npu"
    if trace.facts.experts and schedule.expert_placement != "npu":
        return f"schedule.expert_placement {schedule.expert_placement!r}: {why}npu"
    return ""


def left_of(config: AnyRun, trace: OperatorTrace, requests: RequestTrace) -> RequestTrace:
    """The requests with the tokens that the run's view of the cache leaves of them.

    Parameters
    ----------
    config
        Of the run.
    trace
        Of the model.
    requests
        Of the batch.

    Raises
    ------
    InputError
        Where the view drops tokens of prompts and the run feeds some, or none is dropped.
    """
    text, asked = config.workload.kv_view, requests.requests
    if text == NONE:
        return requests
    view = load_view(text)
    if not view.cuts_prompts and not view.of_single_tokens:
        return requests
    feeding = [each for each in asked if each.new_tokens is not None]
    if view.of_single_tokens:
        decoding = config.workload.decoding
        if config.workload.phase != "decode" or feeding or decoding != NONE:
            raise InputError(
                f"workload.kv_view: {text!r} chooses keys for each query, and tokens that are fed "
                "together would read different ones; allowed: workload.phase=decode, "
                "workload.decoding=none, requests without new_tokens"
            )
        return requests
    prompts = config.workload.phase != "decode" and view.chooser(trace) is None
    if prompts or feeding:
        raise InputError(
            f"workload.kv_view: {text!r} drops tokens of prompts that have been read, and this run "
            "feeds some; allowed: workload.phase=decode, requests without new_tokens"
        )
    most = trace.facts.max_context
    for each in asked:
        if each.context > most:
            raise InputError(
                f"request {each.id} has a context of {each.context} tokens; model {trace.model} "
                f"takes 1 to {most} (max_context), whatever workload.kv_view {text!r} leaves of it"
            )
    found = view.requests(asked)
    if found == asked:
        longest = max(each.prompt_tokens for each in asked)
        raise InputError(
            f"workload.kv_view: {text!r} keeps {view.tokens:,} tokens of a prompt; the longest has "
            f"{longest:,}, so that nothing would be left out"
        )
    return replace(requests, requests=found)


def _attends_in_banks(config: AnyRun) -> bool:
    if isinstance(config, SystemConfig):
        return config.attention == "pim"
    schedule = config.schedule
    return schedule.declared.uses_pim and schedule.attention_placement == "pim"


def rounds_of(
    config: AnyRun, model: OperatorTrace, parallel: ParallelConfig, requests: RequestTrace
) -> Rounds:
    """What the strategy of a run asks of its model.

    Parameters
    ----------
    config
        Of the run.
    model
        As it reads its cache.
    parallel
        Degrees that it is cut by.
    requests
        Of the batch.

    Raises
    ------
    InputError
        Where the strategy does not suit the run.
    """
    workload = config.workload
    if (parallel.pp or 1) > 1:
        raise InputError(
            f"parallel.pp is {parallel.pp} beside workload.decoding {workload.decoding!r}: "
            "stages of a pipeline work on several batches at once, each of which waits for drafts "
            "of its own; allowed: 1"
        )
    return plan_rounds(workload, model, requests.requests, workload.outside)


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
        own, held = rounds.drafter.trace, rounds.drafter.held_bytes
        shared = rounds.drafter.shares_cache

        def check(devices: int, kept: int) -> None:
            assert isinstance(resolved.config, RunConfig)
            _check_room(resolved.config, own, needs, -(-held // devices) + (0 if shared else kept))

        draft = _beside(result, resolved, own, rounds.draft_steps, requests, check)
    return with_rounds(result, resolved.config.workload.decoding, rounds, draft)


def chosen_from(
    config: AnyRun, model: OperatorTrace, requests: RequestTrace
) -> tuple[OperatorTrace, RequestTrace] | None:
    """Model and whole requests, where a pass of its own chooses from their prompts; None: none
    does.

    Parameters
    ----------
    config
        Of the run.
    model
        As it is run.
    requests
        Of the batch.
    """
    workload = config.workload
    if workload.kv_view == NONE or workload.phase != "prefill":
        return None
    return None if load_view(workload.kv_view).chooser(model) is None else (model, requests)


def filtered(
    result: Result, resolved: ResolvedAny, model: OperatorTrace, requests: RequestTrace
) -> Result:
    """The run of what is left of prompts with the pass that chooses it before.

    Parameters
    ----------
    result
        Of what is left.
    resolved
        Config of the run.
    model
        All of it.
    requests
        Whole, as they are asked.
    """
    workload = resolved.config.workload
    chooser = load_view(workload.kv_view).chooser(model)
    assert chooser is not None
    steps = run_steps(requests.requests, workload)
    first = _beside(result, resolved, chooser, steps, requests, None)
    return with_pass_before(result, first, sum(step.tokens for step in steps))


def _beside(
    result: Result, resolved: ResolvedAny, trace: OperatorTrace, steps: Sequence[Step],
    requests: RequestTrace, check: Callable[[int, int], None] | None,
) -> Result:  # fmt: skip
    """The run of another model's passes, on devices of as many as share the model; ``check``
    hears of these and of the bytes of its cache on each."""
    config, start = resolved.config, time.perf_counter()
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

        xpus = build_xpu_devices(config.model_copy(update=changes), trace, steps, routing)
        outcome = run_xpu_devices(xpus)
        asked = cast("Resolved[SystemConfig]", resolved)
        found, facts = build_xpu_result(
            outcome, asked, requests, time.perf_counter() - start, over_time=False
        )
    else:
        from pimsim.engine.device_building import build_devices
        from pimsim.engine.iteration import run_devices
        from pimsim.result.build import build_result

        devices = build_devices(config.model_copy(update=changes), trace, steps, routing)
        if check is not None:
            check(result.devices, devices[0].work.needs[0].kv_bytes)
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
