"""A service at several rates: its latency over its throughput, and the highest rate at which it
keeps its SLO in the steady state."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from decimal import Decimal
from math import isfinite, sqrt
from typing import Any

import numpy as np

from pimsim.config.errors import InputError
from pimsim.config.traffic import MOST_REQUESTS
from pimsim.explore.pool import Answer, Job, Pool, answers, simulate_job, worker_pool
from pimsim.intervals import student_t
from pimsim.result.service import TREND_LIMIT
from pimsim.result.service_steady import steady_state
from pimsim.services import ServiceRun, prepare
from pimsim.workload.load_traffic import load_traffic
from pimsim.workload.traffic import LATEST_PS, NOBODY

__all__ = ["HighestRate", "RatePoint", "RateStudy", "highest_rate", "percent", "study_rates"]

PathLike = str | os.PathLike[str]
_LEAST = 100
"""Requests of a steady state, at least; else a service is given more."""
_DOUBLINGS = 4
"""Of the number of requests, at most."""
_REACH = 2.0**10
"""How far from the service's own rate one is looked for."""
_TIMES = ("ttft", "tpot", "e2e")
_RANKS = ("p50", "p99")


@dataclass(frozen=True)
class RatePoint:
    """A service at one rate, over its seeds."""

    rate_per_s: float
    """Requests that come."""
    keeps: bool
    """It settles, and enough requests keep the SLO."""
    why: str
    """Why not; empty where it does."""
    share: float | None
    """Requests of the steady state that keep the SLO: the mean over the seeds; None: there is
    none."""
    share_half_width: float | None
    """Of the 95 % interval of ``share``, by Student's t over the seeds; None: fewer than two."""
    shares: dict[str, float]
    """The mean of each limit alone, by its key."""
    grows: int
    """Seeds whose queue grows, or where nobody waits and there are more and more in the system."""
    trend: float
    """Of the queue's length by Mann and Kendall, in deviations of chance: the median of the seeds
    whose queue grows, of all where none does."""
    carried_per_s: float
    """Requests that end in the second half of the arrivals: the mean over the seeds."""
    requests_per_s: float
    """Requests that end from the end of the warm-up to the last arrival: the same mean."""
    tokens_per_s: float
    """That these made."""
    latency_s: dict[str, dict[str, float | None]]
    """p50 and p99 of TTFT, TPOT and latency in the steady state: the means over the seeds."""
    requests: int
    """Of the steady states of all seeds."""
    of: int
    """Requests that these services had."""


@dataclass(frozen=True)
class HighestRate:
    """Between which rates a service stops keeping its SLO."""

    rate_per_s: float | None
    """The highest that keeps it; None: the lowest that was tried does not."""
    next_per_s: float | None
    """The next that was tried, which does not; None: the highest that was tried keeps it."""
    why: str
    """Why the next does not."""
    seeds_per_s: tuple[float, ...]
    """The same of each seed alone, of those that have one."""
    interval_per_s: tuple[float, float] | None
    """95 % of their mean, by Student's t, from the rates that seeds keep to the next that they do
    not; None: a seed has none, or there is only one."""


