"""The requests of a service as its config asks for them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pimsim.config.errors import InputError
from pimsim.config.resources import find_source
from pimsim.config.traffic import FROM_FILE, RequestsConfig
from pimsim.workload.arrivals import load_arrivals
from pimsim.workload.draws import RandomStream
from pimsim.workload.lengths import draw_lengths
from pimsim.workload.request_formats import read_traffic
from pimsim.workload.traffic import LATEST_PS, NOBODY, Traffic

__all__ = ["LoadedTraffic", "load_traffic"]

_PROMPTS, _OUTPUTS, _ARRIVALS, _ORDER = range(4)
"""Streams of a seed."""


@dataclass(frozen=True)
class LoadedTraffic:
    """Requests, and where they came from."""

    traffic: Traffic
    format: str
    """Of the trace; empty: they were drawn."""
    sha256: str
    """Of the trace's file; empty without one."""


def load_traffic(config: RequestsConfig, seed: int) -> LoadedTraffic:
    """Read or draw requests and their times. The same seed, the same requests.

    Parameters
    ----------
    config
        Of the service's requests.
    seed
        Of all that is drawn.

    Raises
    ------
    InputError
        For a trace that cannot be read, is out of order, or has requests of no tokens.
    """
    name = sha256 = ""
    if config.file is None:
        assert config.count is not None
        assert config.prompt is not None
        assert config.output is not None
        traffic = Traffic(
            np.zeros(config.count, dtype=np.int64),
            draw_lengths(config.prompt, config.count, RandomStream(seed, _PROMPTS)),
            draw_lengths(config.output, config.count, RandomStream(seed, _OUTPUTS)),
        )
    else:
        read = read_traffic(find_source("trace", config.file), config.format)
        traffic, name, sha256 = read.traffic, read.format, read.sha256
        if config.skip_empty:
            traffic = _without_empty(traffic)
        traffic.check()
        if config.count is not None:
            traffic = _of_count(traffic, config.count, RandomStream(seed, _ORDER))
    settings = config.arrivals
    if settings.process != FROM_FILE:
        if (traffic.follows != NOBODY).any():
            raise InputError(
                f"requests.arrivals.process is {settings.process!r}; the calls of the sessions in "
                f"{config.file} come when those before them have ended: {FROM_FILE!r}"
            )
        process = load_arrivals(settings.process)
        traffic = process.arrive(traffic, settings, RandomStream(seed, _ARRIVALS))
    return LoadedTraffic(traffic.check_times().scaled(config.rate_scale), name, sha256)


def _without_empty(traffic: Traffic) -> Traffic:
    kept = np.flatnonzero(traffic.output > 0)
    if len(kept) == len(traffic):
        return traffic
    if not len(kept) or (traffic.follows != NOBODY).any() or traffic.prefixes is not None:
        raise InputError(
            f"{traffic.where(0)}: requests.skip_empty leaves nothing, or is no use for calls that "
            "follow one another or share their beginnings"
        )
    place = traffic.place
    columns = ("arrival_ps", "prompt", "output", "id", "priority")
    return Traffic(
        **{column: getattr(traffic, column)[kept] for column in columns},
        place=None if place is None else lambda row: place(int(kept[row])),
    )


def _of_count(traffic: Traffic, count: int, draw: RandomStream) -> Traffic:
    """So many requests: from the front, or the whole again and again. Each further time its lengths
    come in another order, behind a mean gap, and no beginning is one of an earlier time."""
    size = len(traffic)
    if count <= size:
        return traffic.first(count)
    if (traffic.follows != NOBODY).any():
        raise InputError(
            f"requests.count is {count}; the trace has {size} calls of sessions, which are not "
            "gone through again"
        )
    passes = -(-count // size)
    span = int(traffic.arrival_ps[-1] - traffic.arrival_ps[0])
    period = span + span // max(size - 1, 1)
    if passes * period > LATEST_PS:
        raise InputError(
            f"requests.count is {count}: {passes} times through a trace of {size} requests and "
            f"{span / 1e12:,.0f} s pass {LATEST_PS // 10**12:,} s, the latest that is possible"
        )
    order = np.concatenate([np.arange(size), *(draw.permutation(size) for _ in range(passes - 1))])[
        :count
    ]
    number = np.arange(count) // size
    prefixes = traffic.prefixes
    if prefixes is not None:
        numbers = np.concatenate(
            [prefixes.numbers + at * prefixes.contents for at in range(passes)]
        )
        first = prefixes.first[order] + number * len(prefixes.numbers)
        prefixes = replace(prefixes, numbers=numbers, first=first, count=prefixes.count[order])
    place = traffic.place
    return Traffic(
        traffic.arrival_ps[np.arange(count) % size] + number * period, traffic.prompt[order],
        traffic.output[order], priority=traffic.priority[order], prefixes=prefixes,
        place=None if place is None else lambda row: place(int(order[row])),
    )  # fmt: skip
