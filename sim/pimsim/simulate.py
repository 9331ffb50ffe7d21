"""A run from its name to its result: what ``pimsim run`` and ``pimsim.run`` do."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from pimsim.config.content import run_content
from pimsim.config.documents import Resolved
from pimsim.config.errors import InputError
from pimsim.config.loader import DEFAULT_RUN, AnyRun, ResolvedAny, ResolvedRun, load_any_run
from pimsim.config.paths import given_path
from pimsim.config.settings_text import NONE
from pimsim.config.system import SystemConfig
from pimsim.result.types import Result

if TYPE_CHECKING:
    import pandas

    from pimsim.config.run import ParallelConfig
    from pimsim.engine.device import Device
    from pimsim.engine.iteration import Outcome, Progress
    from pimsim.engine.xpu_machine import XpuOutcome
    from pimsim.result.invariants import RunFacts
    from pimsim.workload.batch import Inputs
    from pimsim.workload.cards import ModelCard
    from pimsim.workload.moe import Routing
    from pimsim.workload.pipeline import MemoryNeed
    from pimsim.workload.requests import RequestTrace
    from pimsim.workload.rounds import Rounds
    from pimsim.workload.step import Step
    from pimsim.workload.trace import OperatorTrace

__all__ = [
    "calibration", "compare", "device_of", "devices_of", "observe", "observe_xpu", "on_npu",
    "overrides_of", "resolve", "run", "simulate",
]  # fmt: skip

PathLike = str | os.PathLike[str]


def overrides_of(
    model: PathLike | None = None, requests: PathLike | None = None,
    layers: int | str | None = None, batch: int | None = None, fidelity: str | None = None,
    trace: PathLike | None = None, routing: PathLike | None = None, max_error: str | None = None,
    phase: str | None = None, chunk: int | None = None, steps: int | None = None,
) -> list[str]:  # fmt: skip
    """The options that have a name of their own, as ``--set`` overrides.

    Parameters
    ----------
    model
        Name or path of a card.
    requests
        Name or path of a request trace.
    layers
        Decoder blocks to simulate; ``auto``: as many as it takes to know the others.
    batch
        Requests taken from the front of the trace.
    fidelity
        ``command`` or ``fast``.
    trace
        Name or path of an operator trace.
    routing
        Where tokens go in a mixture of experts.
    max_error
        Of ``fast``, as ``2%``.
    phase
        ``decode`` or ``prefill``.
    chunk
        Most new tokens of a request in a step.
    steps
        How many to run, contexts growing.

    Returns
    -------
    list
        ``key=value`` of those that are not None.

    Raises
    ------
    InputError
        Where both a model's card and a trace are named.
    """
    if model is not None and trace is not None:
        raise InputError(f"--model {model} and --trace {trace}: one of them says what is run")
    given = {
        "workload.model": None if model is None else os.fspath(model),
        "workload.trace": None if trace is None else os.fspath(trace),
        "workload.routing": None if routing is None else os.fspath(routing),
        "workload.requests": None if requests is None else os.fspath(requests),
        "workload.layers": layers,
        "workload.batch": batch,
        "workload.phase": phase,
        "workload.chunk": chunk,
        "workload.steps": steps,
        "fidelity": "fast" if fidelity is None and max_error is not None else fidelity,
        "max_error": max_error,
    }
    return [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]


def resolve(
    name_or_path: PathLike = DEFAULT_RUN, overrides: Sequence[str] = ()
) -> ResolvedAny:  # fmt: skip
    """The config of a run, on an NPU or on GPUs.

    Parameters
    ----------
    name_or_path
        A preset's name or a YAML path.
    overrides
        Values, as ``key.of.it=value``; the last of a key counts.

    Raises
    ------
    InputError
        With file, line and key.
    """
    return load_any_run(os.fspath(name_or_path), overrides)


def simulate(
    resolved: ResolvedAny, on_stage: Callable[[Progress], None] | None = None,
    over_time: bool = True,
) -> Result:  # fmt: skip
    """Simulate a resolved config and check the laws that every run obeys.

    Parameters
    ----------
    resolved
        Of ``resolve``.
    on_stage
        Hears of each stage, and how far the blocks are, before it is simulated.
    over_time
        Without it the result has no ``series``, which no other figure depends on, and comes sooner.

    Raises
    ------
    InputError
        Where the config asks for what cannot be.
    InvariantError
        Where the simulator has a bug.
    """
    if isinstance(resolved.config, SystemConfig):
        return observe_xpu(resolved, on_stage, over_time)[1]
    return observe(on_npu(resolved), on_stage, over_time=over_time)[1]


def on_npu(resolved: ResolvedAny, what: str = "this") -> ResolvedRun:
    """The config of an NPU's run; GPUs have no DRAM commands.

    Parameters
    ----------
    resolved
        Of ``resolve``.
    what
        What needs them, in the message.

    Raises
    ------
    InputError
        For a run on GPUs.
    """
    if isinstance(resolved.config, SystemConfig):
        raise InputError(
            f"{resolved.config.name}: {what} is of an NPU, of its memory and its commands; GPUs "
            "(xpu) have none in pimsim"
        )
    return resolved


def observe(
    resolved: ResolvedRun, on_stage: Callable[[Progress], None] | None = None, log_entries: int = 0,
    over_time: bool = True,
) -> tuple[Outcome, Result]:  # fmt: skip
    """``simulate`` on an NPU, and what the engine left behind: records, counters, commands.

    Parameters
    ----------
    resolved
        Of ``resolve``.
    on_stage
        Hears of each stage, and how far the blocks are, before it is simulated.
    log_entries
        Commands that are logged, the first ones.
    over_time
        Whether the result has a ``series``.

    Raises
    ------
    InputError
        As ``simulate`` does.
    """
    from pimsim.engine.iteration import run_devices
    from pimsim.result.build import build_result
    from pimsim.workload.batch import load_inputs

    start = time.perf_counter()
    inputs = load_inputs(resolved.config.workload)
    content = run_content(resolved, inputs.hashes)
    asked = _asked(resolved.config, inputs)
    devices = _npu_devices(resolved, asked)
    outcome = run_devices(devices, on_stage, log_entries, over_time)
    wall_s = time.perf_counter() - start
    result, facts = build_result(outcome, resolved, asked.trace, wall_s)
    checked = _checked(result, facts, resolved, content)
    return outcome, _with_rounds(checked, resolved, asked, devices[0].work.needs)


def observe_xpu(
    resolved: Resolved[SystemConfig], on_stage: Callable[[Progress], None] | None = None,
    over_time: bool = True,
) -> tuple[XpuOutcome, Result]:  # fmt: skip
    """``simulate`` on GPUs, and what the engine left behind.

    Parameters
    ----------
    resolved
        Of ``resolve``.
    on_stage
        Hears of each block, before it is simulated.
    over_time
        Whether the result has a ``series``.

    Raises
    ------
    InputError
        As ``simulate`` does.
    """
    from pimsim.engine.xpu_device import build_xpu_devices
    from pimsim.engine.xpu_machine import run_xpu_devices
    from pimsim.result.xpu_build import build_xpu_result
    from pimsim.workload.batch import load_inputs

    start = time.perf_counter()
    inputs = load_inputs(resolved.config.workload)
    content = run_content(resolved, inputs.hashes)
    asked = _asked(resolved.config, inputs)
    devices = build_xpu_devices(resolved.config, asked.model, asked.steps, asked.routing)
    outcome = run_xpu_devices(devices, on_stage)
    wall_s = time.perf_counter() - start
    result, facts = build_xpu_result(outcome, resolved, asked.trace, wall_s, over_time)
    checked = _checked(result, facts, resolved, content)
    return outcome, _with_rounds(checked, resolved, asked, devices[0].work.needs)


def _checked(result: Result, facts: RunFacts, resolved: ResolvedAny, content: str) -> Result:
    """The result with what all runs say of themselves, once it obeys the laws."""
    from pimsim.result.invariants import check_invariants

    result = replace(
        result,
        provenance=replace(result.provenance, content_sha256=content),
        warnings=(*resolved.notes, *result.warnings, *_departures(resolved)),
    )
    check_invariants(result, facts)
    return result


def _departures(resolved: ResolvedAny) -> list[str]:
    """That a run follows a published simulator and no hardware, and by which keys, in a line."""
    from pimsim.reproductions import departures

    found = departures(resolved.config)
    return [f"quirks of a published artifact are on: {', '.join(found)}"] if found else []


def device_of(resolved: ResolvedRun, inputs: Inputs | None = None) -> tuple[Device, RequestTrace]:
    """``devices_of`` at the first step.

    Parameters
    ----------
    resolved
        Of ``resolve``.
    inputs
        Where they were read before; None: they are read.
    """
    devices, trace = devices_of(resolved, inputs)
    return devices[0], trace


def devices_of(
    resolved: ResolvedRun, inputs: Inputs | None = None
) -> tuple[tuple[Device, ...], RequestTrace]:
    """The device with its work mapped, at each of the run's steps, and the requests, hashed with
    all other inputs.

    Parameters
    ----------
    resolved
        Of ``resolve``.
    inputs
        Where they were read before; None: they are read.

    Raises
    ------
    InputError
        Where the config asks for what cannot be.
    """
    from pimsim.workload.batch import load_inputs

    read = load_inputs(resolved.config.workload) if inputs is None else inputs
    asked = _asked(resolved.config, read)
    return _npu_devices(resolved, asked), asked.trace


def _npu_devices(resolved: ResolvedRun, asked: Asked) -> tuple[Device, ...]:
    """The device with its work mapped, at each step."""
    from pimsim.engine.device_building import build_devices
    from pimsim.workload.batch import load_run_sparsity
    from pimsim.workload.pipeline import NoRoomError

    config = resolved.config
    _check_controller(resolved)
    sparsity = load_run_sparsity(config, asked.model)
    if asked.parallel is not config.parallel:
        config = config.model_copy(update={"parallel": asked.parallel})
    try:
        return build_devices(config, asked.model, asked.steps, asked.routing, sparsity)
    except NoRoomError as short:
        if config.pim_memory is None:
            raise
        raise InputError(f"{_place_of(resolved, 'pim_memory')}: pim_memory: {short}") from None


def _place_of(resolved: ResolvedRun, memory: str) -> str:
    """Where the size of a memory is said: by the run, or in the memory's own file."""
    keys = ("rows", "channels", "ranks", "bank_groups", "banks_per_group", "columns")
    places = [resolved.origins[f"{memory}.organization.{key}"] for key in keys]
    own = resolved.origins[f"{memory}.name"].rpartition(":")[0]
    return next((each for each in places if each.rpartition(":")[0] != own), places[0])


