"""A routing trace as the routing of a batch, and what an expert's capacity does to any routing."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.draws import RandomStream
from pimsim.workload.moe import DROPPED, Routing
from pimsim.workload.routing.file import RoutingTrace

__all__ = ["CapacityLimit", "TraceRouting", "capacity", "dropped"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TraceRouting:
    """Tokens of a batch are tokens of the trace, drawn once with the seed and the same in every
    block: without replacement while there are enough, so that a decode batch takes them from
    different places."""

    trace: RoutingTrace
    seed: int = 0

    def assignments(self, layer: int, tokens: int) -> Ints:
        """See ``Routing``. Raises ``InputError`` for a block that the trace does not have."""
        if layer not in self.trace.moe_layers:
            raise InputError(f"routing of {self.trace.model}: block {layer} has no rows")
        random = RandomStream(self.seed, 4)
        whole, rest = divmod(tokens, self.trace.tokens)
        drawn = [random.permutation(self.trace.tokens) for _ in range(whole + (rest > 0))]
        at = np.concatenate(drawn)[:tokens] if drawn else np.zeros(0, dtype=np.int64)
        found: Ints = self.trace.of_layer(layer)[at]
        return found


def capacity(factor: float, tokens: int, experts_per_token: int, experts: int) -> int:
    """Tokens that an expert takes: ``factor`` times its even share, rounded up.

    Parameters
    ----------
    factor
        1 is the even share.
    tokens
        Of the batch.
    experts_per_token
        Choices of each.
    experts
        Of a block.

    References
    ----------
    GShard, arXiv 2006.16668, section 2.2.
    """
    return ceil(factor * tokens * experts_per_token / experts)


def dropped(assignments: Ints, limit: int, experts: int) -> Ints:
    """The assignments with ``DROPPED`` where an expert had ``limit`` tokens before, in the order of
    the tokens, first choices of all tokens before second ones (Switch and GShard).

    Parameters
    ----------
    assignments
        (tokens, choices): experts.
    limit
        Tokens that an expert takes.
    experts
        Of the block.

    Returns
    -------
    Ints
        (tokens, choices).
    """
    result = assignments.copy()
    load = np.zeros(experts, dtype=np.int64)
    for choice in range(assignments.shape[1]):
        column = result[:, choice]
        for expert in np.unique(column[column != DROPPED]).tolist():
            rows = np.flatnonzero(column == expert)
            room = max(limit - int(load[expert]), 0)
            result[rows[room:], choice] = DROPPED
            load[expert] += min(len(rows), room)
    return result


@dataclass(frozen=True)
class CapacityLimit:
    """Another routing, whose experts take no more than their capacity."""

    routing: Routing
    factor: float
    experts: int
    experts_per_token: int

    def assignments(self, layer: int, tokens: int) -> Ints:
        """See ``Routing``."""
        found = self.routing.assignments(layer, tokens)
        limit = capacity(self.factor, tokens, self.experts_per_token, self.experts)
        return dropped(found, limit, self.experts)
