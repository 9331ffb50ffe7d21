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
from pimsim.serving.pools import DecodePool, Handover
from pimsim.serving.records import NONE, REQUEST, WAITING, Records
from pimsim.serving.replica import Replica
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
    decode: DecodePool | None = None
    """Further replicas, which make all tokens but the first; None: each replica makes all."""


class Watcher(Protocol):
    """Hears of steps."""

    def made(self, replica: int, batch: Batch, scheduler: Scheduler) -> None:
        """A step was made, and its end is known."""


def request_records(traffic: Traffic, prefixes: PrefixBlocks | None = None) -> Records:
    """``REQUEST`` records of requests of which nothing is known but what they ask.

    Parameters
    ----------
    traffic
        Of the service.
    prefixes
        Blocks of the cache that they begin with; None: none are shared.

    Returns
    -------
    Records
        (requests,).
    """
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
        "last_token_ps", "prefill_replica", "kv_sent_ps", "kv_arrived_ps",
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
        self.replicas = [
            self._replica(number, fleet.stages, fleet.step_time) for number in range(fleet.replicas)
        ]
        self.router = fleet.router([one.scheduler for one in self.replicas])
        self.handover = None if fleet.decode is None else self._second_pool(fleet.decode)
        self.ends: list[tuple[int, int, Replica, Batch]] = []
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

    def _second_pool(self, pool: DecodePool) -> Handover:
        first = len(self.replicas)
        for replica in self.replicas:
            replica.scheduler.hands_over = True
        self.replicas += [
            self._replica(first + number, pool.stages, pool.step_time)
            for number in range(pool.replicas)
        ]
        router = pool.router([one.scheduler for one in self.replicas[first:]])
        return Handover(pool, self.requests, self.replicas, router, first)

    def _replica(self, number: int, stages: int, step_time: StepTime) -> Replica:
        fleet, traffic = self.fleet, self.traffic
        kind, settings = fleet.scheduler, fleet.settings
        most = int(_most_tokens(traffic, fleet).max())
        cache = BlockCache.of(
            fleet.blocks - kind.null_blocks, fleet.block_tokens,
            kind.most_running(settings, stages),
            kind.blocks_held(settings, most, fleet.block_tokens),
            0 if self._prefixes is None else self._prefixes.contents,
        )  # fmt: skip
        prefix = np.zeros(0, dtype=np.int32) if self._prefixes is None else self._prefixes.numbers
        scheduler = kind(settings, self.requests, prefix, cache, stages, fleet.speculation)
        return Replica(number, scheduler, stages, step_time)

    @property
    def done(self) -> bool:
        """Whether nothing is left to happen."""
        moved = self.handover is None or self.handover.done
        return not self.ends and not self.arrivals and moved

    @property
    def _next_ps(self) -> int | None:
        """When the next thing happens; None: nothing does."""
        times = [self.ends[0][0]] if self.ends else []
        if self.arrivals:
            times.append(self.arrivals[0][0])
        if self.handover is not None and self.handover.next_ps is not None:
            times.append(self.handover.next_ps)
        return min(times, default=None)

    def run(
        self, watchers: Sequence[Watcher] = (), until_ps: int | None = None,
        until_finished: int | None = None,
        on_moment: Callable[[Service], bool] | None = None,
    ) -> None:  # fmt: skip
        """Go on until all is done, or until a time or a number of finished requests.

        ``on_moment`` is called after each moment at which something happened, and says whether that
        was enough. Raises ``InputError`` where requests wait that nobody can ever take.
        """
        while (now := self._next_ps) is not None:
            if until_ps is not None and now > until_ps:
                self.now_ps = max(self.now_ps, until_ps)  # one that went on may be beyond
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
        touched: dict[int, Replica] = {}
        self._arrive(touched)
        while self.ends and self.ends[0][0] == now:
            _, _, replica, batch = heapq.heappop(self.ends)
            replica.under_way -= 1
            touched[replica.number] = replica
            self._end(replica, batch)
        if self.handover is not None:
            self._hand_over(touched, self.handover)
        self._arrive(touched)  # who asks again at once
        for replica in touched.values():
            self._make(replica, watchers)

    def _arrive(self, touched: dict[int, Replica]) -> None:
        while self.arrivals and self.arrivals[0][0] <= self.now_ps:
            _, row = heapq.heappop(self.arrivals)
            number = self.router.replica(row)
            replica = self.replicas[number]
            self.requests["replica"][row] = number
            replica.scheduler.arrive(row)
            self.arrived += 1
            touched[number] = replica

    def _hand_over(self, touched: dict[int, Replica], handover: Handover) -> None:
        """Blocks that became free take who waits for them; who has come runs."""
        for replica in list(touched.values()):
            handover.admit(replica, self.now_ps)
        for replica in handover.arrive(self.now_ps):
            touched[replica.number] = replica

    def _end(self, replica: Replica, batch: Batch) -> None:
        leaving = replica.scheduler.end(batch, self.gaps)
        if replica.scheduler.hands_over:
            assert self.handover is not None
            ended = self.requests["finish_ps"][leaving] != NONE
            for row in leaving[~ended].tolist():
                self.handover.leave(row, replica, self.now_ps)
            leaving = leaving[ended]
        self.finished += len(leaving)
        if not self._successors:
            return
        for row in leaving.tolist():
            successor = self._successors.get(row)
            if successor is not None:
                arrival = self.now_ps + int(self.traffic.pause_ps[successor])
                _check_time(arrival)
                self.requests["arrival_ps"][successor] = arrival
                heapq.heappush(self.arrivals, (arrival, successor))

    def _make(self, replica: Replica, watchers: Sequence[Watcher]) -> None:
        while replica.under_way < len(replica.free_ps):
            batch = replica.scheduler.schedule(self.now_ps, replica.steps + 1)
            while batch is None and replica.scheduler.gave_up and not replica.under_way:
                batch = replica.scheduler.schedule(self.now_ps, replica.steps + 1)
            if batch is None:
                return
            replica.steps += 1
            replica.under_way += 1
            took = replica.step_time.duration_ps(batch)
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
        for number, going in () if self.handover is None else self.handover.waiting.items():
            if going:
                one = self.requests[going[0].row]
                raise InputError(
                    f"request {one['id']} waits for ever for blocks of replica {number}: it has "
                    f"{going[0].tokens} tokens in the cache"
                )
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
    if fleet.decode is not None and not kind.takes_over:
        raise InputError(
            f"decode: scheduler {settings.name} goes on with no request that was fed elsewhere; "
            "vllm, for one, does"
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
    demand = Demand(int(traffic.prompt.max()), int(tokens.max()))
    for stages in (fleet.stages, *(() if fleet.decode is None else (fleet.decode.stages,))):
        kind.check(settings, demand, fleet.block_tokens, stages)
