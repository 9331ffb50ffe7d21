"""A service as a Perfetto trace: its replicas' steps, its requests and their phases, who waits, who
runs and what the cache holds.

Steps that are under way at once, of a pipeline, have a track each; requests share tracks, one after
the other.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pimsim.config.errors import InputError
from pimsim.report.service_charts import PHASES
from pimsim.report.timeline import Builder

if TYPE_CHECKING:
    import pandas

__all__ = ["service_timeline", "tracks_of"]

_MOST = 1_000_000
"""Steps and requests of a trace: more than a browser opens."""
_EDGES = ("arrival_ps", "first_scheduled_ps", "first_token_ps", "kv_arrived_ps", "finish_ps")


def service_timeline(requests: pandas.DataFrame, steps: pandas.DataFrame, until_ps: int) -> bytes:
    """The trace.

    Parameters
    ----------
    requests, steps
        The rows of ``requests.parquet`` and of ``steps.parquet``.
    until_ps
        When the service ended, or was stopped.

    Raises
    ------
    InputError
        For more than a browser opens.
    """
    if len(requests) + len(steps) > _MOST:
        raise InputError(
            f"--timeline: {len(requests) + len(steps):,} requests and steps; at most {_MOST:,} are "
            "written, which pimsim serve --max-time or --max-requests keeps to"
        )
    builder = Builder()
    for number in sorted(steps["replica"].unique().tolist()):
        mine = steps[steps["replica"] == number]
        _replica(builder, number, mine.sort_values("start_ps", kind="stable"))
    _requests(builder, requests, until_ps)
    return bytes(builder.trace.serialize())


def tracks_of(spans: Sequence[tuple[int, int]]) -> list[int]:
    """The track of each span: the first that is free, of as few as there can be.

    Parameters
    ----------
    spans
        Start and end of each, by their start.

    Returns
    -------
    list
        Numbers from 0.
    """
    free: list[int] = []
    ends: list[tuple[int, int]] = []
    found = []
    for start, end in spans:
        while ends and ends[0][0] <= start:
            heapq.heappush(free, heapq.heappop(ends)[1])
        track = heapq.heappop(free) if free else len(ends)
        heapq.heappush(ends, (max(end, start + 1), track))
        found.append(track)
    return found


def _replica(builder: Builder, number: int, steps: pandas.DataFrame) -> None:
    name = f"replica {number}"
    rows: list[Any] = list(steps.itertuples(index=False))
    lanes = tracks_of([(row.start_ps, row.end_ps) for row in rows])
    tracks = [
        builder.track(name if at == 0 else f"{name}, {at + 1}") for at in range(max(lanes) + 1)
    ]
    for row, lane in zip(rows, lanes, strict=True):
        facts: dict[str, int | str] = {
            "requests": int(row.requests), "tokens": int(row.tokens), "context": int(row.context),
            "preempted": int(row.preempted),
        }  # fmt: skip
        start, end = int(row.start_ps), int(row.end_ps)
        builder.slice(tracks[lane], f"step {row.step}", start, end, facts, "step")
    for column, words, unit in (
        ("running", "requests that run", "requests"), ("waiting", "requests that wait", "requests"),
        ("used_blocks", "blocks in use", "blocks"),
    ):  # fmt: skip
        counter = builder.track(f"{name}: {words}", unit=unit)
        for start, value in zip(steps["start_ps"], steps[column], strict=True):
            builder.sample(counter, int(start), float(value))


def _requests(builder: Builder, requests: pandas.DataFrame, until_ps: int) -> None:
    come = requests[(requests["arrival_ps"] >= 0) & (requests["arrival_ps"] <= until_ps)]
    rows: list[Any] = list(come.sort_values("arrival_ps", kind="stable").itertuples(index=False))
    spans = [(row.arrival_ps, row.finish_ps if row.finish_ps >= 0 else until_ps) for row in rows]
    lanes = tracks_of(spans)
    parent = builder.track("requests")
    tracks = [builder.track(f"requests {at}", parent) for at in range(max(lanes, default=-1) + 1)]
    for row, lane, (start, end) in zip(rows, lanes, spans, strict=True):
        facts: dict[str, int | str] = {
            "prompt": int(row.prompt), "output": int(row.output), "replica": int(row.replica),
            "preemptions": int(row.preemptions), "cached": int(row.cached),
        }  # fmt: skip
        track = tracks[lane]
        with builder.span(track, f"request {row.id}", int(start), int(end), facts, "request"):
            for name, begin, close in _phases(row, int(end)):
                builder.slice(track, name, begin, close, {}, "phase")


def _phases(row: Any, end_ps: int) -> Iterator[tuple[str, int, int]]:
    """Name, beginning and end of each phase of a request that took any time, as far as it came."""
    edges = [int(getattr(row, name)) for name in _EDGES]
    if edges[3] < 0:  # nothing was handed over, or not yet
        edges[3] = edges[2]
    for name, begin, close in zip(PHASES, edges[:-1], edges[1:], strict=True):
        if begin < 0:
            return
        last = close if close >= 0 else end_ps
        if last > begin:
            yield name, begin, last
