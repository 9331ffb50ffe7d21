"""Sessions of agents (LLMServingSim): calls one after the other, each when the one before has ended
and its tool has taken its time."""

from __future__ import annotations

import numpy as np

from pimsim.config.errors import InputError
from pimsim.workload.json_lines import JsonLines
from pimsim.workload.request_formats import JsonFormat
from pimsim.workload.traffic import NOBODY, Traffic

__all__ = ["FORMAT"]

_PS_PER_NS = 10**3


def _read(lines: JsonLines) -> Traffic:
    starts = lines.whole("arrival_time_ns")
    arrival: list[int] = []
    follows: list[int] = []
    pause: list[int] = []
    tokens: list[tuple[int, int]] = []
    lines_of: list[int] = []
    for row in range(len(lines)):
        calls = lines.objects_of(row, "sub_requests")
        if not calls:
            raise InputError(f"{lines.where(row)}: sub_requests: at least one is expected")
        tool = 0
        for number, call in enumerate(calls):
            for key in ("input_toks", "output_toks"):
                if key not in call:
                    raise InputError(
                        f"{lines.where(row)}: sub_requests[{number}] has no {key!r}; found "
                        f"{', '.join(call) or 'none'}"
                    )
            arrival.append(int(starts[row]) * _PS_PER_NS)
            follows.append(len(tokens) - 1 if number else NOBODY)
            pause.append(tool * _PS_PER_NS)
            sizes = [lines.as_whole(row, key, call[key]) for key in ("input_toks", "output_toks")]
            tokens.append((sizes[0], sizes[1]))
            lines_of.append(row)
            tool = lines.as_whole(row, "tool_duration_ns", call.get("tool_duration_ns", 0))
    sizes_of = np.array(tokens, dtype=np.int64)
    return Traffic(
        np.array(arrival), sizes_of[:, 0], sizes_of[:, 1], follows=np.array(follows),
        pause_ps=np.array(pause), place=lambda row: lines.where(lines_of[row]),
    )  # fmt: skip


FORMAT = JsonFormat((("session_id", "arrival_time_ns", "sub_requests"),), _read)
