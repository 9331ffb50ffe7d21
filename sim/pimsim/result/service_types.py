"""What ``pimsim serve --json`` prints and ``result.json`` of a service holds."""

from __future__ import annotations

from typing import Any, Final, Literal

from typing_extensions import TypedDict

__all__ = [
    "NO_ENERGY", "VERSION", "Asked", "Cache", "Cost", "Drafts", "Goodput", "Latency", "LinkUse",
    "OverTime", "Queue", "ServiceEnergy", "ServiceFigures", "ServiceOrigin", "Spread", "Steps",
]  # fmt: skip

VERSION: Final = 1
"""Of this format."""


class Asked(TypedDict):
    """How many requests there are."""

    asked: int
    """Of the service, those that never came included."""
    arrived: int
    """So far."""
    finished: int
    """So far."""


class Spread(TypedDict):
    """Values of many requests, in seconds; null: there is none. Percentiles lie between the two
    nearest ranks, in proportion."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None


class Latency(TypedDict):
    """Times of requests that came so far."""

    ttft: Spread
    """Arrival to first token."""
    tpot: Spread
    """(finish - first token) / (output - 1), of requests of more than one token."""
    itl: Spread
    """Gaps between two tokens, over all requests; those that come together have one of 0.
    Percentiles are within 0.05 %."""
    e2e: Spread
    """Arrival to last token."""
    queue: Spread
    """Arrival to the start of the first step."""
    handover: Spread
    """First token to the arrival of the last byte of keys and values in the other pool."""


class Goodput(TypedDict):
    """Requests that keep every limit of the SLO; null: it has none."""

    requests_per_s: float | None
    share: float | None
    """Of those that ended."""


class Cost(TypedDict):
    """At the prices of the service's YAML."""

    currency: str
    total: float
    machines: float
    """Of the time of all replicas, idle time included."""
    energy: float
    """Of what they draw."""
    million_tokens_made: float | None
    """Total by the tokens that were made; null: there are none."""
    million_tokens: float | None
    """Total by these and the tokens of their prompts."""


class Queue(TypedDict):
    """Who waits, and whether that grows; null: that cannot be said."""

    max: int
    """Requests that wait at once on a replica."""
    at_last_arrival: int | None
    """Requests that wait for their first step then."""
    overloaded: bool | None
    """The queue grows while requests come (Mann and Kendall's test)."""
    offered_per_s: float | None
    """Requests that come, between the first and the last."""
    carried_per_s: float | None
    """Requests that end, in the second half of that time."""


class Cache(TypedDict):
    """The KV cache."""

    blocks: int
    """Of a replica, for requests."""
    block_tokens: int
    used: float
    """Blocks of a replica in use, on average over the steps."""
    peak: int
    """Blocks of a replica in use, at most."""
    preemptions: int
    """Requests that were put out of the cache."""
    recomputed_tokens: int
    """Tokens that were fed again for that."""
    cached_tokens: int
    """Tokens of prompts that were found in the cache."""
    prefix_hits: float
    """Of all tokens of prompts."""


class Steps(TypedDict):
    """The steps of all replicas."""

    count: int
    tokens: int
    """That were fed."""
    mean_requests: float
    """Of a step."""
    mean_tokens: float
    """Of a step."""


class Drafts(TypedDict):
    """Guessed tokens."""

    verifications: int
    """A request's part of a step that verified some."""
    accepted: int
    rejected: int
    """Fed for nothing."""


class LinkUse(TypedDict):
    """Keys and values between two pools of replicas."""

    bytes: int
    """Sent, those under way included."""
    links: int
    """That any of them may go over."""
    busy: float
    """Of the time, the busiest link."""


class OverTime(TypedDict):
    """By intervals of equal length, which the last one may not fill."""

    end_s: list[float]
    """When each one ends."""
    steps: list[float]
    """That began in it."""
    tokens: list[float]
    """That these fed."""
    batch: list[float]
    """Requests of such a step, on average."""
    kv_used: list[float]
    """Blocks of its replica in use, on average."""
    preempted: list[float]
    """Requests that were put out of the cache."""
    queue: list[int]
    """Who waits for the first step, at the end of the interval."""
    in_system: list[int]
    """Who has come and has not ended, at the end of the interval."""


class ServiceOrigin(TypedDict):
    """Where figures come from."""

    scheduler: str
    """Its module."""
    fidelity: dict[str, Any]
    """How step times are known."""
    provenance: dict[str, Any]
    """Version, hash of all that the result depends on, seed, format of the requests, wall time."""
    warnings: list[str]


class ServiceEnergy(TypedDict):
    """Of all replicas of a simulated machine, idle time included; null: step times are given."""

    energy_j: dict[str, float] | None
    """By part, with their total."""
    power_w: dict[str, float] | None
    """On average, by part, with their total."""
    idle_w: float | None
    """While nobody works: static power, the DRAM's standby and refresh."""
    token_j: float | None
    """Of a token that was made; null also where there is none."""
    power_over_time_w: list[float] | None
    """On average in each interval of over_time; a step counts in the one in which it begins."""


NO_ENERGY: ServiceEnergy = {
    "energy_j": None, "power_w": None, "idle_w": None, "token_j": None, "power_over_time_w": None,
}  # fmt: skip
"""Of services whose step times are given."""


class ServiceFigures(ServiceOrigin, ServiceEnergy):
    """A service, as far as it came."""

    version: Literal[1]
    """Of this format."""
    name: str
    finished: bool
    """Nothing is left to happen."""
    requests: Asked
    time_s: float
    """That was simulated."""
    requests_per_s: float
    """That ended, over all of that time."""
    tokens_per_s: float
    """That were made, over all of that time."""
    latency_s: Latency
    tpot_is: str
    """TPOT, said in words."""
    slo: dict[str, float]
    """Limits in seconds, of those that were given."""
    goodput: Goodput
    queue: Queue
    kv: Cache
    steps: Steps
    drafts: Drafts
    links: LinkUse | None
    """Null: each replica makes all tokens."""
    cost: Cost | None
    """Null: the service has no prices."""
    over_time: OverTime
