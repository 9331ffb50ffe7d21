"""From what GPUs left behind to a ``Result``, the same as an NPU's.

What a roofline does not know is absent: DRAM commands and their buses, vector units, area. One
device is simulated; ``pipeline`` says how its blocks become the model's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from math import fsum

from pimsim import __version__
from pimsim.config.documents import Resolved
from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_device import capacity_bytes, memory_words
from pimsim.engine.xpu_machine import XpuOutcome
from pimsim.hardware.energy.system_static import system_static
from pimsim.result.build import apportion, peak_rss_mb
from pimsim.result.experts import expert_summary
from pimsim.result.invariants import RunFacts
from pimsim.result.pipeline import total_energy
from pimsim.result.run_rows import operator_rows, request_rows, stage_rows, step_rows
from pimsim.result.types import Energy, Fidelity, Provenance, Result, Utilisation
from pimsim.result.xpu_accounts import (
    run_energy,
    stage_energy,
    unit_bytes,
    unit_macs,
    unit_ps,
    xpu_facts,
    xpu_peaks,
    xpu_sources,
)
from pimsim.result.xpu_pipeline import xpu_pipeline
from pimsim.result.xpu_series import xpu_series
from pimsim.workload.requests import RequestTrace

__all__ = ["build_xpu_result"]

_PS_PER_S = 10**12


def build_xpu_result(
    outcome: XpuOutcome, resolved: Resolved[SystemConfig], trace: RequestTrace, wall_s: float,
    over_time: bool = True,
) -> tuple[Result, RunFacts]:  # fmt: skip
    """The result of a run on GPUs, and what the laws are checked against.

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
    over_time
        Whether the result has a ``series``.
    """
    config, device, clock = outcome.config, outcome.device, outcome.clock
    whole, time_s = device.whole, outcome.time_ps / _PS_PER_S
    tokens = sum(each.whole.tokens for each in outcome.devices)
    cycles = clock.npu_cycle(outcome.time_ps)
    pipeline = xpu_pipeline(outcome)
    energy = run_energy(outcome)
    by_stage = stage_energy(outcome, pipeline)
    of_model = total_energy(by_stage, whole.tp)
    static, peaks = system_static(config), xpu_peaks(outcome)
    result = Result(
        cycles=cycles,
        time_s=time_s,
        tokens_per_s=pipeline.tokens_per_s(tokens),
        tokens_per_s_interval=pipeline.tokens_per_s_interval(tokens),
        block_spread=pipeline.spread,
        iterations=len(outcome.devices),
        stages=stage_rows(outcome),
        operators=operator_rows(outcome),
        utilisation=_utilisation(outcome, peaks),
        energy_j=energy,
        tokens_per_j=tokens / of_model.total if of_model.total else 0.0,
        cycle_stack=_cycle_stack(outcome, cycles),
        bound_cycles=_bounds(outcome),
        fidelity=Fidelity("command"),
        provenance=Provenance(
            config_sha256=resolved.sha256,
            trace_sha256=trace.sha256,
            version=__version__,
            seed=config.seed,
            wall_s=wall_s,
            peak_rss_mb=peak_rss_mb(),
        ),
        name=config.name,
        model=whole.model,
        tokens=tokens,
        steps=step_rows(outcome, pipeline),
        requests=request_rows(outcome),
        layers_simulated=device.layers,
        layers_model=sum(pipeline.slowest.blocks.values()),
        iteration_s=pipeline.interval_ps / _PS_PER_S,
        devices=config.devices,
        pipeline=pipeline.summary(outcome, by_stage),
        peaks=peaks,
        series=xpu_series(outcome) if over_time else None,
        experts=expert_summary(outcome.devices),
        power_w={part: joule / time_s for part, joule in asdict(energy).items()},
        static_w=static,
        idle_w=static["total"],
        tdp_w=config.xpu.tdp_w,
        token_j=_token_j(of_model, tokens),
        power_sources=xpu_sources(config),
        memory_bytes=capacity_bytes(config),
        warnings=tuple(_warnings(outcome)),
    )
    return result, replace(
        xpu_facts(outcome, result), clock_ps=float(clock.npu_ps), cycle_ps=float(clock.npu_ps)
    )


def _token_j(energy: Energy, tokens: int) -> dict[str, float]:
    return {part: joule / tokens for part, joule in asdict(energy).items()}


def _utilisation(outcome: XpuOutcome, peaks: Mapping[str, float]) -> Utilisation:
    config, time_s = outcome.config, outcome.time_ps / _PS_PER_S
    on_pim = unit_ps(outcome)["pim"] / outcome.time_ps if config.attention == "pim" else None
    return Utilisation(
        npu=2 * unit_macs(outcome)["xpu"] / (peaks["npu_flop_per_s"] * time_s),
        vector=None,
        pim=on_pim,
        dram_bus=unit_bytes(outcome)["xpu"] / (peaks["dram_bytes_per_s"] * time_s),
        command_bus=None,
    )


_CAUSES = {
    "compute": "computing", "memory": "memory", "launch": "launch",
    "exponentials": "exponentials",
}  # fmt: skip


def _cycle_stack(outcome: XpuOutcome, cycles: int) -> dict[str, dict[str, int]]:
    """The GPU: its kernels by what bounds them, and what it waits for between them. PIM: at work or
    not. Whole cycles."""
    causes_s, total_s = outcome.recorder.causes_s, outcome.time_ps / _PS_PER_S
    stack: dict[str, float] = {}
    for (unit, bound), time_s in causes_s.items():
        if unit == "xpu":
            name = _CAUSES[bound]
            stack[name] = stack.get(name, 0.0) + time_s
    others = {unit: fsum(t for (of, _), t in causes_s.items() if of == unit)
              for unit in ("pim", "host")}  # fmt: skip
    reduced_s = fsum(
        each.end_ps - each.start_ps for each in outcome.recorder.operators
        if (each.unit == "link" and each.name.startswith(("allreduce", "send")))
        or "_all" in each.name
    ) / _PS_PER_S  # fmt: skip
    rest = max(total_s - fsum(stack.values()), 0.0)
    stack["collective"] = min(reduced_s, rest)
    rest -= stack["collective"]
    for unit, time_s in others.items():
        stack[unit] = min(time_s, rest)
        rest -= stack[unit]
    stack["transfer"] = rest
    stacks = {"xpu": _whole(stack, cycles)}
    if outcome.config.attention == "pim":
        busy = min(unit_ps(outcome)["pim"] / _PS_PER_S, total_s)
        stacks["pim"] = _whole({"computing": busy, "xpu": total_s - busy}, cycles)
    return stacks


def _whole(parts_s: dict[str, float], cycles: int) -> dict[str, int]:
    """Times as whole cycles that add up to ``cycles``."""
    parts = {name: round(time_s * _PS_PER_S) for name, time_s in parts_s.items() if time_s > 0}
    return {name: n for name, n in apportion(parts, cycles).items() if n}


def _bounds(outcome: XpuOutcome) -> dict[str, int]:
    """Least cycles of each unit for all of the run's work: peaks, and each byte once."""
    found: dict[str, float] = {}
    for work in outcome.recorder.works:
        for unit, time_s in work.cost.bound_s.items():
            found[unit] = found.get(unit, 0.0) + time_s
    # each kernel's time is rounded to a picosecond
    slack_ps = len(outcome.recorder.operators)
    return {
        unit: int(max(time_s * _PS_PER_S - slack_ps, 0) // outcome.clock.npu_ps)
        for unit, time_s in found.items() if time_s
    }  # fmt: skip


def _warnings(outcome: XpuOutcome) -> Iterator[str]:
    device = outcome.device
    longest = device.longest
    if longest > device.card_context:
        yield (
            f"contexts reach {longest} tokens; model {device.whole.model} takes "
            f"{device.card_context} (max_context)"
        )
    words = memory_words(device)
    if words:
        yield words
    asked, layers = outcome.config.workload.layers, device.layers
    most = max(map(len, device.work.stages))
    if isinstance(asked, int) and layers == asked > most:
        of = layers if device.whole.pp == 1 else most
        yield f"{layers} blocks simulated, a device has {most}; rates are of {of}"
    if isinstance(asked, int) and asked < layers:
        yield f"{layers} blocks simulated, not {asked}, to show each kind of block in its place"
