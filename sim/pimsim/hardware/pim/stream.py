"""Streams of PIM commands, and their run on a design's channels.

A stream is what the host sends: instructions of one or more commands for one or more channels.
Row activations, precharges, mode switches and refreshes are not in it; the controller adds
them (``stream_kernel``). Channels that get the same commands behave the same: a stream holds
one of them, and of how many real channels it is the pattern.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pimsim.config.delay import evaluate_delay
from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.requests import schedule_requests
from pimsim.hardware.pim.stream_kernel import schedule
from pimsim.hardware.pim.stream_tables import ENTRY, WAITS, make_channels, make_parameters
from pimsim.hardware.pim.stream_window import schedule_window

__all__ = [
    "ENTRY_FIELDS",
    "MAX_COMMANDS",
    "CommandStream",
    "StreamBuilder",
    "StreamResult",
    "Wait",
    "check_reach",
    "deal_channels",
    "peak_interval_cycles",
    "run_stream",
]

MAX_COMMANDS = 2**26
"""Commands of one stream; each takes about 100 bytes."""

Wait = Literal["none", "issued", "completed"]

ENTRY_FIELDS = ("command", "channel", "pseudo_channel", "rank", "bank_group", "bank", "row", "lane",
           "wait", "instruction")  # fmt: skip
"""Columns of ``CommandStream.entries``."""


@dataclass(frozen=True)
class CommandStream:
    """Commands in the order in which the host sends them."""

    entries: NDArray[np.int64]
    """(commands, 10): command number, simulated channel, pseudo channel, rank, bank group,
    bank, row (-1 none), lane, wait (0 none, 1 issued, 2 completed), host instruction."""
    blocking: NDArray[np.bool_]
    """(instructions,): the host waits until its commands are completed."""
    copies: tuple[int, ...]
    """How many real channels behave as each simulated one."""
    lanes: int
    timings: Mapping[str, int] = field(default_factory=dict)
    """Timings of the design that depend on the operation, in place of those of its YAML."""


class StreamBuilder:
    """Puts a stream together, instruction by instruction.

    ``copies``: real channels for each simulated one (``[32]``: all 32 channels do the same).
    """

    def __init__(self, design: PimDesignConfig, copies: Sequence[int], lanes: int = 1) -> None:
        self._design = design
        self._number = {name: index for index, name in enumerate(design.all_commands)}
        self._copies = tuple(copies)
        self._lanes = lanes
        self._blocks: list[NDArray[np.int64]] = []
        self._blocking: list[bool] = []
        self._commands = 0
        if sum(copies) > design.organization.channels:
            raise InputError(
                f"{design.name} has {design.organization.channels} channels, not {sum(copies)}"
            )

    def add(
        self,
        command: str,
        *,
        row: int = -1,
        place: tuple[int, int, int, int] = (0, 0, 0, 0),
        count: int = 1,
        channels: Sequence[int] = (0,),
        lane: int = 0,
        wait: Wait = "none",
        blocking: bool = False,
    ) -> None:
        """One host instruction: ``count`` times ``command`` in each of ``channels``.

        ``place`` is (pseudo channel, rank, bank group, bank); levels at which the command is
        broadcast do not matter. ``wait``: the first of the commands, and all later ones, wait
        until all before it are issued or completed. ``blocking``: the host waits.
        """
        if command not in self._number:
            raise _missing(self._design, command)
        size = count * len(channels)
        if size == 0:
            return
        self._commands += size
        if self._commands > MAX_COMMANDS:
            raise InputError(
                f"{self._design.name}: more than {MAX_COMMANDS:,} commands; run a smaller piece"
            )
        block = np.empty((count, len(channels), len(ENTRY_FIELDS)), dtype=np.int64)
        block[:, :, 0] = self._number[command]
        block[:, :, 1] = np.asarray(channels)
        block[:, :, 2:6] = place
        block[:, :, 6] = row
        block[:, :, 7] = lane
        block[:, :, 8] = 0
        block[0, :, 8] = WAITS.index(wait)
        block[:, :, 9] = len(self._blocking)
        self._blocks.append(block.reshape(size, len(ENTRY_FIELDS)))
        self._blocking.append(blocking)

    def pause(self) -> None:
        """A host instruction without commands: it takes the host's time only."""
        self._blocking.append(False)

    def build(self, timings: Mapping[str, int] | None = None) -> CommandStream:
        """The stream so far, with the operation's own ``timings``.

        Raises ``InputError`` where a row or bank does not exist.
        """
        entries = (
            np.concatenate(self._blocks)
            if self._blocks
            else np.empty((0, len(ENTRY_FIELDS)), dtype=np.int64)
        )
        _check(self._design, entries, len(self._copies), self._lanes)
        blocking = np.array(self._blocking, dtype=np.bool_)
        return CommandStream(entries, blocking, self._copies, self._lanes, timings or {})


