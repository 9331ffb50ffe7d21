"""``controller.model`` means one thing: where it does not act it cannot be asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.simulate import device_of, resolve

SMALL = ["workload.batch=2", "workload.layers=1"]
ASKED = "memory.controller.model=channel-queues"


def test_beside_pim_it_is_refused() -> None:
    with pytest.raises(InputError, match=r"channel-queues does not act beside PIM \(neupims\)"):
        device_of(resolve("neupims", [*SMALL, ASKED]))


def test_a_runs_own_file_asks_for_it_too(tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    run.write_text("extends: neupims\nname: mine\nmemory: {controller: {model: channel-queues}}\n")
    with pytest.raises(InputError, match="does not act beside PIM"):
        device_of(resolve(run, SMALL))


def test_a_memory_that_brings_it_serves_pim_by_the_other() -> None:
    device, _ = device_of(resolve("neupims", [*SMALL, "memory=hbm3-6400"]))
    assert device.config.memory.controller.model == "bank-queues"
    assert device.config.memory.organization.channels == 32


@pytest.mark.parametrize("run", [["npu-only"], ["neupims", "schedule.policy=serial",
                                                "schedule.sub_batches=false"]])  # fmt: skip
def test_without_pim_it_acts(run: list[str]) -> None:
    name, *settings = run
    device, _ = device_of(resolve(name, [*SMALL, *settings, ASKED]))
    assert device.config.memory.controller.model == "channel-queues"
