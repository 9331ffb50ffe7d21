"""What ``pimsim compare`` says of two machines' work: bytes, rows, windows, and what ran where."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pimsim.result.types import Result
from pimsim.result.work_shown import work_of
from pimsim.simulate import resolve, simulate


@pytest.fixture
def result(tiny_card: Path, write_trace: Callable[[Sequence[int]], Path]) -> Result:
    values = [f"workload.model={tiny_card}", f"workload.requests={write_trace([200])}"]
    return simulate(resolve("npu-pim", [*values, "parallel.tp=1", "workload.layers=2"]))


def test_bytes_are_a_block_s_and_shares_the_run_s(result: Result) -> None:
    work = work_of(result)
    assert result.series is not None
    assert work.pin_bytes == sum(result.series.dram_bytes) / 2
    assert work.bank_bytes == sum(result.series.pim_bytes) / 2 > 0
    moved = sum(each.bytes for each in result.operators)
    assert work.operations_per_byte == sum(each.flops for each in result.operators) / moved
    assert work.ran_on["pim"] == ("score", "value")
    assert "qkv" in work.ran_on["systolic"]
    window = result.cycle_stack["pim"]["activation_window"]
    assert work.window_share["pim"] == window / result.cycles > 0
    # rows of GEMVs, and of what the NPU reads
    stack = result.cycle_stack["pim"]
    rows = sum(stack.get(cause, 0) for cause in ("row_miss", "commands", "turn"))
    assert work.row_share["pim"] == rows / result.cycles > 0


def test_words_leave_out_what_is_not_there(result: Result) -> None:
    text = work_of(result).words()
    assert "MB a block over pins; " in text and " a block in banks; " in text
    assert "PIM: score, value" in text and "tFAW" in text
    bare = replace(result, series=None, operators=(), cycle_stack={})
    assert work_of(bare).words() == ""
    # collectives move no bytes of the memory
    link = replace(result.operators[0], name="allreduce1", unit="link", bytes=10**9)
    more = replace(result, operators=(*result.operators, link))
    assert work_of(more) == work_of(result)