class Asked(NamedTuple):
    """What a run is asked."""

    model: ModelCard | OperatorTrace
    routing: Routing | None
    """Where its tokens go; None: it has no experts."""
    trace: RequestTrace
    """The requests, hashed with all other inputs."""
    steps: tuple[Step, ...]
    parallel: ParallelConfig
    """Degrees that the model is cut by."""
    rounds: Rounds | None = None
    """Of a decoding strategy."""
    whole: tuple[OperatorTrace, RequestTrace] | None = None
    """The model, and requests whose prompts it chooses from in a pass of its own."""


def _asked(config: AnyRun, inputs: Inputs) -> Asked:
    """What the run is asked, by its inputs."""
    from pimsim.workload.batch import load_model, load_run_routing, traces_sha256
    from pimsim.workload.run_steps import run_steps

    model = load_model(config.workload) if inputs.card is None else inputs.card
    trace = replace(inputs.requests, sha256=traces_sha256(inputs.hashes))
    routing = load_run_routing(config, model)
    workload = config.workload
    steps: tuple[Step, ...] = ()
    formats = workload.weight_format, workload.kv_format
    if {workload.kv_view, workload.decoding, *formats} == {NONE}:
        steps = run_steps(trace.requests, workload)
        return Asked(model, routing, trace, steps, config.parallel)
    from pimsim.technique_runs import (
        chosen_from,
        left_of,
        rounds_of,
        stored,
        stored_cache,
        traced,
        viewed,
    )

    model, parallel = traced(config, model)
    if workload.weight_format != NONE:
        model = stored(config, model)
    left = left_of(config, model, trace)
    if workload.decoding == NONE:
        steps = run_steps(left.requests, workload)
    if workload.kv_view != NONE:
        contexts = [context for step in steps for context in step.contexts]
        longest = max(contexts or [request.context for request in trace.requests])
        model = viewed(config, model, longest)
    if workload.kv_format != NONE:
        model = stored_cache(config, model)
    if workload.decoding == NONE:
        whole = chosen_from(config, model, trace)
        return Asked(model, routing, trace, steps, parallel, whole=whole)
    rounds = rounds_of(config, model, parallel, left)
    return Asked(rounds.model, routing, trace, rounds.steps, parallel, rounds)


