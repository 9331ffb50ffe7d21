"""Schedulers: which requests go into a replica's next step. One module each, found by its name.

A module has a subclass of ``Scheduler`` by the name ``SCHEDULER``, whose ``Settings`` say what its
section of a service may hold. What it is called decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pimsim.config.plugins import load_class
from pimsim.config.service import SchedulerSettings
from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import BlockCache, blocks_of, find_shared, grow, release_slot
from pimsim.serving.ending import Speculation, end_step
from pimsim.serving.lists import append
from pimsim.serving.records import (
    ENTRY,
    NONE,
    REQUEST,
    RUNNING,
    WAITING,
    Records,
    new_lists,
    new_step,
)

__all__ = ["Batch", "Demand", "Scheduler", "load_scheduler"]


@dataclass(frozen=True)
class Demand:
    """What the requests of a service need at most: what a scheduler can be asked to take."""

    prompt: int
    """Tokens of the longest prompt."""
    tokens: int
    """Tokens of the longest prompt and output together."""


class Batch:
    """The entries of one step, in arrays that are used again for another when it has ended.

    Parameters
    ----------
    most
        Entries at most.
    asked : ``REQUEST`` records of all requests of the service, shape (requests,)
        Of which the entries have the rows.
    """

    def __init__(self, most: int, asked: Records | None = None) -> None:
        self.asked = np.zeros(0, dtype=REQUEST) if asked is None else asked
        self.entries = np.zeros(most, dtype=ENTRY)
        """``ENTRY`` records, of which the step has the first ``requests``."""
        self.step = new_step()
        """Its sums, shape (1,); the attributes below have them as they were when it was made."""
        self.preempted_ids = np.zeros(most, dtype=np.int64)
        self.finished_rows = np.zeros(most, dtype=np.int64)
        self.number = self.start_ps = self.requests = self.tokens = self.context = 0
        """Of the replica's steps, from 1; when it starts; requests that take part; tokens that are
        fed; tokens in the cache at its end, the fed ones included, over all requests."""
        self.dynamic_j = 0.0
        """Joule of the machine beyond what it takes idle, where the step time knows of energy."""
        self.preempted: NDArray[np.int64] = self.preempted_ids[:0]
        """Numbers of the requests that were put out of the cache for it."""

    def read(self) -> None:
        """Take over the sums that a scheduler wrote into ``step``."""
        (
            self.number, self.start_ps, _, self.requests, self.tokens, self.context, preempted, _,
        ) = self.step[0].item()  # fmt: skip
        self.preempted = self.preempted_ids[:preempted]

    @property
    def end_ps(self) -> int:
        """When it ends."""
        return int(self.step["end_ps"][0])

    @property
    def new_tokens(self) -> NDArray[np.int64]:
        """Tokens that are fed of each request."""
        return np.asarray(self.entries["new"][: self.requests])

    @property
    def contexts(self) -> NDArray[np.int64]:
        """Tokens in the cache at the end of the step, of each request."""
        return np.asarray(self.entries["context"][: self.requests])


class Scheduler:
    """One replica's scheduler.

    Parameters
    ----------
    settings
        Of the type that the class names.
    requests : ``REQUEST`` records of all requests of the service, shape (requests,)
    prefix
        Numbers of what their first blocks hold, one request behind the other.
    cache
        The replica's blocks.
    stages
        Steps that may be under way at once.
    speculation
        What is guessed; it must guess nothing where ``takes_drafts`` is false.
    """

    Settings: ClassVar[type[SchedulerSettings]] = SchedulerSettings
    null_blocks: ClassVar[int] = 0
    """Blocks of the cache that no request ever holds."""
    takes_drafts: ClassVar[bool] = False
    """Its steps may verify guessed tokens."""
    shares_prefixes: ClassVar[bool] = False
    """It can look for blocks of a prompt that are in the cache."""
    takes_over: ClassVar[bool] = True
    """Requests whose prompts were fed elsewhere can join those that run."""
    hands_over = False
    """Requests with their first token leave, to be gone on with elsewhere; set by who carries them
    over."""
    keeps_running: ClassVar[bool] = True
    """Requests in a step stay in the list of running ones; else they join it when it ends."""

    def __init__(
        self, settings: Any, requests: Records, prefix: NDArray[np.int32], cache: BlockCache,
        stages: int, speculation: Speculation,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.requests = requests
        self.prefix = prefix
        self.cache = cache
        self.stages = stages
        self.speculation = speculation
        self.lists = new_lists()
        self.gave_up = False
        """Somebody lost his blocks when ``schedule`` was last called."""
        self.coming = 0
        """Requests that were fed elsewhere and wait for blocks here."""
        self._spare: list[Batch] = []

    @classmethod
    def most_running(cls, settings: Any, stages: int) -> int:
        """Requests that hold blocks at once, at most, with so many steps under way."""
        raise NotImplementedError

    @classmethod
    def blocks_held(cls, settings: Any, tokens: int, size: int) -> int:
        """Blocks that a request of so many tokens in the cache holds."""
        return int(blocks_of(tokens, size))

    @classmethod
    def check(cls, settings: Any, demand: Demand, block_tokens: int, stages: int) -> None:
        """Raises ``InputError`` where it cannot serve such requests, whatever the cache holds."""

    @property
    def waiting(self) -> int:
        """Requests that wait, here or where they were fed."""
        return int(self.lists["count"][WAITING]) + self.coming

    @property
    def running(self) -> int:
        """Requests in the list of running ones."""
        return int(self.lists["count"][RUNNING])

    @property
    def outstanding(self) -> int:
        """Requests that wait, run, or are in a step."""
        return self.waiting + self.cache.holders

    def cached_blocks(self, request: int) -> int:
        """Blocks at the start of the request of that row that are in the cache."""
        one = self.requests[request]
        return int(find_shared(self.cache.found, self.prefix, one, one["prefix_blocks"]))

    def arrive(self, request: int) -> None:
        """The request of that row joins those that wait."""
        append(self.requests, self.lists[WAITING], request)

    def make_room(self, request: int, tokens: int) -> bool:
        """Let the request of that row, of which ``tokens`` were fed elsewhere, hold blocks for
        these; False: there are none, or others wait for them."""
        cache = self.cache
        held = self.blocks_held(self.settings, tokens, cache.size)
        return bool(
            _reserve(
                self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
                cache.found, request, held,
            )
        )  # fmt: skip

    def join(self, request: int) -> None:
        """The request of that row, whose blocks have been filled, runs."""
        append(self.requests, self.lists[RUNNING], request)

    def let_go(self, request: int) -> None:
        """The request of that row is told apart from the blocks that it holds, which it keeps until
        ``give_back``."""
        one = self.requests[request]
        one["slot"], one["blocks"], one["offered"] = NONE, 0, 0

    def give_back(self, slot: int, blocks: int) -> None:
        """Blocks that nobody needs here any more: so many of a row of the table."""
        cache = self.cache
        _give_back(cache.pool, cache.blocks, cache.table, cache.slots, slot, blocks)

    def schedule(self, now_ps: int, number: int) -> Batch | None:
        """Step ``number``, taken out of waiting and running requests; None: nobody can go."""
        batch = self._spare.pop() if self._spare else self.new_batch()
        batch.step["start_ps"] = now_ps
        batch.step["number"] = number
        self.choose(batch)
        batch.read()
        self.gave_up = len(batch.preempted) > 0
        if batch.requests:
            return batch
        self._spare.append(batch)
        return None

    def new_batch(self) -> Batch:
        """One that holds as many entries as a step can have."""
        return Batch(self.most_running(self.settings, self.stages), self.requests)

    def choose(self, batch: Batch) -> None:
        """Fill ``batch``: entries, sums, who was preempted. A request in it is ``flying``."""
        raise NotImplementedError

    def end(self, batch: Batch, gaps: NDArray[np.int64]) -> NDArray[np.int64]:
        """A step has ended: tokens are made, requests leave; ``gaps`` counts the times between
        tokens.

        Returns
        -------
        array
            Rows of the requests that have their last token; where it ``hands_over``, of those that
            have their first one, too.
        """
        cache = self.cache
        end_step(
            self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
            batch.entries, batch.step, batch.finished_rows, self.speculation.rules, gaps,
            self.keeps_running, self.hands_over,
        )  # fmt: skip
        self._spare.append(batch)
        return batch.finished_rows[: batch.step["finished"][0]]


@njit(cache=True)
def _reserve(
    requests: Any, lists: Any, pools: Any, blocks: Any, table: Any, slots: Any, found: Any,
    row: int, held: int,
) -> bool:  # fmt: skip
    pool = pools[0]
    if lists[WAITING].count > 0 or pool.slots < 1 or held > pool.free.count:
        return False
    grow(pool, blocks, table, slots, found, requests[row], held)
    return True


@njit(cache=True)
def _give_back(pools: Any, blocks: Any, table: Any, slots: Any, slot: int, count: int) -> None:
    release_slot(pools[0], blocks, table, slots, slot, count)


def load_scheduler(name: str) -> type[Scheduler]:
    """The scheduler of the module ``name``.

    Parameters
    ----------
    name
        Of the module.

    Raises
    ------
    InputError
        Where it is not there, or has none.
    """
    return load_class("scheduler", name, "SCHEDULER", Scheduler)
