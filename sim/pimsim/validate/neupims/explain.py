"""The whole explanation: simulate what is missing, write the page, give the averages as rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pimsim.validate.neupims.page import write_page
from pimsim.validate.neupims.ratios import (
    grid_cases,
    mean_ratio,
    waterfall_cases,
    waterfall_points,
)
from pimsim.validate.neupims.runs import RunStore, run_cases
from pimsim.validate.neupims.study import MODES, load_study, points_of
from pimsim.validate.types import Row

__all__ = ["STORE_FILE", "explain"]

STORE_FILE = "neupims-grid.json"


def explain(folder: Path, workers: int, tell: Callable[[int, int], None]) -> list[Row]:
    """Write ``neupims.md`` and its figures to ``folder``; figures that it holds are kept.

    Rows are the paper's averages beside ours, in every mode.

    Parameters
    ----------
    folder
        Of the page, its figures and the store of simulations.
    workers
        Processes.
    tell
        Of how many simulations are done, and of how many.
    """
    study = load_study()
    store = RunStore(folder / STORE_FILE)
    points = list(points_of(study))
    cases = [*grid_cases(study, points), *waterfall_cases(study, waterfall_points(study))]
    run_cases(cases, store, workers, tell)
    write_page(study, store, folder)
    return [
        Row(
            group=f"neupims.published_{mode}",
            case="mean over the grid",
            metric=published.name,
            reference=published.value,
            ours=mean_ratio(study, store, published, mode, points),
        )
        for mode in MODES
        for published in study.published
    ]
