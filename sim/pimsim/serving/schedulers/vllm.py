"""vLLM V1: one budget of tokens a step, whoever runs first, prompts in pieces.

The rules are those of vLLM 0.33 (``vllm/v1/core/sched/scheduler.py``), synchronous scheduling:
running requests in the order in which they were admitted, then, if nobody had to give up his
blocks, those that wait, none before the first of them. A request whose blocks do not fit puts
another one out of the cache, which feeds all of its tokens again later.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from pimsim.config.errors import InputError
from pimsim.config.service import MOST_RUNNING, MOST_TOKENS, SchedulerSettings
from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import (
    BlockCache,
    blocks_of,
    find_shared,
    grow,
    hold_shared,
    idle_among,
    offer,
    release,
)
from pimsim.serving.ending import Speculation
from pimsim.serving.entries import clear, close, put
from pimsim.serving.lists import append, insert_before, pop, push, remove
from pimsim.serving.records import NONE, RUNNING, WAITING, Records
from pimsim.serving.schedulers import Batch, Demand, Scheduler

__all__ = ["SCHEDULER", "Vllm", "VllmSettings"]


def _as_text(version: object) -> object:
    """YAML reads ``0.33`` without quotes as a number."""
    return f"{version:g}" if isinstance(version, float) else version


class VllmSettings(SchedulerSettings):
    """vLLM's own names, without ``enable_`` and ``scheduler_``, and defaults, but that
    ``prefix_caching`` and ``reserve_full_isl`` are on there."""

    max_num_seqs: int = Field(default=256, ge=1, le=MOST_RUNNING)
    """Requests that run at once."""
    max_num_batched_tokens: int = Field(default=2048, ge=1, le=MOST_TOKENS)
    """Tokens that a step feeds, at most."""
    max_model_len: int | None = Field(default=None, ge=1, le=MOST_TOKENS)
    """Tokens that a request may have; None: as many as it asks for."""
    policy: Literal["fcfs", "priority"] = "fcfs"
    """Who waits and who gives up his blocks: by arrival, or by the ``priority`` of the requests
    (the smaller the sooner) and then by arrival."""
    chunked_prefill: bool = True
    """Prompts go in pieces; else one waits until the rest of a step's tokens holds it whole."""
    long_prefill_token_threshold: int = Field(default=0, ge=0, le=MOST_TOKENS)
    """Tokens of one request in a step, at most, while there are others; 0: no limit."""
    prefix_caching: bool = False
    """Blocks at the start of a prompt that are in the cache are not computed again."""
    reserve_full_isl: bool = False
    """Nobody is admitted whose whole prompt does not fit the blocks that are free then."""
    version: Annotated[Literal["0.33", "0.19"], BeforeValidator(_as_text)] = "0.33"
    """Of vLLM. In 0.19 the threshold holds for a request alone, too, and by priority a request that
    gives up its own blocks is the last that is looked at."""


_RULES = np.dtype(
    [
        ("seqs", np.int64),
        ("tokens", np.int64),
        ("model_len", np.int64),
        ("threshold", np.int64),
        ("by_priority", np.bool_),
        ("chunked", np.bool_),
        ("sharing", np.bool_),
        ("whole_prompt", np.bool_),
        ("early", np.bool_),  # of version 0.19
    ]
)


class Vllm(Scheduler):
    """The V1 engine's scheduler."""

    Settings: ClassVar = VllmSettings
    null_blocks = 1
    takes_drafts = True
    shares_prefixes = True

    def __init__(
        self, settings: VllmSettings, requests: Records, prefix: NDArray[np.int32],
        cache: BlockCache, stages: int, speculation: Speculation,
    ) -> None:  # fmt: skip
        super().__init__(settings, requests, prefix, cache, stages, speculation)
        longest = settings.max_model_len or np.iinfo(np.int64).max
        self._rules = np.array(
            [(
                settings.max_num_seqs, settings.max_num_batched_tokens, longest,
                settings.long_prefill_token_threshold, settings.policy == "priority",
                settings.chunked_prefill, settings.prefix_caching, settings.reserve_full_isl,
                settings.version == "0.19",
            )], dtype=_RULES,
        )  # fmt: skip

    @classmethod
    def most_running(cls, settings: Any, stages: int) -> int:
        """Requests that run at once."""
        return int(settings.max_num_seqs)

    @classmethod
    def check(cls, settings: Any, demand: Demand, block_tokens: int, stages: int) -> None:
        """Prompts must fit a step where they go whole."""
        limit = settings.max_num_batched_tokens
        piece = settings.long_prefill_token_threshold
        whole = not settings.chunked_prefill and not 0 < piece <= limit
        if whole and demand.prompt > limit:
            raise InputError(
                f"scheduler.chunked_prefill is false: a prompt of {demand.prompt} tokens never "
                f"fits a step; scheduler.max_num_batched_tokens is {limit}"
            )

    def arrive(self, request: int) -> None:
        """At the end of those that wait, or at its place by priority."""
        _wait(self.requests, self.lists, request, self.settings.policy == "priority")

    def choose(self, batch: Batch) -> None:
        """Running requests, then waiting ones."""
        cache = self.cache
        _choose(
            self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
            cache.found, self.prefix, batch.entries, batch.step, batch.preempted_ids, self._rules,
        )  # fmt: skip


@njit(cache=True)
def _is_before(one: Any, other: Any) -> bool:
    """Whether request ``one`` is served before ``other``, by priority."""
    if one.priority != other.priority:
        return bool(one.priority < other.priority)
    if one.arrival_ps != other.arrival_ps:
        return bool(one.arrival_ps < other.arrival_ps)
    return bool(one.id < other.id)