def _with_rounds(
    result: Result, resolved: ResolvedAny, asked: Asked, needs: Sequence[MemoryNeed]
) -> Result:
    """The run of a decoding strategy with its drafts and its host; any other as it is."""
    if asked.whole is not None:
        from pimsim.technique_runs import filtered

        return filtered(result, resolved, *asked.whole)
    if asked.rounds is None:
        return result
    from pimsim.technique_runs import whole_rounds

    return whole_rounds(result, resolved, asked.rounds, asked.trace, needs)


def _check_controller(resolved: ResolvedRun) -> None:
    """Raises ``InputError`` where a run asks for a controller that it then would not have."""
    key, config = "memory.controller.model", resolved.config
    model = config.memory.controller.model
    if config.pim is None or not config.schedule.declared.uses_pim or model == "bank-queues":
        return
    if config.pim_memory is not None:
        return  # PIM's commands go to a memory of their own
    places = {at: place.rpartition(":")[0] for at, place in resolved.origins.items()}
    # by the run itself, not by the memory that it names
    of_run = {place for at, place in places.items() if place and not at.startswith("memory.")}
    if resolved.origins[key] == "--set" or places[key] in of_run:
        raise InputError(
            f"{key}: {model} does not act beside PIM ({config.pim.name}), whose commands only "
            "bank-queues sends; it acts with schedule.policy=serial, and in kernel dram"
        )


