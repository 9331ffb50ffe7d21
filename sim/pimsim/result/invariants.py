"""Laws that no run may break; one that does is a bug of the simulator, not of the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from math import fsum, inf, isclose, isfinite

from pimsim.config.errors import CheckFailed
from pimsim.hardware.energy.limits import PowerLimit, check_limits
from pimsim.result.types import Energy, Result, Series, Utilisation

__all__ = [
    "InvariantError", "KvWrites", "PowerFacts", "RunFacts", "check_invariants", "violations",
]  # fmt: skip

_ENERGY_TOLERANCE = 1e-9
"""Relative; sums of a few floats."""
_SHARE_TOLERANCE = 1e-9


class InvariantError(CheckFailed):
    """A run broke a bound or a conservation law. Exit code 1."""


@dataclass(frozen=True)
class PowerFacts:
    """What the laws of power are checked against."""

    standby_j: float = 0.0
    """DRAM's standby, refresh apart."""
    standby_least_j: float = 0.0
    """All ranks closed all the time."""
    standby_most_j: float = float("inf")
    """All ranks open all the time."""
    dram_most_w: float = float("inf")
    """What the DRAM draws at most for a short time."""
    device_most_w: float = float("inf")
    """What the device draws at most: all of its parts at their peaks at once."""
    limits: tuple[PowerLimit, ...] = ()
    tdp_key: str = "npu.tdp_w"
    """Of the most that a device draws."""
    beside_w: float = 0.0
    """What is counted of a device, but is not its own: PIM stacks beside it, its host."""


@dataclass(frozen=True)
class KvWrites:
    """What a step wrote to the KV cache of one block, and what its tokens are there, in bytes."""

    step: int
    layer: int
    written: int
    """Moved to memory."""
    brought: int = 0
    """Of the step's tokens, as the cache's layout keeps them."""
    empty: int = 0
    """Of what was written, what no token fills: a key's last burst, the end of a ring."""
    held_before: int = 0
    """On chip when the step begins, for a burst to fill."""
    held_after: int = 0
    """The same when it ends; the next step goes on with it."""
    needed: int = 0
    """Of the step's tokens, as the workload states them, each once."""


@dataclass(frozen=True)
class RunFacts:
    """What the engine counted, beside what it reports, in exact integers."""

    bytes_needed: Mapping[str, int] = field(default_factory=dict)
    """By class (weight, activation, kv, ...): what the operators need to move."""
    bytes_moved: Mapping[str, int] = field(default_factory=dict)
    """The same classes: what went over the data bus, or into the multipliers of a bank."""
    macs_needed: Mapping[str, int] = field(default_factory=dict)
    """By unit (npu, pim): multiply-accumulates of the operators mapped to it."""
    macs_done: Mapping[str, int] = field(default_factory=dict)
    busy_cycles: Mapping[str, int] = field(default_factory=dict)
    """By unit: cycles in which it, or one of its copies, was busy."""
    sram_needed_bytes: int = 0
    """Operands of the products on the arrays, each once."""
    sram_bytes: int = 0
    """What was read from scratchpads and written to them."""
    kv_writes: tuple[KvWrites, ...] = ()
    """Of every step and simulated block."""
    power: PowerFacts = PowerFacts()
    series_totals: Mapping[str, int] = field(default_factory=dict)
    """What the intervals of each amount of ``Series`` add up to."""
    clock_ps: float = 0.0
    """The longer period of both clocks: where an interval ends is known as well as that."""
    cycle_ps: float = 0.0
    """Period of the clock that cycles are counted in; 0: time over cycles, which the last one
    shortens where it is no whole one."""


