"""What schedulers share whose steps are made of requests that are in no other step.

A pipeline of several stages has as many such micro-batches under way (Vidur's replica schedulers,
microsoft/vidur 7d47513). Blocks are held for whole prompts; a request that decodes needs one free
block to go on, whether its token fits the last one or not.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from pimsim.config.service import MOST_RUNNING, SchedulerSettings
from pimsim.config.units import Share
from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import blocks_of, grow
from pimsim.serving.entries import put, restart
from pimsim.serving.lists import remove
from pimsim.serving.records import RUNNING
from pimsim.serving.schedulers import Scheduler

__all__ = ["MicroBatchSettings", "MicroBatches", "PagedSettings", "decode_next"]


class MicroBatchSettings(SchedulerSettings):
    """Of every scheduler of micro-batches."""

    batch_cap: int = Field(default=128, ge=1, le=MOST_RUNNING)
    """Requests that hold blocks at once; the stages of a pipeline share them (of ``orca`` each has
    as many)."""


class PagedSettings(MicroBatchSettings):
    """Of those that take blocks as they need them."""

    watermark: Share = Field(default=0.01, ge=0, lt=1)
    """Part of the blocks that stays free when a request is admitted."""


class MicroBatches(Scheduler):
    """A scheduler of micro-batches."""

    Settings: ClassVar = MicroBatchSettings
    keeps_running = False
    restarts_whole_prompts: ClassVar[bool] = True
    """A request that is put out within its prompt feeds all of it again."""
    counted_ahead: ClassVar[int] = 0
    """Tokens of a request that decodes which count as context although they are not in the cache
    when the step ends."""

    @classmethod
    def most_running(cls, settings: Any, stages: int) -> int:
        """Requests that hold blocks at once."""
        return int(settings.batch_cap)

    @property
    def most_entries(self) -> int:
        """Requests of one micro-batch."""
        return int(self.settings.batch_cap) // self.stages

    @property
    def reserve(self) -> int:
        """Blocks that stay free when a request is admitted."""
        return int(self.settings.watermark * self.cache.count)


@njit(cache=True)
def decode_next(
    requests: Any, lists: Any, pool: Any, blocks: Any, table: Any, slots: Any, found: Any,
    entries: Any, sums: Any, preempted: Any, row: int, whole_prompts: bool, ahead: int,
) -> bool:  # fmt: skip
    """Let a request that was taken from the running ones make its next token. Without a free block
    the last of those that are left starts anew, without any it does itself.

    Parameters
    ----------
    requests
        (requests,) of ``REQUEST`` records; written.
    lists
        Of requests, by what they wait for; written.
    pool, blocks, table, slots, found
        Of a ``BlockCache``; written.
    entries
        Of the step; written.
    sums
        Of the step; written.
    preempted
        Takes the numbers of requests that start anew.
    row
        Of the request.
    whole_prompts
        As of ``entries.restart``.
    ahead
        As of ``entries.put``.

    Returns
    -------
    bool
        Whether it is in the step.
    """
    running = lists[RUNNING]
    while pool.free.count < 1:
        last = running.tail if running.count > 0 else row
        if last != row:
            remove(requests, running, last)
        restart(requests, lists, pool, blocks, table, slots, sums, preempted, last, whole_prompts)
        if last == row:
            return False
    request = requests[row]
    grow(pool, blocks, table, slots, found, request, blocks_of(request.computed + 1, pool.tokens))
    put(requests, entries, sums, row, 1, ahead)
    return True
