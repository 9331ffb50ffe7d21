"""How exact a run at ``fast`` fidelity was: phases of it, run again by commands.

A random sample says what error to expect of the whole; where a limit is given, every kind of phase
is tried, and those that miss it are simulated by commands.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from random import Random

import numpy as np

from pimsim.engine.device import Device
from pimsim.hardware.dram.fast import MemoryPhase, PhasedMemory
from pimsim.hardware.dram.fast.flow import TICKS

__all__ = ["PhaseErrors", "missed_phases", "rates_hold", "sampled_errors"]

SAMPLES = 4
STUDENT_T = 3.182
"""Two-sided 95 % of Student's t with 3 degrees of freedom."""
LEAST_ROWS = 512
"""Of a channel that a product's weights lie in, for the mean of what each row waits for to say what
all of them do."""
MOST_BURSTS = 4_000_000
"""What a few seconds of commands move."""


def rates_hold(device: Device) -> bool:
    """Whether rates say what streams take beside PIM.

    While PIM works, a stream opens a row where PIM's own activations leave room: at once, or a tile
    or a GWRITE later, or, in the bank that GWRITE reads, when PIM is done. Over many rows that is a
    rate; weights of a few rows a channel come or do not, and all wait for the last channel. Where
    two sub-batches have the units work at once on so little, the run is one of commands, which are
    then few; with long contexts they are not, and PIM alone decides.
    """
    if len(device.passes) == 1 or not device.uses_pim:
        return True
    org = device.memory.organization
    moved, products, weighted = 0, 0, 0
    for iteration in device.passes:
        for operator in (o for block in iteration.blocks for o in block.operators):
            moved += operator.weight_bytes + operator.kv_read_bytes
            products += operator.weight_bytes
            weighted += operator.weight_bytes**2
    rows = weighted // max(products, 1) // (org.channels * org.row_bytes)
    return rows >= LEAST_ROWS or moved > MOST_BURSTS * org.burst_bytes


@dataclass(frozen=True)
class PhaseErrors:
    """Errors of a run's time, relative to it."""

    sampled: int
    """Phases that were run again."""
    mean: float
    half_width: float
    """Of the 95 % interval."""


def sampled_errors(memory: PhasedMemory, cycles: int, seed: int) -> PhaseErrors:
    """The error that a few phases show, drawn in proportion to their length.

    ``cycles``: of the whole run, the memory's clock. A run has few kinds of phases, again and again
    block after block: their errors do not average out, so that the interval is that of one phase,
    not of the mean. A phase by itself on one channel says nothing of where exactly its first and
    last burst lie among the others: that is known to an idle channel's latency and to what the
    controller leaves behind, and counts in.
    """
    phases = [phase for phase in memory.phases if phase.cycles > 0 and not phase.by_command]
    if not phases:
        return PhaseErrors(0, 0.0, 0.0)
    draw = Random(seed)
    chosen = draw.choices(phases, [phase.cycles for phase in phases], k=SAMPLES)
    errors = [_error(memory, phase, draw.randrange(len(memory.channels))) for phase in chosen]
    share = sum(phase.cycles for phase in phases) / max(cycles, 1)
    mean = math.fsum(errors) / len(errors)
    # around no error: so few cannot tell what they have in common from what happened to them
    deviation = math.sqrt(math.fsum(error**2 for error in errors) / len(errors))
    probe = memory.probe
    lags = int(
        probe.lag(np.array([phase.bursts for phase in phases]) // len(memory.channels)).sum()
    )
    edges = (len(phases) * probe.reads.latency + lags) / TICKS / max(cycles, 1)
    return PhaseErrors(len(chosen), mean * share, STUDENT_T * deviation * share + edges)


def _error(memory: PhasedMemory, phase: MemoryPhase, channel: int) -> float:
    """Of the rates, relative; 0 where the channel has nothing of the phase."""
    exact, fast = memory.cycles_again(phase, channel)
    return fast / exact - 1 if exact > 0 else 0.0


def missed_phases(memory: PhasedMemory, limit: float, seed: int) -> frozenset[int]:
    """Numbers of the phases by rates whose kind is off by more than ``limit`` (relative), one of
    each kind tried on a channel drawn at random."""
    draw = Random(seed)
    kinds: dict[tuple[object, ...], list[MemoryPhase]] = defaultdict(list)
    for phase in memory.phases:
        if phase.cycles > 0 and not phase.by_command:
            kinds[phase.kind].append(phase)
    missed: set[int] = set()
    for same in kinds.values():
        if abs(_error(memory, same[0], draw.randrange(len(memory.channels)))) > limit:
            missed.update(phase.number for phase in same)
    return frozenset(missed)
