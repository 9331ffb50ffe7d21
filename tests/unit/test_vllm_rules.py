"""The compiled vLLM scheduler against the rules in plain Python, on random services."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.oracle.vllm_rules import One, Rules, run

from pimsim.serving.ending import Speculation
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import Batch, Scheduler
from pimsim.serving.schedulers.vllm import Vllm, VllmSettings
from pimsim.serving.service import Fleet, Service
from pimsim.serving.step_times.linear import Linear
from pimsim.workload.traffic import PrefixBlocks, Traffic

PS_PER_US = 10**6


class Steps:
    def __init__(self) -> None:
        self.found: list[tuple[Any, ...]] = []

    def made(self, replica: int, batch: Batch, scheduler: Scheduler) -> None:
        self.found.append(
            (
                batch.start_ps // PS_PER_US, batch.end_ps // PS_PER_US, batch.tokens,
                batch.requests, scheduler.running, scheduler.waiting, scheduler.cache.free,
                tuple(batch.preempted.tolist()),
            )
        )  # fmt: skip


def scenario(seed: int) -> tuple[Rules, list[One]]:
    """Any mix of the rules; caches from just large enough to ample."""
    draw = np.random.default_rng(seed)
    caching = bool(draw.integers(0, 2))
    drafts = int(draw.choice([0, 0, 2, 5]))
    longest = 90
    least = -(-(2 * longest + drafts) // 8) + 1
    rules = Rules(
        block=8, blocks=4000 if caching else int(least + draw.choice([0, 5, 20, 200])),
        seqs=int(draw.choice([1, 3, 8, 20])), tokens=int(draw.choice([7, 32, 100, 400])),
        threshold=int(draw.choice([0, 0, 5, 30])), priority=bool(draw.integers(0, 2)),
        chunked=True, caching=caching, full_isl=bool(draw.integers(0, 2)),
        early=bool(draw.integers(0, 2)), drafts=drafts, accept=draw.choice(["mix", "0", "2"]),
        ctx_ns=int(draw.choice([0, 370])), model_len=2 * longest + 1,
    )  # fmt: skip
    rules.accept = rules.accept if rules.accept == "mix" else int(rules.accept)
    if rules.tokens >= 400:
        rules.chunked = bool(draw.integers(0, 2))
    arrivals = np.cumsum(draw.integers(1, 2 * int(draw.choice([300, 9000, 60000])), 30))
    asked = [
        One(
            at, int(arrivals[at]), int(draw.integers(1, longest)), int(draw.integers(1, longest)),
            int(draw.integers(0, 3)),
        )
        for at in range(30)
    ]  # fmt: skip
    if caching:
        for one in asked:
            kind = int(draw.integers(0, 3))
            one.ids = [1000 * kind + at for at in range(one.prompt // 8)]
    return rules, asked


def ours(rules: Rules, asked: list[One]) -> tuple[Service, Steps]:
    settings = VllmSettings(
        name="vllm", max_num_seqs=rules.seqs, max_num_batched_tokens=rules.tokens,
        max_model_len=rules.model_len, policy="priority" if rules.priority else "fcfs",
        chunked_prefill=rules.chunked, long_prefill_token_threshold=rules.threshold,
        prefix_caching=rules.caching, reserve_full_isl=rules.full_isl,
        version="0.19" if rules.early else "0.33",
    )  # fmt: skip
    counts = np.array([len(one.ids) for one in asked])
    traffic = Traffic(
        np.array([one.arrival for one in asked]) * PS_PER_US,
        np.array([one.prompt for one in asked]), np.array([one.output for one in asked]),
        priority=np.array([one.priority for one in asked]),
        prefixes=PrefixBlocks(
            rules.block, np.array([name for one in asked for name in one.ids], dtype=np.int32),
            np.cumsum(counts) - counts, counts,
        ),
    )  # fmt: skip
    fleet = Fleet(
        Vllm, settings, Linear(rules.step_us, rules.token_us, rules.ctx_ns), rules.blocks,
        rules.block, load_router("round_robin"),
        speculation=Speculation(rules.drafts, rules.accept),
    )  # fmt: skip
    service, steps = Service(traffic, fleet), Steps()
    service.run([steps])
    return service, steps


@pytest.mark.parametrize("first", range(0, 160, 20))
def test_every_step_and_every_request_is_the_oracles(first: int) -> None:
    for seed in range(first, first + 20):
        rules, asked = scenario(seed)
        wanted = run(asked, rules)
        service, steps = ours(rules, asked)
        assert steps.found == wanted, (seed, rules)
        for one, row in zip(asked, service.requests, strict=True):
            said = {
                "first_scheduled": row["first_scheduled_ps"] // PS_PER_US,
                "first_token": row["first_token_ps"] // PS_PER_US,
                "finish": row["finish_ps"] // PS_PER_US, "finish_step": row["finish_step"],
                "preemptions": row["preemptions"], "cached": row["cached"],
                "verifications": row["verifications"], "accepted": row["accepted"],
            }  # fmt: skip
            assert said == one.said, (seed, one.id, rules)


def test_the_scenarios_meet_every_rule() -> None:
    """Or the comparison above would say little."""
    met = dict.fromkeys(
        ("preempted", "self_preempted", "cached", "accepted", "by_priority", "whole"), 0
    )  # fmt: skip
    for seed in range(160):
        rules, asked = scenario(seed)
        steps = run(asked, rules)
        met["preempted"] += sum(len(step[-1]) for step in steps)
        met["self_preempted"] += sum(1 for step in steps if step[-1] and step[5] > 0)
        met["cached"] += sum(one.said["cached"] for one in asked)
        met["accepted"] += sum(one.said["accepted"] for one in asked)
        met["by_priority"] += rules.priority and bool(sum(len(step[-1]) for step in steps))
        met["whole"] += not rules.chunked
    assert all(met.values()), met
