"""Where a step lies between anchors, and what is between them (kernels)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pimsim.hardware.compiled import njit

__all__ = ["DECODE", "MIXED", "PROMPT", "measure", "step_between"]

DECODE, PROMPT, MIXED, ALONE = range(4)
"""Tables of anchors: requests that decode; prompts; both; the prompts of these alone."""


@njit(cache=True)
def measure(
    entries: Any, count: int, asked: Any, channel: Any, work: Any, pim_tokens: int, load: Any,
    seen: Any,
) -> Any:  # fmt: skip
    """What a step's time depends on.

    Requests of a channel are dealt out to sub-batches in runs of equal length.

    Parameters
    ----------
    entries
        Of the step.
    count
        Of them.
    asked
        (requests,) of ``REQUEST`` records.
    channel
        (requests,): of each request's cache.
    work
        (contexts,): of a channel for one token, by context.
    pim_tokens
        Most new tokens of a request that attends on PIM.
    load
        Scratch, (sub-batches, channels).
    seen
        Scratch, (2, channels).

    Returns
    -------
    tuple
        Requests that decode; work of the fullest channel, over all sub-batches; tokens in their
        caches; tokens of prompts; keys that these see; whether a prompt ends.
    """
    parts = load.shape[0]
    load[:] = 0
    seen[:] = 0
    for at in range(count):
        seen[0, channel[entries[at].request]] += 1
    decoding = context = tokens = 0
    pairs = 0.0
    ends = False
    last = len(work) - 1
    turn = 0
    if parts > 1:  # where the first request too many of each channel goes
        for each in range(load.shape[1]):
            own = seen[0, each]
            seen[0, each] = own * parts + turn  # both in one
            turn = (turn + own % parts) % parts
    for at in range(count):
        row = entries[at].request
        new = entries[at].new
        own = channel[row]
        place = seen[1, own]
        seen[1, own] += 1
        if new > max(pim_tokens, 1):
            tokens += new
            pairs += new * (entries[at].context - new) + new * (new + 1) / 2
            if asked[row].computed + new - entries[at].drafts >= asked[row].length:
                ends = True
            continue
        part = 0
        if parts > 1:
            part = _part(place, seen[0, own] // parts, seen[0, own] % parts, parts)
        load[part, own] += work[min(entries[at].context, last)] * new
        decoding += 1
        context += entries[at].context
    fullest = 0
    for part in range(parts):
        fullest += load[part].max()
    return decoding, fullest, context, tokens, pairs, ends


@njit(cache=True)
def _part(place: int, count: int, turn: int, parts: int) -> int:
    """The sub-batch of the request at ``place`` of ``count`` on its channel."""
    each, left = count // parts, count % parts
    for part in range(parts):
        own = each + (1 if (part - turn) % parts < left else 0)
        if place < own:
            return part
        place -= own
    return parts - 1


@njit(cache=True)
def _cell(axis: Any, value: float) -> tuple[int, float]:
    """The rung below ``value`` and how far it is to the next one; beyond the ends, outwards on the
    right and not on the left."""
    last = len(axis) - 1
    below = int(np.searchsorted(axis, value, side="right")) - 1
    low = min(max(below, 0), max(last - 1, 0))
    if last == 0 or axis[low + 1] <= axis[low]:
        return low, 0.0
    return low, max((value - axis[low]) / (axis[low + 1] - axis[low]), 0.0)


@njit(cache=True)
def _ask(wanted: Any, table: int, a: int, b: int, c: int) -> None:
    """Note an anchor that is not known."""
    found = wanted[0, 0]
    if found + 1 < len(wanted):
        wanted[found + 1, 0] = table
        wanted[found + 1, 1] = a
        wanted[found + 1, 2] = b
        wanted[found + 1, 3] = c
        wanted[0, 0] = found + 1


@njit(cache=True)
def _surface(
    table: Any, number: int, first: int, requests: Any, places: Any, count: float, fullest: float,
    mean: float, factor: float, out: Any, wanted: Any,
) -> None:  # fmt: skip
    """Add ``factor`` times what is between anchors of decoding requests: time by the fullest
    channel, energy by the mean context.

    ``table``: shape (requests, contexts, parts); ``places``: what the fullest channel of each
    anchor has to do, shape (requests + 1, contexts), the contexts themselves in the last row.
    """
    low, part = _cell(requests, count)
    for side in range(2):
        weight = (part if side else 1.0 - part) * factor
        if weight == 0.0:
            continue
        row = low + side
        for what in range(2):  # time, then energy
            if what == 0:
                at, ahead = _cell(places[row], fullest)
            else:
                at, ahead = _cell(places[len(requests)], mean)
            for end in range(2):
                share = weight * (ahead if end else 1.0 - ahead)
                if share == 0.0:
                    continue
                known = table[row, at + end]
                if known[0] < 0.0:
                    _ask(wanted, number, first, row, at + end)
                elif what == 0:
                    out[0] += share * known[0]
                else:
                    for each in range(1, len(known)):
                        out[each] += share * known[each]


@njit(cache=True)
def step_between(
    found: Any, prompt: Any, tokens_axis: Any, spread: Any, decode: Any, requests: Any, places: Any,
    mixed: Any, alone: Any, beside_tokens: Any, beside_requests: Any, beside_places: Any, out: Any,
    wanted: Any,
) -> None:  # fmt: skip
    """Time and energy of a step that was measured, between anchors.

    Parameters
    ----------
    found
        Of ``measure``.
    prompt
        (2, tokens, spreads, 1 + parts): steps of prompts alone, without and with an end.
    tokens_axis
        (tokens,): rising.
    spread
        (tokens, spreads): how far keys are from those of one piece, rising.
    decode
        (requests, contexts, 1 + parts): steps of requests that decode alone.
    requests
        (requests,): how many they are, rising.
    places
        (requests + 1, contexts): what the fullest channel of each anchor has to do, the contexts
        themselves in the last row.
    mixed
        (tokens, requests, contexts, 1 + parts): as ``decode``, with a prompt beside.
    alone
        (tokens, 1 + parts): that prompt alone.
    beside_tokens
        (tokens,): of the prompt beside, rising.
    beside_requests
        As ``requests``, of ``mixed``.
    beside_places
        As ``places``, of ``mixed``.
    out
        (1 + parts,): picoseconds, and joule by part; written.
    wanted
        (most, 4): anchors that are not known, their number in its first place; written.
    """
    count, fullest, context, tokens, pairs, ends = found
    out[:] = 0.0
    wanted[0, 0] = 0
    mean = context / max(count, 1)
    if tokens == 0:
        _surface(decode, DECODE, 0, requests, places, count, fullest, mean, 1.0, out, wanted)
        return
    whole = (tokens + 1) / 2.0  # keys that a token of one piece sees
    each = pairs / tokens
    away = each - whole if each >= whole else each / whole - 1.0
    low, part = _cell(tokens_axis, tokens)
    is_end = 1 if ends else 0
    for side in range(2):
        at, ahead = _cell(spread[low + side], away)
        for end in range(2):
            share = (part if side else 1.0 - part) * (ahead if end else 1.0 - ahead)
            if share == 0.0:
                continue
            known = prompt[is_end, low + side, at + end]
            if known[0] < 0.0:
                _ask(wanted, PROMPT, is_end, low + side, at + end)
            else:
                out += share * known
    if count == 0:
        return
    low, part = _cell(beside_tokens, tokens)
    for side in range(2):
        share = part if side else 1.0 - part
        if share == 0.0:
            continue
        known = alone[low + side]
        if known[0] < 0.0:
            _ask(wanted, ALONE, low + side, 0, 0)
        else:
            out -= share * known
        _surface(
            mixed[low + side], MIXED, low + side, beside_requests, beside_places, count, fullest,
            mean, share, out, wanted,
        )  # fmt: skip