def check_invariants(result: Result, facts: RunFacts) -> None:
    """Raise for every law that ``result`` breaks.

    - no run, stage or operator is faster than its bound, and no operator above its roof
    - no fewer bytes move and no fewer MACs are done than the operators need
    - of every step and block, what was written to the KV cache and what is held on chip for a
      burst to fill are the step's tokens, exactly
    - no unit is busy longer than the run; stages and operators lie within it
    - each unit's cycle stack adds up to the run's cycles, exactly
    - energy parts are finite, not negative, and add up to the total
    - DRAM's standby lies between idle and active power times time
    - what the scratchpads pass is at least each operand once
    - power is energy over time, by part, and never less than the static power
    - utilisations are shares
    - over time, what is done in the intervals adds up to what was done and used, exactly; in none
      is a unit above its peak, the device below its static power or above the sum of its parts'
      peaks, or the DRAM above its most
    - a pipeline's slowest stage sets the rate, and its stages' energy is that of the tokens

    Parameters
    ----------
    result
        Of a run.
    facts
        Of the same run, from its accounts.

    Raises
    ------
    InvariantError
        With each broken law.
    InputError
        Where power is above a limit that the input sets: of a device, of PIM in a stack, of the
        DRAM at its pins.
    """
    broken = list(violations(result, facts))
    if broken:
        raise InvariantError(f"simulator bug, {len(broken)} law(s) broken: " + "; ".join(broken))
    limits = list(facts.power.limits)
    if result.tdp_w is not None:
        own_w = result.power_w.get("total", 0.0) - facts.power.beside_w
        limits.append(PowerLimit(facts.power.tdp_key, "a device", own_w, result.tdp_w))
    check_limits(limits)


def violations(result: Result, facts: RunFacts) -> Iterator[str]:
    """Each broken law in words.

    Parameters
    ----------
    result
        Of a run.
    facts
        Of the same run, from its accounts.
    """
    yield from _time(result)
    yield from _roofs(result, facts)
    yield from _work(facts)
    yield from _kv_cache(facts)
    for unit, busy in facts.busy_cycles.items():
        if not 0 <= busy <= result.cycles:
            yield f"{unit} is busy {busy} cycles of a run of {result.cycles}"
    for unit, stack in result.cycle_stack.items():
        total = sum(stack.values())
        if total != result.cycles:
            yield f"cycle stack of {unit} adds up to {total}, the run took {result.cycles}"
        for cause, cycles in stack.items():
            if cycles < 0:
                yield f"cycle stack of {unit} has {cycles} cycles of {cause}"
    yield from _energy(result.energy_j)
    yield from _power(result, facts)
    if result.series is not None:
        yield from _series(result, result.series, facts)
    yield from _pipeline(result)
    for item in fields(Utilisation):
        share = getattr(result.utilisation, item.name)
        if share is not None and not -_SHARE_TOLERANCE <= share <= 1 + _SHARE_TOLERANCE:
            yield f"utilisation of {item.name} is {share}"


def _time(result: Result) -> Iterator[str]:
    if result.cycles < 1 or not isfinite(result.time_s) or result.time_s <= 0:
        yield f"the run took {result.cycles} cycles, {result.time_s} s"
    for name in ("tokens_per_s", "tokens_per_j"):
        rate = getattr(result, name)
        if not isfinite(rate) or rate < 0:
            yield f"{name} is {rate}"
    for unit, bound in result.bound_cycles.items():
        if result.cycles < bound:
            yield f"the run took {result.cycles} cycles, its bound on {unit} is {bound}"
    for stage in result.stages:
        where = f"stage {stage.name}"
        if stage.cycles < stage.bound_cycles:
            yield f"{where} took {stage.cycles} cycles, its bound is {stage.bound_cycles}"
        for unit in ("npu", "pim"):
            busy = getattr(stage, f"{unit}_busy_cycles")
            if not 0 <= busy <= stage.cycles:
                yield f"{where} has {unit} busy {busy} of {stage.cycles} cycles"
    in_stages = sum(stage.cycles for stage in result.stages)
    if in_stages > result.cycles:
        yield f"stages take {in_stages} cycles, the run {result.cycles}"
    for operator in result.operators:
        where = f"operator {operator.name} (layer {operator.layer})"
        if operator.cycles < operator.bound_cycles:
            yield f"{where} took {operator.cycles} cycles, its bound is {operator.bound_cycles}"
        end = operator.start_cycle + operator.cycles
        if operator.start_cycle < 0 or operator.cycles < 0 or end > result.cycles:
            yield f"{where} runs from {operator.start_cycle} to {end}, the run {result.cycles}"


