"""What is left of sparsity when a batch, or the hardware's granularity, must work on a union."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.workload.draws import RandomStream
from pimsim.workload.sparsity.file import SparsityTrace

__all__ = ["BATCHES", "GRANULARITIES", "UnionRow", "by_popularity", "kept", "neighbours", "unions"]

Mask = NDArray[np.bool_]
BATCHES = (1, 2, 4, 8, 16, 32, 64)
GRANULARITIES = {"feature": 1, "COMP column": 16, "systolic tile": 128, "PIM row": 512}


def kept(mask: Mask, granularity: int) -> Mask:
    """Features that hardware works on which skips groups of ``granularity`` only: a group is kept
    when one of it is active.

    Parameters
    ----------
    mask
        (ffn,).
    granularity
        Features of a group.

    Returns
    -------
    Mask
        (ffn,).
    """
    groups = -(-len(mask) // granularity)
    padded = np.zeros(groups * granularity, dtype=np.bool_)
    padded[: len(mask)] = mask
    whole = padded.reshape(groups, granularity).any(axis=1)
    found: Mask = np.repeat(whole, granularity)[: len(mask)]
    return found


def by_popularity(active: Mask) -> NDArray[np.int64]:
    """An order of the features, the most often active first.

    Parameters
    ----------
    active
        (tokens, ffn).

    Returns
    -------
    NDArray[np.int64]
        (ffn,).
    """
    return np.argsort(-active.mean(axis=0), kind="stable").astype(np.int64)


@dataclass(frozen=True)
class UnionRow:
    """Share of features at work for a batch of ``batch`` tokens."""

    batch: int
    random: float
    """Tokens from anywhere."""
    consecutive: float
    """Tokens that follow each other, as in speculative decoding."""
    independent: float
    """If tokens chose independently with the layer's ratio."""


def unions(trace: SparsityTrace, seed: int = 0, draws: int = 20) -> list[UnionRow]:
    """The union over a batch, mean over layers and draws.

    Parameters
    ----------
    trace
        Of a real run.
    seed
        Of the batches that are drawn.
    draws
        Batches of each size.
    """
    random = RandomStream(seed)
    layers, tokens, _ = trace.active.shape
    rows = []
    for batch in BATCHES:
        if batch > tokens:
            break
        scattered, following = [], []
        for _ in range(draws):
            at = random.subsets(1, tokens, batch)[0]
            start = int(random.below(tokens - batch + 1, 1)[0])
            for layer in range(layers):
                scattered.append(trace.active[layer][at].any(axis=0).mean())
                following.append(trace.active[layer][start : start + batch].any(axis=0).mean())
        alone = float((1 - (1 - trace.ratio) ** batch).mean())
        rows.append(UnionRow(batch, float(np.mean(scattered)), float(np.mean(following)), alone))
    return rows


def neighbours(trace: SparsityTrace) -> float:
    """Jaccard index of the features of two tokens that follow each other, mean over layers.

    Parameters
    ----------
    trace
        Of a real run.

    Returns
    -------
    float
        0 to 1.
    """
    found = []
    for mask in trace.active:
        a, b = mask[:-1], mask[1:]
        either = (a | b).sum(axis=1)
        found.append(((a & b).sum(axis=1) / np.maximum(either, 1)).mean())
    return float(np.mean(found))
