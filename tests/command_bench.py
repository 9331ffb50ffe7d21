"""Commands by hand: three words that drive the timing rules of a kernel without its controller.

``probe`` asks whether a command may go in a cycle, ``issue`` sends it, ``earliest`` says from which
cycle on it may go. What is asked are the tables and functions that the kernels run on: of a memory
with or without PIM commands of its controller (``bench_of_memory``), and of a design whose host
sends command streams (``bench_of_design``). Rows that must be open or closed are the controller's
matter and are not looked at here, nor are the pins of the command bus.

    bench = bench_of_memory(load_memory("hbm2").config)
    bench.issue("ACT", 0)
    assert bench.earliest("RD") == timings["tRCDRD"]
    assert not bench.probe("RD", timings["tRCDRD"] - 1)

A new preset gets the law without a test of its own: tests/property/test_command_bench.py runs over
all of them, each against other code that reads the same lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig, PimDesignConfig
from pimsim.hardware.dram.bank import apply_rules, earliest
from pimsim.hardware.dram.layout import make_channels
from pimsim.hardware.dram.parameters import make_parameters
from pimsim.hardware.dram.rules import Command, command_numbers, compile_rules
from pimsim.hardware.pim import stream_kernel, stream_tables, stream_window

__all__ = ["Bench", "bench_of_design", "bench_of_memory", "place_of"]


class Rules(Protocol):
    """What a kernel has of them; places are banks of one channel, from 0."""

    commands: Sequence[str]
    banks: int

    def earliest(self, command: str, bank: int) -> int:
        """First cycle from which no rule bars ``command`` at ``bank``."""

    def note(self, command: str, bank: int, cycle: int, dot_products: int) -> None:
        """``command`` goes."""


@dataclass
class Bench:
    """One channel on which only the test sends commands, in the order of their cycles."""

    rules: Rules
    now: int = 0
    """Cycle of the last command."""

    @property
    def commands(self) -> Sequence[str]:
        """Names, as the memory's or design's YAML has them."""
        return self.rules.commands

    @property
    def banks(self) -> int:
        """Of the channel, over pseudo channels, ranks and bank groups."""
        return self.rules.banks

    def earliest(self, command: str, bank: int = 0) -> int:
        """First cycle from which all rules allow ``command`` at ``bank``."""
        self._check(command, bank)
        return self.rules.earliest(command, bank)

    def probe(self, command: str, cycle: int, bank: int = 0) -> bool:
        """Whether the rules allow ``command`` at ``bank`` in ``cycle``."""
        return cycle >= self.earliest(command, bank)

    def issue(
        self, command: str, cycle: int | None = None, bank: int = 0, dot_products: int = 0
    ) -> int:
        """Send ``command`` in ``cycle``, None: as early as it may go; the cycle.

        Fails where the rules do not allow it, or time would run back. ``dot_products``: of a
        composite command of PIM.
        """
        first = max(self.earliest(command, bank), self.now)
        cycle = first if cycle is None else cycle
        assert cycle >= first, f"{command} at {cycle}, before {first}"
        self.rules.note(command, bank, cycle, dot_products)
        self.now = cycle
        return cycle

    def _check(self, command: str, bank: int) -> None:
        assert command in self.commands, f"no command {command}; there are {self.commands}"
        assert 0 <= bank < self.banks, f"no bank {bank}; a channel has {self.banks}"


class _MemoryRules:
    """Those of the kernel that DRAM channels run on."""

    def __init__(self, memory: MemoryConfig, pim: PimConfig | None) -> None:
        # as nothing queues, the memory may have queues for which the kernel has no room
        shallow = memory.controller.model_copy(
            update={"read_queue_depth": 1, "write_queue_depth": 1}
        )
        memory = memory.model_copy(update={"controller": shallow})
        self._numbers = command_numbers(memory, pim)
        self._parameters = make_parameters(memory, pim, compile_rules(memory, pim))
        self._channels = make_channels(memory, self._parameters)
        self.commands = tuple(self._numbers)
        self.banks = memory.organization.ranks * memory.organization.banks

    def earliest(self, command: str, bank: int) -> int:
        return int(earliest(self._channels[0], self._parameters[0], self._at(command), bank))

    def note(self, command: str, bank: int, cycle: int, dot_products: int) -> None:
        apply_rules(
            self._channels[0], self._parameters[0], cycle, self._at(command), bank, dot_products
        )

    def _at(self, command: str) -> Command:
        return self._numbers[command]


class _DesignRules:
    """Those of the kernel that command streams run on."""

    def __init__(self, design: PimDesignConfig) -> None:
        self._parameters = stream_tables.make_parameters(design, 1)
        (self._channel,) = stream_tables.make_channels(self._parameters, [(0, 0)])
        self._log = np.zeros((0, 7), np.int64)
        self._counts = design.organization.counts
        self.commands = tuple(design.all_commands)
        self.banks = int(np.prod(self._counts))

    def earliest(self, command: str, bank: int) -> int:
        at, place = self.commands.index(command), self._place(bank)
        return int(stream_kernel._earliest(self._parameters, self._channel, at, place))

    def note(self, command: str, bank: int, cycle: int, dot_products: int) -> None:
        assert not dot_products, "a composite command is the other kernel's"
        at, place = self.commands.index(command), self._place(bank)
        stream_kernel._put(self._parameters, self._channel, self._log, at, place, 0, cycle)
        stream_window._bar_elsewhere(self._parameters, self._channel, at, place, cycle)

    def _place(self, bank: int) -> Any:
        return np.array(place_of(bank, self._counts), np.int64)


def place_of(bank: int, counts: Sequence[int]) -> tuple[int, ...]:
    """Pseudo channel, rank, bank group and bank in it of a channel's ``bank``."""
    return tuple(int(each) for each in np.unravel_index(bank, tuple(counts)))


def bench_of_memory(memory: MemoryConfig, pim: PimConfig | None = None) -> Bench:
    """A channel of ``memory``, with the PIM commands of its controller. Of a memory with pseudo
    channels ``device_memory`` makes one that this kernel runs."""
    return Bench(_MemoryRules(memory, pim))


def bench_of_design(design: PimDesignConfig) -> Bench:
    """A channel of a design whose host sends command streams."""
    return Bench(_DesignRules(design))
