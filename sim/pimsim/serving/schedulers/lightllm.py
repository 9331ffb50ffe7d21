"""LightLLM: prompts now and then, admitted by the most tokens that all will ever hold together.

As Vidur has it (microsoft/vidur 7d47513, ``lightllm_replica_scheduler.py``): blocks of one token,
no pipeline.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from pimsim.config.errors import InputError
from pimsim.config.service import MOST_TOKENS
from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import grow
from pimsim.serving.entries import clear, close, put
from pimsim.serving.lists import pop
from pimsim.serving.micro_batches import MicroBatches, MicroBatchSettings
from pimsim.serving.records import NONE, RUNNING, WAITING
from pimsim.serving.schedulers import Batch, Demand

__all__ = ["SCHEDULER", "LightLlm", "LightLlmSettings"]


class LightLlmSettings(MicroBatchSettings):
    """Prompts interrupt the tokens of others."""

    max_tokens_in_batch: int = Field(default=4096, ge=1, le=MOST_TOKENS)
    """Tokens of new prompts in a step."""
    max_waiting_iters: int = Field(default=10, ge=0, le=1_000_000)
    """Steps of next tokens after which prompts are looked at again."""


class LightLlm(MicroBatches):
    """Nobody is ever put out of the cache."""

    Settings: ClassVar = LightLlmSettings
    takes_over = False  # whom it has not admitted may need blocks that it has promised to others

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._waited = 0

    @classmethod
    def check(cls, settings: Any, demand: Demand, block_tokens: int, stages: int) -> None:
        """Tokens are counted, prompts are whole, and steps follow one another."""
        if block_tokens != 1:
            raise InputError(
                f"cache.block_tokens is {block_tokens}; scheduler {settings.name} counts tokens: 1"
            )
        if stages != 1:
            raise InputError(
                f"replicas.stages is {stages}; scheduler {settings.name} has no pipeline: 1"
            )
        if demand.prompt > settings.max_tokens_in_batch:
            raise InputError(
                f"scheduler.max_tokens_in_batch is {settings.max_tokens_in_batch}; there is a "
                f"prompt of {demand.prompt} tokens"
            )

    def choose(self, batch: Batch) -> None:
        """Prompts where nobody runs or enough steps have passed, else the next tokens."""
        if self.running == 0 or self._waited >= self.settings.max_waiting_iters:
            self._waited = 0
            self._prompts(batch)
            if batch.step["entries"][0] or self.running == 0:
                return
        self._waited += 1
        cache = self.cache
        _decode(
            self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
            cache.found, batch.entries, batch.step, self.counted_ahead,
        )  # fmt: skip

    def _prompts(self, batch: Batch) -> None:
        cache = self.cache
        _admit(
            self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
            cache.found, batch.entries, batch.step, self.most_entries,
            self.settings.max_tokens_in_batch, self.counted_ahead,
        )  # fmt: skip


@njit(cache=True)
def _peak(has: Any, left: Any, count: int) -> int:
    """Tokens that so many requests hold at most, if each makes one a step: when the one with the
    k-th most to make ends, those with as much left hold all that they have and k times its rest."""
    order = np.argsort(-left[:count], kind="mergesort")
    most = held = 0
    for place in range(count):
        held += has[order[place]]
        most = max(most, held + (place + 1) * left[order[place]])
    return most


@njit(cache=True)
def _admit(
    requests: Any, lists: Any, pools: Any, blocks: Any, table: Any, slots: Any, found: Any,
    entries: Any, step: Any, most: int, most_tokens: int, ahead: int,
) -> None:  # fmt: skip
    pool, sums = pools[0], step[0]
    waiting, running = lists[WAITING], lists[RUNNING]
    clear(sums)
    has = np.empty(running.count + most + 1, dtype=np.int64)
    left = np.empty(running.count + most + 1, dtype=np.int64)
    count = 0
    row = running.head
    while row != NONE:
        request = requests[row]
        has[count] = request.length
        left[count] = max(request.prompt + request.output - request.length - 1, 0)
        count += 1
        row = request.next
    tokens = 0
    while waiting.count > 0 and sums.entries < most and pool.slots > 0:
        row = waiting.head
        request = requests[row]
        has[count] = request.length + 1
        left[count] = max(request.prompt + request.output - request.length - 2, 0)
        count += 1
        if tokens + request.length > most_tokens or _peak(has, left, count) >= len(blocks):
            break
        pop(requests, waiting)
        grow(pool, blocks, table, slots, found, request, request.length)
        put(requests, entries, sums, row, request.length, ahead)
        tokens += request.length
    close(requests, entries, sums)


@njit(cache=True)
def _decode(
    requests: Any, lists: Any, pools: Any, blocks: Any, table: Any, slots: Any, found: Any,
    entries: Any, step: Any, ahead: int,
) -> None:  # fmt: skip
    pool, sums = pools[0], step[0]
    clear(sums)
    while lists[RUNNING].count > 0:
        row = pop(requests, lists[RUNNING])
        grow(pool, blocks, table, slots, found, requests[row], requests[row].computed + 1)
        put(requests, entries, sums, row, 1, ahead)
    close(requests, entries, sums)


SCHEDULER = LightLlm
