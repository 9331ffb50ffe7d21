"""A stream on channels with an ordinary controller: phases of the host, channel by channel.

Channels share nothing, but the host may wait for all of them (a blocking instruction). So each
channel runs up to such a point by itself, and the next phase starts when the last one is done.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.pim_stream import StreamPimConfig
from pimsim.hardware.pim.stream_kernel import StreamArrays, StreamState
from pimsim.hardware.pim.stream_tables import MODES, StreamTables
from pimsim.hardware.pim.window_kernel import new_window_state, run_window

__all__ = ["schedule_window"]

_WAIT_ISSUED = 1
_NEVER = 2**62


def schedule_window(
    design: StreamPimConfig, tables: StreamTables, stream: StreamArrays, state: StreamState
) -> int:
    """Cycle at which all of ``stream`` is completed, -1 where it cannot go on.

    Raises ``InputError`` for what a queue of requests cannot do: a wait for completion, or a
    command that is no access to a row.
    """
    _check(design, tables, stream)
    channels, banks = state.open_row.shape
    mode_rows = _mode_rows(design)
    window = new_window_state(tables, channels, banks, len(mode_rows))
    state.due[:] = tables.refresh_step or _NEVER
    phase = np.concatenate(([0], np.cumsum(stream.blocking)))[stream.instruction]
    at, start = stream.start[:-1].copy(), 0
    for number in range(int(phase.max(initial=0)) + 1):
        for channel in range(channels):
            first, end = int(at[channel]), int(stream.start[channel + 1])
            last = first + int(np.searchsorted(phase[first:end], number, side="right"))
            done = run_window(
                tables, stream, state, window, mode_rows, channel, first, last, start, 0
            )
            if not done:
                return -1
            at[channel] = last
        start = max(start, int(state.done.max(initial=0)))
    for channel in range(channels):
        run_window(tables, stream, state, window, mode_rows, channel, 0, 0, start, start)
    return start


def _mode_rows(design: StreamPimConfig) -> NDArray[np.int64]:
    """(mode rows, 4): command, row, banks as bits, mode."""
    number = {name: index for index, name in enumerate(design.commands)}
    rows = [
        (number[m.command], m.row, sum(1 << bank for bank in set(m.banks)), MODES.index(m.to))
        for m in design.controller.mode_rows
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _check(design: StreamPimConfig, tables: StreamTables, stream: StreamArrays) -> None:
    for number, (name, command) in enumerate(design.commands.items()):
        if command.row != "open" and bool((stream.command == number).any()):
            raise InputError(
                f"{design.name}: {name} is no access to an open row, which is all that a queue "
                "of requests (scheduler 'window') takes"
            )
    if bool((stream.wait > _WAIT_ISSUED).any()):
        raise InputError(f"{design.name}: scheduler 'window' has fences, no waits for completion")
