"""Rates of a service: steady states by hand, and servers whose highest rate is known in closed
form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.service import SloConfig
from pimsim.explore import rates
from pimsim.explore.rates import highest_rate, percent, study_rates
from pimsim.report.rate_charts import rate_charts
from pimsim.result.service import trend
from pimsim.result.service_steady import steady_state, warm_up
from pimsim.serving.records import REQUEST

# one server that takes a second for each request, one after the other
SERVER = """\
requests:
  {arrivals}
scheduler: {{name: vllm, max_num_seqs: 1, max_num_batched_tokens: 64}}
cache: {{blocks: 101}}
step_time: {{linear: {{step_us: 1000000, token_us: 0}}}}
{slo}
"""
POISSON = (
    "count: {count}\n  arrivals: {{process: poisson, rate_per_s: {rate}}}\n"
    "  prompt: {{fixed: 8}}\n  output: {{fixed: 1}}"
)


@pytest.fixture
def server(tmp_path: Path) -> Callable[..., Path]:
    def write(arrivals: str, slo: str = "") -> Path:
        path = tmp_path / "server.yaml"
        path.write_text(SERVER.format(arrivals=arrivals, slo=slo))
        return path

    return write


def _regular(folder: Path, count: int) -> str:
    """A request every two seconds."""
    rows = "".join(f"{2_000_000 * at},8,1\n" for at in range(count))
    (folder / "regular.csv").write_text(f"arrival_us,prompt,output\n{rows}")
    return "file: ./regular.csv"


def test_a_server_of_a_second_carries_one_request_a_second(
    server: Callable[..., Path], tmp_path: Path
) -> None:
    """D/D/1: regular arrivals never wait up to 1/s; beyond, the queue grows without end."""
    path = server(_regular(tmp_path, 1500))
    study = study_rates(path, seeds=1)
    assert study.highest is not None
    low, high = study.highest.rate_per_s, study.highest.next_per_s
    assert low is not None and high is not None
    assert 0.99 <= low <= 1 < high <= 1.02 * low
    assert study.highest.interval_per_s is None and study.highest.seeds_per_s == (low,)
    assert "the queue grows with 1 of 1 seeds" in study.highest.why
    over = study.points[-1]
    assert over.carried_per_s == pytest.approx(1, rel=0.01)
    assert f"{over.carried_per_s:.4g} requests/s are carried" in over.why
    assert study.points[0].rate_per_s == 0.5 and study.points[0].share is None
    for point in study.points:
        assert point.keeps is (point.rate_per_s <= 1) and point.grows == (point.rate_per_s > 1)
        assert point.requests_per_s == pytest.approx(min(point.rate_per_s, 1), rel=0.01)
        assert point.tokens_per_s == pytest.approx(point.requests_per_s)
        if point.keeps:
            assert point.latency_s["ttft"] == {"p50": 1, "p99": 1}
            assert point.latency_s["tpot"] == {"p50": None, "p99": None}


def test_half_of_poissons_requests_wait_at_half_the_load(server: Callable[..., Path]) -> None:
    """M/D/1: who does not wait is 1 less the load, so that a TTFT of a bare second is kept by half
    of all at 0.5/s."""
    path = server(POISSON.format(count=1000, rate=0.4), "slo: {ttft: 1s}")
    study = study_rates(path, share=0.5, tolerance=0.05)
    found = study.highest
    assert found is not None and found.rate_per_s is not None and found.interval_per_s is not None
    assert found.rate_per_s == pytest.approx(0.5, rel=0.08)
    assert found.interval_per_s[0] < 0.5 < found.interval_per_s[1]
    assert found.interval_per_s[1] - found.interval_per_s[0] < 0.2
    assert len(found.seeds_per_s) == 5
    assert "keep the SLO, 50% have to (each limit: ttft 4" in found.why
    for point in study.points:
        if point.rate_per_s < 0.7:
            assert point.share == pytest.approx(1 - point.rate_per_s, abs=0.04)
            assert point.share_half_width is not None and 0 < point.share_half_width < 0.1
    shares = [point.share for point in study.points if point.share is not None]
    assert shares == sorted(shares, reverse=True)


def test_an_overload_ends_with_the_rate_that_is_carried(server: Callable[..., Path]) -> None:
    path = server(POISSON.format(count=200, rate=1), "slo: {ttft: 30s}")
    (point,) = study_rates(path, [50.0], seeds=2).points
    assert not point.keeps and point.grows == 2
    assert point.carried_per_s == pytest.approx(1, rel=0.3)
    assert point.of == 2 * 200  # no more are asked of who cannot keep up
    assert point.trend == pytest.approx(trend(np.arange(20)))


def test_an_slo_that_nobody_can_keep_has_no_rate(server: Callable[..., Path]) -> None:
    path = server(POISSON.format(count=120, rate=0.5), "slo: {ttft: 999ms}")
    study = study_rates(path, seeds=2)
    assert study.highest is not None and study.highest.rate_per_s is None
    assert study.highest.next_per_s == study.points[0].rate_per_s < 1e-3
    assert study.highest.seeds_per_s == () and study.highest.interval_per_s is None
    assert study.points[0].shares == {"ttft": 0}


def test_more_requests_are_served_where_few_are_in_the_steady_state(
    server: Callable[..., Path],
) -> None:
    path = server(POISSON.format(count=30, rate=0.2))
    (point,) = study_rates(path, [0.2], seeds=1).points
    assert point.of in (120, 240) and point.requests >= 100


def test_requests_that_pile_up_without_a_queue_are_too_many(tmp_path: Path) -> None:
    """All run at once, so nobody waits; a request a second makes 2000 tokens of a millisecond."""
    path = tmp_path / "wide.yaml"
    path.write_text(
        "requests: {count: 20, arrivals: {process: poisson, rate_per_s: 1},"
        " prompt: {fixed: 1}, output: {fixed: 2000}}\n"
        "scheduler: {name: vllm, max_num_seqs: 5000, max_num_batched_tokens: 9000}\n"
        "cache: {blocks: 90000}\nstep_time: {linear: {step_us: 1, token_us: 1000}}\n"
    )
    (point,) = study_rates(path, [1.0], seeds=1).points
    assert not point.keeps and point.of == 320 and point.trend > 5


def test_workers_change_nothing(server: Callable[..., Path]) -> None:
    path = server(POISSON.format(count=100, rate=0.3), "slo: {ttft: 3s}")
    some = {"seeds": 2, "share": 0.9, "tolerance": 1}
    alone: Any = study_rates(path, **some)  # type: ignore[arg-type]
    assert alone == study_rates(path, workers=2, **some)  # type: ignore[arg-type]


@pytest.mark.parametrize("limit", [0.013, 0.5, 1.0, 3.7, 400.0])
@pytest.mark.parametrize("tolerance", [0.001, 0.02, 1.0])
def test_a_bisection_ends_beside_the_limit(limit: float, tolerance: float) -> None:
    search, tried = highest_rate(1.0, tolerance), []
    rate = next(search)
    with pytest.raises(StopIteration) as ended:
        while True:
            tried.append(rate)
            rate = search.send(rate <= limit)
    low, high = ended.value.value
    assert low <= limit < high
    assert high <= low * (1 + tolerance) + 1e-9
    assert len(tried) == len(set(tried)) < 30


@pytest.mark.parametrize("answer", [True, False])
def test_a_bisection_without_a_limit_ends(answer: bool) -> None:
    search = highest_rate(3.0, 0.02)
    next(search)
    with pytest.raises(StopIteration) as ended:
        while True:
            search.send(answer)
    low, high = ended.value.value
    assert (high is None, low is None) == (answer, not answer)
    assert (low or 0) > 1e3 or (high or 1) < 1e-2


def test_a_steady_state_by_hand() -> None:
    """Ten that meet nobody, twenty that meet three: the first ten and the way up
    are warm-up; the last four end after the last arrival."""
    asked = np.zeros(30, dtype=REQUEST)
    asked["arrival_ps"] = np.arange(30) * 10**12
    asked["finish_ps"] = asked["arrival_ps"] + 5 * 10**11
    asked["finish_ps"][10:] += 3 * 10**12
    asked["first_token_ps"] = asked["arrival_ps"] + 10**11
    asked["first_token_ps"][20:] += 10**12
    asked["output"] = 1
    asked["output"][17] = 5
    state = steady_state(asked, SloConfig(ttft=5 * 10**11, e2e=10**13))
    assert (state.warm_up, state.requests, state.drain) == (15, 11, 4)
    assert state.shares == {"ttft": 5 / 11, "e2e": 1.0} and state.share == 5 / 11
    assert state.latency_s["e2e"]["max"] == 3.5
    assert state.latency_s["tpot"]["mean"] == pytest.approx(3.4 / 4)
    assert state.requests_per_s == pytest.approx(14 / 14)
    assert state.tokens_per_s == pytest.approx(18 / 14)
    assert abs(state.in_system_trend) < 1.96


def test_mser_cuts_a_ramp_and_nothing_of_what_is_even() -> None:
    assert warm_up(np.full(100, 7)) == 0
    assert warm_up(np.concatenate([np.zeros(20, dtype=np.int64), np.full(100, 7)])) == 20
    assert warm_up(np.arange(100)) == 50  # at most half
    assert warm_up(np.arange(9)) == 0


def test_a_trend_by_hand() -> None:
    assert trend(np.array([1, 2, 3, 4])) == pytest.approx(6 / sqrt(4 * 3 * 13 / 18))
    assert trend(np.array([3, 3, 3])) == 0
    assert trend(np.array([3, 2, 1])) == pytest.approx(-3 / sqrt(3 * 2 * 11 / 18))


def test_what_is_asked_for_is_checked(server: Callable[..., Path]) -> None:
    path = server(POISSON.format(count=30, rate=0.2))
    for wrong in (
        {"rates": [0.0]}, {"rates": [float("nan")]}, {"rates": [float("inf")]}, {"seeds": 0},
        {"seeds": 1001}, {"share": 0.0}, {"share": 1.1}, {"tolerance": 0.0001}, {"tolerance": 2},
    ):  # fmt: skip
        with pytest.raises(InputError, match=f"{next(iter(wrong))}: found .*; allowed: "):
            study_rates(path, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="rate_scale"):
        study_rates(path, [1e9])


def test_arrivals_without_a_rate_are_refused(server: Callable[..., Path]) -> None:
    path = server(POISSON.format(count=30, rate=0.2))
    for process, why in (("closed, users: 2", "have no rate"), ("at_once", "all requests come at")):
        with pytest.raises(InputError, match=why):
            study_rates(path, overrides=[f"requests.arrivals={{process: {process}}}"])


def test_a_chart_has_percentiles_and_the_limit(server: Callable[..., Path]) -> None:
    path = server(POISSON.format(count=150, rate=0.3), "slo: {ttft: 3s}")
    study = study_rates(path, [0.2, 0.4], seeds=1)
    charts = {chart.key: chart for chart in rate_charts(study)}
    assert set(charts) == {"rates_ttft", "rates_e2e"}  # a single token has no TPOT
    assert [line.name for line in charts["rates_ttft"].lines] == ["p50", "p99", "SLO"]
    assert [line.name for line in charts["rates_e2e"].lines] == ["p50", "p99"]
    p99 = charts["rates_ttft"].lines[1]
    assert p99.x == tuple(point.requests_per_s for point in study.points)
    assert p99.y == tuple(point.latency_s["ttft"]["p99"] for point in study.points)
    assert rate_charts(replace(study, points=())) == []


def test_a_share_is_shown_with_its_interval() -> None:
    assert percent(0.5, None) == "50.00%"
    assert percent(0.99, 0.02) == "99.00% (97.00% to 100.00%)"
    assert rates._half_width([0.5]) is None
    assert rates._half_width([0.4, 0.6]) == pytest.approx(12.706 * 0.1, rel=1e-3)