def _check(design: PimDesignConfig, entries: NDArray[np.int64], channels: int, lanes: int) -> None:
    org = design.organization
    limits = (len(design.all_commands), channels, *org.counts, org.rows, lanes)
    for column, limit in enumerate(limits):
        values = entries[:, column]
        least = -1 if ENTRY_FIELDS[column] == "row" else 0
        wrong = (values < least) | (values >= limit)
        if wrong.any():
            raise InputError(
                f"{design.name}: no {ENTRY_FIELDS[column].replace('_', ' ')} "
                f"{int(values[wrong.argmax()])}; there are {limit}"
            )

    opening = [command.row == "open" for command in design.all_commands.values()]
    if (np.array(opening)[entries[:, 0]] & (entries[:, 6] < 0)).any():
        raise InputError(f"{design.name}: a command of the stream needs a row and names none")


def _missing(design: PimDesignConfig, command: str) -> InputError:
    """What is said of a design without a ``command`` that its design module uses."""
    return InputError(
        f"{design.name} has no command {command}, which design {design.design!r} uses; it has: "
        f"{', '.join(design.all_commands)}"
    )


def check_reach(design: PimDesignConfig, command: str, one_in: int) -> None:
    """Refuse a design whose command does not go to one in ``one_in`` of a channel's banks.

    Parameters
    ----------
    design
        With a controller of its own.
    command
        Of the design, for which all banks together hold what it works on.
    one_in
        Banks that take turns: 1, or as many as share a unit.

    Raises
    ------
    InputError
        Naming the command and how many banks it reaches, or that the design has none of the name.
    """
    if command not in design.all_commands:
        raise _missing(design, command)
    banks, reached = design.organization.channel_banks, design.banks_reached(command)
    if reached * one_in != banks:
        raise InputError(
            f"{design.name}: {command} reaches {reached} of a channel's {banks} banks; design "
            f"{design.design!r} has {banks // one_in} work at once"
        )


def deal_channels(units: int, channels: int) -> tuple[list[int], list[range]]:
    """Spread ``units`` of work over ``channels``.

    Parameters
    ----------
    units
        Equal pieces of work.
    channels
        That take one each in turn.

    Returns
    -------
    copies
        Channels of each kind, those with one unit more first.
    turns
        Kinds that work in each turn.
    """
    each, extra = divmod(units, channels)
    copies = [count for count in (extra, channels - extra if each else 0) if count]
    every = range(len(copies))
    return copies, [every] * each + [range(1)] * (extra > 0)


@dataclass(frozen=True)
class StreamResult:
    """What became of a stream."""

    cycles: int
    """Until everything was completed."""
    channel_commands: tuple[Mapping[str, int], ...]
    """Commands on the bus of each simulated channel, those that the controller added included."""
    copies: tuple[int, ...]
    log: tuple[NDArray[np.int64], ...] = ()
    """By simulated channel, (commands, 7): cycle, command number, pseudo channel, rank, bank
    group, bank, row; empty unless asked for."""

    @property
    def commands(self) -> dict[str, int]:
        """Commands of all real channels together, those that occurred."""
        total: dict[str, int] = {}
        for counts, copies in zip(self.channel_commands, self.copies, strict=True):
            for name, count in counts.items():
                if count:
                    total[name] = total.get(name, 0) + count * copies
        return total


