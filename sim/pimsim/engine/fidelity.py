"""How exact a run at ``fast`` fidelity was: phases of it, run again by commands.

A random sample says what error to expect of the whole; where a limit is given, every kind of phase
is tried, and those that miss it are simulated by commands. So is a run of few commands whose sample
says that rates may be off by more than they should.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from pimsim.engine.device import Device
from pimsim.hardware.dram.fast import MemoryPhase, PhasedMemory
from pimsim.hardware.dram.fast.flow import TICKS
from pimsim.intervals import student_t
from pimsim.workload.operators import Operator

__all__ = [
    "PhaseErrors", "better_by_commands", "last_channel_error", "missed_phases", "sampled_errors",
]  # fmt: skip

SAMPLES = 4
WORST = 0.05
"""Relative; by more a run by rates should not be off."""
MOST_BURSTS = 2_000_000
"""What a second of commands moves."""


@dataclass(frozen=True)
class PhaseErrors:
    """Errors of a run's time, relative to it."""

    sampled: int
    """Phases that were run again."""
    mean: float
    half_width: float
    """Of the 95 % interval."""


def better_by_commands(devices: Sequence[Device], share: float, errors: PhaseErrors) -> bool:
    """Whether a run by rates is to be one of commands.

    It is where sub-batches have the units work at once, commands are few, and rates may be off by
    more than ``WORST``: by what the sample says, or since products have few rows a channel. Where
    commands are many, the interval says what rates are good for.

    Parameters
    ----------
    devices
        At each step.
    share
        Of its rate, what a stream gets beside PIM, 0 to 1.
    errors
        By what the run by rates is off, as a sample says.
    """
    at_once = any(len(device.passes) > 1 and device.uses_pim for device in devices)
    if not at_once or max(errors.half_width, last_channel_error(devices, share)) <= WORST:
        return False
    moved = sum(o.weight_bytes + o.kv_read_bytes for o in _operators(devices))
    return moved <= MOST_BURSTS * devices[0].memory.organization.burst_bytes


def last_channel_error(devices: Sequence[Device], share: float) -> float:
    """By how much the last channel's part of a product takes longer than the mean, relative.

    While PIM works, a stream opens a row where PIM's own activations leave room: at once, or a tile
    or a GWRITE later, or, in the bank that GWRITE reads, when PIM is done. The mean over all rows
    is a rate. On a channel with N of them the sum of what they wait for varies by its share of the
    time over sqrt(N), and the last of C channels, which a product waits for, is sqrt(2 ln C) of
    that above the mean, as the largest of C normal variables is.

    Parameters
    ----------
    devices
        At each step.
    share
        Of its rate, what a stream gets beside PIM, 0 to 1.

    Returns
    -------
    float
        Relative; 0 where PIM takes nothing of the stream's rate.
    """
    org = devices[0].memory.organization
    products = sum(operator.weight_bytes for operator in _operators(devices))
    weighted = sum(operator.weight_bytes**2 for operator in _operators(devices))
    rows = weighted / max(products, 1) / (org.channels * org.row_bytes)
    return (1 - share) * math.sqrt(2 * math.log(org.channels) / max(rows, 1.0))


def _operators(devices: Sequence[Device]) -> Iterator[Operator]:
    """All of the steps' operators."""
    for device in devices:
        for forward in device.passes:
            for block in forward.blocks:
                yield from block.operators


def sampled_errors(memory: PhasedMemory, cycles: int, seed: int) -> PhaseErrors:
    """The error that a few phases show, drawn in proportion to their length.

    A run has few kinds of phases, again and again block after block: their errors do not average
    out, so that the interval is that of one phase, not of the mean. A phase by itself on one
    channel says nothing of where exactly its first and last burst lie among the others: that is
    known to an idle channel's latency and to what the controller leaves behind, and counts in.

    Parameters
    ----------
    memory
        Of the run, with its phases.
    cycles
        Of the whole run, the memory's clock.
    seed
        Of the draw.

    Returns
    -------
    PhaseErrors
        Relative to the run's time; of no phases where all were by commands.
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
    half_width = student_t(SAMPLES - 1) * deviation * share + edges
    return PhaseErrors(len(chosen), mean * share, half_width)


def _error(memory: PhasedMemory, phase: MemoryPhase, channel: int) -> float:
    """Of the rates, relative; 0 where the channel has nothing of the phase."""
    exact, fast = memory.cycles_again(phase, channel)
    return fast / exact - 1 if exact > 0 else 0.0


def missed_phases(memory: PhasedMemory, limit: float, seed: int) -> frozenset[int]:
    """Phases by rates whose kind is off by too much, one of each kind tried on a channel drawn at
    random.

    Parameters
    ----------
    memory
        Of the run, with its phases.
    limit
        Error that is allowed, relative.
    seed
        Of the draw.

    Returns
    -------
    frozenset
        Their numbers.
    """
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
