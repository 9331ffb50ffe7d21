"""From what the engine left behind to a ``Result``: conversions, shares and sums, no simulation.

A run may simulate fewer blocks than the model has. The missing ones are added at the time of a
block in the steady state, and at the energy of the simulated ones (what grows with time, with
time). One device is simulated: the ``tp`` devices of a stage do the same at the same time, and the
``pp`` stages work on different batches at once (``pipeline``), so that a replica of the model makes
a batch of tokens in the time of its slowest stage. Sampling is not in an iteration, embedding and
output layer are where they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from math import lcm
from pathlib import Path

from pimsim import __version__
from pimsim.config.loader import ResolvedRun
from pimsim.engine.device import Device
from pimsim.engine.iteration import Outcome
from pimsim.engine.pim_side import PimSide
from pimsim.engine.stream_side import StreamSide
from pimsim.hardware.dram.layout import (
    C_BUS_BUSY,
    C_COMMANDS,
    C_STACK,
    N_CAUSES,
    X_ACTIVATE,
    X_COMPUTE,
    X_GWRITE,
    X_HEADER,
    X_PRECHARGE,
    X_REFRESH,
    X_TFAW,
    X_WAIT,
)
from pimsim.hardware.dram.rules import COMMANDS, Command
from pimsim.hardware.npu.vector_timing import vector_timing
from pimsim.result.accounts import (
    array_elements,
    dram_counts,
    idle_dram_w,
    power_sources,
    run_bounds,
    run_energy,
    run_facts,
    static_power,
)
from pimsim.result.experts import expert_summary
from pimsim.result.invariants import RunFacts
from pimsim.result.kv_cache import kv_cache_use
from pimsim.result.peaks import run_peaks
from pimsim.result.pipeline import RunPipeline, pipeline_of, total_energy
from pimsim.result.run_rows import operator_rows, request_rows, stage_rows, step_rows
from pimsim.result.series import run_series, series_totals
from pimsim.result.silicon import machine_area, machine_memory_bytes
from pimsim.result.types import (
    Fidelity,
    Provenance,
    Result,
    Utilisation,
)
from pimsim.workload.requests import RequestTrace

__all__ = ["apportion", "build_result", "capacity_notes", "peak_rss_mb"]

_PS_PER_S = 10**12
_CAUSE = {
    X_COMPUTE: "computing",
    X_ACTIVATE: "activation_window",
    X_TFAW: "activation_window",
    X_PRECHARGE: "row_miss",
    X_GWRITE: "gwrite",
    X_HEADER: "command_bus",
    X_REFRESH: "refresh",
    X_WAIT: "data_bus",
}
"""Names of the kernel's causes of PIM time."""


def build_result(
    outcome: Outcome, resolved: ResolvedRun, trace: RequestTrace, wall_s: float
) -> tuple[Result, RunFacts]:
    """The result of a run, and what the laws are checked against.

    Parameters
    ----------
    outcome
        What the engine left behind.
    resolved
        Its config, with its hash.
    trace
        Its requests, for their hash.
    wall_s
        Seconds that it took.
    """
    device, recorder, clock = outcome.device, outcome.recorder, outcome.clock
    whole, time_ps = device.whole, outcome.time_ps
    tokens = sum(each.whole.tokens for each in outcome.devices)
    cycles = clock.npu_cycle(time_ps)
    pipeline = pipeline_of(outcome)
    facts = run_facts(outcome, dram_counts(outcome))
    energy = run_energy(outcome, time_ps / _PS_PER_S, [(recorder.totals[-1], (1, 1))])
    by_stage = pipeline.stage_energy(outcome)
    of_model = total_energy(by_stage, whole.tp)
    devices = whole.tp * whole.pp
    time_s, memory = time_ps / _PS_PER_S, device.memory
    static = static_power(resolved.config, memory)
    fidelity = _fidelity(outcome)
    of_pim = resolved.config.pim_memory
    memories = [resolved.config.memory, *([] if of_pim is None else [of_pim])]
    result = Result(
        cycles=cycles,
        time_s=time_ps / _PS_PER_S,
        tokens_per_s=pipeline.tokens_per_s(tokens),
        tokens_per_s_interval=pipeline.tokens_per_s_interval(tokens, fidelity.error_ci95),
        block_spread=pipeline.spread,
        iterations=len(outcome.devices),
        stages=stage_rows(outcome),
        operators=operator_rows(outcome),
        utilisation=_utilisation(outcome, cycles),
        energy_j=energy,
        tokens_per_j=tokens / of_model.total if of_model.total else 0.0,
        cycle_stack=_cycle_stack(outcome, cycles),
        bound_cycles=run_bounds(outcome, facts.bytes_needed["over_bus"]),
        fidelity=fidelity,
        provenance=Provenance(
            config_sha256=resolved.sha256,
            trace_sha256=trace.sha256,
            version=__version__,
            seed=resolved.config.seed,
            wall_s=wall_s,
            peak_rss_mb=peak_rss_mb(),
        ),
        name=resolved.config.name,
        model=whole.model,
        tokens=tokens,
        steps=step_rows(outcome, pipeline),
        requests=request_rows(outcome),
        layers_simulated=device.layers,
        layers_model=sum(pipeline.slowest.blocks.values()),
        iteration_s=pipeline.interval_ps / _PS_PER_S,
        devices=devices,
        pipeline=pipeline.summary(outcome, by_stage),
        peaks=run_peaks(outcome.devices),
        series=run_series(outcome) if outcome.over_time else None,
        experts=expert_summary(outcome.devices),
        kv_cache=kv_cache_use(device),
        power_w={part: joule / time_s for part, joule in vars(energy).items()},
        static_w=static.by_part(),
        idle_w=static.total + idle_dram_w(outcome),
        tdp_w=resolved.config.npu.tdp_w,
        token_j={part: joule / tokens for part, joule in vars(of_model).items()},
        power_sources=power_sources(resolved.config, memory),
        area_mm2=machine_area(resolved.config, devices),
        memory_bytes=machine_memory_bytes(resolved.config, devices),
        stacks=sum(each.organization.stacks for each in memories),
        warnings=tuple(_warnings(outcome, pipeline)),
    )
    facts = replace(
        facts,
        series_totals=series_totals(outcome),
        clock_ps=float(max(clock.npu_ps, clock.memory_ps)),
    )
    return result, facts


