"""Every key of a service acts: another value, another result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.property.services import SCHEDULERS, SETTINGS, served, traffic

from pimsim.config.plugins import is_reproduction
from pimsim.config.service import LinearConfig, ReplicasConfig, SpeculationConfig
from pimsim.serving.ending import Speculation
from pimsim.serving.guesses import guesses
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import load_scheduler
from pimsim.serving.service import Fleet, Service
from pimsim.serving.step_times.linear import Linear

OWN = [name for name in SCHEDULERS if not is_reproduction("scheduler", name)]
OTHER: dict[str, Any] = {
    "max_num_seqs": 3, "max_num_batched_tokens": 150, "max_model_len": None, "policy": "priority",
    "chunked_prefill": False, "long_prefill_token_threshold": 20, "prefix_caching": True,
    "reserve_full_isl": True, "version": "0.19", "batch_cap": 3, "watermark": 0.2,
    "max_tokens_in_batch": 250, "chunk": 20, "max_tokens": 300, "max_waiting_iters": 1,
}  # fmt: skip
BESIDE: dict[str, dict[str, Any]] = {
    "chunked_prefill": {"max_num_batched_tokens": 240},
    "version": {"policy": "priority"},
    # the last draft of a request that is one short of it is cut
    "max_model_len": {"max_model_len": 240},
}
"""What else is set, on both sides."""


BLOCKS = {"orca": 400, "static": 400}
"""Of the cache, where each request holds all that it will ever need; few elsewhere."""


def _fleet(name: str, **given: Any) -> Fleet:
    kind, blocks = load_scheduler(name), BLOCKS.get(name, 70)
    settings = {key: value for key, value in SETTINGS.items() if key in kind.Settings.model_fields}
    settings |= {key: value for key, value in given.items() if key in kind.Settings.model_fields}
    size = 1 if name == "lightllm" else 4
    return Fleet(
        kind, kind.Settings(name=name, **settings), Linear(1000, 20, 40), blocks * 4 // size, size,
        load_router(given.get("router", "round_robin")), given.get("count", 1),
        given.get("stages", 1), given.get("speculation", Speculation()),
    )  # fmt: skip


def _ends(fleet: Fleet) -> list[int]:
    """When every request ends, over some services: requests close enough to be in each other's way,
    the longest of them as long as may be."""
    found: list[int] = []
    for seed in range(4):
        asked = traffic(seed, gap_us=2_000)
        asked.output[0] = 120
        asked.prompt[0] = 120
        found += served(asked, fleet)[0].requests["finish_ps"].tolist()
    return found


@pytest.mark.parametrize("name", OWN)
def test_every_setting_of_every_scheduler_acts(name: str) -> None:
    fields = [field for field in load_scheduler(name).Settings.model_fields if field != "name"]
    assert set(fields) <= set(OTHER)
    for field in fields:
        beside = BESIDE.get(field, {})
        more: dict[str, Any] = {}
        if field == "max_model_len":
            more = {"speculation": Speculation(5, 5)}
        one = _ends(_fleet(name, **{**beside, **more}))
        other = _ends(_fleet(name, **{**beside, **more, field: OTHER[field]}))
        assert one != other, field


def test_every_other_key_of_the_machines_acts() -> None:
    plain = _ends(_fleet("vllm"))
    for key, value in {"count": 2, "stages": 2}.items():
        assert _ends(_fleet("vllm", **{key: value})) != plain
    assert set(ReplicasConfig.model_fields) == {"count", "stages", "router"}
    turns, shortest = (
        _ends(_fleet("vllm", count=3, router=router)) for router in ("round_robin", "lor")
    )
    assert turns != shortest
    drafts = [Speculation(*given) for given in ((2, 1), (3, 1), (2, 2), (2, "mix"), (2, 0.5))]
    for strategy in ("prompt_lookup:drafts=4,tokens=1.6", "prompt_lookup:drafts=4,tokens=3"):
        drafts.append(guesses(SpeculationConfig(strategy=strategy), 0))
    found = [_ends(_fleet("vllm", speculation=each)) for each in drafts]
    assert len({tuple(ends) for ends in (plain, *found)}) == len(drafts) + 1
    assert set(SpeculationConfig.model_fields) == {"drafts", "accept", "strategy"}
    seeds = [_ends(_fleet("vllm", speculation=Speculation(2, 0.5, seed))) for seed in (0, 1)]
    assert seeds[0] != seeds[1]


def test_each_part_of_a_step_time_acts() -> None:
    assert set(LinearConfig.model_fields) == {"step_us", "token_us", "ctx_ns"}
    asked = traffic(0)
    found = []
    for parts in ((1000, 20, 40), (1001, 20, 40), (1000, 21, 40), (1000, 20, 41)):
        fleet = _fleet("vllm")
        changed = Fleet(**{**vars(fleet), "step_time": Linear(*parts)})
        service = Service(asked, changed)
        service.run()
        found.append(tuple(np.asarray(service.requests["finish_ps"]).tolist()))
    assert len(set(found)) == 4
