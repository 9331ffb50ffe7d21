"""All that a service is in the middle of, as arrays and plain values, and back again.

What comes from its config (requests' lengths, settings, step times) is not part of it: a new
service is made of that, and what had happened is put in. Arrays are written into those of the new
one, so that what shares them goes on to share them.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.serving.blocks import BlockCache
from pimsim.serving.routers import Router
from pimsim.serving.schedulers import Scheduler
from pimsim.serving.service import Service
from pimsim.serving.step_log import StepLog

__all__ = ["ServiceState", "restore", "state_of"]

_WORDS = "words"
"""Array of the plain values, as JSON in UTF-8."""
_FROM_CONFIG = frozenset({
    "settings", "requests", "prefix", "cache", "stages", "speculation", "_spare", "schedulers",
})  # fmt: skip
"""Attributes of schedulers and routers that a new service has of its own."""


@dataclass
class ServiceState:
    """Arrays, and plain values, each by where it is from."""

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def packed(self) -> dict[str, NDArray[Any]]:
        """All of it as arrays, for ``numpy.savez``."""
        words = np.frombuffer(json.dumps(self.values).encode(), dtype=np.uint8)
        return {**self.arrays, _WORDS: words}

    @classmethod
    def unpacked(cls, packed: Mapping[str, NDArray[Any]]) -> ServiceState:
        """What ``packed`` gave. Raises ``KeyError`` or ``ValueError`` for anything else."""
        arrays = dict(packed)
        values = json.loads(arrays.pop(_WORDS).tobytes())
        if not isinstance(values, dict):
            raise ValueError("no values by name")
        return cls(arrays, values)


def state_of(service: Service, log: StepLog) -> ServiceState:
    """What has happened in a service, between two moments.

    Parameters
    ----------
    service
        That has not ended, or has.
    log
        Of all its steps.

    Raises
    ------
    InputError
        Where a scheduler or router keeps what cannot be written.
    """
    log.flush()
    found = ServiceState()
    found.arrays["requests"], found.arrays["gaps"] = service.requests, service.gaps
    found.arrays["arrivals"] = np.array(service.arrivals, dtype=np.int64).reshape(-1, 2)
    found.values |= {name: getattr(service, name) for name in _COUNTERS}
    found.values |= {f"log.{name}": getattr(log, name) for name in _SUMS}
    for name, sums in log.columns.items():
        found.arrays[f"log.{name}"] = sums
    _keep(service.router, "router", found)
    for replica in service.replicas:
        where = f"replica{replica.number}"
        found.values[where] = [replica.free_ps, replica.under_way, replica.steps]
        _keep(replica.scheduler, where, found)
        _keep_cache(replica.scheduler.cache, where, found)
    if service.handover is not None:
        found.values["handover"] = service.handover.state()
        _keep(service.handover.router, "decode", found)
    found.values["ends"] = []
    for at, (end, made, replica, batch) in enumerate(service.ends):
        found.values["ends"].append([end, made, replica.number])
        found.arrays[f"batch{at}.entries"] = batch.entries[: batch.requests]
        found.arrays[f"batch{at}.step"] = batch.step
        found.arrays[f"batch{at}.preempted"] = batch.preempted
    return found


def restore(state: ServiceState, service: Service, log: StepLog) -> None:
    """Put what had happened into a service, and a log, that have just been made of the same config.

    Parameters
    ----------
    state
        What had happened.
    service
        That has just been made; written.
    log
        That has just been made; written.

    Raises
    ------
    KeyError, ValueError
        Where the state is of another config.
    """
    _fill(service.requests, state.arrays["requests"])
    _fill(service.gaps, state.arrays["gaps"])
    service.arrivals[:] = [(time, row) for time, row in state.arrays["arrivals"].tolist()]
    heapq.heapify(service.arrivals)
    for name in _COUNTERS:
        setattr(service, name, state.values[name])
    for name in _SUMS:
        setattr(log, name, state.values[f"log.{name}"])
    for name, sums in log.columns.items():
        _fill(sums, state.arrays[f"log.{name}"])
    _take(service.router, "router", state)
    for replica in service.replicas:
        where = f"replica{replica.number}"
        replica.free_ps, replica.under_way, replica.steps = state.values[where]
        _take(replica.scheduler, where, state)
        _take_cache(replica.scheduler.cache, where, state)
    if service.handover is not None:
        service.handover.restore(state.values["handover"])
        _take(service.handover.router, "decode", state)
    for at, (end, made, number) in enumerate(state.values["ends"]):
        replica = service.replicas[number]
        batch = replica.scheduler.new_batch()
        _front(batch.entries, state.arrays[f"batch{at}.entries"])
        _fill(batch.step, state.arrays[f"batch{at}.step"])
        _front(batch.preempted_ids, state.arrays[f"batch{at}.preempted"])
        batch.read()
        service.ends.append((end, made, replica, batch))
    heapq.heapify(service.ends)


_COUNTERS = ("now_ps", "arrived", "finished", "made")
_SUMS = (
    "steps", "tokens", "entries", "busy_ps", "used_block_ps", "peak_blocks", "most_waiting",
    "interval_ps",
)  # fmt: skip


def _own(one: Scheduler | Router) -> Iterator[tuple[str, Any]]:
    for name, value in sorted(vars(one).items()):
        if name not in _FROM_CONFIG:
            yield name, value


def _keep(one: Scheduler | Router, where: str, state: ServiceState) -> None:
    for name, value in _own(one):
        key = f"{where}.{name}"
        if isinstance(value, np.ndarray):
            state.arrays[key] = value
        elif _is_plain(value):
            state.values[key] = value
        else:
            raise InputError(
                f"{type(one).__module__}: {name} is a {type(value).__name__}; a service goes on "
                "later where schedulers and routers keep numbers, texts, lists of these, and arrays"
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _take(one: Scheduler | Router, where: str, state: ServiceState) -> None:
    for name, value in _own(one):
        key = f"{where}.{name}"
        if isinstance(value, np.ndarray):
            _fill(value, state.arrays[key])
        else:
            setattr(one, name, state.values[key])


def _keep_cache(cache: BlockCache, where: str, state: ServiceState) -> None:
    """Of tables whose pages may never have been touched, what is in use."""
    held = cache.table[_used_slots(cache)]
    contents = np.flatnonzero(cache.found)
    state.arrays |= {
        f"{where}.pool": cache.pool, f"{where}.blocks": cache.blocks,
        f"{where}.slots": cache.slots, f"{where}.table": held,
        f"{where}.contents": contents, f"{where}.found": cache.found[contents],
    }  # fmt: skip


def _take_cache(cache: BlockCache, where: str, state: ServiceState) -> None:
    for name in ("pool", "blocks", "slots"):
        _fill(getattr(cache, name), state.arrays[f"{where}.{name}"])
    held = state.arrays[f"{where}.table"]
    cache.table[_used_slots(cache), : held.shape[1]] = held
    cache.found[state.arrays[f"{where}.contents"]] = state.arrays[f"{where}.found"]


def _used_slots(cache: BlockCache) -> NDArray[np.int64]:
    """Rows of the table that requests have."""
    used = np.ones(len(cache.slots), dtype=bool)
    used[cache.slots[: int(cache.pool["slots"][0])]] = False
    return np.flatnonzero(used)


def _fill(target: NDArray[Any], values: NDArray[Any]) -> None:
    if target.shape != values.shape or target.dtype != values.dtype:
        raise ValueError(f"{values.dtype} {values.shape}, not {target.dtype} {target.shape}")
    target[...] = values


def _front(target: NDArray[Any], values: NDArray[Any]) -> None:
    if values.ndim != 1 or len(values) > len(target) or target.dtype != values.dtype:
        raise ValueError(f"{values.dtype} {values.shape}, not {target.dtype} {target.shape}")
    target[: len(values)] = values