def run_stream(
    design: PimDesignConfig, stream: CommandStream, *, log: bool = False
) -> StreamResult:
    """Schedule every command of ``stream`` under every rule of ``design``.

    Parameters
    ----------
    design
        Whose channels run it.
    stream
        Its ``timings`` take the place of the design's.
    log
        Whether to keep each command and its cycle; it runs twice then, first to see how many there
        are.

    Raises
    ------
    InputError
        When the stream cannot go on, or the controller cannot take it.
    """
    if stream.timings:
        design = design.model_copy(update={"timings": {**design.timings, **stream.timings}})
    if design.own_controller.order == "window" and (stream.lanes > 1 or stream.blocking.any()):
        raise InputError(
            f"{design.name}: controller.order window has one lane and a host that never waits"
        )
    parameters = make_parameters(design, stream.lanes)
    entries, bounds = _by_channel(stream)
    names = list(design.all_commands)
    room = 0
    while True:
        channels = make_channels(parameters, bounds)
        lines = np.zeros((len(bounds), room, 7), dtype=np.int64)
        if design.own_controller.order == "requests":
            cycles = schedule_requests(
                design, parameters, channels, entries, stream.blocking, lines
            )
        elif design.own_controller.order == "window":
            cycles = int(schedule_window(parameters, channels, entries, lines))
        else:
            cycles = int(schedule(parameters, channels, entries, stream.blocking, lines))
        if cycles < 0:
            raise InputError(
                f"{design.name}: the stream cannot go on: a wait that nothing ends, or refreshes "
                "that leave no time"
            )
        if not log or room:
            break
        room = max(int(channels.logged.max(initial=0)), 1)
    return StreamResult(
        cycles=cycles,
        channel_commands=tuple(
            {
                name: int(count)
                for name, count in zip(names, channel.counts, strict=False)
                if design.all_commands[name].bus != "none"
            }
            for channel in channels
        ),
        copies=stream.copies,
        log=tuple(line[: channel.logged] for line, channel in zip(lines, channels, strict=True)),
    )


def peak_interval_cycles(design: PimDesignConfig) -> int:
    """Least cycles between two of a channel's ``peak`` commands.

    Parameters
    ----------
    design
        With a ``peak``.

    Raises
    ------
    InputError
        Where it has none.
    """
    if design.peak is None:
        raise InputError(f"{design.name}: peak is missing")
    text = design.peak.interval
    return max(1, evaluate_delay(text, design.all_timings, f"{design.name}: peak.interval"))


def _by_channel(stream: CommandStream) -> tuple[Any, list[tuple[int, int]]]:
    """Entries (``ENTRY`` records) channel by channel, and where each channel's begin and end."""
    columns = stream.entries
    columns = columns[np.argsort(columns[:, 1], kind="stable")]
    starts = np.searchsorted(columns[:, 1], np.arange(len(stream.copies) + 1))
    key = columns[:, 1] * stream.lanes + columns[:, 7]
    order = np.argsort(key, kind="stable")
    following = np.full(len(columns), -1, dtype=np.int64)
    same = key[order[:-1]] == key[order[1:]]
    following[order[:-1][same]] = order[1:][same]
    entries = np.empty(len(columns), dtype=ENTRY).view(np.recarray)
    entries.command = columns[:, 0]
    entries.place = columns[:, 2:6]
    entries.row, entries.lane, entries.wait = columns[:, 6], columns[:, 7], columns[:, 8]
    entries.instruction = columns[:, 9]
    entries.following = following
    return entries, [(int(a), int(b)) for a, b in itertools.pairwise(starts)]
