"""The end of a step: tokens are made, drafts are accepted or not, requests leave (kernel)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pimsim.hardware.compiled import njit
from pimsim.serving.blocks import release
from pimsim.serving.gaps import note_gap
from pimsim.serving.lists import append, remove
from pimsim.serving.records import NONE, RUNNING

__all__ = ["Speculation", "accepted_drafts", "end_step"]

_FIXED, _CYCLE, _RATE = 0, 1, 2
_RULES = np.dtype(
    [("drafts", np.int64), ("kind", np.int64), ("count", np.int64), ("rate", np.float64),
     ("seed", np.uint64)]
)  # fmt: skip


class Speculation:
    """How many tokens are guessed after each step that made one, and which of them are right.

    Parameters
    ----------
    drafts
        Guessed tokens of a request; 0: none.
    accept
        Accepted at most; ``mix``: request ``id`` accepts ``(7 id + 13 j) mod (drafts + 1)`` in its
        j-th verification; a number below 1: each draft is right with that probability, up to the
        first that is not.
    seed
        Of the draws.
    """

    def __init__(self, drafts: int = 0, accept: int | float | str = 0, seed: int = 0) -> None:
        kind, count, rate = _FIXED, 0, 0.0
        if accept == "mix":
            kind = _CYCLE
        elif isinstance(accept, float):
            kind, rate = _RATE, accept
        else:
            count = int(accept)
        self.drafts = drafts
        self.rules = np.array([(drafts, kind, count, rate, seed)], dtype=_RULES)


@njit(cache=True)
def _uniform(seed: int, one: int, other: int, third: int) -> float:
    """Even in [0, 1), by the finaliser of SplitMix64 (Steele et al. 2014) over a key's parts."""
    state = np.uint64(seed)
    for part in (one, other, third):
        state = (state ^ np.uint64(part)) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state = state ^ (state >> np.uint64(31))
    return float(state >> np.uint64(11)) * 2.0**-53


@njit(cache=True)
def accepted_drafts(rules: Any, number: int, verification: int, drafts: int) -> int:
    """Of so many drafts of request ``number`` in its verification (from 1), those accepted.

    Parameters
    ----------
    rules
        Record of a ``Speculation``: which law says it, with its numbers.
    number
        Of the request.
    verification
        From 1.
    drafts
        That the step fed.
    """
    if rules.kind == _CYCLE:
        return int(min(drafts, (7 * number + 13 * verification) % (rules.drafts + 1)))
    if rules.kind == _RATE:
        for at in range(drafts):
            if _uniform(rules.seed, number, verification, at) >= rules.rate:
                return at
        return drafts
    return int(min(drafts, rules.count))


@njit(cache=True)
def end_step(
    requests: Any, lists: Any, pool: Any, blocks: Any, table: Any, slots: Any, entries: Any,
    step: Any, finished: Any, speculation: Any, gaps: Any, keeps_running: bool, hands_over: bool,
) -> None:  # fmt: skip
    """Carry out the end of a step.

    A request all of whose known tokens have been fed makes one more, and one for each draft that is
    accepted; what goes beyond its output is dropped.

    Parameters
    ----------
    requests
        (requests,) of ``REQUEST`` records; written.
    lists
        Of requests, by what they wait for; written.
    pool, blocks, table, slots
        Of a ``BlockCache``; written.
    entries
        Of the step.
    step
        (1,): its sums and its times; written.
    finished
        Takes the rows of requests that end, and, where ``hands_over``, of those that have their
        first token, which keep their blocks.
    speculation
        (1,) record of a ``Speculation``: how drafts are accepted.
    gaps
        Histogram of the times between tokens; written.
    keeps_running
        Whether requests of a step stay in the list of running ones.
    hands_over
        Whether requests go to another pool with their first token.
    """
    sums = step[0]
    now_ps, number = sums.end_ps, sums.number
    sums.finished = 0
    for at in range(sums.entries):
        entry = entries[at]
        request = requests[entry.request]
        request.flying = False
        request.computed += entry.new
        if request.computed - entry.drafts < request.length:  # more of the prompt is to come
            if not keeps_running:
                append(requests, lists[RUNNING], entry.request)
            continue
        accepted = 0
        if entry.drafts > 0:
            request.verifications += 1
            accepted = accepted_drafts(
                speculation[0], request.id, request.verifications, entry.drafts
            )
            request.accepted += accepted
            request.computed -= entry.drafts - accepted
        made = min(accepted + 1, request.prompt + request.output - request.length)
        request.rejected += entry.drafts - (made - 1)
        request.length += made
        request.decoding = True
        request.drafts = speculation[0].drafts
        if request.first_token_ps == NONE:
            request.first_token_ps = now_ps
            request.first_token_step = number
        else:
            gap_ps = now_ps - request.last_token_ps
            request.longest_gap_ps = max(request.longest_gap_ps, gap_ps)
            note_gap(gaps, gap_ps, 1)
        if made > 1:  # they come at once
            note_gap(gaps, 0, made - 1)
        request.last_token_ps = now_ps
        if request.length == request.prompt + request.output:
            request.finish_ps = now_ps
            request.finish_step = number
            release(pool[0], blocks, table, slots, request)
            if keeps_running:
                remove(requests, lists[RUNNING], entry.request)
            finished[sums.finished] = entry.request
            sums.finished += 1
        elif hands_over:
            if keeps_running:
                remove(requests, lists[RUNNING], entry.request)
            finished[sums.finished] = entry.request
            sums.finished += 1
        elif not keeps_running:
            append(requests, lists[RUNNING], entry.request)
