"""Where a step lies between anchors, and what is between them (kernels).

A schedule takes one sub-batch after the other: what it multiplies of one, beside what PIM attends
to of the one before. So a step's time is a sum over its sub-batches, each by what it has: requests
that decode, the work of the fullest channel beside them, tokens of prompts, and for each piece of
these its past.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pimsim.hardware.compiled import njit

__all__ = [
    "BEHIND", "DECODE", "F_DECODING", "F_FULLEST", "HEAD", "N_FOUND", "PROMPT", "measure",
    "step_between",
]  # fmt: skip

DECODE, PROMPT, BEHIND, HEAD = range(4)
"""Tables of anchors: requests that decode; prompts, by themselves and in all sub-batches; pieces
behind a past; and a prompt with and without the model's head."""
F_DECODING, F_CONTEXT, F_FULLEST, F_TOKENS, F_SQUARES, N_FOUND = range(6)
"""Of a sub-batch: tokens of requests that decode, and in their caches; work of its fullest channel;
tokens of prompts, and the sum of squares of these by piece."""


@njit(cache=True)
def measure(
    entries: Any, count: int, asked: Any, channel: Any, work: Any, pim_tokens: int, dealing: Any,
    load: Any, seen: Any, found: Any, pieces: Any,
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
    dealing
        ``Dealing``: what stands in the place of the channels where a design deals heads out itself.
    load
        Scratch, (sub-batches, channels).
    seen
        Scratch, (2, channels).
    found
        (sub-batches, N_FOUND): what each has; written.
    pieces
        (entries, 3): sub-batch, new tokens and past of each piece of a prompt; written.

    Returns
    -------
    tuple
        Pieces of prompts, and whether any logits are made.
    """
    parts = load.shape[0]
    load[:] = 0
    seen[:] = 0
    found[:] = 0.0
    for at in range(count):
        seen[0, channel[entries[at].request]] += 1
    last = len(work) - 1
    places, heads, longest_first = dealing
    own_work = np.zeros((parts if places else 0, count), np.int64)
    own_heads = np.zeros((parts if places else 0, count), np.int64)
    turn = 0
    if parts > 1:  # where the first request too many of each channel goes
        for each in range(load.shape[1]):
            own = seen[0, each]
            seen[0, each] = own * parts + turn  # both in one
            turn = (turn + own % parts) % parts
    number = 0
    ends = False
    for at in range(count):
        row = entries[at].request
        new = entries[at].new
        own = channel[row]
        place = seen[1, own]
        seen[1, own] += 1
        part = 0
        if parts > 1:
            part = _part(place, seen[0, own] // parts, seen[0, own] % parts, parts)
        if new > max(pim_tokens, 1):
            found[part, F_TOKENS] += new
            found[part, F_SQUARES] += float(new) * new
            pieces[number, 0] = part
            pieces[number, 1] = new
            pieces[number, 2] = entries[at].context - new
            number += 1
            if asked[row].computed + new - entries[at].drafts >= asked[row].length:
                ends = True
            continue
        load[part, own] += work[min(entries[at].context, last)] * new
        if places:
            own_work[part, at] = work[min(entries[at].context, last)]
            own_heads[part, at] = heads * new
        found[part, F_DECODING] += new
        found[part, F_CONTEXT] += entries[at].context * new
        ends = True
    for part in range(parts):
        if places:
            found[part, F_FULLEST] = _dealt(own_work[part], own_heads[part], places, longest_first)
        else:
            found[part, F_FULLEST] = load[part].max()
    return number, ends


@njit(cache=True)
def _dealt(work: Any, heads: Any, places: int, longest_first: bool) -> int:
    """Work of the fullest of ``places`` to which the ``heads`` of each request are dealt, each of
    which is ``work``."""
    load = np.zeros(places, np.int64)
    if not longest_first:
        following = 0
        for at in range(len(work)):
            for _ in range(heads[at]):
                load[following] += work[at]
                following = (following + 1) % places
        return int(load.max())
    for at in np.argsort(-work):
        for _ in range(heads[at]):
            # a heap, the least loaded place at its top
            value, place = load[0] + work[at], 0
            while 2 * place + 1 < places:
                below = 2 * place + 1
                if below + 1 < places and load[below + 1] < load[below]:
                    below += 1
                if load[below] >= value:
                    break
                load[place] = load[below]
                place = below
            load[place] = value
    return int(load.max())


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
def _add(
    table: Any, number: int, first: int, row: int, place: int, factor: float, out: Any, wanted: Any
) -> None:
    """Add ``factor`` times what is known of an anchor to ``out``, or note that it is not."""
    if factor == 0.0:
        return
    if table[row, place, 0] >= 0.0:
        for each in range(len(out)):
            out[each] += factor * table[row, place, each]
        return
    found = wanted[0, 0]
    if found + 1 < len(wanted):
        wanted[found + 1, 0] = number
        wanted[found + 1, 1] = first
        wanted[found + 1, 2] = row
        wanted[found + 1, 3] = place
        wanted[0, 0] = found + 1


@njit(cache=True)
def _decode(
    table: Any, requests: Any, places: Any, count: float, value: float, factor: float, out: Any,
    wanted: Any,
) -> None:  # fmt: skip
    """Add what is between anchors of ``count`` requests that decode, where the rungs of each number
    of them lie at ``places``, shape (requests, contexts), and the step at ``value``."""
    low, part = _cell(requests, count)
    for side in range(2):
        weight = (part if side else 1.0 - part) * factor
        if weight == 0.0:
            continue
        at, ahead = _cell(places[low + side], value)
        _add(table, DECODE, 0, low + side, at, weight * (1.0 - ahead), out, wanted)
        _add(table, DECODE, 0, low + side, at + 1, weight * ahead, out, wanted)


@njit(cache=True)
def _prompt(
    table: Any, kind: int, tokens_axis: Any, splits: Any, tokens: float, split: float,
    factor: float, out: Any, wanted: Any,
) -> None:  # fmt: skip
    """Add what is between anchors of prompts in -1 / ``split`` pieces."""
    low, part = _cell(tokens_axis, tokens)
    at, ahead = _cell(splits, min(split, splits[-1]))
    for side in range(2):
        weight = (part if side else 1.0 - part) * factor
        _add(table, PROMPT, kind, low + side, at, weight * (1.0 - ahead), out, wanted)
        _add(table, PROMPT, kind, low + side, at + 1, weight * ahead, out, wanted)


@njit(cache=True)
def _behind(
    behind: Any, alone: Any, tokens_axis: Any, pasts: Any, tokens: float, past: float, out: Any,
    wanted: Any,
) -> None:  # fmt: skip
    """Add what a piece takes longer as it comes behind a past: what its anchors take more than the
    same without one."""
    low, part = _cell(tokens_axis, tokens)
    for side in range(2):
        weight = part if side else 1.0 - part
        if weight == 0.0:
            continue
        at, ahead = _cell(pasts[low + side], past)
        for end in range(2):
            share = weight * (ahead if end else 1.0 - ahead)
            if share == 0.0 or pasts[low + side, at + end] == 0:
                continue
            _add(behind, BEHIND, 0, low + side, at + end, share, out, wanted)
            _add(alone, PROMPT, 0, low + side, 0, -share, out, wanted)


@njit(cache=True)
def step_between(
    found: Any, pieces: Any, count: int, ends: bool, decode: Any, requests: Any, places: Any,
    means: Any, some: int, prompt: Any, tokens_axis: Any, splits: Any, behind: Any, pasts: Any,
    head: Any, on_pim: bool, idle_w: Any, scratch: Any, out: Any, wanted: Any,
) -> None:  # fmt: skip
    """Time and energy of a step that was measured, between anchors.

    A sub-batch takes its share of what so many requests take that decode, what its prompts add to
    that, and what their attention to what is in the cache does; where PIM attends, beside what it
    takes (``_hide``).

    Parameters
    ----------
    found, pieces
        Of ``measure``, which wrote them.
    count
        Of pieces.
    ends
        Whether any logits are made.
    decode
        (requests, contexts, 1 + parts): steps of requests that decode.
    requests
        (requests,): how many they are, rising.
    places, means
        (requests, contexts): what the fullest channels of each anchor have to do, over all
        sub-batches; mean context.
    some
        Number of the context at which PIM's work is hidden.
    prompt
        (2, tokens, splits, 1 + parts): steps of prompts, alone and in each sub-batch.
    tokens_axis
        (tokens,): of them in a sub-batch, rising.
    splits
        (splits,): -1 over the pieces of a sub-batch, rising.
    behind
        (tokens, pasts, 1 + parts): steps of a prompt of one piece behind a past.
    pasts
        (tokens, pasts): tokens of the past, rising.
    head
        (1, 2, 1 + parts): a prompt with and without the model's head.
    on_pim
        Whether requests that decode attend on PIM.
    idle_w
        (parts,): what is saved in time that is hidden.
    scratch
        (4, 1 + parts).
    out
        (1 + parts,): picoseconds, and joule by part; written.
    wanted
        (most, 4): anchors that are not known, their number in its first place; written.
    """
    out[:] = 0.0
    wanted[0, 0] = 0
    last = shared = 0
    for part in range(len(found)):
        if found[part, F_DECODING] + found[part, F_TOKENS] > 0:
            last = part
            shared += 1
    kind = 1 if shared > 1 else 0
    own, more, late, other = scratch[0], scratch[1], scratch[2], scratch[3]
    for part in range(len(found)):
        decoding, tokens = found[part, F_DECODING], found[part, F_TOKENS]
        if decoding + tokens == 0:
            continue
        before = last  # whose attention is beside the products of this one
        last = part
        beside = shared * found[before, F_FULLEST]
        for each in range(len(out)):
            own[each] = more[each] = late[each] = 0.0
        base = decoding if shared == 1 else max(decoding, 1.0)
        if base > 0:
            # time by the fullest channels, energy by the mean context
            _decode(decode, requests, places, shared * base, beside, 1.0 / shared, own, wanted)
            other[:] = 0.0
            mean = found[part, F_CONTEXT] / max(decoding, 1.0)
            _decode(decode, requests, means, shared * base, mean, 1.0 / shared, other, wanted)
            for each in range(len(idle_w)):
                own[1 + each] = other[1 + each] + idle_w[each] * (own[0] - other[0]) / 1e12
        if tokens > 0:
            split = -found[part, F_SQUARES] / (tokens * tokens)
            share = 1.0 / len(found) if shared > 1 else 1.0
            _prompt(
                prompt[kind], kind, tokens_axis, splits, tokens + decoding, split, share, more,
                wanted,
            )  # fmt: skip
            if base > 0:
                _prompt(
                    prompt[kind], kind, tokens_axis, splits, base, -1.0, -share, more, wanted
                )  # fmt: skip
        for at in range(count):
            if pieces[at, 0] == before and pieces[at, 2] > 0:
                _behind(
                    behind, prompt[0], tokens_axis, pasts, pieces[at, 1], pieces[at, 2], late,
                    wanted,
                )  # fmt: skip
        if on_pim and base > 0 and more[0] + late[0] > 0:
            _hide(
                decode, requests, places, some, shared * base, beside, shared, own, more, late,
                other, idle_w, wanted,
            )  # fmt: skip
        for each in range(len(out)):
            out[each] += own[each] + more[each] + late[each]
    if not ends:
        _add(head, HEAD, 0, 0, 0, -1.0, out, wanted)
        _add(head, HEAD, 0, 0, 1, 1.0, out, wanted)


@njit(cache=True)
def _hide(
    decode: Any, requests: Any, places: Any, some: int, count: float, beside: float, shared: int,
    own: Any, more: Any, late: Any, other: Any, idle_w: Any, wanted: Any,
) -> None:  # fmt: skip
    """Take off ``late``, what the attention of prompts takes, the time that PIM attends meanwhile.

    Beside PIM the weights of products come later, which costs as much more as it works; where
    products have many tokens, these are computed meanwhile. At little work that cost is all that
    PIM takes. With one sub-batch PIM has no products beside it, only attention.
    """
    other[:] = 0.0
    _decode(decode, requests, places, count, 0.0, 1.0 / shared, other, wanted)
    alone = other[0]
    longer = max(own[0] - alone, 0.0)
    if shared == 1:
        hidden = min(max(late[0], 0.0), longer)
    else:
        cost, little = 0.0, places[_cell(requests, count)[0], some]
        if beside > 0 and little > 0:
            other[:] = 0.0
            _decode(decode, requests, places, count, little, 1.0 / shared, other, wanted)
            cost = min(max(other[0] - alone, 0.0) * beside / little, longer)
        together = max(alone + max(more[0], cost) + late[0], alone + longer)
        hidden = alone + longer + more[0] + late[0] - together
    if hidden > 0:
        late[0] -= hidden
        for each in range(len(idle_w)):
            late[1 + each] -= idle_w[each] * hidden / 1e12
