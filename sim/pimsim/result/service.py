"""What a service came to: figures of its requests, its steps, its cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.prices import Prices
from pimsim.config.service import SloConfig
from pimsim.result.service_cost import service_cost
from pimsim.result.service_types import (
    NO_ENERGY,
    VERSION,
    Cost,
    Goodput,
    LinkUse,
    OverTime,
    ServiceEnergy,
    ServiceFigures,
    ServiceOrigin,
    Spread,
)
from pimsim.serving.gaps import gap_percentile, mean_gap_ps
from pimsim.serving.records import NONE, Records
from pimsim.serving.service import Service
from pimsim.serving.step_log import StepLog
from pimsim.workload.traffic import NOBODY

__all__ = [
    "TREND_LIMIT", "ServiceResult", "Verdict", "build_service_result", "interval_ends",
    "judge_load", "limits_kept", "spread", "trend",
]  # fmt: skip

_PS_PER_S = 10**12
_SHARES = (0.5, 0.9, 0.99)
_TREND_POINTS = 20
TREND_LIMIT = 1.96
"""Of ``trend``, beyond which it is no chance (5 %, both sides)."""
_LEAST_QUEUE = 10
"""Requests that wait at the last arrival where a load is too much, at least."""


@dataclass(frozen=True)
class Verdict:
    """Whether requests come faster than they are served."""

    overloaded: bool
    offered_per_s: float
    """Requests that arrive, between the first and the last."""
    carried_per_s: float
    """Requests that end, in the second half of that time."""
    queue: int
    """Who waits for his first step at the last arrival."""
    trend: float
    """Of the queue's length, in standard deviations of what chance does."""

    @property
    def words(self) -> str:
        """One line."""
        if not self.overloaded:
            return "the queue does not grow"
        return (
            f"overloaded: {self.offered_per_s:.3g} requests/s come and {self.carried_per_s:.3g} "
            f"are served; {self.queue:,} wait when the last one comes"
        )


@dataclass(frozen=True)
class ServiceResult:
    """A service, as far as it came."""

    name: str
    requests: Records = field(repr=False)
    """``REQUEST`` records, one each."""
    figures: ServiceFigures = field(repr=False)
    """What ``pimsim serve --json`` prints."""
    verdict: Verdict | None
    """None where requests wait for others' ends, or too few arrived to say."""

    def to_dict(self) -> ServiceFigures:
        """The figures, as JSON can hold them."""
        return self.figures

    def table(self) -> Any:
        """A pandas frame, a row a request: times in seconds, NaN where it has not come so far."""
        import pandas

        from pimsim.result.service_rows import request_columns

        return pandas.DataFrame(request_columns(self.requests))

    def _repr_html_(self) -> str:
        """For a notebook: the lines that the command line prints."""
        from pimsim.result.cells import add_rows, new_table
        from pimsim.result.notebook import html_of

        view = import_module("pimsim.result.service_view")  # it is made of this module's results
        table = new_table(self.name, "", "")
        add_rows(table, *((name, text) for name, text in view.service_lines(self).items() if text))
        return html_of(table)


