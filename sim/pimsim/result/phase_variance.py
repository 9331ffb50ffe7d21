"""By how much the times of equal blocks differ: what phase each finds the memory in.

Equal blocks ask for the same, in the same order. What differs is where in its refresh interval, and
at which open rows, each of their operators begins. One more refresh or one less, one more row to
open or one less, is all that an operator can gain or lose by that, and a quantity within a range
has a standard deviation of half the range at most (Popoviciu's inequality). Where operators begin
follows from all that went before, so that the gains and losses of one say little of another's and
their variances add up. An operation of PIM does not flow past a refresh as a stream does: it stops
before each, where what would come next has no room, and opens all its rows again, so that each that
it meets is one of these quantities. A block cannot gain or lose more refreshes than it meets.

Nothing here is measured: one settled block says nothing of how another differs, and how its
operators differ from the first block's, which starts on an idle memory, says too much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pimsim.engine.records import OperatorRecord
from pimsim.hardware.dram.phase_costs import PhaseCosts

__all__ = ["phase_variances"]


def phase_variances(
    times: Mapping[int, int], operators: Sequence[OperatorRecord], costs: PhaseCosts
) -> dict[int, float]:
    """Variance of the time of blocks that are equal to a simulated one, at most.

    Parameters
    ----------
    times
        Time of blocks in the steady state by number of the simulated block, ps (``block_times``).
    operators
        Of all blocks, of each (sub-)batch its own.
    costs
        Of the memory.

    Returns
    -------
    dict
        By number of the simulated block, in ps^2.
    """
    begun: Counter[int] = Counter()
    streams: Counter[int] = Counter()
    pim_ps: Counter[int] = Counter()
    for each in operators:
        begun[each.layer] += 1
        if each.unit == "pim":
            pim_ps[each.layer] += each.end_ps - each.start_ps
        else:
            streams[each.layer] += 1
    found: dict[int, float] = {}
    for at, took in times.items():
        refreshes = 0.0
        if costs.refresh_interval is not None:
            met_by_pim = pim_ps[at] / costs.refresh_interval
            refreshes = min(took / costs.refresh_interval, streams[at] + met_by_pim)
        found[at] = (refreshes * costs.refresh**2 + begun[at] * costs.row**2) / 4
    return found
