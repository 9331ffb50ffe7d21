"""Static batches: requests start together, and nobody joins until all of them have ended.

What FasterTransformer and the first servers did (the baseline of Yu et al., OSDI 2022, section 2):
a batch's prompts in one step, whole, then one token of each a step. A request that ends early
leaves its answer, and its place stays empty.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import blocks_of, grow
from pimsim.serving.entries import clear, close, put
from pimsim.serving.lists import pop
from pimsim.serving.micro_batches import MicroBatches, MicroBatchSettings
from pimsim.serving.records import RUNNING, WAITING
from pimsim.serving.schedulers import Batch

__all__ = ["SCHEDULER", "Static", "StaticSettings"]


class StaticSettings(MicroBatchSettings):
    """As many requests as ``batch_cap`` says, or as fit the cache with all that they will make."""


class Static(MicroBatches):
    """One batch after the other in each stage of the pipeline."""

    Settings: ClassVar = StaticSettings
    takes_over = False

    def choose(self, batch: Batch) -> None:
        """The next tokens of the batch that is back, else a new batch."""
        cache = self.cache
        _choose(
            self.requests, self.lists, cache.pool, cache.blocks, cache.table, cache.slots,
            cache.found, batch.entries, batch.step, self.most_entries,
        )  # fmt: skip


@njit(cache=True)
def _choose(
    requests: Any, lists: Any, pools: Any, blocks: Any, table: Any, slots: Any, found: Any,
    entries: Any, step: Any, most: int,
) -> None:  # fmt: skip
    pool, sums = pools[0], step[0]
    waiting, running = lists[WAITING], lists[RUNNING]
    clear(sums)
    while running.count > 0:
        put(requests, entries, sums, pop(requests, running), 1, 0)
    starts = sums.entries == 0
    while starts and waiting.count > 0 and sums.entries < most and pool.slots > 0:
        request = requests[waiting.head]
        held = blocks_of(request.prompt + request.output - 1, pool.tokens)
        if held > pool.free.count:
            break
        grow(pool, blocks, table, slots, found, request, held)
        put(requests, entries, sums, pop(requests, waiting), request.prompt, 0)
    close(requests, entries, sums)


SCHEDULER = Static