def _roofs(result: Result, facts: RunFacts) -> Iterator[str]:
    """No operator moves its bytes or computes faster than its unit could, from its first load."""
    cycle_s = facts.cycle_ps * 1e-12 or result.time_s / max(result.cycles, 1)
    roofs = {
        (unit, what): result.peaks[key] * cycle_s
        for unit, what, key in (
            ("systolic", "flops", "npu_flop_per_s"), ("systolic", "bytes", "npu_bytes_per_s"),
            ("vector", "bytes", "npu_bytes_per_s"), ("dma", "bytes", "npu_bytes_per_s"),
            ("pim", "flops", "pim_flop_per_s"), ("xpu", "flops", "npu_flop_per_s"),
            ("xpu", "bytes", "dram_bytes_per_s"),
        )
        if key in result.peaks
    }  # fmt: skip
    for o in result.operators:
        # it may begin and end between two edges of the NPU's clock
        cycles = o.lead_cycles + o.cycles + 1
        work = {"flops": o.flops, "bytes": o.bytes - o.posted_bytes}
        for what, amount in work.items():
            most = roofs.get((o.unit, what))
            if most is not None and amount > most * cycles * (1 + _SHARE_TOLERANCE):
                yield (
                    f"operator {o.name} (layer {o.layer}) has {amount} {what} in {cycles} cycles; "
                    f"{most:.6g} a cycle are its roof"
                )


def _work(facts: RunFacts) -> Iterator[str]:
    for what, needed, done in (
        ("bytes of {} moved", facts.bytes_needed, facts.bytes_moved),
        ("MACs on {} done", facts.macs_needed, facts.macs_done),
    ):
        for name, amount in needed.items():
            if done.get(name, 0) < amount:
                yield f"{done.get(name, 0)} {what.format(name)}, {amount} needed"


def _kv_cache(facts: RunFacts) -> Iterator[str]:
    for each in facts.kv_writes:
        where = f"step {each.step}, block {each.layer}"
        came = each.written - each.empty + each.held_after - each.held_before
        if came != each.brought:
            yield (
                f"{where}: {each.written} bytes of keys and values written, {each.empty} of them "
                f"empty, {each.held_after} held, {each.held_before} of them before; its tokens "
                f"bring {each.brought}"
            )
        if each.brought < each.needed:
            yield f"{where}: the cache keeps {each.brought} bytes of {each.needed} of its tokens"


def _power(result: Result, facts: RunFacts) -> Iterator[str]:
    power, spread = facts.power, 1 + _ENERGY_TOLERANCE
    if not power.standby_least_j <= power.standby_j * spread or not (
        power.standby_j <= power.standby_most_j * spread
    ):
        yield (
            f"DRAM stands by with {power.standby_j} J, idle ranks take {power.standby_least_j}, "
            f"active ones {power.standby_most_j}"
        )
    if facts.sram_bytes < facts.sram_needed_bytes:
        yield (
            f"scratchpads pass {facts.sram_bytes} bytes, the products' operands have "
            f"{facts.sram_needed_bytes}"
        )
    for name, watt in result.power_w.items():
        joule = getattr(result.energy_j, name)
        if not isclose(watt * result.time_s, joule, rel_tol=_ENERGY_TOLERANCE):
            yield f"power of {name} is {watt} W, {joule} J in {result.time_s} s"
    if result.static_w:
        parts = dict(result.static_w)
        total = parts.pop("total")
        if min(parts.values()) < 0 or not isclose(fsum(parts.values()), total, abs_tol=1e-12):
            yield f"static power has parts {parts}, the total is {total} W"
        if not isclose(total * result.time_s, result.energy_j.static, rel_tol=_ENERGY_TOLERANCE):
            yield f"static power is {total} W, {result.energy_j.static} J in {result.time_s} s"
        if result.power_w.get("total", total) * spread < total:
            yield f"power is {result.power_w['total']} W, {total} W of it static"


_SERIES_PEAKS = (
    ("dram_bytes", 1, "dram_bytes_per_s"),
    ("npu_macs", 2, "npu_flop_per_s"),
    ("vector_lane_ops", 1, "vector_ops_per_s"),
    ("pim_macs", 2, "pim_flop_per_s"),
)
"""Amounts of ``Series``, how many a peak counts for one, and the peak."""
_SLACK = {"vector_lane_ops": 0.02}
"""Relative: units go from the NPU to PIM's results up to a clock of the memory early, some ten
times in the thousand clocks of a short interval."""
_UNBOUNDED = {"vector_ops_per_s": inf}
"""Peaks that there are not where the unit never queues; of any other none is possible without."""


