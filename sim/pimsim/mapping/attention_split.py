"""Which of a step's requests attend where, and what each side must read and multiply for them.

With the cache in PIM's layout, requests with few enough new tokens attend in the banks, once for
each token. The others attend on the NPU: those with one new token as one matrix-vector product
after the other, those with several in tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from pimsim.mapping.linear_kv import LinearLayout
from pimsim.workload.ancestors import ancestors
from pimsim.workload.operators import Block, Operator, OperatorKind
from pimsim.workload.step import Step

__all__ = [
    "AttentionSplit", "bytes_in_banks", "bytes_over_bus", "fetched_bytes", "key_bytes",
    "keys_are_made",
    "linear_layout", "share_of", "split_attention",
]  # fmt: skip


@dataclass(frozen=True)
class AttentionSplit:
    """Numbers of the entries by where they attend."""

    pim: tuple[int, ...]
    single: tuple[int, ...]
    """On the NPU, one new token each."""
    tiled: tuple[int, ...]
    """On the NPU, in tiles."""


def split_attention(
    step: Step, operator: Operator, on_pim: bool, pim_tokens: int, made: bool
) -> AttentionSplit:
    """Where the entries of ``step`` that ``operator`` works on attend.

    Parameters
    ----------
    step
        Of the device.
    operator
        Scores or values.
    on_pim
        The cache lies in PIM's layout.
    pim_tokens
        Most new tokens of a request that attends there.
    made
        Keys are not those of the cache (``keys_are_made``).
    """
    entries = operator.entries or tuple(range(len(step.entries)))
    fed = step.new_tokens
    pim: tuple[int, ...] = ()
    if on_pim and not made:
        pim = tuple(at for at in entries if fed[at] <= pim_tokens)
    in_banks = set(pim)
    rest = [at for at in entries if at not in in_banks]
    return AttentionSplit(
        pim,
        tuple(at for at in rest if fed[at] == 1 and not made),
        tuple(at for at in rest if fed[at] > 1 or made),
    )


def keys_are_made(block: Block, score: Operator) -> bool:
    """Whether a product lies between the cache and the keys that ``score`` reads (MLA of prompts):
    then these are activations.

    Parameters
    ----------
    block
        With a cache.
    score
        The block's scores.
    """
    above = ancestors(block.operators)
    appends = {o.name for o in block.operators if o.kind is OperatorKind.KV_APPEND}
    return any(
        o.kind is OperatorKind.GEMM and o.name in above[score.name] and above[o.name] & appends
        for o in block.operators
    )


def share_of(
    entries: Sequence[int], among: Sequence[int], step: Step, window: int | None
) -> Fraction:
    """Of the pairs of a token and a key of the entries ``among``, those of ``entries``.

    Parameters
    ----------
    entries
        Numbers of entries of the step.
    among
        Numbers too, those of ``entries`` among them.
    step
        Of the device.
    window
        Last tokens that are seen; None: all.

    Returns
    -------
    Fraction
        0 to 1.
    """
    pairs = step.pairs(window)
    return Fraction(sum(pairs[at] for at in entries), sum(pairs[at] for at in among))


def key_bytes(operator: Operator, step: Step) -> Fraction:
    """Bytes that ``operator`` reads of the cache for one key, all of its heads.

    Parameters
    ----------
    operator
        Scores or values.
    step
        Whose keys it reads.
    """
    keys = step.keys(operator.window or None)
    seen = sum(keys[at] for at in operator.entries or range(len(keys)))
    return Fraction(operator.kv_read_bytes, seen)


def linear_layout(score: Operator, value: Operator, step: Step, burst_bytes: int) -> LinearLayout:
    """How a cache that the NPU reads keeps what ``score`` and ``value`` read of it in ``step``.

    Parameters
    ----------
    score
        The block's scores.
    value
        Its values.
    step
        Whose keys they read.
    burst_bytes
        Of the memory.
    """
    heads = score.kv_heads
    key, own = (ceil(key_bytes(each, step) / heads) for each in (score, value))
    return LinearLayout(heads, key, own, burst_bytes)


def bytes_in_banks(operator: Operator, step: Step, split: AttentionSplit) -> int:
    """Bytes of the cache that are read in the banks: for each new token what it sees.

    Parameters
    ----------
    operator
        Scores or values.
    step
        Of the device.
    split
        Its entries ``pim`` count.
    """
    pairs = step.pairs(operator.window or None)
    return ceil(sum(pairs[at] for at in split.pim) * key_bytes(operator, step))


def bytes_over_bus(operator: Operator, step: Step, split: AttentionSplit, made: bool) -> int:
    """Bytes of the cache that the NPU cannot do without: all that is seen, but for keys and values
    of the step itself that attention in tiles may find on chip.

    Parameters
    ----------
    operator
        Scores or values.
    step
        Of the device.
    split
        Its entries ``single`` and ``tiled`` count.
    made
        Keys are not those of the cache (``keys_are_made``).
    """
    window = operator.window or None
    keys = sum(step.entries[at].keys(window) for at in split.single)
    if not made:
        tiled = (step.entries[at] for at in split.tiled)
        keys += sum(max(entry.keys(window) - entry.new_tokens, 0) for entry in tiled)
    return int(keys * key_bytes(operator, step))


def fetched_bytes(score: Operator, value: Operator, entries: Sequence[int], step: Step) -> int:
    """Bytes of keys and values before the step that come over the link to PIM's memory, where the
    NPU attends to what lies there.

    Parameters
    ----------
    score
        The block's scores.
    value
        Its values.
    entries
        Numbers of entries that attend on the NPU.
    step
        Of the device.
    """
    tokens = sum(
        min(step.entries[at].cached, step.entries[at].keys(score.window or None)) for at in entries
    )
    return ceil(tokens * (key_bytes(score, step) + key_bytes(value, step)))
