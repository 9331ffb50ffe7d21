"""Random valid configs over all presets, each run with all laws that results are held to."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import fsum, isclose, isfinite
from typing import Literal

import numpy as np

from benchmarks.measurement import Measurement
from benchmarks.valid_configs import Draw, Family, draw_config

__all__ = ["Outcome", "check", "measure", "outcomes"]

CONFIGS = 500
SEED = 20261130

_LOGGED = 20_000
"""Commands of a run whose legality is checked."""
_TOLERANCE = 1e-9
"""Relative; sums of a few floats."""


@dataclass(frozen=True)
class Outcome:
    """What became of a draw."""

    draw: Draw
    kind: Literal["kept", "refused", "broken"]
    why: str = ""


def check(draw: Draw) -> Outcome:
    """Run a draw: whether it kept all laws, or was refused with one line."""
    from pimsim.config.errors import InputError

    try:
        broken = list(_LAWS[draw.family](draw))
    except InputError as refusal:
        text = str(refusal)
        return Outcome(draw, "broken" if "\n" in text else "refused", text)
    except Exception as error:
        return Outcome(draw, "broken", f"{type(error).__name__}: {error}")
    return Outcome(draw, "broken" if broken else "kept", "; ".join(broken))


def outcomes(seed: int | str, count: int) -> Iterator[Outcome]:
    """Draws until ``count`` of them were accepted; the refused ones too."""
    draw = random.Random(seed)
    accepted = 0
    while accepted < count:
        found = check(draw_config(draw))
        accepted += found.kind != "refused"
        yield found


def measure() -> list[Measurement]:
    """How many of the accepted configs break a law; each is printed."""
    kinds: Counter[str] = Counter()
    for found in outcomes(SEED, CONFIGS):
        kinds[found.kind] += 1
        if found.kind == "broken":
            print(f"{found.draw}: {found.why}", flush=True)
    note = f"{CONFIGS} valid configs, seed {SEED}; {kinds['refused']} draws were refused"
    return [Measurement("laws: broken", kinds["broken"], "configs", 0, at_least=False, note=note)]


# the laws of each family --------------------------------------------------------------------------


def _hardware(draw: Draw) -> Iterator[str]:
    """A run checks its own laws; beside them its commands are legal."""
    from pimsim.hardware.dram.address import AddressMap
    from pimsim.hardware.dram.legality import check_commands
    from pimsim.hardware.dram.parameters import auto_precharge
    from pimsim.hardware.dram.replay import logged_commands
    from pimsim.simulate import observe, resolve

    resolved = resolve(draw.preset, draw.overrides)
    config = resolved.config
    alone = config.pim is None or not config.schedule.declared.uses_pim
    keeps_log = config.fidelity == "command" and not (
        alone and config.memory.controller.model == "channel-queues"
    )
    outcome, _ = observe(resolved, log_entries=_LOGGED if keeps_log else 0)
    if keeps_log:
        memory = outcome.system.memory
        mapping = AddressMap.parse(memory.address_map, memory.organization)
        log, _ = logged_commands(outcome.board, mapping, auto_precharge(memory.controller))
        found = check_commands(log, memory, outcome.system.pim)
        if found is not None:
            yield str(found)


def _system(draw: Draw) -> Iterator[str]:
    """A run checks its own laws; beside them powers add up."""
    from pimsim.simulate import resolve, simulate

    model, batch, inputs, outputs = draw.work
    given = [
        f"workload.model={model}", f"workload.batch={batch}",
        f"workload.requests=equal:{inputs}+1", f"workload.steps={int(outputs) - 1}",
    ]  # fmt: skip
    result = simulate(resolve(draw.preset, [*draw.overrides, *given]))
    for what, parts in (("powers", result.power_w), ("static powers", result.static_w)):
        own = [value for name, value in parts.items() if name != "total"]
        if not all(isfinite(value) and value >= 0 for value in own):
            yield f"{what} are {parts}"
        if not isclose(fsum(own), parts["total"], rel_tol=_TOLERANCE):
            yield f"{what} add up to {fsum(own)}, the total is {parts['total']}"
    if result.static_w["total"] > result.power_w["total"] * (1 + _TOLERANCE):
        yield f"power is {result.power_w['total']} W, {result.static_w['total']} W of it static"


def _stream(draw: Draw) -> Iterator[str]:
    from pimsim.config.loader import load_stream_pim
    from pimsim.hardware.energy.limits import check_limits
    from pimsim.hardware.energy.pim import cap_of, fullest_stack_w, stream_energy_pj
    from pimsim.hardware.pim.designs import mapping_of
    from pimsim.hardware.pim.stream import peak_interval_cycles, run_stream

    operation, *sizes = draw.work
    design = load_stream_pim(draw.preset, draw.overrides).config
    stream = mapping_of(design, str(operation))(design, *sizes)
    result = run_stream(design, stream)
    watt = fullest_stack_w(design, result.channel_commands, result.cycles * design.tCK)
    check_limits(cap_of(design, watt, "power_cap_w"))
    numbers = [int(size) for size in sizes]
    macs = int(np.prod(numbers))
    if operation == "attention":
        heads, _, head_dim, context = numbers
        macs = 2 * heads * head_dim * context
    peak = design.peak
    if peak is not None:
        done = result.commands.get(peak.command, 0)
        slots = result.cycles * design.organization.channels / peak_interval_cycles(design)
        if done > slots * (1 + _TOLERANCE):
            yield f"{done} {peak.command} in {slots} slots"
        if macs > slots * design.peak_macs * (1 + _TOLERANCE):
            yield f"{macs} MACs in {slots} slots of {design.peak_macs}"
    if not all(
        isfinite(pj) and pj >= 0 for pj in stream_energy_pj(design, result.commands).values()
    ):
        yield f"energies are {stream_energy_pj(design, result.commands)}"


def _memory(draw: Draw) -> Iterator[str]:
    from pimsim.config.loader import load_energy, load_memory
    from pimsim.hardware.dram.legality import check_commands
    from pimsim.hardware.dram.replay import column_commands, replay
    from pimsim.hardware.energy.dram import count_dram, dram_energy
    from pimsim.hardware.energy.static import peak_gb_per_s, standby_w

    count, seed = (int(word) for word in draw.work)
    memory = load_memory(draw.preset, draw.overrides).config
    rng = np.random.default_rng(seed)
    space = memory.organization.capacity_bytes // memory.organization.burst_bytes
    runs = rng.integers(0, space, count)
    bursts = np.unique((runs[:, None] + np.arange(rng.integers(1, 9)))[:, :] % space)
    bursts = rng.permutation(bursts)[:count]
    writes = (rng.random(len(bursts)) < rng.random()).astype(np.int64)
    addresses = bursts * memory.organization.burst_bytes
    result = replay(memory, addresses, writes, log_entries=60 * len(bursts) + _LOGGED)
    found = check_commands(result.log, memory)
    if found is not None:
        yield str(found)
    moved = column_commands(result.commands)
    if moved + result.undrained_writes != len(bursts):
        yield f"{moved} bursts moved, {result.undrained_writes} queued, {len(bursts)} asked for"
    time_ps = result.time_ps(memory)
    rate = result.bytes_moved / time_ps * 1e3
    if rate > peak_gb_per_s(memory) * (1 + _TOLERANCE):
        yield f"{rate} GB/s of {peak_gb_per_s(memory)}"
    constants = load_energy("default").config
    counts = count_dram(memory, result.commands, result.active_rank_cycles, result.cycles, time_ps)
    parts = dram_energy(counts, memory, constants)
    idle_w, active_w = standby_w(memory, constants)
    least, most = (watt * time_ps * 1e-12 for watt in sorted((idle_w, active_w)))
    if not least * (1 - _TOLERANCE) <= parts.background_j <= most * (1 + _TOLERANCE):
        yield f"standby takes {parts.background_j} J, between {least} and {most} are possible"


_LAWS: dict[Family, Callable[[Draw], Iterator[str]]] = {
    "hardware": _hardware, "system": _system, "stream": _stream, "memory": _memory,
}  # fmt: skip
