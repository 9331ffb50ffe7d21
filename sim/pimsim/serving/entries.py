"""Entries of a step while a scheduler makes it (kernels)."""

from __future__ import annotations

from typing import Any

from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import release
from pimsim.serving.lists import push
from pimsim.serving.records import NONE, WAITING

__all__ = ["clear", "close", "put", "restart"]


@njit(cache=True)
def clear(sums: Any) -> None:
    """A step without entries.

    Parameters
    ----------
    sums
        Of the step; written.
    """
    sums.entries = 0
    sums.tokens = 0
    sums.context = 0
    sums.preempted = 0
    sums.finished = 0


@njit(cache=True)
def put(requests: Any, entries: Any, sums: Any, row: int, tokens: int, ahead: int) -> None:
    """Let the step feed ``tokens`` of the request of that row, drafts among them.

    Parameters
    ----------
    requests
        (requests,) of ``REQUEST`` records; written.
    entries
        Of the step; written.
    sums
        Of the step; written.
    row
        Of the request.
    tokens
        That the step feeds.
    ahead
        Tokens that are counted as context of a request that decodes, beyond those in the cache.
    """
    request = requests[row]
    request.entry = sums.entries
    entry = entries[sums.entries]
    entry.request = row
    entry.new = tokens
    entry.drafts = max(request.computed + tokens - request.length, 0)
    entry.context = request.computed + tokens + (ahead if request.decoding else 0)
    sums.entries += 1


@njit(cache=True)
def close(requests: Any, entries: Any, sums: Any) -> None:
    """Drop entries without tokens, add up the rest, and let the step go.

    Parameters
    ----------
    requests
        (requests,) of ``REQUEST`` records; written.
    entries
        Of the step; written.
    sums
        Of the step; written.
    """
    kept = 0
    for at in range(sums.entries):
        if entries[at].new == 0:
            continue
        if kept < at:
            entries[kept].request = entries[at].request
            entries[kept].new = entries[at].new
            entries[kept].drafts = entries[at].drafts
            entries[kept].context = entries[at].context
        entry = entries[kept]
        request = requests[entry.request]
        request.entry = NONE
        request.flying = True
        request.drafts = 0
        if request.first_scheduled_ps == NONE:
            request.first_scheduled_ps = sums.start_ps
            request.first_scheduled_step = sums.number
        sums.tokens += entry.new
        sums.context += entry.context
        kept += 1
    sums.entries = kept


@njit(cache=True)
def restart(
    requests: Any, lists: Any, pool: Any, blocks: Any, table: Any, slots: Any, sums: Any,
    preempted: Any, row: int, whole_prompt: bool,
) -> None:  # fmt: skip
    """Put a request, which is in no list, out of the cache and before all that wait. It will feed
    all of its tokens again, those that it made among them.

    Parameters
    ----------
    requests
        (requests,) of ``REQUEST`` records; written.
    lists
        Of requests, by what they wait for; written.
    pool, blocks, table, slots
        Of a ``BlockCache``; written.
    sums
        Of the step; written.
    preempted
        Takes the request's number.
    row
        Of the request.
    whole_prompt
        Unless it is set, a request whose prompt was not done feeds at once what it had fed, and the
        rest token by token.
    """
    request = requests[row]
    release(pool, blocks, table, slots, request)
    if not whole_prompt and not request.decoding:
        request.length = request.computed
    request.preemptions += 1
    request.recomputed += request.computed
    request.computed = 0
    request.decoding = False
    push(requests, lists[WAITING], row)
    preempted[sums.preempted] = request.id
    sums.preempted += 1
