"""A stream on channels with an ordinary controller: phases of the host, channel by channel.

Channels share nothing, but the host may wait for all of them (a blocking instruction). So each
channel runs up to such a point by itself, and the next phase starts when the last one is done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.requests_kernel import MAX_DEPTH, MAX_MODE_ROWS, QUEUE, run_requests
from pimsim.hardware.pim.stream_tables import MODES, WAITS

__all__ = ["schedule_requests"]


def schedule_requests(
    design: PimDesignConfig,
    p: Any,
    channels: Any,
    entries: Any,
    blocking: NDArray[np.bool_],
    log: NDArray[np.int64],
) -> int:
    """Cycle at which all ``entries`` are completed, -1 where they cannot go on.

    Parameters
    ----------
    design
        With a controller of requests.
    p
        ``PARAMETERS`` record of the design.
    channels
        (channels,) of ``CHANNEL`` records; written.
    entries
        Of the stream, channel by channel.
    blocking
        (instructions,): the host waits until this one is completed.
    log
        (channels, room, 7): cycle, command, pseudo channel, rank, bank group, bank, row; written.

    Raises
    ------
    InputError
        For what a queue of requests cannot do: a wait for completion, or a command that is no
        access to a row.
    """
    _check(design, entries)
    mode_rows = _mode_rows(design)
    extras = np.zeros(len(channels), dtype=QUEUE).view(np.recarray)
    if p.refresh_step > 0:
        channels.due[:] = p.refresh_step
    phase = np.concatenate(([0], np.cumsum(blocking)))[entries.instruction]
    start = 0
    for number in range(int(phase.max(initial=0)) + 1):
        for ch, extra, lines in zip(channels, extras, log, strict=True):
            mine = phase[ch.start : ch.end]
            last = int(ch.start + np.searchsorted(mine, number, side="right"))
            if not run_requests(p, ch, extra, entries, lines, mode_rows, last, start, 0):
                return -1
        start = max(start, int(channels.done.max(initial=0)))
    for ch, extra, lines in zip(channels, extras, log, strict=True):
        run_requests(p, ch, extra, entries, lines, mode_rows, int(ch.end), start, start)
    return start


def _mode_rows(design: PimDesignConfig) -> NDArray[np.int64]:
    """(mode rows, 4): command, row, banks as bits, mode."""
    number = {name: index for index, name in enumerate(design.all_commands)}
    rows = [
        (number[m.command], m.row, sum(1 << bank for bank in set(m.banks)), MODES.index(m.to))
        for m in design.own_controller.mode_rows
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _check(design: PimDesignConfig, entries: Any) -> None:
    controller = design.own_controller
    for what, found, most in (
        ("queue_depth", controller.queue_depth, MAX_DEPTH),
        ("mode_rows", len(controller.mode_rows), MAX_MODE_ROWS),
    ):
        if found > most:
            raise InputError(
                f"{design.name}: controller.{what}: found {found}; allowed: at most {most}"
            )
    for number, (name, command) in enumerate(design.all_commands.items()):
        if command.bus not in ("row", "column"):
            raise InputError(
                f"{design.name}: commands.{name}.bus: found {command.bus!r}; with the order "
                "'requests' every command takes the bus for a cycle: row or column"
            )
        if command.row != "open" and bool((entries.command == number).any()):
            raise InputError(
                f"{design.name}: {name} is no access to an open row, which is all that a queue "
                "of requests (order 'requests') takes"
            )
    if bool((entries.wait == WAITS.index("completed")).any()):
        raise InputError(f"{design.name}: order 'requests' has fences, no waits for completion")
