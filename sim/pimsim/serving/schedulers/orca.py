"""Orca: requests join and leave from step to step; each holds room for the longest possible one.

As Vidur has it (microsoft/vidur 7d47513, ``orca_replica_scheduler.py``); Yu et al., OSDI 2022.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pimsim.config.errors import InputError
from pimsim.config.service import MOST_TOKENS
from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import blocks_of, grow
from pimsim.serving.entries import clear, close, put
from pimsim.serving.lists import pop
from pimsim.serving.micro_batches import MicroBatches, MicroBatchSettings
from pimsim.serving.records import RUNNING, WAITING
from pimsim.serving.schedulers import Batch, Demand

__all__ = ["SCHEDULER", "Orca", "OrcaSettings"]


class OrcaSettings(MicroBatchSettings):
    """Room is reserved, never taken back."""

    max_tokens: int = Field(default=4096, ge=1, le=MOST_TOKENS)
    """Tokens for which each request holds blocks."""


class Orca(MicroBatches):
    """Iteration-level scheduling."""

    Settings: ClassVar = OrcaSettings

    @classmethod
    def blocks_held(cls, settings: Any, tokens: int, size: int) -> int:
        """As many for each: those of the longest possible one."""
        return int(blocks_of(settings.max_tokens, size))

    @classmethod
    def check(cls, settings: Any, demand: Demand, block_tokens: int, stages: int) -> None:
        """No request may be longer than what is held for it."""
        if demand.tokens > settings.max_tokens:
            raise InputError(
                f"scheduler.max_tokens is {settings.max_tokens}; there is a request of "
                f"{demand.tokens} tokens"
            )
        held = cls.blocks_held(settings, demand.tokens, block_tokens) * block_tokens
        if demand.tokens - 1 > held:  # the last one is never fed
            raise InputError(
                f"scheduler.max_tokens is {settings.max_tokens}: blocks of {block_tokens} tokens "
                f"hold {held} of each request; there is one of {demand.tokens}"
            )

    @classmethod
    def most_running(cls, settings: Any, stages: int) -> int:
        """As many in each of the steps under way."""
        return int(settings.batch_cap) * stages

    @property
    def most_entries(self) -> int:
        """Requests of one micro-batch."""
        return int(self.settings.batch_cap)

    def choose(self, batch: Batch) -> None:
        """Who runs, then who waits while there is room."""
        cache = self.cache
        _choose(
            self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
            cache.found, batch.entries, batch.step, self.most_entries,
            self.blocks_held(self.settings, 0, cache.size), self.counted_ahead,
        )  # fmt: skip


@njit(cache=True)
def _choose(
    requests: Any, lists: Any, pools: Any, blocks: Any, table: Any, slots: Any, found: Any,
    entries: Any, step: Any, most: int, held: int, ahead: int,
) -> None:  # fmt: skip
    pool, sums = pools[0], step[0]
    waiting, running = lists[WAITING], lists[RUNNING]
    clear(sums)
    while running.count > 0 and sums.entries < most:
        put(requests, entries, sums, pop(requests, running), 1, ahead)
    while waiting.count > 0 and sums.entries < most and pool.free.count >= held and pool.slots > 0:
        row = pop(requests, waiting)
        grow(pool, blocks, table, slots, found, requests[row], held)
        put(requests, entries, sums, row, requests[row].length, ahead)
    close(requests, entries, sums)


SCHEDULER = Orca
