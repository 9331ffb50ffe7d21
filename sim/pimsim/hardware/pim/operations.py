"""What a run asks of a PIM design with a controller of its own, and what its commands make of it.

An operation is the streams of commands that the design's module makes of its sizes, one after the
other, each from closed rows on: ``run_operation`` schedules every command. The same operation takes
the same time again, so that ``OperationRuns`` remembers it. Designs and the kernel of their streams
are loaded where an operation is run: most runs have tasks without any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.energy.counts import energy_pj
from pimsim.hardware.energy.pim import fullest_stack_w, stream_costs

if TYPE_CHECKING:
    from pimsim.hardware.pim.stream import CommandStream

__all__ = [
    "Attention", "Gemv", "HeadProducts", "OperationRun", "OperationRuns", "PimOperation",
    "least_cycles", "run_operation",
]  # fmt: skip

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Attention:
    """Decode attention of one token of several requests."""

    heads: int
    kv_heads: int
    head_dim: int
    contexts: tuple[int, ...]
    """Tokens that each request's new token sees, itself among them."""
    element_bytes: int
    """Of keys and values."""

    def streams(self, design: PimDesignConfig) -> Sequence[CommandStream]:
        """What ``design`` does, in order."""
        from pimsim.hardware.pim.designs import batch_attention

        return batch_attention(
            _of_width(design, self.element_bytes), self.heads, self.kv_heads, self.head_dim,
            self.contexts,
        )  # fmt: skip


@dataclass(frozen=True)
class Gemv:
    """Products of matrices with a few vectors each."""

    outputs: int
    inputs: int
    vectors: tuple[int, ...]
    """Of each matrix; matrices are alike."""
    element_bytes: int

    def streams(self, design: PimDesignConfig) -> Sequence[CommandStream]:
        """What ``design`` does, in order; matrices with as many vectors take the same stream."""
        from pimsim.hardware.pim.designs import mapping_of

        of_width = _of_width(design, self.element_bytes)
        made = {
            count: mapping_of(of_width, "gemv")(of_width, self.outputs, self.inputs, count)
            for count in set(self.vectors)
        }
        return [made[count] for count in self.vectors]


@dataclass(frozen=True)
class HeadProducts:
    """A product of each head of keys, or of values, with the vectors of its query heads.

    Heads lie in ``PimConfig.channels_per_head`` channels each, and those of all requests are dealt
    to such groups of channels, the largest first; without that number in all channels, one after
    the other.
    """

    heads: tuple[Gemv, ...]
    """Of each request and token: a matrix for each head of keys."""

    @property
    def element_bytes(self) -> int:
        """Of keys and values."""
        return self.heads[0].element_bytes


PimOperation = Attention | Gemv | HeadProducts


def _of_width(design: PimDesignConfig, element_bytes: int) -> PimDesignConfig:
    return design.model_copy(update={"element_bytes": element_bytes})


@dataclass(frozen=True)
class OperationRun:
    """What an operation took. Cycles of the design's ``tCK``."""

    cycles: int
    """From closed rows to its last result."""
    commands: Mapping[str, int]
    """Of all channels, with what the controller added."""
    computing_cycles: int
    """Of ``cycles``, in which units beside the banks multiply, the mean over channels."""
    refreshed: Ints
    """Refreshes of one rank, shape (channels, pseudo channels)."""
    stack_w: float
    """Watt that its commands draw in the fullest stack."""


def least_cycles(design: PimDesignConfig, macs: int, element_bytes: int) -> int:
    """What so many multiply-accumulates take at the peak of all units of ``design``; of narrower
    elements than its own as many more at once.

    Parameters
    ----------
    design
        With a ``peak``.
    macs
        Of all channels.
    element_bytes
        Of what lies in the banks.

    Returns
    -------
    int
        Cycles, rounded down.
    """
    from pimsim.hardware.pim.stream import peak_interval_cycles

    width = min(element_bytes, design.element_bytes)
    rate = design.organization.channels * design.peak_macs * design.element_bytes
    return macs * width * peak_interval_cycles(design) // rate


def run_operation(design: PimDesignConfig, operation: Attention | Gemv) -> OperationRun:
    """Schedule all commands of ``operation``.

    Parameters
    ----------
    design
        With a controller of its own and a ``peak``.
    operation
        What a run asks for, with its sizes.

    Returns
    -------
    OperationRun
        Its cycles (of the design's clock), commands, and the fullest stack's power in watt.

    Raises
    ------
    InputError
        Where the design cannot do it, in its own words.
    """
    from pimsim.hardware.pim.stream import run_stream

    if design.peak is None:
        raise InputError(f"{design.name}: peak is missing; a run takes its units' rate from it")
    org = design.organization
    total: Counter[str] = Counter()
    refreshed = np.zeros((org.channels, org.pseudo_channels), np.int64)
    cycles, most_w = 0, 0.0
    known: dict[int, tuple[int, Mapping[str, int], Ints, float]] = {}
    for stream in operation.streams(design):
        if id(stream) not in known:
            result = run_stream(design, stream)
            by_channel = [
                counts
                for counts, copies in zip(result.channel_commands, result.copies, strict=True)
                for _ in range(copies)
            ]
            known[id(stream)] = (
                result.cycles, result.commands, _refreshed(design, by_channel),
                fullest_stack_w(design, by_channel, result.cycles * design.tCK),
            )  # fmt: skip
        took, commands, done, watt = known[id(stream)]
        cycles += took
        total.update(commands)
        refreshed += done
        most_w = max(most_w, watt)
    return OperationRun(
        cycles, dict(total), _computing(design, total, cycles), refreshed, most_w
    )  # fmt: skip