def _fidelity(outcome: Outcome) -> Fidelity:
    errors = outcome.errors
    if errors is None:
        return Fidelity("command")
    return Fidelity("fast", errors.sampled, errors.mean, errors.half_width)


def apportion(weights: Mapping[str, int], total: int) -> dict[str, int]:
    """Whole shares of ``total`` in proportion to ``weights`` that add up to it exactly.

    The largest remainders are rounded up, the first of equal ones first. Needs a weight above 0.

    Parameters
    ----------
    weights
        By name, none below 0.
    total
        To be shared.
    """
    whole = sum(weights.values())
    shares = {name: weight * total // whole for name, weight in weights.items()}
    remainder = {name: weight * total % whole for name, weight in weights.items()}
    for name in sorted(remainder, key=lambda name: -remainder[name])[
        : total - sum(shares.values())
    ]:
        shares[name] += 1
    return shares


def _utilisation(outcome: Outcome, cycles: int) -> Utilisation:
    config, recorder = outcome.device.config, outcome.recorder
    system, memory = outcome.system, outcome.system.memory
    counter = system.channels["counter"]
    org, memory_cycles = memory.organization, outcome.clock.memory_cycle(outcome.time_ps)
    bus_cycles = org.channels * memory_cycles
    commands = int(counter[:, C_COMMANDS : C_COMMANDS + len(COMMANDS)].sum())
    vector = config.npu.vector
    # vector units that never queue are as many as it takes: no share of them can be told
    used = recorder.vector_unit_cycles if vector_timing(vector).queues else 0
    return Utilisation(
        npu=recorder.macs["npu"] / (array_elements(config) * cycles),
        vector=used / (vector.units * cycles),
        pim=outcome.pim.busy_ps / outcome.time_ps,
        dram_bus=int(counter[:, C_BUS_BUSY].sum()) / (bus_cycles * org.pseudo_channels),
        command_bus=commands / (bus_cycles * memory.controller.commands_per_cycle),
    )


def _cycle_stack(outcome: Outcome, cycles: int) -> dict[str, dict[str, int]]:
    """NPU: charged cycle by cycle. PIM and data bus: the mean over channels, in NPU cycles."""
    npu = {cause: n for cause, n in outcome.recorder.npu_causes.items() if n}
    stacks = {"npu": npu | {"idle": cycles - sum(npu.values())}}
    channels = outcome.system.channels
    counter = channels["counter"].sum(axis=0)
    # by cause: whole numbers of channels times picoseconds, or a part of one where the memory's
    # period is no whole number of them
    period = Fraction(outcome.clock.memory_ps)
    parts, ps = period.denominator, period.numerator
    buses = len(channels) * outcome.system.memory.organization.pseudo_channels
    total = len(channels) * outcome.time_ps * parts
    if isinstance(outcome.pim, StreamSide) and outcome.design is not None:
        own = outcome.pim.causes()
        of_pim = Fraction(outcome.pim.clock.memory_ps)
        parts_pim = lcm(parts, of_pim.denominator)
        each = len(channels) * of_pim.numerator * (parts_pim // of_pim.denominator)
        stacks["pim"] = _fill(
            {cause: n * each for cause, n in own.items()}, "npu", total * (parts_pim // parts),
            cycles,
        )  # fmt: skip
    elif outcome.system.pim is not None and isinstance(outcome.pim, PimSide):
        pim: dict[str, int] = {}
        for at in range(N_CAUSES):
            pim[_CAUSE[at]] = pim.get(_CAUSE[at], 0) + int(counter[C_STACK + at]) * ps
        side = outcome.pim
        pim["channel_imbalance"] = int(side.idle_at_end.sum()) * ps
        pim["vector"] = side.vector_tail_cycles * len(channels) * ps
        pim["readres"] = side.result_tail_cycles * len(channels) * ps
        stacks["pim"] = _fill(pim, "npu", total, cycles)
    results = counter[C_COMMANDS + int(Command.READRES)] + counter[C_COMMANDS + int(Command.GEMV)]
    results = int(results) * int(outcome.system.parameters[0]["tccd_s"])
    bus = {"transfer": (int(counter[C_BUS_BUSY]) - results) * ps, "readres": results * ps}
    stacks["dram_bus"] = _fill(bus, "idle", buses * outcome.time_ps * parts, cycles)
    return stacks


def _fill(parts: dict[str, int], rest: str, total: int, cycles: int) -> dict[str, int]:
    """``parts`` of ``total`` and the rest of it, as whole cycles; a negative rest stays to see."""
    return apportion(parts | {rest: total - sum(parts.values())}, cycles)


def _warnings(outcome: Outcome, pipeline: RunPipeline) -> Iterator[str]:
    device = outcome.device
    config, layers = device.config, device.layers
    model_layers = max(map(len, device.work.stages))
    asked = config.workload.layers
    if isinstance(asked, int) and layers == asked > model_layers:
        of = layers if device.whole.pp == 1 else model_layers
        yield f"{layers} blocks simulated, a device has {model_layers}; rates are of {of}"
    if isinstance(asked, int) and asked < layers:
        yield f"{layers} blocks simulated, not {asked}, to show each kind of block in its place"
    schedule = config.schedule
    if any(request.channel is not None for request in device.whole.requests):
        placed = any(kv.shape is not None for kv in device.kv)
        if not placed:
            yield (
                "the channels of the request trace are not used: only a KV cache in PIM's layout "
                "lies on one channel"
            )
        elif schedule.channel_assignment != "trace":
            yield (
                "the channels of the request trace are not used: schedule.channel_assignment is "
                f"{schedule.channel_assignment}; trace takes them"
            )
    if any(stage.missing.half_width_ps is None for stage in pipeline.stages):
        yield (
            "blocks differ in the experts or features that work, and too few were simulated to "
            "know how much their times do: workload.layers=auto simulates enough"
        )
    if device.narrow_tp is not None:
        yield (
            f"tp {device.whole.tp}: the least that holds the layout of PIM too; without it tp "
            f"{device.narrow_tp} would do (parallel.tp)"
        )
    yield from _trace_notes(device)
    yield from capacity_notes(device)
    if config.schedule.parts > 1 and layers == 1 and model_layers > 1:
        yield (
            "one block alone never overlaps one sub-batch's NPU work with the other's PIM work as "
            "the steady state does; for its throughput simulate 2 blocks or more"
        )
    if not vector_timing(config.npu.vector).queues:
        yield "vector units never queue here, their utilisation is given as 0"


def capacity_notes(device: Device) -> Iterator[str]:
    """Whether the blocks that were not simulated have a place too.

    Parameters
    ----------
    device
        Of the run's first step.
    """
    need, rows = device.rows_needed, device.config.memory.organization.rows
    if device.uses_pim and need > rows:
        yield (
            f"in the layout of PIM {device.rows_of} need {need} rows of each bank, the memory has "
            f"{rows} and is taken for larger (workload.beyond_banks)"
        )


def _trace_notes(device: Device) -> Iterator[str]:
    """What a reader must know of a run of a trace: chosen degrees, what is left out."""
    workload, parallel, work = device.config.workload, device.config.parallel, device.work
    if workload.trace is None:
        return
    if parallel.tp is None:
        yield f"tp {work.degrees.tp}: the least that holds the model (parallel.tp)"
    size = work.table_bytes_read
    if size and not workload.outside:
        yield (
            f"embedding and output layer are not in the iteration ({size / 1e6:.1f} MB of weights "
            "on a device); workload.outside=true runs them too"
        )


def peak_rss_mb() -> float:
    """Most memory that this process ever held, in MB. Where the system tells it of the process
    alone; else what it says may be of the process that started this one."""
    import resource
    import sys

    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 10**6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 10**6 if sys.platform == "darwin" else peak * 1024 / 10**6