def build_service_result(
    service: Service,
    log: StepLog,
    name: str,
    slo: SloConfig,
    origin: ServiceOrigin,
    energy: ServiceEnergy = NO_ENERGY,
    prices: Prices | None = None,
    replica_hour: float = 0.0,
) -> ServiceResult:
    """Figures of a service, done or not.

    Parameters
    ----------
    service
        As far as it has come.
    log
        Of all its steps.
    name
        What it is called.
    slo
        What a request must keep.
    origin
        Where they come from.
    energy
        What the machines took.
    prices
        Of machines and energy.
    replica_hour
        What a replica costs for an hour at these prices.
    """
    log.flush()
    asked = service.requests
    seconds = service.now_ps / _PS_PER_S
    done = asked["finish_ps"] != NONE
    started = asked["first_token_ps"] != NONE
    verdict = judge_load(service)
    made = int((asked["length"] - asked["prompt"])[started].sum())
    cached = int(asked["cached"].sum())
    admitted = int(asked["prompt"][asked["first_scheduled_ps"] != NONE].sum())
    figures: ServiceFigures = {
        "version": VERSION,
        "name": name,
        "finished": service.done,
        "requests": {
            "asked": len(asked), "arrived": service.arrived, "finished": service.finished,
        },
        "time_s": seconds,
        "requests_per_s": _rate(service.finished, seconds),
        "tokens_per_s": _rate(made, seconds),
        "latency_s": {
            "ttft": spread((asked["first_token_ps"] - asked["arrival_ps"])[started]),
            "tpot": spread(_tpot_ps(asked[done])),
            "itl": _gaps(service),
            "e2e": spread((asked["finish_ps"] - asked["arrival_ps"])[done]),
            "queue": spread(
                (asked["first_scheduled_ps"] - asked["arrival_ps"])[
                    asked["first_scheduled_ps"] != NONE
                ]
            ),
            "handover": spread(
                (asked["kv_arrived_ps"] - asked["first_token_ps"])[asked["kv_arrived_ps"] != NONE]
            ),
        },
        "tpot_is": "(finish - first token) / (output - 1), of requests of more than one token",
        "slo": {
            key: value / _PS_PER_S
            for key, value in slo.model_dump().items() if value is not None
        },
        "goodput": _goodput(asked[done], slo, seconds),
        "queue": {
            "max": log.most_waiting,
            "at_last_arrival": None if verdict is None else verdict.queue,
            "overloaded": None if verdict is None else verdict.overloaded,
            "offered_per_s": None if verdict is None else verdict.offered_per_s,
            "carried_per_s": None if verdict is None else verdict.carried_per_s,
        },
        "kv": {
            "blocks": service.replicas[0].scheduler.cache.count,
            "block_tokens": service.fleet.block_tokens,
            "used": log.used_block_ps / log.busy_ps if log.busy_ps else 0.0,
            "peak": log.peak_blocks,
            "preemptions": int(asked["preemptions"].sum()),
            "recomputed_tokens": int(asked["recomputed"].sum()),
            "cached_tokens": cached,
            "prefix_hits": cached / admitted if admitted else 0.0,
        },
        "steps": {
            "count": log.steps, "tokens": log.tokens,
            "mean_requests": log.entries / log.steps if log.steps else 0.0,
            "mean_tokens": log.tokens / log.steps if log.steps else 0.0,
        },
        "drafts": {
            "verifications": int(asked["verifications"].sum()),
            "accepted": int(asked["accepted"].sum()), "rejected": int(asked["rejected"].sum()),
        },
        "links": _link_use(service),
        "cost": _cost(service, prices, replica_hour, energy, made),
        "over_time": _over_time(service, log),
        **energy,
        **origin,
    }  # fmt: skip
    return ServiceResult(name, asked, figures, verdict)


def _cost(
    service: Service, prices: Prices | None, replica_hour: float, energy: ServiceEnergy, made: int
) -> Cost | None:
    """Of all replicas until now."""
    seconds, asked = service.now_ps / _PS_PER_S, service.requests
    fed = int(asked["prompt"][asked["first_token_ps"] != NONE].sum())
    joule = None if energy["energy_j"] is None else energy["energy_j"]["total"]
    pool = service.fleet.decode
    second = 0 if pool is None else pool.replicas
    return service_cost(
        prices,
        replica_hour,
        seconds * service.fleet.replicas,
        seconds * second,
        joule,
        made,
        made + fed,
    )


def judge_load(service: Service) -> Verdict | None:
    """Whether the queue grows while requests arrive: Mann and Kendall's test of its length at
    twenty moments.

    Parameters
    ----------
    service
        As far as it has come.

    Returns
    -------
    Verdict | None
        None where arrivals depend on ends, or are all at once, or have hardly begun.
    """
    asked = service.requests
    arrivals = _reached(asked[asked["replica"] != NONE], "arrival_ps")
    depends = (service.traffic.follows != NOBODY).any()
    if depends or len(arrivals) < _TREND_POINTS or arrivals[0] == arrivals[-1]:
        return None
    first, last = int(arrivals[0]), int(arrivals[-1])
    moments = np.linspace(first, last, _TREND_POINTS + 1)[1:].astype(np.int64)
    queue = _count(arrivals, moments) - _count(_reached(asked, "first_scheduled_ps"), moments)
    found = trend(queue)
    middle = (first + last) // 2
    ends = _reached(asked, "finish_ps")
    carried = int(_count(ends, np.array([last]))[0] - _count(ends, np.array([middle]))[0])
    return Verdict(
        overloaded=found > TREND_LIMIT and int(queue[-1]) >= _LEAST_QUEUE,
        offered_per_s=(len(arrivals) - 1) / (last - first) * _PS_PER_S,
        carried_per_s=carried / (last - middle) * _PS_PER_S, queue=int(queue[-1]),
        trend=found,
    )  # fmt: skip


def trend(values: NDArray[np.int64]) -> float:
    """Mann and Kendall's test: the sum of the signs of all later values less all earlier ones, in
    standard deviations of what it is without a trend (Mann, Econometrica 13, 1945; ties count as
    nothing and the deviation is that without ties, so that ties make a trend less sure).

    Parameters
    ----------
    values
        [moments], at least two, in order of time.
    """
    count = len(values)
    signs = sum(int(np.sign(values[at + 1 :] - values[at]).sum()) for at in range(count))
    return float(signs / (count * (count - 1) * (2 * count + 5) / 18) ** 0.5)


def _reached(asked: Records, column: str) -> NDArray[np.int64]:
    """When requests came so far, those that did, in order."""
    return np.sort(asked[column][asked[column] != NONE])


