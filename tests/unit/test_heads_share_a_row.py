"""Query heads that share a row of keys, one after the other, on a device with one row buffer.

GWRITE takes the row of the first bank away for its operand; the next head needs the row that the
other banks of the group still hold.
"""

from __future__ import annotations

import pytest

from pimsim.config.loader import load_pim
from pimsim.config.resources import preset_names
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.rules import Command
from pimsim.simulate import observe, resolve

_LOGGED = 20_000
NEWTON = [name for name in preset_names("pim") if load_pim(name).config.controller is None]


@pytest.mark.parametrize("design", NEWTON)
def test_every_group_is_closed_before_it_is_opened(design: str) -> None:
    # one key head of 64 and three query heads a device, contexts of some rows
    resolved = resolve(
        "npu-pim",
        ["workload.model=smollm2-135m", "workload.requests=alpaca-128", "parallel.tp=3",
         "workload.batch=17", "workload.layers=1", f"pim={design}"],
    )  # fmt: skip
    outcome, _ = observe(resolved, log_entries=_LOGGED)
    log, pim = outcome.board["log"][0, :_LOGGED], outcome.system.pim
    assert pim is not None
    assert check_commands(log, outcome.system.memory, pim) is None
    heads = [entry for entry in log if entry[2] == Command.GWRITE]
    assert len(heads) > 17 * 3
