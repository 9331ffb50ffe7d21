"""Sweeps that are compared: points, words and charts of stores with made-up figures."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import values
from facts import facts
from made import unit


@values("results/comparisons")
def _comparisons() -> Iterator[str]:
    from pimsim.explore.comparison import compare_sweeps
    from pimsim.report.comparisons import comparison_charts

    store_of = unit("test_comparisons").store_of
    grid: dict[str, list[Any]] = {"workload.batch": [8, 16, 64], "parallel.tp": [1, 2]}
    batches: dict[str, list[Any]] = {"workload.batch": [8, 16, 64]}
    rates: dict[str, Callable[..., float]] = {
        "one": lambda batch, tp=1: 10.0 * batch / tp,
        "two": lambda batch, tp=1: 0.0 if (batch, tp) == (8, 2) else 12.0 * batch + tp,
        "three": lambda batch, tp=1: 640.0 / batch,
    }
    with tempfile.TemporaryDirectory() as folder:
        for axes, fast in ((grid, False), (grid, True), (batches, False)):
            stores = [
                store_of(Path(folder) / f"{name}{len(axes)}{fast}", base, axes, rates[name], fast)
                for name, base in (("one", "npu-only"), ("two", "neupims"), ("three", "npu-only"))
            ]
            found = compare_sweeps(stores, ["one", "two", "three"])
            for each in found:
                yield f"=== {each.names}, {list(axes)}, {'fast' if fast else 'commands'}"
                yield from each.words()
                yield f"columns {each.columns}"
                for pair in each.known:
                    yield f"{each.cells(pair)}"
                yield f"furthest {[pair.values for pair in each.furthest(2)]}"
            yield from facts(comparison_charts(found), "charts")