def calibration(
    resolved: ResolvedRun, on_stage: Callable[[Progress], None] | None = None
) -> dict[str, Any] | None:
    """Run at fast fidelity and say what it went by; None where the run has no rates.

    Parameters
    ----------
    resolved
        Of ``resolve``.
    on_stage
        Hears of each stage, before it is simulated.

    Raises
    ------
    InputError
        As ``simulate`` does.
    """
    from pimsim.hardware.dram.fast import PhasedMemory, describe

    memory = observe(resolved, on_stage)[0].system
    return describe(memory) if isinstance(memory, PhasedMemory) else None


def run(
    name_or_path: PathLike = DEFAULT_RUN, *, model: PathLike | None = None,
    requests: PathLike | None = None, layers: int | str | None = None, batch: int | None = None,
    trace: PathLike | None = None, routing: PathLike | None = None, fidelity: str | None = None,
    max_error: str | None = None, phase: str | None = None, chunk: int | None = None,
    steps: int | None = None, overrides: Sequence[str] = (), out: PathLike | None = None,
) -> Result:  # fmt: skip
    """Simulate one step of a batch, or several: a decode iteration unless asked otherwise.

    Parameters
    ----------
    name_or_path
        A preset or a run's YAML.
    model
        Name or path of a card.
    requests
        Name or path of a request trace.
    layers
        Decoder blocks to simulate, or ``auto``; the rate is of all that the model has.
    batch
        Requests taken from the front of the trace.
    trace
        Name or path of an operator trace, in place of ``model``.
    routing
        Where tokens go in a mixture of experts: ``uniform``, ``zipf:1``, or a file.
    fidelity
        ``command`` or ``fast``.
    max_error
        Of ``fast``, as ``2%``.
    phase
        ``decode`` or ``prefill``.
    chunk
        Most new tokens of a request in a step.
    steps
        How many to run, contexts growing.
    overrides
        Any other value, as ``npu.frequency=2GHz``; they come last.
    out
        A folder for config, result and operators.

    Raises
    ------
    InputError
        One line, for wrong input.

    Examples
    --------
    >>> import pimsim
    >>> result = pimsim.run("dgx-h100", model="gpt3-7b", requests="equal:1024+1", batch=16)
    >>> result.devices, result.fidelity.mode
    (8, 'command')
    >>> max(result.cycle_stack["xpu"], key=result.cycle_stack["xpu"].get)
    'collective'
    """
    from pimsim.result import store

    options = overrides_of(
        model, requests, layers, batch, fidelity, trace, routing, max_error, phase, chunk, steps
    )
    resolved = resolve(name_or_path, [*options, *overrides])
    if out is not None:
        store.check_writable(out)
    result = simulate(resolved)
    if out is not None:
        store.save(result, resolved.to_yaml(folder=given_path(out)), out)
    return result


