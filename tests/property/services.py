"""Random services for the tests of schedulers: small ones, that meet every rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from pimsim.config.plugins import module_names
from pimsim.serving.ending import Speculation
from pimsim.serving.pools import DecodePool, Links
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import Batch, Scheduler, load_scheduler
from pimsim.serving.service import Fleet, Service
from pimsim.serving.step_times.linear import Linear
from pimsim.workload.traffic import PrefixBlocks, Traffic

SCHEDULERS = module_names("scheduler")
LONGEST = 120
"""Tokens of a prompt and of an output, at most."""
SETTINGS: dict[str, Any] = {
    "max_num_seqs": 6, "max_num_batched_tokens": 64, "batch_cap": 6, "chunk": 48,
    "max_tokens_in_batch": 3 * LONGEST, "max_tokens": 2 * LONGEST, "max_waiting_iters": 4,
    "watermark": 0.0,
}  # fmt: skip
"""Of whichever scheduler has such a key."""
PS_PER_US = 10**6
STEP = Linear(1000, 20, 40)


def traffic(seed: int, count: int = 40, gap_us: int = 20_000) -> Traffic:
    """Random arrivals and lengths; half of the prompts begin as others do."""
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.integers(0, 2 * gap_us, count)) * PS_PER_US
    prompt = draw.integers(1, LONGEST + 1, count)
    numbers = np.arange(3 * LONGEST, dtype=np.int32)
    first = draw.integers(0, 3, count) * LONGEST
    return Traffic(
        arrivals, prompt, draw.integers(1, LONGEST + 1, count),
        priority=draw.integers(0, 3, count),
        prefixes=PrefixBlocks(
            4, numbers, first, np.where(draw.integers(0, 2, count) > 0, prompt // 4, 0)
        ),
    )  # fmt: skip


def second_pool(
    first: int = 1, count: int = 1, bytes_per_ps: Fraction | None = None, latency_ps: int = 0,
    token_bytes: int = 1000, hops: int = 1, router: str = "least_outstanding", stages: int = 1,
    step_time: Linear = STEP,
) -> DecodePool:  # fmt: skip
    """Replicas that decode, with a link, or a chain of them, from each of the ``first`` others."""
    pairs = [(one, first + other) for one in range(first) for other in range(count)]
    paths = {pair: tuple(hops * at + hop for hop in range(hops)) for at, pair in enumerate(pairs)}
    links = Links(paths, hops * len(pairs), bytes_per_ps, latency_ps)
    return DecodePool(step_time, load_router(router), count, stages, links, token_bytes)


def fleet(
    name: str, blocks: int = 100, replicas: int = 1, stages: int = 1, drafts: int = 0,
    router: str = "round_robin", decode: DecodePool | None = None, **settings: Any,
) -> Fleet:  # fmt: skip
    """A fleet under the scheduler ``name``, with blocks of four tokens where it allows that."""
    kind = load_scheduler(name)
    given = {**SETTINGS, **settings}
    own = {key: value for key, value in given.items() if key in kind.Settings.model_fields}
    size = 1 if "lightllm" in name else 4
    return Fleet(
        kind, kind.Settings(name=name, **own), STEP, blocks * 4 // size, size,
        load_router(router), replicas, stages, Speculation(drafts, "mix"), decode,
    )  # fmt: skip


@dataclass
class Watch:
    """Keeps what steps say of themselves."""

    tokens: int = 0
    steps: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    """Replica, start, end, entries, requests in the system, free blocks."""

    def made(self, replica: int, batch: Batch, scheduler: Scheduler) -> None:
        self.tokens += batch.tokens
        inside = scheduler.waiting + scheduler.running
        if not scheduler.keeps_running:
            inside += batch.requests
        assert batch.tokens == batch.new_tokens.sum()
        assert batch.context == batch.contexts.sum()
        most = getattr(scheduler, "most_entries", None)
        assert most is None or batch.requests <= most
        self.steps.append(
            (
                replica, batch.start_ps, batch.end_ps, batch.requests, inside,
                scheduler.cache.free,
            )
        )  # fmt: skip


def served(traffic: Traffic, fleet: Fleet) -> tuple[Service, Watch]:
    """A service that has ended."""
    service, watch = Service(traffic, fleet), Watch()
    service.run([watch])
    return service, watch
