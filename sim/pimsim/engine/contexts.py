"""Which steps of a long output are simulated, and what each stands for."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

__all__ = ["sampled"]


def sampled(contexts: Sequence[int], limit: int) -> dict[int, float]:
    """A few of the contexts, and the weight of each in the mean of all.

    First, last, and evenly spaced ones between them; what is between two is interpolated, so the
    mean is exact for what grows linearly. With a limit of 1: the middle.

    Parameters
    ----------
    contexts
        Tokens, rising, (contexts,).
    limit
        Of them, at most so many.

    Returns
    -------
    dict
        Weight by context; weights add up to 1.
    """
    if len(contexts) <= limit:
        return dict.fromkeys(contexts, 1 / len(contexts))
    if limit == 1:
        return {contexts[len(contexts) // 2]: 1.0}
    last = len(contexts) - 1
    chosen = [round(index * last / (limit - 1)) for index in range(limit)]
    weights = dict.fromkeys(chosen, 0.0)
    for left, right in pairwise(chosen):
        # of the steps from left up to right, each adds to both by how near it is to them
        weights[left] += (right - left + 1) / 2
        weights[right] += (right - left - 1) / 2
    weights[last] += 1
    return {contexts[index]: weight / len(contexts) for index, weight in weights.items()}
