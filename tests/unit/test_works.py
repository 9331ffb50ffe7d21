"""What each kind of block did in a step, on stages that are made up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from pimsim.engine.records import OperatorRecord, WorkTotals
from pimsim.hardware.dram.layout import C_COMMANDS, C_COMP_COLUMNS, N_COUNTERS
from pimsim.hardware.dram.rules import Command
from pimsim.result.works import work_by_kind

RD = C_COMMANDS + int(Command.RD)


def totals(reads: int, comps: int, *others: int) -> WorkTotals:
    counter = np.zeros(N_COUNTERS, dtype=np.int64)
    counter[[RD, C_COMP_COLUMNS]] = reads, comps
    return WorkTotals(counter, *others)


def record(unit: str, layer: int, size: int, flops: int, took: int = 10) -> OperatorRecord:
    return OperatorRecord("any", "gemm", unit, layer, "any", 0, took, flops, size, 0)


def figures(work: WorkTotals) -> tuple[int, ...]:
    counted = int(work.counter[RD]), int(work.counter[C_COMP_COLUMNS])
    return (
        *counted, work.macs, work.vector_lane_ops, work.sram_bytes, work.link_bytes,
        work.pim_read_bytes,
    )  # fmt: skip


def test_a_later_step_s_stages_are_their_own_operators() -> None:
    """A stage of a dense block, one of a block with experts, one of both, one outside; eight
    operators of the step before have numbers of their own."""
    operators = [
        record("systolic", 0, 8, 9),
        record("systolic", 1, 8, 9),
        # 3 to 1 of bytes and 1 to 2 of operations; PIM reads for the second alone
        record("systolic", 0, 30, 100), record("systolic", 1, 10, 200), record("pim", 1, 64, 6),
        record("systolic", 2, 5, 5),
    ]  # fmt: skip
    bounds = [(8, 9), (9, 10), (10, 13), (13, 14)]
    each = [
        (10, 0, 100, 0, 1, 0, 0), (20, 0, 200, 0, 2, 0, 0), (400, 7, 300, 6, 40, 0, 64),
        (5, 0, 50, 0, 3, 0, 0),
    ]  # fmt: skip
    sums = [totals(1000, 1000, 1000, 1000, 1000, 1000, 1000)]
    for one in each:
        sums.append(sums[-1] + totals(*one))
    step: Any = SimpleNamespace(
        device=SimpleNamespace(
            whole=SimpleNamespace(blocks=[SimpleNamespace(kind=kind) for kind in ("dense", "moe")])
        ),
        record=SimpleNamespace(operators=(8, 14)), operators=operators, totals=sums,
        stages=[SimpleNamespace(operators=each) for each in bounds],
    )  # fmt: skip
    found = {kind: figures(work) for kind, work in work_by_kind(step).items()}
    assert found == {
        "dense": (10 + 300, 0, 100 + 100, 0, 1 + 30, 0, 0),
        "moe": (20 + 100, 7, 200 + 200, 6, 2 + 10, 0, 64),
        0: each[3],
    }
