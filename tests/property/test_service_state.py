"""A service that is stopped and goes on is the one that was never stopped."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from tests.property.services import SCHEDULERS, fleet, second_pool, traffic

from pimsim.config.errors import InputError
from pimsim.serving.routers.round_robin import RoundRobin
from pimsim.serving.service import Fleet, Service
from pimsim.serving.state import ServiceState, restore, state_of
from pimsim.serving.step_log import STEP_ROW, StepLog
from pimsim.workload.traffic import Traffic

VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {"blocks": 400 if name in ("orca", "static") else 70} for name in SCHEDULERS},
    "vllm drafts": {"blocks": 70, "drafts": 3},
    "vllm priority": {"blocks": 70, "policy": "priority", "stages": 2},
    "vllm prefixes": {
        "blocks": 70, "prefix_caching": True, "router": "prefix_aware", "replicas": 2,
    },
    "vllm replicas": {"blocks": 70, "replicas": 3, "stages": 2},
    "vllm pools": {
        "blocks": 70, "replicas": 2,
        "decode": second_pool(2, 2, Fraction(1, 10_000), 10**7, hops=2, stages=2),
    },
    "sarathi pools": {"blocks": 90, "decode": second_pool(router="round_robin")},
    "sarathi stages": {"blocks": 90, "stages": 2, "replicas": 2, "router": "lor"},
}  # fmt: skip


class _Rows:
    def __init__(self) -> None:
        self.found: list[Any] = []

    def __call__(self, rows: Any) -> None:
        self.found += rows.tolist()


def _again(state: ServiceState, asked: Traffic, machines: Fleet, log: StepLog) -> Service:
    """A new service, and a log, that go on from what a file holds."""
    file = io.BytesIO()
    np.savez(file, **state.packed())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file) as packed:
        read = ServiceState.unpacked({name: packed[name] for name in packed.files})
    service = Service(asked, machines)
    restore(read, service, log)
    return service


def _sums(log: StepLog) -> dict[str, Any]:
    log.flush()
    columns = {name: sums.tolist() for name, sums in log.columns.items()}
    return columns | {
        name: value for name, value in vars(log).items() if isinstance(value, (int, float))
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_it_ends_as_if_it_had_never_stopped(name: str) -> None:
    given = VARIANTS[name]
    scheduler = name.split()[0]
    for seed, stops in ((0, (1, 2, 5)), (1, (17,)), (2, tuple(range(1, 40, 2)))):
        asked = traffic(seed, gap_us=2_000)
        rows, parts = _Rows(), _Rows()
        whole, log = Service(asked, fleet(scheduler, **given)), StepLog(rows)
        whole.run([log])
        service, other = Service(asked, fleet(scheduler, **given)), StepLog(parts)
        for stop in stops:
            service.run([other], until_finished=stop)
            state = state_of(service, other)
            other = StepLog(parts)
            service = _again(state, asked, fleet(scheduler, **given), other)
        service.run([other])
        assert (service.requests == whole.requests).all()
        assert (service.gaps == whole.gaps).all()
        assert _sums(other) == _sums(log)
        assert parts.found == rows.found
        for one, two in zip(service.replicas, whole.replicas, strict=True):
            assert one.scheduler.cache.free == two.scheduler.cache.free


def test_it_stops_at_any_time() -> None:
    asked = traffic(3)
    whole = Service(asked, fleet("vllm", replicas=2))
    whole.run()
    service, log = Service(asked, fleet("vllm", replicas=2)), StepLog()
    for part in range(1, 30):
        service.run([log], until_ps=int(whole.now_ps * part / 31))
        service = _again(state_of(service, log), asked, fleet("vllm", replicas=2), log)
    service.run([log])
    assert (service.requests == whole.requests).all()


def test_a_moment_is_whole_where_it_is_told_to_stop() -> None:
    asked = traffic(4)
    whole = Service(asked, fleet("vllm"))
    whole.run()
    service, log = Service(asked, fleet("vllm")), StepLog()
    while not service.done:
        service.run([log], on_moment=lambda _: True)
        service = _again(state_of(service, log), asked, fleet("vllm"), log)
    assert (service.requests == whole.requests).all()


def test_what_cannot_be_written_is_told() -> None:
    service, log = Service(traffic(0), fleet("vllm")), StepLog()
    service.router.seen = {1: 2}  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="round_robin: seen is a dict; a service goes on later"):
        state_of(service, log)
    assert isinstance(service.router, RoundRobin)


def test_another_service_does_not_go_on_from_it() -> None:
    log = StepLog()
    service = Service(traffic(0), fleet("vllm"))
    service.run([log], until_finished=3)
    state = state_of(service, log)
    with pytest.raises(ValueError, match="not"):
        restore(state, Service(traffic(0), fleet("vllm", blocks=60)), StepLog())
    with pytest.raises(ValueError, match="not"):
        restore(state, Service(traffic(0, count=39), fleet("vllm")), StepLog())
    assert STEP_ROW.names is not None
