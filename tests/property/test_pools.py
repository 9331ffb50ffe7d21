"""Two pools: prompts are fed in one, all other tokens are made in the other."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.property.services import SCHEDULERS, STEP, fleet, second_pool, served, traffic

from pimsim.config.errors import InputError
from pimsim.serving.pools import DecodePool
from pimsim.serving.schedulers import Batch, Scheduler, load_scheduler
from pimsim.serving.service import Service
from pimsim.serving.step_times.linear import Linear
from pimsim.workload.traffic import Traffic

NAMES = [name for name in SCHEDULERS if load_scheduler(name).takes_over]
SLOW = Fraction(1, 10_000)
"""Bytes a picosecond: a token of 1000 bytes takes 10 us."""


def _asked(*shapes: tuple[int, int, int]) -> Traffic:
    arrival, prompt, output = (np.array(column) for column in zip(*shapes, strict=True))
    return Traffic(arrival * 10**6, prompt, output)


def _step_ps(tokens: int, context: int, of: Linear = STEP) -> int:
    return (of.step_us + of.token_us * tokens + of.ctx_ns * context // 1000) * 10**6


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_one_request_takes_its_prompt_its_bytes_and_its_steps(hops: int) -> None:
    other = Linear(500, 3, 20)
    pool = second_pool(1, 1, Fraction(7, 10_000), 123_456, hops=hops, step_time=other)
    service, _ = served(_asked((5, 60, 3)), fleet("vllm", decode=pool))
    one = service.requests[0]
    first = 5 * 10**6 + _step_ps(60, 60)
    keeps = -(-60 * 1000 * 10_000 // 7)
    arrived = first + hops * (keeps + 123_456)
    assert one["first_token_ps"] == one["kv_sent_ps"] == first
    assert one["kv_arrived_ps"] == arrived
    assert one["finish_ps"] == arrived + _step_ps(1, 61, other) + _step_ps(1, 62, other)
    assert (one["prefill_replica"], one["replica"]) == (0, 1)


def test_one_token_stays_where_it_was_made() -> None:
    service, _ = served(_asked((0, 60, 1)), fleet("vllm", decode=second_pool(1, 1, SLOW)))
    one = service.requests[0]
    assert one["finish_ps"] == one["first_token_ps"] == _step_ps(60, 60)
    assert (one["replica"], one["kv_sent_ps"]) == (0, -1)
    assert service.done and service.finished == 1


@pytest.mark.parametrize("name", NAMES)
def test_with_infinite_links_a_split_is_one_device_where_no_batch_mixes(name: str) -> None:
    asked = traffic(1, gap_us=10**6)
    blocks = 400 if "orca" in name else 100
    apart, _ = served(asked, fleet(name, blocks, decode=second_pool()))
    alone, _ = served(asked, fleet(name, blocks))
    assert (np.diff(asked.arrival_ps) > 400 * 10**9).sum() > 30  # most are alone
    mixed = (asked.arrival_ps[1:] < alone.requests["finish_ps"][:-1]).any()
    if not mixed:
        assert (apart.requests["finish_ps"] == alone.requests["finish_ps"]).all()
    lonely = np.flatnonzero(asked.arrival_ps[1:] > alone.requests["finish_ps"][:-1]) + 1
    lonely = lonely[lonely < len(asked) - 1]
    lonely = lonely[asked.arrival_ps[lonely + 1] > alone.requests["finish_ps"][lonely]]
    assert len(lonely) > 20
    for column in ("first_token_ps", "finish_ps"):
        assert (apart.requests[column][lonely] == alone.requests[column][lonely]).all()


class _Watch:
    """When the requests of each step of the second pool began it."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.found: list[tuple[int, int]] = []

    def made(self, replica: int, batch: Batch, scheduler: Scheduler) -> None:
        entries = batch.entries[: batch.requests]
        for row, new in zip(entries["request"].tolist(), entries["new"].tolist(), strict=True):
            if replica >= self.first:
                self.found.append((row, batch.start_ps))
            else:
                assert scheduler.requests["first_token_ps"][row] == -1, new


