"""vLLM V0: a step is either new prompts, whole, or the next token of those that run.

As Vidur has it (microsoft/vidur 7d47513, ``vllm_replica_scheduler.py``).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pimsim.config.errors import InputError
from pimsim.config.service import MOST_TOKENS
from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import blocks_of, grow
from pimsim.serving.entries import clear, close, put
from pimsim.serving.lists import pop, sort_by_arrival
from pimsim.serving.micro_batches import MicroBatches, PagedSettings, decode_next
from pimsim.serving.records import RUNNING, WAITING
from pimsim.serving.schedulers import Batch, Demand

__all__ = ["SCHEDULER", "VllmV0", "VllmV0Settings"]


class VllmV0Settings(PagedSettings):
    """New prompts of a step are as wide as the longest of them."""

    max_tokens_in_batch: int = Field(default=4096, ge=1, le=MOST_TOKENS)
    """Prompts of a step times the tokens of the longest, at most."""


class VllmV0(MicroBatches):
    """Prompts first."""

    Settings: ClassVar = VllmV0Settings

    @classmethod
    def check(cls, settings: Any, demand: Demand, block_tokens: int, stages: int) -> None:
        """A prompt must fit a step."""
        if demand.prompt > settings.max_tokens_in_batch:
            raise InputError(
                f"scheduler.max_tokens_in_batch is {settings.max_tokens_in_batch}; there is a "
                f"prompt of {demand.prompt} tokens"
            )

    def choose(self, batch: Batch) -> None:
        """New prompts while they fit, else the next tokens."""
        cache = self.cache
        _choose(
            self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
            cache.found, batch.entries, batch.step, batch.preempted_ids, self.most_entries,
            self.reserve, self.settings.max_tokens_in_batch, self.restarts_whole_prompts,
            self.counted_ahead,
        )  # fmt: skip


@njit(cache=True)
def _choose(
    requests: Any, lists: Any, pools: Any, blocks: Any, table: Any, slots: Any, found: Any,
    entries: Any, step: Any, preempted: Any, most: int, reserve: int, most_tokens: int,
    whole_prompts: bool, ahead: int,
) -> None:  # fmt: skip
    pool, sums = pools[0], step[0]
    waiting, running = lists[WAITING], lists[RUNNING]
    clear(sums)
    longest = 0
    while waiting.count > 0 and sums.entries < most and pool.slots > 0:
        request = requests[waiting.head]
        held = blocks_of(request.length, pool.tokens)
        longest = max(longest, request.length)
        if pool.free.count - held < reserve or (sums.entries + 1) * longest > most_tokens:
            break
        grow(pool, blocks, table, slots, found, request, held)
        put(requests, entries, sums, pop(requests, waiting), request.length, ahead)
    if sums.entries == 0:
        sort_by_arrival(requests, running)
        while running.count > 0 and sums.entries < most:
            decode_next(
                requests, lists, pool, blocks, table, slots, found, entries, sums, preempted,
                pop(requests, running), whole_prompts, ahead,
            )  # fmt: skip
    close(requests, entries, sums)


SCHEDULER = VllmV0
