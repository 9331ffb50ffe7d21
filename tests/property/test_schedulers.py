"""Laws that every scheduler of the registry keeps, on random services."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from tests.property.services import SCHEDULERS, Watch, fleet, served, traffic

from pimsim.serving.schedulers import load_scheduler
from pimsim.serving.service import Service

SEEDS = range(4)
FLEETS = [(blocks, stages) for blocks in (66, 100, 1000) for stages in (1, 2)]
TAKES_STAGES = [name for name in SCHEDULERS if "lightllm" not in name]


@pytest.fixture(params=SCHEDULERS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _fleets(name: str) -> list[tuple[int, int]]:
    return [
        (blocks, stages) for blocks, stages in FLEETS if stages == 1 or name in TAKES_STAGES
    ]  # fmt: skip


def test_every_request_ends_and_all_blocks_are_free_again(name: str) -> None:
    for seed in SEEDS:
        for blocks, stages in _fleets(name):
            service, watch = served(traffic(seed), fleet(name, blocks, stages=stages))
            asked = service.requests
            assert service.finished == len(asked) == service.arrived
            cache = service.replicas[0].scheduler.cache
            assert cache.free == cache.count
            assert cache.pool["slots"][0] == len(cache.slots)
            assert not cache.blocks["holders"].any()
            assert min(free for *_, free in watch.steps) >= 0
            assert (asked["length"] == asked["prompt"] + asked["output"]).all()


def test_times_of_a_request_follow_one_another(name: str) -> None:
    for seed in SEEDS:
        for blocks, stages in _fleets(name):
            asked = served(traffic(seed), fleet(name, blocks, stages=stages))[0].requests
            assert (asked["arrival_ps"] <= asked["first_scheduled_ps"]).all()
            assert (asked["first_scheduled_ps"] < asked["first_token_ps"]).all()
            later = asked["output"] > 1
            assert (asked["first_token_ps"] < asked["finish_ps"])[later].all()
            assert (asked["first_token_ps"] == asked["finish_ps"])[~later].all()
            assert (asked["longest_gap_ps"] <= asked["finish_ps"] - asked["first_token_ps"]).all()
            assert ((asked["longest_gap_ps"] > 0) == later).all()


@pytest.mark.parametrize("drafts", [0, 3])
def test_tokens_of_steps_are_those_that_had_to_be_fed(name: str, drafts: int) -> None:
    """Prompts and outputs, less the last token of each and what was cached, and what was done
    again or for nothing."""
    if drafts and not load_scheduler(name).takes_drafts:
        return
    seen = {"recomputed": 0, "cached": 0, "rejected": 0}
    for seed in SEEDS:
        for blocks, stages in _fleets(name):
            settings = {"prefix_caching": seed % 2 == 0}
            some = fleet(name, blocks, stages=stages, drafts=drafts, **settings)
            service, watch = served(traffic(seed), some)
            asked = service.requests
            needed = asked["prompt"] + asked["output"] - 1 - asked["cached"]
            assert watch.tokens == sum(
                int(part.sum()) for part in (needed, asked["recomputed"], asked["rejected"])
            )
            for key in seen:
                seen[key] += int(asked[key].sum())
    kind = load_scheduler(name)
    assert (seen["cached"] > 0) == kind.shares_prefixes
    assert (seen["rejected"] > 0) == (drafts > 0)
    assert (seen["recomputed"] > 0) == (kind.__name__.removeprefix("Vidur") in PREEMPTING)


PREEMPTING = ("Vllm", "VllmV0", "Sarathi")


def test_littles_law(name: str) -> None:
    """Requests in the system over time are the sum of what each spends in it, as counted in the
    scheduler's own lists."""
    for seed in SEEDS:
        service, watch = served(traffic(seed), fleet(name))
        asked = service.requests
        inside = sum((end - start) * count for _, start, end, _, count, _ in watch.steps)
        # who comes during a step is counted from the next one on
        starts = np.array([start for _, start, *_ in watch.steps])
        noticed = starts[np.searchsorted(starts, asked["arrival_ps"])]
        waited = int((noticed - asked["arrival_ps"]).sum())
        assert inside + waited == int((asked["finish_ps"] - asked["arrival_ps"]).sum())


def test_steps_of_a_replica_do_not_overlap(name: str) -> None:
    service, watch = served(traffic(1, count=60, gap_us=5_000), fleet(name, replicas=3))
    for replica in range(3):
        mine = [step for step in watch.steps if step[0] == replica]
        assert mine
        assert all(one[2] <= other[1] for one, other in pairwise(mine))
    assert set(service.requests["replica"]) == {0, 1, 2}


def test_same_input_same_rows_in_one_go_or_in_pieces(name: str) -> None:
    for stages in (1, 2) if name in TAKES_STAGES else (1,):
        some = fleet(name, 66, replicas=2, stages=stages)
        whole = served(traffic(2), some)[0]
        pieces, watch = Service(traffic(2), some), Watch()
        moment = 0
        while not pieces.done:
            moment += 7_777_777_777
            pieces.run([watch], until_ps=moment)
        assert (whole.requests == pieces.requests).all()
        assert (whole.gaps == pieces.gaps).all()


def test_more_replicas_and_more_blocks_finish_no_later(name: str) -> None:
    """Not a law of scheduling, but of these services, in which all is wanted at once."""
    crowd = traffic(3, count=60, gap_us=100)
    few = served(crowd, fleet(name, 66))[0].requests["finish_ps"].max()
    assert served(crowd, fleet(name, 1000))[0].requests["finish_ps"].max() <= few
    assert served(crowd, fleet(name, 66, replicas=4))[0].requests["finish_ps"].max() < few