def _count(times: NDArray[np.int64], moments: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of ``times``, in order, those up to each moment."""
    return np.searchsorted(times, moments, side="right").astype(np.int64)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds else 0.0


def _tpot_ps(done: Records) -> NDArray[np.float64]:
    several = done[done["output"] > 1]
    found: NDArray[np.float64] = (several["finish_ps"] - several["first_token_ps"]) / (
        several["output"] - 1
    )
    return found


def spread(times_ps: NDArray[Any]) -> Spread:
    """Mean, percentiles and maximum, in seconds; None of nothing.

    Parameters
    ----------
    times_ps
        [requests], in picoseconds.
    """
    if not len(times_ps):
        return _in_seconds(None, None, None, None, None)
    p50, p90, p99 = np.quantile(times_ps, _SHARES)
    return _in_seconds(times_ps.mean(), p50, p90, p99, times_ps.max())


def _in_seconds(*times_ps: Any) -> Spread:
    mean, p50, p90, p99, most = (
        None if value is None or value != value else float(value) / _PS_PER_S for value in times_ps
    )
    return {"mean": mean, "p50": p50, "p90": p90, "p99": p99, "max": most}


def _link_use(service: Service) -> LinkUse | None:
    moves = service.handover
    if moves is None:
        return None
    busy = max(moves.busy_ps, default=0)
    return {
        "bytes": moves.sent_bytes, "links": len(moves.busy_ps),
        # a message that is booked beyond now has not kept its link for all of it
        "busy": min(busy / service.now_ps, 1.0) if service.now_ps else 0.0,
    }  # fmt: skip


def _gaps(service: Service) -> Spread:
    """The same of all gaps between tokens."""
    longest = int(service.requests["longest_gap_ps"].max())
    p50, p90, p99 = (min(gap_percentile(service.gaps, share), longest) for share in _SHARES)
    mean = mean_gap_ps(service.gaps)
    return _in_seconds(mean, p50, p90, p99, longest if mean == mean else None)


def _goodput(done: Records, slo: SloConfig, seconds: float) -> Goodput:
    """Requests that keep all of the SLO: how many a second, and of those that ended."""
    limits = limits_kept(done, slo)
    if not limits:
        return {"requests_per_s": None, "share": None}
    good = np.logical_and.reduce(list(limits.values()))
    kept = int(good.sum())
    return {
        "requests_per_s": _rate(kept, seconds),
        "share": kept / len(done) if len(done) else None,
    }


def limits_kept(done: Records, slo: SloConfig) -> dict[str, NDArray[np.bool_]]:
    """Which requests keep each limit of an SLO, by its key; without those that it does not give.

    Parameters
    ----------
    done
        [requests] that have ended.
    slo
        Its limits.
    """
    spent = {
        "ttft": done["first_token_ps"] - done["arrival_ps"],
        "tpot": (done["finish_ps"] - done["first_token_ps"]) / np.maximum(done["output"] - 1, 1),
        "itl": done["longest_gap_ps"],
        "e2e": done["finish_ps"] - done["arrival_ps"],
    }
    limits = slo.model_dump().items()
    return {key: spent[key] <= limit for key, limit in limits if limit is not None}


def interval_ends(service: Service, log: StepLog) -> NDArray[np.int64]:
    """When the intervals end over which a log adds up steps, as far as the service has come.

    Parameters
    ----------
    service
        Of whose time they are.
    log
        Its ``interval_ps`` is their length.

    Returns
    -------
    NDArray[np.int64]
        (intervals,), picoseconds.
    """
    count = int(min(service.now_ps // log.interval_ps + 1, len(log.columns["steps"])))
    return np.minimum(np.arange(1, count + 1) * log.interval_ps, service.now_ps)


def _over_time(service: Service, log: StepLog) -> OverTime:
    """By intervals of equal length: steps, tokens fed, a step's requests and blocks in use on
    average, who was put out; and at each one's end who waits for his first step and who is in the
    system."""
    asked = service.requests
    ends = interval_ends(service, log)
    count = len(ends)
    arrived = _count(_reached(asked, "arrival_ps"), ends)
    steps = log.columns["steps"][:count]
    return {
        "end_s": (ends / _PS_PER_S).tolist(),
        "steps": steps.tolist(),
        "tokens": log.columns["tokens"][:count].tolist(),
        "batch": (log.columns["requests"][:count] / np.maximum(steps, 1)).tolist(),
        "kv_used": (log.columns["used_blocks"][:count] / np.maximum(steps, 1)).tolist(),
        "preempted": log.columns["preempted"][:count].tolist(),
        "queue": (arrived - _count(_reached(asked, "first_scheduled_ps"), ends)).tolist(),
        "in_system": (arrived - _count(_reached(asked, "finish_ps"), ends)).tolist(),
    }
