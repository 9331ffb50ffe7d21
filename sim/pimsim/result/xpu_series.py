"""What GPUs did over time: each kernel's work spread evenly while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pimsim.engine.records import OperatorRecord
from pimsim.engine.xpu_machine import XpuOutcome
from pimsim.hardware.energy.system_static import system_static
from pimsim.result.types import Series

__all__ = ["PARTS", "amount", "by_unit", "xpu_series", "xpu_series_totals"]

_INTERVALS = 128
_J_PER_PJ = 1e-12
PARTS = {"dram": "memory", "pim": "pim", "npu": "core", "sram": "", "link": "link",
          "host": "host"}  # fmt: skip
"""Parts of a result's energy, and of a block's."""

Floats = NDArray[np.float64]


def xpu_series(outcome: XpuOutcome) -> Series:
    """The run in intervals of equal length, all its work in them.

    Parameters
    ----------
    outcome
        What the engine left behind.

    Returns
    -------
    Series
        Ends of the intervals, ps, and in each bytes, multiply-accumulates and joules.
    """
    time_ps = outcome.time_ps
    count = max(min(_INTERVALS, time_ps // 1000), 1)
    edges = np.array([time_ps * at // count for at in range(count + 1)], dtype=np.int64)
    rows = outcome.recorder.operators
    works = outcome.recorder.works
    begins = np.array([each.start_ps for each in works], dtype=np.float64)
    ends = np.array([each.end_ps for each in works], dtype=np.float64)
    energy: dict[str, tuple[float, ...]] = {}
    for part, name in PARTS.items():
        joules = np.array([each.cost.energy_pj.get(name, 0.0) for each in works]) * _J_PER_PJ
        energy[part] = tuple(np.diff(_until(edges, begins, ends, joules)).tolist())
    static_w = system_static(outcome.config)["total"]
    energy["static"] = tuple((np.diff(edges) * (static_w * 1e-12)).tolist())

    def whole(unit: str, what: str) -> tuple[int, ...]:
        return _whole([each for each in rows if each.unit == unit], what, edges)

    return Series(
        end_ps=tuple(edges[1:].tolist()),
        dram_bytes=whole("xpu", "bytes"),
        pim_bytes=whole("pim", "bytes"),
        npu_macs=whole("xpu", "macs"),
        pim_macs=whole("pim", "macs"),
        link_bytes=whole("link", "bytes"),
        energy_j=energy,
    )


def xpu_series_totals(outcome: XpuOutcome) -> dict[str, int]:
    """What the intervals of each amount must add up to.

    Parameters
    ----------
    outcome
        What the engine left behind.

    Returns
    -------
    dict[str, int]
        Bytes and multiply-accumulates, by the names of ``Series``.
    """

    moved = by_unit(outcome, lambda row: amount(row, "bytes"))
    macs = by_unit(outcome, lambda row: amount(row, "macs"))
    return {
        "dram_bytes": moved["xpu"], "pim_bytes": moved["pim"], "npu_macs": macs["xpu"],
        "pim_macs": macs["pim"], "link_bytes": moved["link"],
    }  # fmt: skip


def by_unit(outcome: XpuOutcome, of: Callable[[OperatorRecord], int]) -> Counter[str]:
    """A sum over the kernels of each unit.

    Parameters
    ----------
    outcome
        What the engine left behind.
    of
        What a kernel adds.
    """
    found: Counter[str] = Counter()
    for each in outcome.recorder.operators:
        found[each.unit] += of(each)
    return found


def amount(record: OperatorRecord, what: str) -> int:
    """What a kernel does.

    Parameters
    ----------
    record
        Of the kernel.
    what
        ``macs`` (half of its FLOPs) or ``bytes``.
    """
    return record.flops // 2 if what == "macs" else record.bytes


def _whole(rows: Sequence[OperatorRecord], what: str, edges: NDArray[np.int64]) -> tuple[int, ...]:
    """Amounts in each interval, whole and with the exact sum."""
    amounts = [amount(each, what) for each in rows]
    begins = np.array([each.start_ps for each in rows], dtype=np.float64)
    ends = np.array([each.end_ps for each in rows], dtype=np.float64)
    until = _until(edges, begins, ends, np.array(amounts, dtype=np.float64))
    marks = np.floor(until).astype(np.int64)
    marks[0], marks[-1] = 0, sum(amounts)
    return tuple(np.diff(np.minimum(marks, marks[-1])).tolist())


def _until(edges: NDArray[np.int64], begins: Floats, ends: Floats, amounts: Floats) -> Floats:
    """How much is done at each edge; shape (edges,)."""
    if not len(amounts):
        return np.zeros(len(edges))
    rates = amounts / np.maximum(ends - begins, 1.0)
    found = [
        float(np.sum(rates * np.clip(edge - begins, 0.0, np.maximum(ends - begins, 1.0))))
        for edge in edges.tolist()
    ]
    return np.array(found)