@pytest.mark.parametrize("name", NAMES)
def test_nobody_decodes_before_his_last_byte_has_come(name: str) -> None:
    blocks = 400 if "orca" in name else 70
    for seed in range(3):
        pool = second_pool(2, 2, SLOW, 10**6, hops=1 + seed % 2)
        asked = traffic(seed, gap_us=2_000)
        service, watch = Service(asked, fleet(name, blocks, 2, decode=pool)), _Watch(2)
        service.run([watch])
        found = service.requests
        assert (found["finish_ps"] > 0).all() and service.done
        moved = found[found["kv_sent_ps"] >= 0]
        assert len(moved) == (asked.output > 1).sum()
        assert watch.found
        assert all(start >= found["kv_arrived_ps"][row] >= 0 for row, start in watch.found)
        least = moved["prompt"] * 10**7 * (1 + seed % 2)
        assert (moved["kv_arrived_ps"] - moved["kv_sent_ps"] >= least).all()
        assert (moved["kv_sent_ps"] >= moved["first_token_ps"]).all()
        for replica in service.replicas:
            cache = replica.scheduler.cache
            assert cache.free == cache.count and cache.holders == 0
            assert replica.scheduler.outstanding == 0


def test_a_link_carries_one_message_after_the_other() -> None:
    asked = traffic(5, gap_us=500)
    service, _ = served(asked, fleet("vllm", 300, decode=second_pool(1, 1, SLOW, 7)))
    moved = np.sort(service.requests[service.requests["kv_sent_ps"] >= 0], order="kv_arrived_ps")
    keeps = moved["prompt"] * 10**7
    assert (np.diff(moved["kv_arrived_ps"]) >= keeps[1:]).all()
    assert service.handover is not None
    assert sum(service.handover.busy_ps) == keeps.sum()
    assert service.handover.sent_bytes == moved["prompt"].sum() * 1000


def test_blocks_are_kept_until_the_last_byte_has_come() -> None:
    # 20 blocks of four: the second prompt has no room beside the first
    asked = _asked((0, 60, 2), (1, 60, 2))
    service, _ = served(asked, fleet("vllm", 21, decode=second_pool(1, 1, SLOW)))
    first, second = service.requests
    assert second["first_scheduled_ps"] == first["kv_arrived_ps"]


def test_nothing_is_sent_before_there_is_room_for_it() -> None:
    asked = _asked((0, 40, 30), (1, 40, 30))
    service, _ = served(asked, fleet("vllm", 20, decode=second_pool(1, 1, SLOW)))
    first, second = service.requests
    assert second["kv_sent_ps"] == first["finish_ps"]


def test_the_second_pool_is_chosen_by_its_router() -> None:
    asked = _asked(*((0, 20, 30) for _ in range(6)))
    pool = second_pool(1, 3, SLOW, router="round_robin")
    service, _ = served(asked, fleet("vllm", decode=pool))
    assert service.requests["replica"].tolist() == [1, 2, 3, 1, 2, 3]
    assert set(service.requests["prefill_replica"]) == {0}
    # who waits for blocks counts: nobody queues where others have room
    pool = second_pool(1, 2, SLOW)
    service, _ = served(asked, fleet("vllm", 16, decode=pool))
    assert sorted(service.requests["replica"].tolist()) == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("name", ["static", "lightllm"])
def test_a_batch_that_nobody_may_join_is_no_pool(name: str) -> None:
    with pytest.raises(InputError, match=f"decode: scheduler {name} goes on with no request"):
        Service(traffic(0), fleet(name, 400, decode=second_pool()))


@pytest.mark.parametrize(
    "change",
    [
        {"count": 2}, {"stages": 2}, {"token_bytes": 2000}, {"bytes_per_ps": SLOW / 2},
        {"latency_ps": 10**9}, {"step_time": Linear(2000, 20, 40)},
    ],
)  # fmt: skip
def test_every_key_of_a_pool_acts(change: dict[str, Any]) -> None:
    asked = traffic(2, gap_us=2_000)
    given: dict[str, Any] = {"bytes_per_ps": SLOW}

    def ends(pool: DecodePool) -> list[int]:
        service, _ = served(asked, fleet("vllm", decode=pool))
        found: list[int] = service.requests["finish_ps"].tolist()
        return found

    assert ends(second_pool(**given)) != ends(second_pool(**{**given, **change}))
