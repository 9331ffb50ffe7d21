"""Streams of PIM commands, and their run on a design's channels.

A stream is what the host sends: instructions of one or more commands for one or more channels.
Row activations, precharges, mode switches and refreshes are not in it; the controller adds
them (``stream_kernel``). Channels that get the same commands behave the same: a stream holds
one of them, and of how many real channels it is the pattern.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.pim_stream import StreamPimConfig
from pimsim.hardware.pim.stream_kernel import StreamArrays, new_state, schedule
from pimsim.hardware.pim.stream_tables import compile_stream_tables
from pimsim.hardware.pim.stream_window import schedule_window

__all__ = ["MAX_COMMANDS", "Stream", "StreamBuilder", "StreamResult", "run_stream"]

MAX_COMMANDS = 2**26
"""Commands of one stream; each takes about 100 bytes."""

Wait = Literal["none", "issued", "completed"]
_WAITS: tuple[Wait, ...] = ("none", "issued", "completed")

_FIELDS = ("command", "channel", "pseudo_channel", "rank", "bank_group", "bank", "row", "lane",
           "wait", "instruction")  # fmt: skip
"""Columns of ``Stream.entries``."""


@dataclass(frozen=True)
class Stream:
    """Commands in the order in which the host sends them."""

    entries: NDArray[np.int64]
    """(commands, 10): command number, simulated channel, pseudo channel, rank, bank group,
    bank, row (-1 none), lane, wait (0 none, 1 issued, 2 completed), host instruction."""
    blocking: NDArray[np.bool_]
    """(instructions,): the host waits until its commands are completed."""
    copies: tuple[int, ...]
    """How many real channels behave as each simulated one."""
    lanes: int


class StreamBuilder:
    """Puts a stream together, instruction by instruction.

    ``copies``: real channels for each simulated one (``[32]``: all 32 channels do the same).
    """

    def __init__(self, design: StreamPimConfig, copies: Sequence[int], lanes: int = 1) -> None:
        self._design = design
        self._number = {name: index for index, name in enumerate(design.commands)}
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
        size = count * len(channels)
        if size == 0:
            return
        self._commands += size
        if self._commands > MAX_COMMANDS:
            raise InputError(
                f"{self._design.name}: more than {MAX_COMMANDS:,} commands; run a smaller piece"
            )
        block = np.empty((count, len(channels), len(_FIELDS)), dtype=np.int64)
        block[:, :, 0] = self._number[command]
        block[:, :, 1] = np.asarray(channels)
        block[:, :, 2:6] = place
        block[:, :, 6] = row
        block[:, :, 7] = lane
        block[:, :, 8] = 0
        block[0, :, 8] = _WAITS.index(wait)
        block[:, :, 9] = len(self._blocking)
        self._blocks.append(block.reshape(size, len(_FIELDS)))
        self._blocking.append(blocking)

    def build(self) -> Stream:
        """The stream so far. Raises ``InputError`` where a row or bank does not exist."""
        entries = (
            np.concatenate(self._blocks)
            if self._blocks
            else np.empty((0, len(_FIELDS)), dtype=np.int64)
        )
        _check(self._design, entries, len(self._copies), self._lanes)
        return Stream(entries, np.array(self._blocking, dtype=np.bool_), self._copies, self._lanes)


def _check(design: StreamPimConfig, entries: NDArray[np.int64], channels: int, lanes: int) -> None:
    org = design.organization
    limits = (len(design.commands), channels, *org.counts, org.rows, lanes)
    for column, limit in enumerate(limits):
        values = entries[:, column]
        least = -1 if _FIELDS[column] == "row" else 0
        wrong = (values < least) | (values >= limit)
        if wrong.any():
            raise InputError(
                f"{design.name}: no {_FIELDS[column].replace('_', ' ')} "
                f"{int(values[wrong.argmax()])}; there are {limit}"
            )


@dataclass(frozen=True)
class StreamResult:
    """What became of a stream."""

    cycles: int
    """Until everything was completed."""
    channel_commands: tuple[Mapping[str, int], ...]
    """Commands issued in each simulated channel, those that the controller added included."""
    copies: tuple[int, ...]
    log: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 8), dtype=np.int64))
    """(commands, 8): cycle, channel, command number, pseudo channel, rank, bank group, bank,
    row; empty unless asked for."""

    @property
    def commands(self) -> dict[str, int]:
        """Commands of all real channels together, those that occurred."""
        total: dict[str, int] = {}
        for counts, copies in zip(self.channel_commands, self.copies, strict=True):
            for name, count in counts.items():
                if count:
                    total[name] = total.get(name, 0) + count * copies
        return total


def run_stream(design: StreamPimConfig, stream: Stream, *, log: bool = False) -> StreamResult:
    """Schedule every command of ``stream`` under every rule of ``design``.

    Raises ``InputError`` when the stream cannot go on (a wait that nothing ends).
    """
    tables = compile_stream_tables(design)
    arrays = _by_channel(stream)
    names = list(design.commands)
    channels, banks = len(stream.copies), design.organization.banks
    room = 0
    while True:
        state = new_state(tables, channels, stream.lanes, banks, room)
        run = schedule_window if design.controller.order == "window" else schedule
        cycles = int(run(tables, arrays, state))
        if cycles < 0:
            raise InputError(f"{design.name}: the stream stops before its end")
        if not log or room:
            break
        room = max(int(state.logged[0]), 1)
    return StreamResult(
        cycles=cycles,
        channel_commands=tuple(
            {name: int(count) for name, count in zip(names, row, strict=True)}
            for row in state.counts
        ),
        copies=stream.copies,
        log=state.log[: int(state.logged[0])] if log else state.log[:0],
    )


def _by_channel(stream: Stream) -> StreamArrays:
    """The stream's entries sorted by channel, with each lane's order."""
    entries = stream.entries
    entries = entries[np.argsort(entries[:, 1], kind="stable")]
    start = np.searchsorted(entries[:, 1], np.arange(len(stream.copies) + 1)).astype(np.int64)
    lane = np.ascontiguousarray(entries[:, 7])
    key = entries[:, 1] * stream.lanes + lane
    order = np.argsort(key, kind="stable")
    following = np.full(len(entries), -1, dtype=np.int64)
    same = key[order[:-1]] == key[order[1:]]
    following[order[:-1][same]] = order[1:][same]
    return StreamArrays(
        start=start,
        command=np.ascontiguousarray(entries[:, 0]),
        place=np.ascontiguousarray(entries[:, 2:6]),
        row=np.ascontiguousarray(entries[:, 6]),
        lane=lane,
        lane_next=following,
        wait=np.ascontiguousarray(entries[:, 8]),
        instruction=np.ascontiguousarray(entries[:, 9]),
        blocking=stream.blocking,
    )
