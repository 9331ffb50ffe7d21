"""How long each block took once the run had settled, from what was done when.

A schedule may cut blocks into stages as it likes and call them what it likes; neither is read here.
What counts is when operators of which block began and ended. Between two moments at which equally
much of two successive blocks is done, a block's worth of work has passed, whichever parts of which
blocks it was made of.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

from pimsim.engine.records import OperatorRecord

__all__ = ["block_times"]

_Kinds = Counter[tuple[int, str]]
"""Operators that are done, by (sub-)batch and kind."""
_State = tuple[int, frozenset[tuple[int, frozenset[tuple[tuple[int, str], int]]]]]
"""Complete blocks ahead; of what was begun, how far ahead it is and how many operators of each
(sub-)batch and kind were done."""


def block_times(
    operators: Sequence[OperatorRecord], stage_ends: Sequence[int], simulated: Sequence[str]
) -> dict[int, int]:
    """Time of blocks in the steady state by number of the simulated block, in picoseconds.

    A block's time lasts from one moment to another at which as much of the block behind it had been
    done: after the end of its predecessor and after its own. Such moments are barriers
    (``stage_ends``); where a stage holds several blocks, moments at which no operator was under
    way; where there are none, the ends of the blocks themselves. The run's first block starts on an
    idle memory and counts only for a kind that has no other. A kind that is seen only where the
    pipeline of blocks drains takes as much longer than the others as its own operators do.

    Parameters
    ----------
    operators
        Of all blocks; what lies outside the blocks has a ``layer`` behind the last one.
    stage_ends
        Times of barriers, ps.
    simulated
        Kind of each simulated block.

    Returns
    -------
    dict
        At least one block of each kind that was simulated.
    """
    own = sorted(
        (o for o in operators if o.layer < len(simulated)), key=lambda o: (o.end_ps, o.layer)
    )
    if not own:
        return {}
    begin = min(o.start_ps for o in own)
    ends = [max(o.end_ps for o in own if o.layer == at) for at in range(len(simulated))]
    barriers = sorted({begin, *(t for t in stage_ends if t >= begin)})
    times: dict[int, int] = {}
    missing = list(dict.fromkeys(simulated))
    for moments in (barriers, None):
        # moments without an operator are looked for only where barriers do not do
        found = _between(own, ends, moments or _idle_moments(own), len(simulated))
        times |= _settled(found, simulated, missing)
        missing = [kind for kind in missing if kind not in {simulated[at] for at in times}]
        if not missing:
            return times
    if times:
        return times | _in_proportion(own, times, simulated, missing)
    following = {at: ends[at] - ends[at - 1] for at in range(1, len(ends))}
    times = {at: took for at, took in following.items() if took > 0 and at + 1 < len(ends)}
    times = times or {at: took for at, took in following.items() if took > 0}
    if not times:
        each = (max(*ends, barriers[-1]) - begin) // len(simulated)
        return dict.fromkeys(range(len(simulated)), each)
    missing = [kind for kind in missing if kind not in {simulated[at] for at in times}]
    return times | _in_proportion(own, times, simulated, missing)


def _between(
    operators: Sequence[OperatorRecord], ends: Sequence[int], moments: Sequence[int], blocks: int
) -> dict[int, int]:
    """Times between ``moments`` behind the end of a block and of the next one, of equal state."""
    after = [moments[at] if (at := bisect_left(moments, end)) < len(moments) else -1
             for end in ends]  # fmt: skip
    states = _states(operators, moments)
    found: dict[int, int] = {}
    for block in range(blocks):
        if after[block] < 0:
            continue
        wanted = _ahead(states[after[block]], block + 1)
        if block:
            earlier = after[block - 1]
            if 0 <= earlier < after[block] and _ahead(states[earlier], block) == wanted:
                found[block] = after[block] - earlier
            continue
        # nothing went before the first block: the last moment that looks like one behind it
        for moment in reversed(moments):
            if moment < after[0] and _ahead(states[moment], 0) == wanted:
                found[0] = after[0] - moment
                break
    return found


def _states(
    operators: Sequence[OperatorRecord], moments: Sequence[int]
) -> dict[int, tuple[int, dict[int, _Kinds]]]:
    """By moment, how many blocks are complete, and what is done of those that were begun."""
    whole: Counter[int] = Counter(o.layer for o in operators)
    done: dict[int, _Kinds] = {}
    counted: Counter[int] = Counter()
    states: dict[int, tuple[int, dict[int, _Kinds]]] = {}
    following = complete = 0
    for moment in moments:
        while following < len(operators) and operators[following].end_ps <= moment:
            each = operators[following]
            done.setdefault(each.layer, Counter())[each.part, each.kind] += 1
            counted[each.layer] += 1
            if counted[each.layer] == whole[each.layer]:
                done.pop(each.layer)
                complete += 1
            following += 1
        states[moment] = complete, {layer: counts.copy() for layer, counts in done.items()}
    return states


def _ahead(state: tuple[int, dict[int, _Kinds]], block: int) -> _State:
    """The state as seen from ``block``."""
    complete, begun = state
    return complete - block, frozenset(
        (layer - block, frozenset(counts.items())) for layer, counts in begun.items()
    )


def _idle_moments(operators: Sequence[OperatorRecord]) -> list[int]:
    """Times at which no operator was under way, the run's begin and end among them."""
    moments = []
    reached = None
    for each in sorted(operators, key=lambda o: (o.start_ps, o.end_ps)):
        if reached is None:
            moments.append(each.start_ps)
            reached = each.start_ps
        if each.start_ps >= reached:
            moments.append(reached)
        reached = max(reached, each.end_ps)
    if reached is not None:
        moments.append(reached)
    return sorted(set(moments))


def _settled(
    found: dict[int, int], simulated: Sequence[str], kinds: Iterable[str]
) -> dict[int, int]:
    """Of ``kinds``: all blocks but the run's first, which counts where there is no other."""
    settled: dict[int, int] = {}
    for kind in kinds:
        own = {at: took for at, took in found.items() if simulated[at] == kind}
        settled |= {at: took for at, took in own.items() if at} or own
    return settled


def _in_proportion(
    operators: Sequence[OperatorRecord], times: dict[int, int], simulated: Sequence[str],
    kinds: Iterable[str],
) -> dict[int, int]:  # fmt: skip
    """Times of blocks of ``kinds``, as those that are known to the busier side's operators."""
    sides: dict[int, Counter[bool]] = {at: Counter() for at in range(len(simulated))}
    for each in operators:
        sides[each.layer][each.unit == "pim"] += each.end_ps - each.start_ps
    work = {at: max(side.values(), default=0) for at, side in sides.items()}
    took, needed = sum(times.values()), sum(work[at] for at in times)
    wanted = set(kinds)
    return {
        at: took * work[at] // max(needed, 1)
        for at, kind in enumerate(simulated) if kind in wanted
    }  # fmt: skip
