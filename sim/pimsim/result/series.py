"""What a run did over time, interval by interval: the one source of every picture of it.

The memory is sampled as it goes (``hardware.dram.samples``), the NPU side spreads its work over the
spans in which it is done (``engine.work``). Here both become intervals of the same edges, in which
amounts add up to the run's exactly. A burst counts over the time in which it holds its bus, a dot
product over the time in which it holds the banks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.engine.iteration import Outcome
from pimsim.engine.records import WorkTotals
from pimsim.engine.work import KINDS, WorkOverTime
from pimsim.hardware.dram.layout import C_COMMANDS, C_COMP_COLUMNS, C_REFRESHES, C_WR, N_COUNTERS
from pimsim.hardware.dram.peak import burst_slot_ps, data_buses
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.samples import (
    A_ACTIVE,
    A_BUS_LEFT,
    A_COLUMNS_LEFT,
    A_CYCLE,
    COUNT,
    INTERVAL,
    N_SAMPLE,
)
from pimsim.hardware.dram.standby import active_rank_ticks
from pimsim.hardware.dram.waiting import charged_counters
from pimsim.hardware.energy.dram import command_energy, dram_energy
from pimsim.result.accounts import dram_counts, pim_memory_counts, static_power, work_energy
from pimsim.result.types import Series

__all__ = ["run_series", "series_totals"]

Ints = NDArray[np.int64]
_PARTS = ("dram", "pim", "npu", "sram", "link")
_BURSTS = [
    C_COMMANDS + int(each) for each in (Command.RD, Command.WR, Command.READRES, Command.GEMV)
]
"""Commands that hold a data bus for a burst."""
_ONCE = 1 << 30
"""So many of a thing at once, to see what one costs: shares of a whole number stay whole."""
_J_PER_PJ = 1e-12


def run_series(outcome: Outcome) -> Series:
    """The run in intervals of equal length; the last is half to one and a half as long.

    Parameters
    ----------
    outcome
        Of a run that was watched over time.
    """
    grid = _grid(outcome)
    rows = _between(_samples(outcome, grid.cycles[-1]), grid.cycles)
    system, recorder = outcome.system, outcome.recorder
    org, slot = system.memory.organization, _bus_slot(outcome)
    counts = np.diff(rows[:, :N_COUNTERS], axis=0)
    bus = np.diff(rows[:, _BURSTS].sum(axis=1) * slot - rows[:, A_BUS_LEFT])
    if outcome.errors is not None:
        bus = _when_there_is_time(bus, _capacity(outcome, grid))
    # writes that still wait, and bursts under way at the end
    late = charged_counters(system).sum(axis=0)[:N_COUNTERS] - rows[-1, :N_COUNTERS]
    counts[-1] += late
    left = int(late[C_WR]) * slot + int(rows[-1, A_BUS_LEFT])
    bus += _in_free_time(left, _capacity(outcome, grid) - bus)
    dram_bytes = np.diff(np.concatenate([[0], np.cumsum(bus) * org.burst_bytes // slot]))
    steps = _steps(outcome, rows)
    counts[:, C_COMP_COLUMNS] = np.diff(steps)
    read = np.diff(_bytes_of_steps(np.array(recorder.pim_read, np.int64), steps))
    work = {kind: _coarse(recorder.work, kind, grid) for kind in KINDS}
    macs = 0
    if system.pim is not None:
        macs = org.ranks * org.banks * system.pim.elements_per_comp
    return Series(
        end_ps=tuple(grid.edges_ps[1:].tolist()),
        dram_bytes=tuple(dram_bytes.tolist()),
        pim_bytes=tuple((read + work["stream_bytes"]).tolist()),
        npu_macs=tuple(work["macs"].tolist()),
        vector_lane_ops=tuple(work["vector_lane_ops"].tolist()),
        pim_macs=tuple((counts[:, C_COMP_COLUMNS] * macs + work["stream_macs"]).tolist()),
        link_bytes=tuple((work["link_bytes"] + work["pim_link_bytes"]).tolist()),
        energy_j=_energy(outcome, grid, counts, read, work, np.diff(rows[:, A_ACTIVE])),
    )  # fmt: skip


def series_totals(outcome: Outcome) -> dict[str, int]:
    """What the intervals of each amount must add up to, from the run's own accounts.

    Parameters
    ----------
    outcome
        Of a run.
    """
    recorder, system = outcome.recorder, outcome.system
    counter = charged_counters(system).sum(axis=0)
    totals = recorder.totals[-1] if recorder.totals else WorkTotals(counter)
    macs = 0
    if system.pim is not None:
        org = system.memory.organization
        macs = org.ranks * org.banks * system.pim.elements_per_comp
    return {
        "dram_bytes": int(counter[_BURSTS].sum()) * system.memory.organization.burst_bytes,
        "pim_bytes": totals.pim_read_bytes + totals.stream_bytes,
        "npu_macs": totals.macs,
        "vector_lane_ops": totals.vector_lane_ops,
        "pim_macs": int(counter[C_COMP_COLUMNS]) * macs + totals.stream_macs,
        "link_bytes": totals.link_bytes + totals.pim_link_bytes,
    }


@dataclass(frozen=True)
class _Grid:
    """Edges of the intervals."""

    interval: int
    """Memory cycles of an interval."""
    cycles: Ints
    """(intervals + 1,)"""
    edges_ps: Ints

    @property
    def lengths_ps(self) -> Ints:
        return np.diff(self.edges_ps)


def _grid(outcome: Outcome) -> _Grid:
    """The longer of both sides' intervals; a rest below half of one belongs to the last."""
    clock, end_ps = outcome.clock.memory, outcome.time_ps
    interval = max(int(outcome.system.samples[1][INTERVAL]), outcome.recorder.work.interval)
    last = clock.cycle(end_ps)
    whole = max((2 * last + interval) // (2 * interval), 1)
    cycles = np.arange(whole + 1, dtype=np.int64) * interval
    cycles[-1] = last
    edges = clock.edge_ps(cycles)
    edges[-1] = end_ps
    return _Grid(interval, cycles, edges)


def _samples(outcome: Outcome, last: int) -> Ints:
    """Samples of the run, from nothing at cycle 0 to what the channels have counted at its end."""
    system = outcome.system
    table, state = system.samples
    now = np.zeros(N_SAMPLE, np.int64)
    system.sample(now)
    now[A_CYCLE] = min(int(system.now), last)
    now[A_ACTIVE] = active_rank_ticks(system.channels, system.memory, int(now[A_CYCLE]))
    active = active_rank_ticks(system.channels, system.memory, last)
    return _with_end(table[: int(state[COUNT])], now, last, active)


def _with_end(taken: Ints, now: Ints, last: int, active: int) -> Ints:
    """Samples from nothing at cycle 0 to cycle ``last``; ``now``: of when the memory was busy last,
    after which nothing comes, but open rows stay open (``active`` at the end)."""
    end = now.copy()
    end[A_CYCLE], end[A_ACTIVE] = last, active
    if now[A_CYCLE] < last:
        end[[A_BUS_LEFT, A_COLUMNS_LEFT]] = 0  # it is over by then
    begin = np.zeros(N_SAMPLE, np.int64)
    before = taken[taken[:, A_CYCLE] < now[A_CYCLE]]
    rows: Ints = np.concatenate([begin[None], before, now[None], end[None]])
    # what is drained of several transfers is rounded; what is counted in the end is exact
    upto = np.minimum(rows[:, :N_COUNTERS], end[:N_COUNTERS])
    rows[:, :N_COUNTERS] = np.maximum.accumulate(upto, axis=0)
    return rows


def _between(rows: Ints, cycles: Ints) -> Ints:
    """Rows at ``cycles``: those that there are, or evenly between two."""
    at = np.clip(np.searchsorted(rows[:, A_CYCLE], cycles, side="right") - 1, 0, len(rows) - 2)
    before, after = rows[at], rows[at + 1]
    since = (cycles - before[:, A_CYCLE])[:, None]
    span = np.maximum(after[:, A_CYCLE] - before[:, A_CYCLE], 1)[:, None]
    found: Ints = before + (after - before) * since // span
    return found


def _bus_slot(outcome: Outcome) -> int:
    """What a burst takes of ``A_BUS_LEFT``'s time: ticks of one bus."""
    memory = outcome.system.memory
    return int(burst_slot_ps(memory) / outcome.clock.memory.period)


def _capacity(outcome: Outcome, grid: _Grid) -> Ints:
    """Ticks of all buses in each interval."""
    capacity: Ints = np.diff(grid.cycles) * data_buses(outcome.system.memory)
    return capacity


def _when_there_is_time(ticks: Ints, capacity: Ints) -> Ints:
    """``ticks`` by interval, of rates: what comes of PIM evenly, and not tile by tile, beside a
    stream that takes all that tiles leave, may not fit. It is then in the next that has time."""
    late = 0
    found = ticks.copy()
    for at in range(len(found) - 1):
        late += int(ticks[at])
        found[at] = min(late, int(capacity[at]))
        late -= int(found[at])
    found[-1] += late
    return found


def _in_free_time(left: int, free: Ints) -> Ints:
    """``left`` by interval: the latest that have time left.

    Writes that wait at the end of a run were asked for before it; they move when a bus is free.
    """
    found = np.zeros(len(free), np.int64)
    for at in range(len(free) - 1, -1, -1):
        found[at] = min(left, max(int(free[at]), 0))
        left -= int(found[at])
    found[-1] += left
    return found


def _steps(outcome: Outcome, rows: Ints) -> Ints:
    """Dot product steps that the banks are done with at each edge."""
    slot = int(outcome.system.parameters[0]["tccd_s"])
    steps: Ints = (rows[:, C_COMP_COLUMNS] * slot - rows[:, A_COLUMNS_LEFT]) // slot
    steps[-1] = rows[-1, C_COMP_COLUMNS]
    return steps


def _bytes_of_steps(marks: Ints, steps: Ints) -> Ints:
    """Bytes read in the banks after so many steps; ``marks``: (operations, 2) steps and bytes at
    the end of each operation, all steps of one as wide."""
    at = np.clip(np.searchsorted(marks[:, 0], steps, side="left"), 1, max(len(marks) - 1, 1))
    if len(marks) == 1:
        return np.zeros(len(steps), np.int64)
    size = np.diff(marks, axis=0)
    width = size[:, 1] // np.maximum(size[:, 0], 1)
    found: Ints = marks[at - 1, 1] + (steps - marks[at - 1, 0]) * width[at - 1]
    return found


def _coarse(work: WorkOverTime, kind: str, grid: _Grid) -> Ints:
    """Sums of the NPU side's own intervals as the grid's; what lies behind it is the last's."""
    found = np.zeros(len(grid.cycles) - 1, np.int64)
    sums = np.array(work.sums(kind), np.int64)
    own = np.arange(len(sums)) // (grid.interval // work.interval)
    np.add.at(found, np.minimum(own, len(found) - 1), sums)
    return found


def _energy(
    outcome: Outcome, grid: _Grid, counts: Ints, read: Ints, work: dict[str, Ints], active: Ints
) -> dict[str, tuple[float, ...]]:
    """Joule by part: what is done at what one of each costs, and what grows with time."""
    found: dict[str, NDArray[Any]] = {part: np.zeros(len(read)) for part in _PARTS}
    once_each: list[tuple[NDArray[Any], WorkTotals]] = []
    for at in range(N_COUNTERS):
        counter = np.zeros(N_COUNTERS, np.int64)
        counter[at] = _ONCE
        once_each.append((counts[:, at], WorkTotals(counter)))
    for name, amounts in (("pim_read_bytes", read), *work.items()):
        once_each.append((amounts, WorkTotals(np.zeros(N_COUNTERS, np.int64), **{name: _ONCE})))
    for amounts, once in once_each:
        if not amounts.any():
            continue
        cost = work_energy(outcome, once)
        for part in _PARTS:
            found[part] += amounts * (getattr(cost, part) / _ONCE)
    found["dram"] += _background(outcome, grid, counts, active)
    config = outcome.device.config
    # PIM's own memory is not sampled: all of its energy evenly over the run
    of_pim = pim_memory_counts(outcome)
    if of_pim is not None and config.pim_memory is not None:
        joule = dram_energy(of_pim, config.pim_memory, config.energy).total_j
        found["dram"] += joule * grid.lengths_ps / outcome.time_ps
    watt = static_power(config, outcome.device.memory).total
    found["static"] = watt * grid.lengths_ps * _J_PER_PJ
    return {part: tuple(joule.tolist()) for part, joule in found.items()}


def _background(
    outcome: Outcome, grid: _Grid, counts: Ints, active: Ints
) -> NDArray[np.float64]:  # fmt: skip
    """Standby of all ranks, by whether they have a row open, and refresh, as long as it lasts."""
    memory, energy = outcome.device.memory, outcome.device.config.energy
    one, whole = command_energy(memory, energy), dram_counts(outcome)
    ranks = (whole.active_rank_ps + whole.idle_rank_ps) // outcome.time_ps
    cycles = np.maximum(np.diff(grid.cycles), 1)
    open_ps = np.minimum(active, ranks * cycles) / cycles * grid.lengths_ps
    # ends of the run and of its last cycle are apart; so are shares that were rounded
    open_ps *= whole.active_rank_ps / max(fsum(open_ps.tolist()), 1e-9)
    standby = open_ps * one.active_rank_w + (ranks * grid.lengths_ps - open_ps) * one.idle_rank_w
    refreshes = counts[:, C_REFRESHES[0]] * 1.0, counts[:, C_REFRESHES[1]] * 1.0
    pj = (one.refresh_pj, one.bank_refresh_pj)
    totals = (whole.ref, whole.refpb)
    refresh = np.zeros(len(standby))
    for each, cost, total in zip(refreshes, pj, totals, strict=True):
        if total:
            refresh += each * (cost * total / max(each.sum(), 1.0))
    joule: NDArray[np.float64] = (standby + refresh) * _J_PER_PJ
    return joule
