"""What OpenMoE found (Xue et al. 2024, arXiv 2402.01739, section 4), measured on a trace.

Context-independent specialisation (4.1): tokens of one id go to the same experts wherever they
stand. Early routing (4.2): where a token goes is settled early in training. Drop-towards-the-end
(4.3): with a capacity, tokens late in a sequence are dropped more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.draws import RandomStream
from pimsim.workload.moe import DROPPED, UniformRouting
from pimsim.workload.routing.file import RoutingTrace
from pimsim.workload.routing.replay import capacity, dropped

__all__ = ["LayerFindings", "agreement_with", "experts_hit", "findings", "uniform_control"]

Ints = NDArray[np.int64]
_PAIRS = 20_000
_BATCHES_DRAWN = 50
QUARTERS = 4
BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class LayerFindings:
    """One block's figures."""

    layer: int
    same_token_overlap: float
    """Mean share of the experts that two tokens of one id have in common; NaN without ids."""
    random_overlap: float
    """The same of any two tokens."""
    dropped_by_quarter: tuple[float, ...]
    """Share of pairs dropped in each quarter of the sequences."""
    max_over_mean: float
    """Tokens of the fullest expert over the mean."""
    min_over_mean: float
    dead: int
    """Experts without a token."""


def findings(trace: RoutingTrace, capacity_factor: float, seed: int = 0) -> list[LayerFindings]:
    """The figures of each block with experts.

    Parameters
    ----------
    trace
        Of a real run.
    capacity_factor
        What an expert takes, as a multiple of its even share.
    seed
        Of the pairs of tokens that are drawn.

    References
    ----------
    OpenMoE, arXiv 2402.01739, section 4.
    """
    rows = []
    same, other = _pairs(trace, seed)
    for layer in trace.moe_layers:
        chosen = trace.of_layer(layer)
        load = np.bincount(chosen[chosen != DROPPED], minlength=trace.experts)
        mean = load.sum() / trace.experts
        rows.append(
            LayerFindings(
                layer,
                _overlap(chosen, same) if len(same) else float("nan"),
                _overlap(chosen, other),
                _drops(trace, chosen, capacity_factor),
                float(load.max() / mean), float(load.min() / mean), int((load == 0).sum()),
            )
        )  # fmt: skip
    return rows


def _pairs(trace: RoutingTrace, seed: int) -> tuple[Ints, Ints]:
    """Pairs of tokens of the same id, and any pairs; shape (pairs, 2)."""
    random = RandomStream(seed)
    count = trace.tokens
    any_two = random.below(count, _PAIRS, 2)
    any_two = any_two[any_two[:, 0] != any_two[:, 1]]
    known = np.flatnonzero(trace.token >= 0)
    order = known[np.argsort(trace.token[known], kind="stable")]
    _, starts, counts = np.unique(trace.token[order], return_index=True, return_counts=True)
    often = counts >= 2
    if not often.any():
        return np.zeros((0, 2), dtype=np.int64), any_two
    # an id counts once, however often it comes
    which = np.flatnonzero(often)[random.below(int(often.sum()), _PAIRS)]
    first = random.below(counts[which], _PAIRS)
    second = (first + 1 + random.below(counts[which] - 1, _PAIRS)) % counts[which]
    pairs = np.stack([order[starts[which] + first], order[starts[which] + second]], axis=1)
    return pairs, any_two


def _overlap(chosen: Ints, pairs: Ints) -> float:
    a, b = chosen[pairs[:, 0]], chosen[pairs[:, 1]]
    common = (a[:, :, None] == b[:, None, :]) & (a[:, :, None] != DROPPED)
    return float(common.any(axis=2).mean())


def _drops(trace: RoutingTrace, chosen: Ints, factor: float) -> tuple[float, ...]:
    lost = np.zeros(QUARTERS)
    pairs = np.zeros(QUARTERS)
    for sequence in np.unique(trace.sequence).tolist():
        at = np.flatnonzero(trace.sequence == sequence)
        limit = capacity(factor, len(at), trace.experts_per_token, trace.experts)
        left = dropped(chosen[at], limit, trace.experts)
        quarter = np.arange(len(at)) * QUARTERS // len(at)
        gone = (left == DROPPED).sum(axis=1)
        lost += np.bincount(quarter, weights=gone, minlength=QUARTERS)
        pairs += np.bincount(quarter, minlength=QUARTERS) * trace.experts_per_token
    return tuple((lost / np.maximum(pairs, 1)).tolist())


def experts_hit(trace: RoutingTrace, seed: int = 0) -> dict[int, tuple[float, float]]:
    """Experts that a decode batch hits in a block, by its size: the trace's mean over blocks and
    draws, and what independent uniform choices give.

    Parameters
    ----------
    trace
        Of a real run.
    seed
        Of the batches that are drawn.
    """
    random = RandomStream(seed)
    result = {}
    for size in BATCHES:
        if size > trace.tokens:
            break
        hit = []
        for layer in trace.moe_layers:
            chosen = trace.of_layer(layer)
            for batch in random.subsets(_BATCHES_DRAWN, trace.tokens, size):
                rows = chosen[batch]
                hit.append(len(np.unique(rows[rows != DROPPED])))
        share = 1 - (1 - trace.experts_per_token / trace.experts) ** size
        result[size] = (float(np.mean(hit)), trace.experts * share)
    return result


def agreement_with(early: RoutingTrace, late: RoutingTrace) -> list[float]:
    """Share of tokens, by block, whose first choice is that of a later checkpoint.

    First choices are the experts listed first.

    Parameters
    ----------
    early
        Of an earlier checkpoint.
    late
        Of a later one.

    Returns
    -------
    list[float]
        0 to 1, by block with experts.

    Raises
    ------
    InputError
        Where the traces are not of the same tokens.

    References
    ----------
    OpenMoE, arXiv 2402.01739, section 4.2.
    """
    same = early.tokens == late.tokens and (early.token == late.token).all()
    if not same or early.moe_layers != late.moe_layers:
        raise InputError("early routing needs traces of the same tokens and the same blocks")
    return [
        float((early.of_layer(layer)[:, 0] == late.of_layer(layer)[:, 0]).mean())
        for layer in late.moe_layers
    ]


def uniform_control(trace: RoutingTrace, seed: int = 0) -> RoutingTrace:
    """The same tokens, routed at random.

    Parameters
    ----------
    trace
        Of a real run.
    seed
        Of the routing.
    """
    routing = UniformRouting(trace.experts, trace.experts_per_token, seed)
    chosen = np.stack([routing.assignments(layer, trace.tokens) for layer in trace.moe_layers])
    return replace(trace, model="uniform", source="uniform routing", chosen=chosen)


def sequences(traces: Sequence[RoutingTrace]) -> int:
    """Sequences of the first trace."""
    return len(np.unique(traces[0].sequence))
