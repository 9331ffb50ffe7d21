"""What each kind of block did in a run, and what lies outside the blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from pimsim.engine.iteration import StepOutcome
from pimsim.engine.records import OperatorRecord, WorkTotals
from pimsim.hardware.dram.layout import C_COMMANDS, C_COMP_COLUMNS
from pimsim.hardware.dram.rules import Command

__all__ = ["WorkKey", "work_by_kind"]

_OF_PIM = [
    C_COMP_COLUMNS,
    *(
        C_COMMANDS + int(each)
        for each in (
            Command.GWRITE, Command.HEADER, Command.G_ACT, Command.COMP, Command.READRES,
            Command.GEMV,
        )
    ),
]  # fmt: skip
"""Counters of what PIM alone asks for."""

WorkKey = str | int
"""A kind of block, or the number of work beside the blocks (``Device.outside``)."""


def work_by_kind(step: StepOutcome) -> dict[WorkKey, WorkTotals]:
    """What each kind of block did in a step, and what lies outside the blocks.

    What a stage did is its blocks' in proportion to what their operators moved and computed, so
    that it does not matter how a schedule cuts blocks into stages.

    Parameters
    ----------
    step
        Of a run.
    """
    blocks, first = step.device.whole.blocks, step.record.operators[0]
    found: dict[WorkKey, WorkTotals] = {}
    for stage, (before, total) in zip(step.stages, pairwise(step.totals), strict=True):
        by_kind: dict[WorkKey, list[OperatorRecord]] = {}
        for each in step.operators[stage.operators[0] - first : stage.operators[1] - first]:
            beside = each.layer - len(blocks)
            kind = beside if beside >= 0 else blocks[each.layer].kind
            by_kind.setdefault(kind, []).append(each)
        for kind, own in _shared(total - before, by_kind).items():
            found[kind] = found[kind] + own if kind in found else own
    return found


def _shared(
    work: WorkTotals, by_kind: Mapping[WorkKey, Sequence[OperatorRecord]]
) -> dict[WorkKey, WorkTotals]:
    """A stage's work by kind, adding up to it exactly: PIM's commands as bytes in the banks, other
    commands and SRAM as bytes moved, arithmetic as operations, links as time on them."""
    if len(by_kind) == 1:
        return dict.fromkeys(by_kind, work)
    measures: dict[str, Callable[[OperatorRecord], int]] = {
        "pim": lambda o: o.bytes if o.unit == "pim" else 0,
        "moved": lambda o: o.bytes if o.unit not in ("pim", "pim_link") else 0,
        "macs": lambda o: o.flops if o.unit == "systolic" else 0,
        "lanes": lambda o: o.flops if o.unit in ("vector", "pim") else 0,
        "link": lambda o: o.end_ps - o.start_ps if o.unit == "link" else 0,
        "pim_link": lambda o: o.end_ps - o.start_ps if o.unit == "pim_link" else 0,
    }
    found: dict[WorkKey, WorkTotals] = {}
    given = WorkTotals(np.zeros_like(work.counter))
    weights = {name: 0 for name in measures}
    sums = {
        name: sum(measure(o) for own in by_kind.values() for o in own)
        for name, measure in measures.items()
    }
    for number, (kind, own) in enumerate(by_kind.items()):
        for name, measure in measures.items():
            weights[name] += sum(map(measure, own))
        # all up to this kind, less what those before it were given
        part = {
            name: (weights[name], sums[name]) if sums[name] else (number + 1, len(by_kind))
            for name in measures
        }
        counter = _part(work.counter, part["moved"])
        counter[_OF_PIM] = _part(work.counter[_OF_PIM], part["pim"])
        upto = WorkTotals(
            counter,
            *(
                _part(amount, part[name])
                for amount, name in (
                    (work.macs, "macs"), (work.vector_lane_ops, "lanes"),
                    (work.sram_bytes, "moved"), (work.link_bytes, "link"),
                    (work.pim_read_bytes, "pim"), (work.stream_bytes, "pim"),
                    (work.stream_macs, "pim"), (work.stream_fj, "pim"),
                    (work.pim_link_bytes, "pim_link"), (work.pim_counter, "pim_link"),
                )
            ),
        )  # fmt: skip
        found[kind] = upto - given
        given = upto
    return found


def _part(amount: Any, share: tuple[int, int]) -> Any:
    of, whole = share
    # counts and bytes of a run times each other exceed 64 bits
    return (
        (np.asarray(amount, object) * of // whole).astype(np.int64)
        if isinstance(amount, np.ndarray)
        else amount * of // whole
    )