def _series(result: Result, series: Series, facts: RunFacts) -> Iterator[str]:
    """What is shown over time is what happened, and possible."""
    ends = (0, *series.end_ps)
    lengths = [end - start for start, end in pairwise(ends)]
    if min(lengths) <= 0 or not isclose(ends[-1] * 1e-12, result.time_s, rel_tol=_SHARE_TOLERANCE):
        yield f"intervals end at {ends[-1]} ps, the shortest takes {min(lengths)}"
        return
    for name, total in facts.series_totals.items():
        amounts = getattr(series, name)
        if sum(amounts) != total or min(amounts) < 0:
            yield f"{name} over time: {sum(amounts)}, least {min(amounts)}; in all {total}"
    for name, times, peak in _SERIES_PEAKS:
        if peak in _UNBOUNDED and not getattr(series, name):  # of GPUs not known
            continue
        most = result.peaks.get(peak, _UNBOUNDED.get(peak, 0.0)) / times * 1e-12
        for at, (amount, length) in enumerate(zip(getattr(series, name), lengths, strict=True)):
            slack = 1 + _SLACK.get(name, _SHARE_TOLERANCE)
            if amount > most * (length + facts.clock_ps) * slack + 1:
                yield f"{name} in interval {at}: {amount} in {length} ps, at most {most * length:g}"
    for part, joules in series.energy_j.items():
        whole = getattr(result.energy_j, part)
        if not isclose(fsum(joules), whole, rel_tol=_ENERGY_TOLERANCE) or min(joules) < 0:
            yield f"energy of {part} over time: {fsum(joules)} J, in all {whole} J"
    static_w = result.static_w.get("total", 0.0)
    parts = zip(*series.energy_j.values(), strict=True)
    for at, (length, each) in enumerate(zip(lengths, parts, strict=True)):
        joule = fsum(each)
        if joule < static_w * length * 1e-12 * (1 - _ENERGY_TOLERANCE):
            yield f"interval {at} takes {joule} J in {length} ps, {static_w} W are static"
        most_w = facts.power.device_most_w
        if joule > most_w * (length + facts.clock_ps) * 1e-12 * (1 + _ENERGY_TOLERANCE):
            yield f"interval {at} takes {joule} J in {length} ps, {most_w} W at most"
    for at, (length, joule) in enumerate(zip(lengths, series.energy_j["dram"], strict=True)):
        most_w = facts.power.dram_most_w * (1 + facts.clock_ps / length)
        if joule > most_w * length * 1e-12:
            yield f"DRAM takes {joule} J in interval {at} of {length} ps, {most_w} W at most"


def _pipeline(result: Result) -> Iterator[str]:
    stages = result.pipeline
    if not stages:
        return
    slowest = max(stage.time_s for stage in stages)
    if not slowest <= result.iteration_s * (1 + _SHARE_TOLERANCE):
        yield f"a pipeline stage takes {slowest} s, a batch leaves every {result.iteration_s} s"
    if sum(stage.blocks for stage in stages) < result.layers_model:
        yield f"pipeline stages have fewer blocks than the slowest one, {result.layers_model}"
    for number, stage in enumerate(stages, 1):
        if not 0 < stage.busy <= 1 + _SHARE_TOLERANCE or not isclose(
            stage.busy * result.iteration_s, stage.time_s, rel_tol=_ENERGY_TOLERANCE
        ):
            yield f"pipeline stage {number} is busy {stage.busy} of {result.iteration_s} s"
        least_j = result.static_w.get("total", 0.0) * result.iteration_s
        if stage.energy_j * (1 + _ENERGY_TOLERANCE) < least_j:
            yield f"pipeline stage {number} takes {stage.energy_j} J, {least_j} J of it static"
    joule = fsum(stage.energy_j for stage in stages) * result.devices / len(stages)
    of_tokens = result.token_j.get("total", 0.0) * result.tokens
    if not isclose(joule, of_tokens, rel_tol=_ENERGY_TOLERANCE):
        yield f"pipeline stages take {joule} J, the tokens {of_tokens} J"


def _energy(energy: Energy) -> Iterator[str]:
    parts = {item.name: getattr(energy, item.name) for item in fields(Energy)}
    for name, joule in parts.items():
        if not isfinite(joule) or joule < 0:
            yield f"energy of {name} is {joule} J"
    total = parts.pop("total")
    if not isclose(fsum(parts.values()), total, rel_tol=_ENERGY_TOLERANCE):
        yield f"energy parts add up to {fsum(parts.values())} J, the total is {total} J"
