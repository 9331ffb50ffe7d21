"""Services under a linear step time: a step with its scheduler, many requests, many replicas."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.measurement import Measurement

__all__ = ["measure"]

LIMIT_US = 20.0
LIMIT_S = 300.0
MANY = 100_000
REPLICAS = 64
_CHAT = (
    "requests.prompt={mean: 1155, cv: 1, most: 14000}",
    "requests.output={mean: 211, cv: 0.8, most: 1000}",
)
"""Lengths of the Azure conversation trace, about."""


def _serve(requests: int, rate_per_s: float, replicas: int = 1) -> tuple[Any, float]:
    """The figures of a service, and seconds of CPU that its loop takes."""
    from pimsim.services import ServiceRun, prepare

    overrides = [
        *_CHAT, f"requests.count={requests}",
        f"requests.arrivals.rate_per_s={rate_per_s * replicas}",
        f"replicas.count={replicas}", "cache.blocks=40001",
    ]  # fmt: skip
    with ServiceRun(prepare("chat", overrides)) as running:
        start = time.process_time()
        running.run()
        spent_s = time.process_time() - start
        return running.result().to_dict(), spent_s


def measure() -> list[Measurement]:
    """What a step costs where many run, many requests, and replicas that share them."""
    _serve(100, 60.0)  # compiles
    crowd, crowded_s = _serve(3000, 60.0)
    alone_s = _serve(MANY, 5.5)[1]
    spread_s = _serve(MANY, 5.5, REPLICAS)[1]
    steps = crowd["steps"]
    return [
        Measurement(
            f"a step, {steps['mean_requests']:.0f} requests running",
            1e6 * crowded_s / steps["count"], "us CPU", LIMIT_US, at_least=False,
        ),
        Measurement(f"{MANY:,} chats at 5.5/s", alone_s, "s CPU", LIMIT_S, at_least=False),
        Measurement(
            f"a request on {REPLICAS} replicas, of that on one", spread_s / alone_s,
            "times", 1.25, at_least=False, note="each replica at 5.5/s",
        ),
    ]  # fmt: skip
