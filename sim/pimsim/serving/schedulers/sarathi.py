"""Sarathi: next tokens first, then prompts in pieces, up to a number of tokens a step.

As Vidur has it (microsoft/vidur 7d47513, ``sarathi_replica_scheduler.py``); Agrawal et al.,
OSDI 2024.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pimsim.config.service import MOST_TOKENS
from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import blocks_of, grow
from pimsim.serving.entries import clear, close, put
from pimsim.serving.lists import append, pop, remove, sort_by_arrival
from pimsim.serving.micro_batches import MicroBatches, PagedSettings, decode_next
from pimsim.serving.records import ASIDE, NONE, RUNNING, WAITING
from pimsim.serving.schedulers import Batch

__all__ = ["SCHEDULER", "Sarathi", "SarathiSettings"]


class SarathiSettings(PagedSettings):
    """Prompts in pieces."""

    chunk: int = Field(default=512, ge=1, le=MOST_TOKENS)
    """Tokens of a step up to which pieces of prompts join it."""


class Sarathi(MicroBatches):
    """Decodes do not wait for prompts."""

    Settings: ClassVar = SarathiSettings

    def choose(self, batch: Batch) -> None:
        """Next tokens, then prompts that have begun, then new ones."""
        cache = self.cache
        _choose(
            self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
            cache.found, batch.entries, batch.step, batch.preempted_ids, self.most_entries,
            self.reserve, self.settings.chunk, self.restarts_whole_prompts,
            self.counted_ahead,
        )  # fmt: skip


@njit(cache=True)
def _choose(
    requests: Any, lists: Any, pools: Any, blocks: Any, table: Any, slots: Any, found: Any,
    entries: Any, step: Any, preempted: Any, most: int, reserve: int, chunk: int,
    whole_prompts: bool, ahead: int,
) -> None:  # fmt: skip
    pool, sums = pools[0], step[0]
    waiting, running, begun = lists[WAITING], lists[RUNNING], lists[ASIDE]
    clear(sums)
    budget = chunk
    while running.count > 0 and sums.entries < most:
        row = pop(requests, running)
        if not requests[row].decoding:
            append(requests, begun, row)
        elif decode_next(
            requests,
            lists,
            pool,
            blocks,
            table,
            slots,
            found,
            entries,
            sums,
            preempted,
            row,
            whole_prompts,
            ahead,
        ):
            budget -= 1
    row = begun.head
    while row != NONE:
        behind = requests[row].next
        tokens = min(requests[row].length - requests[row].computed, budget)
        if tokens > 0:
            remove(requests, begun, row)
            put(requests, entries, sums, row, tokens, ahead)
            budget -= tokens
        row = behind
    # who was passed over comes before who was not looked at
    while running.count > 0:
        append(requests, begun, pop(requests, running))
    while begun.count > 0:
        append(requests, running, pop(requests, begun))
    sort_by_arrival(requests, running)
    # prompts that had begun may be more than ``most``: then new ones are not held back
    while waiting.count > 0 and pool.slots > 0 and sums.entries != most and budget > 0:
        row = waiting.head
        request = requests[row]
        held = blocks_of(request.length, pool.tokens)
        if pool.free.count - held < reserve:
            break
        pop(requests, waiting)
        grow(pool, blocks, table, slots, found, request, held)
        tokens = min(request.length, budget)
        put(requests, entries, sums, row, tokens, ahead)
        budget -= tokens
    close(requests, entries, sums)


SCHEDULER = Sarathi