@dataclass(frozen=True)
class RateStudy:
    """What a service does at the rates that were tried."""

    name: str
    slo: dict[str, float]
    """Limits, in seconds."""
    share: float
    """Of requests that have to keep them."""
    seeds: int
    points: tuple[RatePoint, ...]
    """By rate."""
    highest: HighestRate | None
    """None: it was not looked for."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"version": 1, **asdict(self)}


@dataclass(frozen=True)
class RateJob(Job):
    """A service at one rate with one seed."""

    count: int = 0
    """Requests, at first."""

    def figures(self) -> dict[str, Any]:
        """Serve; where too few requests are in the steady state and the queue does not grow, again
        with twice as many."""
        count = self.count
        for _ in range(_DOUBLINGS):
            found = self._serve(count)
            if found["requests"] >= _LEAST or found["grows"] or 2 * count > MOST_REQUESTS:
                return found
            count *= 2
        found = self._serve(count)
        if found["grows"] or found["requests"] >= _LEAST:
            return found
        # nobody waits, and still there are more and more, or it never settles
        rising = found["in_system_trend"] > TREND_LIMIT or not found["requests"]
        return found | {"grows": rising, "trend": found["in_system_trend"]}

    def _serve(self, count: int) -> dict[str, Any]:
        resolved = prepare(self.base, (*self.overrides, f"requests.count={count}"))
        with ServiceRun(resolved) as running:
            running.run()
            result = running.result()
        state, verdict = steady_state(result.requests, resolved.config.slo), result.verdict
        return asdict(state) | {
            "of": count,
            "grows": verdict is not None and verdict.overloaded,
            "trend": 0.0 if verdict is None else verdict.trend,
            "carried_per_s": state.requests_per_s if verdict is None else verdict.carried_per_s,
        }


def study_rates(
    name_or_path: PathLike, rates: Sequence[float] = (), *, overrides: Sequence[str] = (),
    seeds: int = 5, share: float = 0.99, tolerance: float = 0.02, workers: int = 1,
    on_run: Callable[[int, float], None] | None = None,
) -> RateStudy:  # fmt: skip
    """Serve at given rates, or look for the highest one at which enough requests keep the SLO.

    A rate is set by ``requests.rate_scale``. It is kept where in no more than half of the seeds the
    queue grows (Mann and Kendall's test), and the mean share of requests of the steady state that
    keep the SLO is ``share`` or more. Without an SLO the queue alone decides. The same for any
    number of workers.

    Parameters
    ----------
    name_or_path
        A service, as ``pimsim.serve`` takes it.
    rates
        Requests per second; empty: the highest is looked for.
    overrides
        Other values of the service.
    seeds
        Services at each rate, with the service's seed and those behind it.
    share
        Of requests that have to keep the SLO, above 0 to 1.
    tolerance
        Between the highest rate and the next one, as a part, 0.001 to 1.
    workers
        Processes that serve at once.
    on_run
        Hears how many services are done, and the rate of the last.

    Raises
    ------
    InputError
        For wrong input, and where nothing says how often requests come.
    """
    _check(rates, seeds, share, tolerance)
    base = os.fspath(name_or_path)
    config = prepare(base, overrides).config
    own = _own_rate(config)
    with ExitStack() as stack:
        pool = stack.enter_context(worker_pool(workers, None)) if workers > 1 else None
        runs = _Runs(
            base, tuple(overrides), config.seed, own.unscaled_per_s, own.count, pool, on_run
        )  # fmt: skip
        everybody = tuple(range(seeds))

        def judge(rate: float, some: Sequence[int] = everybody) -> RatePoint:
            return _judged(rate, [runs.known[rate, seed] for seed in some], share)

        highest = None
        if rates:
            runs.make((rate, seed) for rate in rates for seed in everybody)
        else:
            highest = _highest(runs, judge, own, tolerance, everybody)
    tried = sorted({
        rate for rate, _ in runs.known if all((rate, seed) in runs.known for seed in everybody)
    })  # fmt: skip
    limits = {key: ps / 1e12 for key, ps in config.slo.model_dump().items() if ps is not None}
    points = tuple(judge(rate) for rate in tried)
    return RateStudy(config.name, limits, share, seeds, points, highest)


def _check(rates: Sequence[float], seeds: int, share: float, tolerance: float) -> None:
    for rate in rates:
        if not (isfinite(rate) and rate > 0):
            raise InputError(f"rates: found {rate}; allowed: requests per second above 0")
    if not 1 <= seeds <= 1000:
        raise InputError(f"seeds: found {seeds}; allowed: a whole number of 1 to 1,000")
    if not 0 < share <= 1:
        raise InputError(f"share: found {share}; allowed: above 0 to 1 (99%)")
    if not 0.001 <= tolerance <= 1:
        raise InputError(f"tolerance: found {tolerance}; allowed: 0.001 to 1 (2%)")


@dataclass(frozen=True)
class _Own:
    """How often a service's requests come as it is."""

    rate_per_s: float
    unscaled_per_s: float
    """At a ``rate_scale`` of 1."""
    least_per_s: float
    """That the latest possible arrival lets be looked for."""
    count: int
    """Of requests."""


def _own_rate(config: Any) -> _Own:
    traffic = load_traffic(config.requests, config.seed).traffic
    if (traffic.follows != NOBODY).any():
        raise InputError(
            f"{config.name}: requests come when others have ended (sessions, or users in a closed "
            "loop): they have no rate that could be set"
        )
    span_ps = int(traffic.arrival_ps[-1] - traffic.arrival_ps[0])
    if not span_ps:
        raise InputError(f"{config.name}: all requests come at once: there is no rate to be set")
    scale = config.requests.rate_scale
    given = getattr(config.requests.arrivals, "rate_per_s", None)
    own = scale * given if given is not None else (len(traffic) - 1) / span_ps * 1e12
    # twice, as another seed's last request may come later
    least = own * 2 * 2**_DOUBLINGS * int(traffic.arrival_ps[-1]) / LATEST_PS
    return _Own(own, own / scale, min(own, least), len(traffic))


class _Runs:
    """Services that were made, by rate and number of the seed."""

    def __init__(
        self, base: str, overrides: tuple[str, ...], seed: int, unscaled_per_s: float, count: int,
        pool: Pool | None, on_run: Callable[[int, float], None] | None,
    ) -> None:  # fmt: skip
        self.known: dict[tuple[float, int], dict[str, Any]] = {}
        self._base, self._overrides, self._seed = base, overrides, seed
        self._unscaled_per_s, self._count = unscaled_per_s, count
        self._pool, self._on_run = pool, on_run

    def make(self, wanted: Iterable[tuple[float, int]]) -> None:
        """Serve what is not known yet."""
        jobs = {
            f"{rate!r} {seed}": (rate, seed)
            for rate, seed in wanted if (rate, seed) not in self.known
        }  # fmt: skip
        made = (self._job(key, *each) for key, each in jobs.items())
        found: Iterable[Answer]
        found = map(simulate_job, made) if self._pool is None else answers(self._pool, made)
        for answer in found:
            rate, seed = jobs[answer.job.key]
            if answer.figures is None:
                raise InputError(f"at {rate:g} requests/s: {answer.error}")
            self.known[rate, seed] = answer.figures
            if self._on_run is not None:
                self._on_run(len(self.known), rate)

    def _job(self, key: str, rate: float, seed: int) -> RateJob:
        scale = Decimal(repr(rate / self._unscaled_per_s))
        values = (f"requests.rate_scale={scale:f}", f"seed={(self._seed + seed) % 2**63}")
        return RateJob(key, key, self._base, (*self._overrides, *values), count=self._count)


def _judged(rate: float, runs: Sequence[dict[str, Any]], share: float) -> RatePoint:
    """What the runs of a rate say."""
    kept = [run["share"] for run in runs if run["share"] is not None]
    mean = float(np.mean(kept)) if kept else None
    half = _half_width(kept)
    shares = {
        key: float(np.mean([run["shares"][key] for run in runs if run["shares"]]))
        for key in next((run["shares"] for run in runs if run["shares"]), ())
    }
    growing = [run for run in runs if run["grows"]]
    trend = float(np.median([run["trend"] for run in growing or runs]))
    carried = float(np.mean([run["carried_per_s"] for run in runs]))
    why = ""
    if 2 * len(growing) > len(runs):
        why = (
            f"the queue grows with {len(growing)} of {len(runs)} seeds (Mann and Kendall: "
            f"{trend:+.1f} deviations, chance has {TREND_LIMIT}); {carried:.4g} requests/s are "
            "carried"
        )
    elif mean is not None and mean < share:
        each = ", ".join(f"{key} {value:.2%}" for key, value in shares.items())
        why = f"{percent(mean, half)} keep the SLO, {100 * share:.4g}% have to (each limit: {each})"
    return RatePoint(
        rate, not why, why, mean, half, shares, len(growing), trend, carried,
        float(np.mean([run["requests_per_s"] for run in runs])),
        float(np.mean([run["tokens_per_s"] for run in runs])),
        {time: {rank: _mean([run["latency_s"][time][rank] for run in runs]) for rank in _RANKS}
         for time in _TIMES},
        sum(run["requests"] for run in runs), sum(run["of"] for run in runs),
    )  # fmt: skip


def _half_width(values: Sequence[float]) -> float | None:
    """Of the 95 % interval of the mean."""
    if len(values) < 2:
        return None
    return student_t(len(values) - 1) * float(np.std(values, ddof=1)) / sqrt(len(values))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def percent(mean: float, half: float | None) -> str:
    """A share with its interval.

    Parameters
    ----------
    mean
        Of the seeds, 0 to 1.
    half
        Half the interval's width; None: it has none.
    """
    if half is None:
        return f"{mean:.2%}"
    return f"{mean:.2%} ({max(mean - half, 0):.2%} to {min(mean + half, 1):.2%})"


Bisection = Generator[float, bool, tuple[float | None, float | None]]


def highest_rate(start: float, tolerance: float, least: float = 0.0) -> Bisection:
    """Bisect on the rate: yields a rate, is sent whether it is kept, and returns the highest that
    is and the next that is not.

    Parameters
    ----------
    start
        Where it begins; from there it doubles, or halves, until both are known.
    tolerance
        Between the two, as a part.
    least
        Below which none is tried.
    """
    low: float | None = None
    high: float | None = None
    rate = _tidy(start)
    while rate == _tidy(start) or max(start / _REACH, least) <= rate <= start * _REACH:
        if (yield rate):
            low = rate
        else:
            high = rate
        if low is None:
            rate = _tidy(rate / 2)
        elif high is None:
            rate = _tidy(rate * 2)
        else:
            rate = _tidy(sqrt(low * high))
            if high <= low * (1 + tolerance) or not low < rate < high:
                break
    return low, high


def _tidy(rate: float) -> float:
    """A number that reads well."""
    return float(f"{rate:.4g}")


def _highest(
    runs: _Runs, judge: Callable[[float, Sequence[int]], RatePoint], own: _Own,
    tolerance: float, everybody: tuple[int, ...],
) -> HighestRate:  # fmt: skip
    """Of all seeds together, then of each one alone, which mostly needs what is known already."""
    ((low, high),) = _bisected(runs, judge, own, tolerance, [everybody])
    alone = _bisected(runs, judge, own, tolerance, [(seed,) for seed in everybody])
    lows = tuple(kept for kept, _ in alone if kept is not None)
    highs = [over for _, over in alone if over is not None]
    known = len(everybody) == len(lows) == len(highs)
    below, above = _half_width(lows), _half_width(highs)
    return HighestRate(
        low, high, "" if high is None else judge(high, everybody).why, lows,
        (max(float(np.mean(lows)) - below, 0.0), float(np.mean(highs)) + above)
        if known and below is not None and above is not None
        else None,
    )  # fmt: skip


def _bisected(
    runs: _Runs, judge: Callable[[float, Sequence[int]], RatePoint], own: _Own,
    tolerance: float, groups: Sequence[tuple[int, ...]],
) -> list[tuple[float | None, float | None]]:  # fmt: skip
    """A bisection for each group of seeds, side by side, so that workers have what to do."""
    searches = [highest_rate(own.rate_per_s, tolerance, own.least_per_s) for _ in groups]
    wanted = {at: next(search) for at, search in enumerate(searches)}
    found: dict[int, tuple[float | None, float | None]] = {}
    while wanted:
        runs.make((rate, seed) for at, rate in wanted.items() for seed in groups[at])
        for at, rate in list(wanted.items()):
            try:
                wanted[at] = searches[at].send(judge(rate, groups[at]).keeps)
            except StopIteration as done:
                found[at] = done.value
                del wanted[at]
    return [found[at] for at in range(len(groups))]