def _computing(design: PimDesignConfig, commands: Mapping[str, int], cycles: int) -> int:
    """Of ``cycles``, in which units multiply, the mean over channels."""
    from pimsim.hardware.pim.stream import peak_interval_cycles

    assert design.peak is not None
    multiplies = commands.get(design.peak.command, 0)
    return min(multiplies * peak_interval_cycles(design) // design.organization.channels, cycles)


def _refreshed(design: PimDesignConfig, by_channel: Sequence[Mapping[str, int]]) -> Ints:
    """Refreshes of a rank, shape (channels, pseudo channels), that a stream did."""
    org, refresh = design.organization, design.own_controller.refresh
    found = np.zeros((org.channels, org.pseudo_channels), np.int64)
    if refresh is not None:
        each = design.banks_reached(refresh.command)
        for channel, counts in enumerate(by_channel):
            banks = counts.get(refresh.command, 0) * each
            found[channel] = banks // (org.banks * org.pseudo_channels)
    return found


class OperationRuns:
    """What operations of one design took, each scheduled once."""

    def __init__(self, design: PimDesignConfig) -> None:
        self.design = design
        self._known: dict[PimOperation, OperationRun] = {}
        self._of_head: OperationRuns | None = None
        each = design.channels_per_head
        if each is not None and each < design.organization.channels:
            organization = design.organization.model_copy(update={"channels": each})
            memory = design.memory.model_copy(update={"organization": organization})
            self._of_head = OperationRuns(design.model_copy(update={"memory": memory}))

    def of(self, operation: PimOperation) -> OperationRun:
        """See ``run_operation``."""
        if operation not in self._known:
            self._known[operation] = self._run(operation)
        return self._known[operation]

    def _run(self, operation: PimOperation) -> OperationRun:
        """Matrices with as many vectors take the same in every operation."""
        if isinstance(operation, HeadProducts):
            if self._of_head is not None:
                return self._by_groups(operation.heads, self._of_head)
            return self._in_turn([(self.of(each), 1) for each in operation.heads])
        if not isinstance(operation, Gemv) or len(operation.vectors) < 2:
            return run_operation(self.design, operation)
        counts = Counter(operation.vectors).items()
        return self._in_turn(
            [(self.of(replace(operation, vectors=(count,))), times) for count, times in counts]
        )

    def _in_turn(self, parts: Sequence[tuple[OperationRun, int]]) -> OperationRun:
        """One after the other, each so many times."""
        total: Counter[str] = Counter()
        for part, times in parts:
            total.update({name: times * count for name, count in part.commands.items()})
        cycles = sum(part.cycles * times for part, times in parts)
        return OperationRun(
            cycles, dict(total), _computing(self.design, total, cycles),
            np.sum([part.refreshed * times for part, times in parts], axis=0),
            max(part.stack_w for part, _ in parts),
        )  # fmt: skip

    def _by_groups(self, heads: Sequence[Gemv], of_head: OperationRuns) -> OperationRun:
        """Matrices dealt to groups of channels, the longest first, each to the group that is done
        first."""
        design, org = self.design, self.design.organization
        each = of_head.design.organization.channels
        runs = [
            of_head.of(replace(head, vectors=(count,))) for head in heads for count in head.vectors
        ]
        costs = stream_costs(design)
        done = [0] * (org.channels // each)
        spent_pj = [0.0] * len(done)
        refreshed = np.zeros((org.channels, org.pseudo_channels), np.int64)
        total: Counter[str] = Counter()
        for run in sorted(runs, key=lambda run: -run.cycles):
            group = done.index(min(done))
            done[group] += run.cycles
            spent_pj[group] += fsum(energy_pj(run.commands, costs).values())
            refreshed[group * each : (group + 1) * each] += run.refreshed
            total.update(run.commands)
        cycles = max(done)
        in_stack = max(org.channels_per_stack // each, 1)
        stacks = [fsum(spent_pj[at : at + in_stack]) for at in range(0, len(done), in_stack)]
        return OperationRun(
            cycles, dict(total), _computing(design, total, cycles), refreshed,
            max(stacks) / (cycles * design.tCK),
        )  # fmt: skip
