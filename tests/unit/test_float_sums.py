"""``sum`` of floats is compensated from Python 3.12 on: the package sums floats with ``fsum``."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from pimsim.config.loader import load_system
from pimsim.simulate import resolve, simulate
from pimsim.validate.gpu_steps import decoding
from pimsim.validate.judge import judge
from pimsim.validate.types import Row
from pimsim.workload.cards import load_card

_SUM = builtins.sum


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def whole(values: Iterable[Any], start: Any = 0) -> Any:
        found = list(values)
        where = sys._getframe(1).f_globals.get("__name__", "")
        if where.startswith("pimsim") and any(isinstance(each, float) for each in found):
            raise AssertionError(f"{where} sums floats without fsum")
        return _SUM(found, start)

    monkeypatch.setattr(builtins, "sum", whole)
    yield


@pytest.mark.parametrize("name", ["dgx-h100", "dgx-a100a-cpu", "dgx-attacc-bank"])
def test_a_system(name: str) -> None:
    assert decoding(load_system(name).config, load_card("gpt3-7b"), 4, 100, 4).energy_j.total > 0


@pytest.mark.parametrize("fidelity", ["command", "fast"])
def test_a_run(fidelity: str) -> None:
    options = ["workload.batch=8", "workload.layers=1", "memory.organization.channels=4"]
    result = simulate(resolve("neupims", [*options, "parallel.tp=8", f"fidelity={fidelity}"]))
    assert result.energy_j.total > 0


def test_a_judgement() -> None:
    assert judge([Row("dramsim3.cycles", str(n), "cycles", 0.1 * n, 0.1 * n) for n in (1, 2)])