@njit(cache=True)
def _wait(requests: Any, lists: Any, request: int, by_priority: bool) -> None:
    """``request`` joins those that wait: the last, or where its priority puts it."""
    behind = NONE
    if by_priority:
        before = lists[WAITING].tail
        while before != NONE and _is_before(requests[request], requests[before]):
            behind, before = before, requests[before].previous
    insert_before(requests, lists[WAITING], behind, request)


@njit(cache=True)
def _victim(requests: Any, lists: Any, by_priority: bool) -> int:
    """Who gives up his blocks: the last that was admitted, or of the largest priority number the
    last that arrived."""
    found = lists[RUNNING].tail
    at = found if by_priority else NONE
    while at != NONE:
        one, last = requests[at], requests[found]
        if (one.priority, one.arrival_ps) >= (last.priority, last.arrival_ps):
            found = at
        at = one.previous
    return int(found)


@njit(cache=True)
def _preempt(
    requests: Any, lists: Any, pool: Any, blocks: Any, table: Any, slots: Any, victim: int,
    by_priority: bool,
) -> None:  # fmt: skip
    """Put ``victim`` out of the cache and back to those that wait, before all of them."""
    one = requests[victim]
    remove(requests, lists[RUNNING], victim)
    release(pool, blocks, table, slots, one)
    one.preemptions += 1
    one.recomputed += one.computed
    one.computed = 0
    one.drafts = 0
    one.decoding = False
    if by_priority:
        _wait(requests, lists, victim, True)
    else:
        push(requests, lists[WAITING], victim)


@njit(cache=True)
def _limited(tokens: int, rules: Any, alone: bool) -> int:
    """What a long prompt may take of a step beside others."""
    if 0 < rules.threshold < tokens and not alone:
        return int(rules.threshold)
    return tokens


@njit(cache=True)
def _choose(
    requests: Any, lists: Any, pools: Any, blocks: Any, table: Any, slots: Any, found: Any,
    prefix: Any, entries: Any, step: Any, preempted: Any, all_rules: Any,
) -> None:  # fmt: skip
    """Fill ``entries`` and the sums of ``step``; ``preempted`` takes the numbers of who must go."""
    rules, pool, sums = all_rules[0], pools[0], step[0]
    clear(sums)
    budget = rules.tokens
    alone = lists[RUNNING].count + lists[WAITING].count <= 1 and not rules.early

    stuck = False
    row = lists[RUNNING].head
    while row != NONE and budget > 0:
        request = requests[row]
        tokens = _limited(request.length + request.drafts - request.computed, rules, alone)
        tokens = min(tokens, budget, rules.model_len - 1 - request.computed)
        if request.flying or tokens <= 0:
            row = request.next
            continue
        held = request.blocks  # mostly enough, and a division is most of what a decode takes
        if request.computed + tokens > held * pool.tokens:
            held = blocks_of(request.computed + tokens, pool.tokens)
        behind = request.next
        gave_up = False
        while held - request.blocks > pool.free.count and not gave_up:
            victim = _victim(requests, lists, rules.by_priority)
            one = requests[victim]
            stuck = one.flying  # until his step ends
            if stuck:
                break
            gave_up = victim == row
            if one.entry != NONE:  # it was in this step: what it had is free for others
                budget += entries[one.entry].new
                entries[one.entry].new = 0
                one.entry = NONE
            if victim == behind:
                behind = one.next
            _preempt(requests, lists, pool, blocks, table, slots, victim, rules.by_priority)
            preempted[sums.preempted] = one.id
            sums.preempted += 1
        if stuck:
            break
        if gave_up:
            if not rules.by_priority or rules.early:
                break
            row = behind
            continue
        if held > request.blocks:
            grow(pool, blocks, table, slots, found, request, held)
        if rules.sharing:
            offer(blocks, table, found, prefix, request, request.computed + tokens, pool.tokens)
        put(requests, entries, sums, row, tokens, 0)
        budget -= tokens
        row = request.next

    admits = sums.preempted == 0 and not stuck
    # blocks of who has left, or has not come yet, are held by requests that do not run
    while (
        admits and budget > 0 and lists[WAITING].count > 0 and lists[RUNNING].count < rules.seqs
        and pool.slots > 0
    ):  # fmt: skip
        row = lists[WAITING].head
        request = requests[row]
        hits = idle = 0
        if rules.sharing:  # one token is always computed
            hits = find_shared(found, prefix, request, (request.length - 1) // pool.tokens)
            idle = idle_among(blocks, found, prefix, request, hits)
        cached = hits * pool.tokens
        tokens = _limited(request.length - cached, rules, alone)
        if not rules.chunked and tokens > budget:
            break
        tokens = min(tokens, budget)
        held = blocks_of(cached + tokens, pool.tokens)
        whole = blocks_of(request.length, pool.tokens) if rules.whole_prompt else held
        if max(held, whole) - hits + idle > pool.free.count:
            break
        append(requests, lists[RUNNING], pop(requests, lists[WAITING]))
        hold_shared(pool, blocks, table, slots, found, prefix, request, hits)
        if request.preemptions == 0:
            request.cached = cached
        else:
            request.recomputed -= cached
        request.computed = cached
        grow(pool, blocks, table, slots, found, request, held)
        if rules.sharing:
            offer(blocks, table, found, prefix, request, cached + tokens, pool.tokens)
        put(requests, entries, sums, row, tokens, 0)
        budget -= tokens

    close(requests, entries, sums)


SCHEDULER = Vllm
