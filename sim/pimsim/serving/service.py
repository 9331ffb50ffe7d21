"""The loop of a service: requests arrive, steps are made and end, in the order of time.

At one moment arrivals come first, then ends of steps with what follows from them, then each replica
where something changed makes its next step. A pipeline's stages do one step after the other, so
that a step's end is known when it is made.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.serving.blocks import BlockCache
from pimsim.serving.ending import Speculation
from pimsim.serving.gaps import new_gaps
from pimsim.serving.records import NONE, REQUEST, WAITING, Records
from pimsim.serving.routers import Router
from pimsim.serving.schedulers import Batch, Demand, Scheduler
from pimsim.serving.step_times import StepTime
from pimsim.workload.traffic import LATEST_PS, NOBODY, PrefixBlocks, Traffic

__all__ = ["Fleet", "Service", "Watcher", "request_records"]


@dataclass(frozen=True)
class Fleet:
    """The machines of a service, all alike, and how they are used."""

    scheduler: type[Scheduler]
    settings: Any
    """Of the scheduler's ``Settings``."""
    step_time: StepTime
    blocks: int
    """Of a replica's KV cache, those that are never held included."""
    block_tokens: int
    router: type[Router]
    replicas: int = 1
    stages: int = 1
    """Of each replica's pipeline."""
    speculation: Speculation = field(default_factory=Speculation)


class Watcher(Protocol):
    """Hears of steps."""

    def made(self, replica: int, batch: Batch, scheduler: Scheduler) -> None:
        """A step was made, and its end is known."""


class _Replica:
    """A scheduler and the stages behind it."""

    def __init__(self, number: int, scheduler: Scheduler, stages: int) -> None:
        self.number = number
        self.scheduler = scheduler
        self.free_ps = [0] * stages
        """When each stage has done what it was given."""
        self.under_way = 0
        self.steps = 0


def request_records(traffic: Traffic, prefixes: PrefixBlocks | None = None) -> Records:
    """``REQUEST`` records of requests of which nothing is known but what they ask. ``prefixes``:
    blocks of the cache that they begin with."""
    found = np.zeros(len(traffic), dtype=REQUEST)
    for name in ("id", "prompt", "output", "priority", "arrival_ps"):
        found[name] = getattr(traffic, name)
    if prefixes is not None:
        found["prefix_first"], found["prefix_blocks"] = prefixes.first, prefixes.count
    found["arrival_ps"][traffic.follows != NOBODY] = NONE  # until the one before has ended
    found["length"] = traffic.prompt
    for name in (
        "entry", "replica", "next", "previous", "slot", "first_scheduled_ps",
        "first_scheduled_step", "first_token_ps", "first_token_step", "finish_ps", "finish_step",
        "last_token_ps",
    ):  # fmt: skip
        found[name] = NONE
    return found


