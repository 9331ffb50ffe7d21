"""Two pools: some replicas feed prompts, others make the tokens behind the first.

Where a prompt has been fed, which makes its first token, a replica of the other pool is chosen.
When that one has blocks for the keys and values (those who came before are served before), these go
over the links, and when the last byte has come the request runs there. Until then it keeps its
blocks where it was fed. Who is put out of the cache there is fed again there.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

from pimsim.serving.records import Records
from pimsim.serving.replica import Replica
from pimsim.serving.routers import Router
from pimsim.serving.step_times import StepTime

__all__ = ["DecodePool", "Handover", "Links", "Transfer"]


@dataclass(frozen=True)
class Links:
    """Links between replicas, all alike: each carries one message after the other, in the order in
    which they come to it, and a node stores a message before it sends it on."""

    paths: Mapping[tuple[int, int], tuple[int, ...]]
    """Links that a message goes over, by the replicas that it is from and for."""
    count: int
    bytes_per_ps: Fraction | None
    """None: what is sent is there at once."""
    latency_ps: int = 0
    """Of each."""

    def keeps_ps(self, size: int) -> int:
        """How long a message of ``size`` bytes keeps a link from the next one, rounded up."""
        return 0 if self.bytes_per_ps is None else ceil(size / self.bytes_per_ps)


@dataclass(frozen=True)
class DecodePool:
    """The replicas that make all tokens but the first, all alike."""

    step_time: StepTime
    router: type[Router]
    replicas: int
    stages: int
    links: Links
    """From replicas 0, 1 ... of those that feed prompts, to those behind them."""
    token_bytes: int
    """Keys and values of a token."""


@dataclass
class Transfer:
    """A request on its way."""

    row: int
    source: int
    """Number of the replica that it is from."""
    target: int
    slot: int
    """Its row of the table of blocks there."""
    blocks: int
    """That it holds there."""
    tokens: int
    """Whose keys and values are sent."""
    hops: int = 0
    """Links that it has come over, or is on."""


@dataclass
class Handover:
    """Moves requests from one pool to the other."""

    pool: DecodePool
    requests: Records
    replicas: Sequence[Replica]
    """Of both pools."""
    router: Router
    """Of the second pool, which begins with replica ``first``."""
    first: int
    waiting: dict[int, list[Transfer]] = field(init=False)
    """Who waits for blocks, by the replica that is to have them."""
    moving: list[tuple[int, int, Transfer]] = field(default_factory=list)
    """When each comes to its next node, and which one it is of all events."""
    free_ps: list[int] = field(init=False)
    """When each link has sent what it was given."""
    busy_ps: list[int] = field(init=False)
    """How long each link was kept, in all."""
    sent_bytes: int = 0
    events: int = 0

    def __post_init__(self) -> None:
        self.waiting = {one.number: [] for one in self.replicas[self.first :]}
        self.free_ps = [0] * self.pool.links.count
        self.busy_ps = [0] * self.pool.links.count

    @property
    def done(self) -> bool:
        """Whether nobody is on the way."""
        return not self.moving and not any(self.waiting.values())

    @property
    def next_ps(self) -> int | None:
        """When the next message comes to a node."""
        return self.moving[0][0] if self.moving else None

    def leave(self, row: int, source: Replica, now_ps: int) -> None:
        """The request of that row has its first token and goes to the other pool."""
        request = self.requests[row]
        target = self.first + self.router.replica(row)
        going = Transfer(
            row, source.number, target, int(request["slot"]), int(request["blocks"]),
            int(request["computed"]),
        )  # fmt: skip
        source.scheduler.let_go(row)
        request["replica"], request["prefill_replica"] = target, source.number
        self.waiting[target].append(going)
        self.replicas[target].scheduler.coming += 1
        self.admit(self.replicas[target], now_ps)

    def admit(self, replica: Replica, now_ps: int) -> None:
        """Send off those for whom ``replica``, of the second pool, has blocks now."""
        waiting = self.waiting.get(replica.number)
        while waiting and replica.scheduler.make_room(waiting[0].row, waiting[0].tokens):
            going = waiting.pop(0)
            replica.scheduler.coming -= 1
            self.requests["kv_sent_ps"][going.row] = now_ps
            self.sent_bytes += going.tokens * self.pool.token_bytes
            self._send(going, now_ps)

    def arrive(self, now_ps: int) -> list[Replica]:
        """All messages that come to a node now go on, or are there: their requests run.

        Returns
        -------
        list
            Replicas where something changed.
        """
        touched: list[Replica] = []
        while self.moving and self.moving[0][0] == now_ps:
            _, _, going = heapq.heappop(self.moving)
            if going.hops < len(self._path(going)):
                self._send(going, now_ps)
                continue
            source, target = self.replicas[going.source], self.replicas[going.target]
            source.scheduler.give_back(going.slot, going.blocks)
            self.requests["kv_arrived_ps"][going.row] = now_ps
            target.scheduler.join(going.row)
            touched += [source, target]
        return touched

    def _path(self, going: Transfer) -> tuple[int, ...]:
        return self.pool.links.paths[going.source, going.target]

    def _send(self, going: Transfer, now_ps: int) -> None:
        """Over the next link, when those before it have been sent."""
        path, links = self._path(going), self.pool.links
        when = now_ps
        if links.bytes_per_ps is None:
            going.hops = len(path)
        else:
            link = path[going.hops]
            keeps = links.keeps_ps(going.tokens * self.pool.token_bytes)
            self.free_ps[link] = max(now_ps, self.free_ps[link]) + keeps
            self.busy_ps[link] += keeps
            when = self.free_ps[link] + links.latency_ps
            going.hops += 1
        self.events += 1
        heapq.heappush(self.moving, (when, self.events, going))

    def state(self) -> dict[str, Any]:
        """What has happened, as plain values."""
        return {
            "waiting": {str(at): [vars(one) for one in each] for at, each in self.waiting.items()},
            "moving": [[time, event, vars(going)] for time, event, going in self.moving],
            "free_ps": self.free_ps, "busy_ps": self.busy_ps, "sent_bytes": self.sent_bytes,
            "events": self.events,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put in what ``state`` gave."""
        for at, each in state["waiting"].items():
            self.waiting[int(at)] = [Transfer(**one) for one in each]
        self.moving = [(time, event, Transfer(**one)) for time, event, one in state["moving"]]
        heapq.heapify(self.moving)
        for name in ("free_ps", "busy_ps", "sent_bytes", "events"):
            setattr(self, name, state[name])