def compare(
    runs: Sequence[PathLike | Result], *, model: PathLike | None = None,
    requests: PathLike | None = None, layers: int | str | None = None, batch: int | None = None,
    trace: PathLike | None = None, routing: PathLike | None = None, fidelity: str | None = None,
    max_error: str | None = None, phase: str | None = None, chunk: int | None = None,
    steps: int | None = None, overrides: Sequence[str] = (),
) -> pandas.DataFrame:  # fmt: skip
    """Runs side by side, one row each, ratios to the first. The options are those of ``run`` and
    hold for the ones that are simulated.

    Parameters
    ----------
    runs
        Each a preset, a run's YAML, a folder that ``out`` wrote, or a ``Result``.
    model
        Name or path of a card.
    requests
        Name or path of a request trace.
    layers
        Decoder blocks to simulate; ``auto``: as many as it takes to know the others.
    batch
        Requests taken from the front of the trace.
    trace
        Name or path of an operator trace, in place of ``model``.
    routing
        Where tokens go in a mixture of experts.
    fidelity
        ``command`` or ``fast``.
    max_error
        Of ``fast``, as ``2%``.
    phase
        ``decode`` or ``prefill``.
    chunk
        Most new tokens of a request in a step.
    steps
        How many to run, contexts growing.
    overrides
        Any other value, as ``key.of.it=value``.

    Returns
    -------
    pandas.DataFrame
        A row a run, metrics in columns.

    Raises
    ------
    InputError
        One line, for wrong input.

    Examples
    --------
    >>> import pimsim
    >>> load = {"model": "gpt3-7b", "requests": "equal:1024+1", "batch": 16}
    >>> table = pimsim.compare(["dgx-a100", "dgx-h100"], **load)
    >>> table["speedup"].round(1).tolist()
    [1.0, 1.4]
    """
    from pimsim.result import store
    from pimsim.result.compare import compare as table

    options = overrides_of(
        model, requests, layers, batch, fidelity, trace, routing, max_error, phase, chunk, steps
    )
    options += overrides
    results, names = [], []
    for each in runs:
        if isinstance(each, Result):
            results.append(each)
            names.append(each.name)
        elif os.path.isdir(each):
            results.append(store.load(each))
            names.append(os.fspath(each))
        else:
            results.append(simulate(resolve(each, options)))
            names.append(os.fspath(each))
    return table(results, names)
