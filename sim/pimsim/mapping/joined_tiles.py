"""Neighbouring tiles of a product as one step: fewer transfers for the same bursts and folds.

Double buffers load a tile while the one before is multiplied. Long tiles whose weights lie one
behind the other take as long as one of all their folds whose weights come block by block, as each
fold waits for its own. Of short ones each waits for memory anew, so that they stay. So does what
only the ends show: the first tile, whose load nothing hides or another product does, and the last,
beside which the next product's first tile comes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace

import numpy as np

from pimsim.hardware.dram.transfers import Stream
from pimsim.hardware.npu.operands import ArrayTraffic
from pimsim.hardware.npu.plan import GemmPlan
from pimsim.mapping.tasks import GemmStep

__all__ = ["joined_tiles"]

MOST_PARTS = 8
"""Of a product that loads or stores activations with its tiles: a step's leave when all of it is
done, so that one of many tiles would hold them back."""
LONG = 12
"""Times as long as a tile's results leave the arrays and a load is asked for and begins to come is
what loads a tile that is joined: what is lost between tiles is little then."""
AHEAD = 2
"""Times as long as it is multiplied is what loads such a tile, so that memory alone decides."""
HIDDEN = 1.25
"""Times as long as all of these is what multiplies a tile that is joined, if loads are short: they
are hidden then."""


def joined_tiles(
    steps: Sequence[GemmStep], cycles_per_burst: float, latency_cycles: float
) -> tuple[GemmStep, ...]:
    """The steps of a product with those between its ends joined as far as they can be.

    Bursts, folds and multiply-accumulates are the same in sum.

    Parameters
    ----------
    steps
        Of all cores and lanes, those of one in order.
    cycles_per_burst
        NPU cycles that the memory takes for a burst at its full rate.
    latency_cycles
        The same from asking an idle memory to the first of them.

    Returns
    -------
    tuple of GemmStep
        Lane after lane.
    """
    own: dict[tuple[int, int], list[GemmStep]] = {}
    for step in steps:
        own.setdefault((step.core, step.lane), []).append(step)

    def is_long(step: GemmStep) -> bool:
        loads = sum(each.total for each in step.loads) * cycles_per_burst
        lost = step.plan.drain_cycles + latency_cycles
        taken = step.plan.taken_cycles
        return loads >= max(LONG * lost, AHEAD * taken) or taken >= HIDDEN * (loads + lost)

    return tuple(step for lane in own.values() for step in _of_lane(lane, is_long))


def _of_lane(
    steps: Sequence[GemmStep], is_long: Callable[[GemmStep], bool]
) -> list[GemmStep]:  # fmt: skip
    between = steps[1:-1]
    if len(between) < 2:
        return list(steps)
    moves = any(step.stores or len(step.loads) > 1 for step in between)
    most = -(-len(between) // MOST_PARTS) if moves else len(between)
    runs: list[list[GemmStep]] = []
    for step in between:
        begun = bool(runs) and len(runs[-1]) < most and is_long(runs[-1][-1])
        if begun and is_long(step) and _follows(runs[-1][-1], step):
            runs[-1].append(step)
        else:
            runs.append([step])
    return [steps[0], *map(_joined, runs), steps[-1]]


def _follows(before: GemmStep, step: GemmStep) -> bool:
    """Whether the two can be one: weights that are waited for fold by fold, one stream behind the
    other, and nothing that belongs to one tile alone."""
    weights = [_weights(each) for each in (before, step)]
    if before.scale != step.scale or not all(map(_is_plain, (before, step))):
        return False
    one, other = weights
    return (
        one is not None
        and other is not None
        and one.first_burst + one.bursts == (other.first_burst)
    )


def _is_plain(step: GemmStep) -> bool:
    return (
        not step.blocks and not step.scatters and not step.stored_after
        and step.needed is None and step.softmax_cycles is None
    )  # fmt: skip


def _weights(step: GemmStep) -> Stream | None:
    """The stream whose arrival is tracked; None where there is none, or one of a kind that is not
    joined."""
    tracked = [s for s in step.loads if isinstance(s, Stream) and s.track_blocks]
    if len(tracked) != 1:
        return None
    (found,) = tracked
    plain = replace(
        found, first_burst=0, bursts=0, weight_bytes=0, track_blocks=False
    ) == Stream(0, 0)  # fmt: skip
    return found if plain else None


def _joined(run: Sequence[GemmStep]) -> GemmStep:
    if len(run) == 1:
        return run[0]
    weights = [found for step in run if (found := _weights(step)) is not None]
    all_weights = replace(
        weights[0], bursts=sum(each.bursts for each in weights),
        weight_bytes=sum(each.weight_bytes for each in weights),
    )  # fmt: skip
    beside = [s for step in run for s in step.loads if s not in weights]
    return replace(
        run[0],
        plan=_one_plan([step.plan for step in run]),
        loads=(*beside, all_weights),
        stores=tuple(s for step in run for s in step.stores),
        inputs_first=sum(step.inputs_first for step in run),
        waiting_cycles=sum(step.waiting_cycles for step in run),
    )


def _one_plan(plans: Sequence[GemmPlan]) -> GemmPlan:
    """One after the other: what leads to each begins when the one before lets go of the arrays."""
    first, last = plans[0], plans[-1]
    before = np.cumsum([0, *(int(plan.weight_bytes_needed[-1]) for plan in plans[:-1])])
    ends = np.cumsum([plan.steps for plan in plans[:-1]]) - 1
    intervals = np.concatenate([plan.interval_cycles for plan in plans])
    intervals[ends] += [plan.lead_cycles for plan in plans[1:]]
    needed = [plan.weight_bytes_needed + at for plan, at in zip(plans, before, strict=True)]
    return replace(
        first,
        folds=sum(plan.folds for plan in plans),
        interval_cycles=intervals,
        weight_bytes_needed=np.concatenate(needed),
        drain_cycles=last.drain_cycles,
        macs=sum(plan.macs for plan in plans),
        streamed_cycles=sum(plan.streamed_cycles for plan in plans),
        loading_cycles=sum(plan.loading_cycles for plan in plans),
        traffic=_all_traffic([plan.traffic for plan in plans]),
    )


def _all_traffic(found: Sequence[ArrayTraffic | None]) -> ArrayTraffic | None:
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    return ArrayTraffic(
        **{
            each.name: sum(getattr(one, each.name) for one in known)
            for each in fields(ArrayTraffic)
        }
    )