class Service:
    """A fleet that serves requests.

    Parameters
    ----------
    traffic
        Who comes when and asks for what.
    fleet
        Who serves.

    Raises
    ------
    InputError
        For a request that can never be served, by its number.
    """

    def __init__(self, traffic: Traffic, fleet: Fleet) -> None:
        _check(traffic, fleet)
        self.traffic = traffic
        self.fleet = fleet
        shares = fleet.scheduler.shares_prefixes and fleet.settings.prefix_caching
        if fleet.router.needs_prefixes and not shares:
            raise InputError(
                "replicas.router: this one looks for beginnings of prompts, which no cache keeps; "
                "it needs scheduler vllm with prefix_caching true"
            )
        self._prefixes: PrefixBlocks | None = None
        if shares and traffic.prefixes is not None:
            self._prefixes = traffic.prefixes.split(fleet.block_tokens, traffic.prompt)
        self.requests = request_records(traffic, self._prefixes)
        self.gaps = new_gaps()
        self.now_ps = 0
        self.arrived = 0
        self.finished = 0
        self.replicas = [self._replica(number) for number in range(fleet.replicas)]
        self.router = fleet.router([one.scheduler for one in self.replicas])
        self.ends: list[tuple[int, int, _Replica, Batch]] = []
        """Steps under way: when each ends, which one it is of all, where it is."""
        self.arrivals: list[tuple[int, int]] = [
            (int(self.requests["arrival_ps"][row]), row)
            for row in np.flatnonzero(traffic.follows == NOBODY).tolist()
        ]
        heapq.heapify(self.arrivals)
        self._successors = {
            int(before): row for row, before in enumerate(traffic.follows) if before != NOBODY
        }
        self.made = 0
        """Steps."""

    def _replica(self, number: int) -> _Replica:
        fleet, traffic = self.fleet, self.traffic
        kind, settings = fleet.scheduler, fleet.settings
        most = int(_most_tokens(traffic, fleet).max())
        cache = BlockCache.of(
            fleet.blocks - kind.null_blocks, fleet.block_tokens,
            kind.most_running(settings, fleet.stages),
            kind.blocks_held(settings, most, fleet.block_tokens),
            0 if self._prefixes is None else self._prefixes.contents,
        )  # fmt: skip
        prefix = np.zeros(0, dtype=np.int32) if self._prefixes is None else self._prefixes.numbers
        scheduler = kind(settings, self.requests, prefix, cache, fleet.stages, fleet.speculation)
        return _Replica(number, scheduler, fleet.stages)

    @property
    def done(self) -> bool:
        """Whether nothing is left to happen."""
        return not self.ends and not self.arrivals

    def run(
        self, watchers: Sequence[Watcher] = (), until_ps: int | None = None,
        until_finished: int | None = None,
        on_moment: Callable[[Service], bool] | None = None,
    ) -> None:  # fmt: skip
        """Go on until all is done, or until a time or a number of finished requests.

        ``on_moment`` is called after each moment at which something happened, and says whether that
        was enough. Raises ``InputError`` where requests wait that nobody can ever take.
        """
        while not self.done:
            now = min(
                self.ends[0][0] if self.ends else self.arrivals[0][0],
                self.arrivals[0][0] if self.arrivals else self.ends[0][0],
            )
            if until_ps is not None and now > until_ps:
                self.now_ps = until_ps
                return
            if until_finished is not None and self.finished >= until_finished:
                return
            self.now_ps = now
            self._moment(watchers)
            if on_moment is not None and on_moment(self):
                return
        self._check_nobody_is_left()

    def _moment(self, watchers: Sequence[Watcher]) -> None:
        now = self.now_ps
        touched: dict[int, _Replica] = {}
        self._arrive(touched)
        while self.ends and self.ends[0][0] == now:
            _, _, replica, batch = heapq.heappop(self.ends)
            replica.under_way -= 1
            touched[replica.number] = replica
            self._end(replica, batch)
        self._arrive(touched)  # who asks again at once
        for replica in touched.values():
            self._make(replica, watchers)

    def _arrive(self, touched: dict[int, _Replica]) -> None:
        while self.arrivals and self.arrivals[0][0] <= self.now_ps:
            _, row = heapq.heappop(self.arrivals)
            number = self.router.replica(row)
            replica = self.replicas[number]
            self.requests["replica"][row] = number
            replica.scheduler.arrive(row)
            self.arrived += 1
            touched[number] = replica

    def _end(self, replica: _Replica, batch: Batch) -> None:
        finished = replica.scheduler.end(batch, self.gaps)
        self.finished += len(finished)
        if not self._successors:
            return
        for row in finished.tolist():
            successor = self._successors.get(row)
            if successor is not None:
                arrival = self.now_ps + int(self.traffic.pause_ps[successor])
                _check_time(arrival)
                self.requests["arrival_ps"][successor] = arrival
                heapq.heappush(self.arrivals, (arrival, successor))

    def _make(self, replica: _Replica, watchers: Sequence[Watcher]) -> None:
        while replica.under_way < self.fleet.stages:
            batch = replica.scheduler.schedule(self.now_ps, replica.steps + 1)
            while batch is None and replica.scheduler.gave_up and not replica.under_way:
                batch = replica.scheduler.schedule(self.now_ps, replica.steps + 1)
            if batch is None:
                return
            replica.steps += 1
            replica.under_way += 1
            took = self.fleet.step_time.duration_ps(batch)
            end = self.now_ps
            for stage, free in enumerate(replica.free_ps):
                end = max(end, free) + took
                replica.free_ps[stage] = end
            _check_time(end)
            batch.step["end_ps"] = end
            self.made += 1
            heapq.heappush(self.ends, (end, self.made, replica, batch))
            for watcher in watchers:
                watcher.made(replica.number, batch, replica.scheduler)

    def _check_nobody_is_left(self) -> None:
        for replica in self.replicas:
            scheduler = replica.scheduler
            if scheduler.waiting or scheduler.running:
                row = int(scheduler.lists["head"][WAITING])
                one = self.requests[row]
                raise InputError(
                    f"request {one['id']} waits for ever: its {one['length']} tokens do not go "
                    f"into a step of replica {replica.number}, although {scheduler.cache.free} of "
                    f"{scheduler.cache.count} blocks are free; {scheduler.waiting} wait"
                )


def _check_time(time_ps: int) -> None:
    """Raises ``InputError`` for a time that 64 bits of picoseconds do not hold."""
    if time_ps > LATEST_PS * 2 - 1:
        raise InputError(
            f"the service passes {2 * LATEST_PS // 10**12:,} s of simulated time; --max-time ends "
            "it before"
        )


def _most_tokens(traffic: Traffic, fleet: Fleet) -> NDArray[np.int64]:
    """Tokens that each request has in the cache at most; its last one is never fed."""
    return traffic.prompt + traffic.output - 1 + fleet.speculation.drafts


def _check(traffic: Traffic, fleet: Fleet) -> None:
    """Raises ``InputError`` for a request that can never be served."""
    kind, settings = fleet.scheduler, fleet.settings
    limit = getattr(settings, "max_model_len", None)
    tokens = traffic.prompt + traffic.output
    if limit is not None and (tokens > limit).any():
        row = int(np.argmax(tokens > limit))
        raise InputError(
            f"{traffic.where(row)}: {traffic.prompt[row]} + {traffic.output[row]} tokens; "
            f"scheduler.max_model_len is {limit}"
        )
    usable = fleet.blocks - kind.null_blocks
    most = _most_tokens(traffic, fleet)
    row = int(np.argmax(most))
    held = kind.blocks_held(settings, int(most[row]), fleet.block_tokens)
    if held > usable:
        raise InputError(
            f"{traffic.where(row)}: {traffic.prompt[row]} + {traffic.output[row]} tokens need "
            f"{held} blocks of {fleet.block_tokens}; the KV cache has {usable} for requests "
            "(cache.blocks)"
        )
    if fleet.speculation.drafts and not kind.takes_drafts:
        raise InputError("speculation: this scheduler verifies no drafts; vllm does")
    kind.check(
        settings, Demand(int(traffic.prompt.max()), int(tokens.max())), fleet.block_tokens,
        fleet.stages,
    )  # fmt: skip
