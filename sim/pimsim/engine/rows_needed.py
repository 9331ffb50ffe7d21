"""Whether the layout of PIM fits the banks: rows of the fullest pipeline stage, at some degrees."""

from __future__ import annotations

from collections import Counter

from pimsim.mapping.addresses import AddressPlan, LayoutError
from pimsim.workload.batch import DeviceWork
from pimsim.workload.cards import Parallelism
from pimsim.workload.operators import ForwardPass
from pimsim.workload.stages import stage_kinds

__all__ = ["DegreesError", "blocks_counted", "check_rows", "rows_needed", "rows_of"]


class DegreesError(LayoutError):
    """The banks have too few rows with these degrees of parallelism."""

    def __init__(self, message: str, degrees: Parallelism, beyond: bool = False) -> None:
        super().__init__(message)
        self.degrees = degrees
        self.beyond = beyond
        """``workload.beyond_banks`` would let it run."""

    def advised(self, way_out: str) -> LayoutError:
        """The same with what can be done."""
        larger = ", or take it for larger (workload.beyond_banks=true)" if self.beyond else ""
        return LayoutError(f"{self}: {way_out}{larger}")


def check_rows(addresses: AddressPlan, whole: ForwardPass, work: DeviceWork, rows: int) -> None:
    """Raise where the banks have fewer rows than the layout of PIM needs.

    Parameters
    ----------
    addresses
        Where weights and caches of the simulated blocks lie.
    whole
        The step, with its blocks and their kinds.
    work
        The model, and how it is shared.
    rows
        Of each bank.

    Raises
    ------
    DegreesError
        With what is short, and the first request without room.
    """
    counted = blocks_counted(whole, work)
    needed = max(addresses.rows_needed(*each) for each in counted)
    if needed > rows:
        degrees = work.degrees
        fullest = max(counted, key=lambda each: addresses.rows_needed(*each))
        short = addresses.first_without_room(rows, *fullest)
        refused = "" if short is None else f"; {short}"
        raise DegreesError(
            f"model {work.trace.model} (tp {degrees.tp}, ep {work.ep}, pp {degrees.pp}): in the "
            f"layout of PIM {rows_of(work)} need {needed} rows of each bank, the memory has "
            f"{rows}{refused}",
            degrees,
            beyond=True,
        )


def rows_needed(addresses: AddressPlan, whole: ForwardPass, work: DeviceWork) -> int:
    """Rows of each bank that the blocks of the fullest pipeline stage need, those not simulated
    too, with the caches of all batches under way.

    Parameters
    ----------
    addresses
        Where weights and caches of the simulated blocks lie.
    whole
        The step, with its blocks and their kinds.
    work
        The model, and how it is shared.
    """
    return max(addresses.rows_needed(*each) for each in blocks_counted(whole, work))


def blocks_counted(whole: ForwardPass, work: DeviceWork) -> list[tuple[list[float], int]]:
    """By pipeline stage: how many blocks each simulated one stands for, and the batches that have
    a cache there.

    Parameters
    ----------
    whole
        The step, with its blocks and their kinds.
    work
        The model, and how it is shared.

    Returns
    -------
    list
        Of each stage: a number for each simulated block, (blocks,), and batches.
    """
    kinds = [block.kind for block in whole.blocks]
    simulated = Counter(kinds)
    if whole.pp == 1:
        model = dict(whole.model_blocks)
        return [([max(model[kind] / simulated[kind], 1.0) for kind in kinds], 1)]
    return [
        ([own[kind] / simulated[kind] for kind in kinds], work.batches)
        for own in (stage_kinds(work.kinds, stage) for stage in work.stages)
    ]


def rows_of(work: DeviceWork) -> str:
    """What ``rows_needed`` counts, for a message.

    Parameters
    ----------
    work
        The model, and how it is shared.
    """
    if work.degrees.pp == 1:
        return "all blocks"
    return f"the blocks of a stage with the caches of {work.batches} batch" + (
        "es" * (work.batches > 1)
    )
