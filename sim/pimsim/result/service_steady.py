"""The steady state of a service: what it does between its warm-up and its drain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.config.service import SloConfig
from pimsim.result.service import limits_kept, spread, trend
from pimsim.result.service_types import Spread
from pimsim.serving.records import Records

__all__ = ["SteadyState", "steady_state", "warm_up"]

_PS_PER_S = 10**12
_BATCH = 5
"""Observations that MSER-5 adds up to one."""
_TREND_POINTS = 20


@dataclass(frozen=True)
class SteadyState:
    """Requests that came when the service had warmed up and were gone before the last one came."""

    requests: int
    """Those that count."""
    warm_up: int
    """Requests before them."""
    drain: int
    """Requests behind them."""
    share: float | None
    """Of those that count, who keep every limit of the SLO; None: nobody counts, or no SLO."""
    shares: dict[str, float]
    """The same of each limit alone, by its key."""
    latency_s: dict[str, Spread]
    """TTFT, TPOT (of requests of more than one token) and latency (``e2e``) of those that count."""
    requests_per_s: float
    """That end between the first that counts and the last arrival."""
    tokens_per_s: float
    """That these made."""
    in_system_trend: float
    """Of requests in the system, in the second half of arrivals (``trend``)."""


def steady_state(asked: Records, slo: SloConfig) -> SteadyState:
    """Cut warm-up and drain.

    The warm-up is cut by MSER-5 of the requests in the system that each arrival finds. The drain
    begins with the first request, in the order of arrival, that ends after the last arrival: all
    before it have seen the service under load to their ends, and none is left out for its length.

    Parameters
    ----------
    asked
        [requests] of a service whose arrivals do not depend on ends, all of which have ended.
    slo
        What a request must keep.
    """
    rows = asked[np.argsort(asked["arrival_ps"], kind="stable")]
    arrivals, finish = rows["arrival_ps"], rows["finish_ps"]
    ends, last = np.sort(finish), int(arrivals[-1])
    found = np.arange(1, len(rows) + 1) - np.searchsorted(ends, arrivals, side="right")
    begin = warm_up(found)
    cut = max(int(np.argmax(finish > last)), begin)
    counted = rows[begin:cut]
    limits = limits_kept(counted, slo)
    span_s = (last - int(arrivals[begin])) / _PS_PER_S
    ended = rows[(finish > arrivals[begin]) & (finish <= last)]
    several = counted[counted["output"] > 1]
    moments = np.linspace((int(arrivals[0]) + last) // 2, last, _TREND_POINTS).astype(np.int64)
    inside = np.searchsorted(arrivals, moments, side="right") - np.searchsorted(
        ends, moments, side="right"
    )
    return SteadyState(
        requests=len(counted), warm_up=begin, drain=len(rows) - cut,
        share=float(np.logical_and.reduce(list(limits.values())).mean())
        if limits and len(counted)
        else None,
        shares={key: float(kept.mean()) for key, kept in limits.items() if len(counted)},
        latency_s={
            "ttft": spread(counted["first_token_ps"] - counted["arrival_ps"]),
            "tpot": spread(
                (several["finish_ps"] - several["first_token_ps"]) / (several["output"] - 1)
            ),
            "e2e": spread(counted["finish_ps"] - counted["arrival_ps"]),
        },
        requests_per_s=len(ended) / span_s if span_s else 0.0,
        tokens_per_s=int(ended["output"].sum()) / span_s if span_s else 0.0,
        in_system_trend=trend(inside),
    )  # fmt: skip


def warm_up(values: NDArray[np.int64]) -> int:
    """Observations that MSER-5 cuts from the front: of all cuts in the first half, the one that
    leaves the mean with the smallest squared standard error (White, Cobb, Spratt, "A comparison of
    five steady-state truncation heuristics for simulation", WSC 2000).

    Parameters
    ----------
    values
        [observations], in order of time.
    """
    batches = len(values) // _BATCH
    if batches < 2:
        return 0
    sums = values[: batches * _BATCH].reshape(batches, _BATCH).sum(axis=1).astype(np.float64)
    left = np.arange(batches, 0, -1, dtype=np.float64)
    total, squares = (np.cumsum(each[::-1])[::-1] for each in (sums, sums**2))
    # squared deviations over the square of how many there are; of whole numbers, so that it is 0
    # where all are alike
    error = (left * squares - total**2) / left**3
    return _BATCH * int(np.argmin(error[: batches // 2 + 1]))
