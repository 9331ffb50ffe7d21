"""The features that a batch uses, as one device of several sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.workload.sparsity.spec import Sparsity
from pimsim.workload.sparsity.union import by_popularity

__all__ = ["DeviceSparsity"]

Mask = NDArray[np.bool_]
_SAMPLE = 256
"""Tokens from which the popularity of features is told."""


@dataclass(frozen=True)
class DeviceSparsity:
    """A batch's sparsity, cut over ``tp`` devices."""

    source: Sparsity
    tokens: int
    """Of the whole batch."""
    tp: int
    sorted: bool
    """Features lie in order of popularity and are dealt to the devices in turn; else they lie as
    trained and each device has a run of them."""
    granularity: int
    """Features that hardware skips together."""
    predictor: str
    """``none``, or ``oracle``: what will be active is known before the first product."""

    def union(self, layer: int, members: Sequence[int]) -> Mask:
        """Features of the first device that some requests of the batch use; shape (ffn / tp,)."""
        mine = self.source.active(layer, self.tokens)[list(members)]
        active: Mask = np.logical_or.reduce(mine, axis=0)
        if not self.sorted:
            share: Mask = active[: len(active) // self.tp]
            return share
        order = by_popularity(self.source.active(layer, _SAMPLE))
        dealt: Mask = active[order][:: self.tp][: len(active) // self.tp]
        return dealt
