"""What the NeuPIMs artifact itself gives: steady-state cycles of a block, by branch and trace."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

__all__ = ["BRANCHES", "Measured", "read_measured"]

BRANCHES = ("npu-only", "npu+pim", "main off", "main on")
"""Branches of the artifact; main with sub-batches off and on."""

Measured = Mapping[str, Mapping[str, int]]
"""Request trace to branch to cycles of one block for the whole batch."""


def read_measured(path: Path) -> Measured:
    """Cycles of a block from ``neupims_cycles.csv``; with sub-batches the stages C and D.

    Parameters
    ----------
    path
        Of the table.
    """
    found: dict[str, dict[str, int]] = {}
    with path.open(newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            if row["metric"] != "cycles" or row["model"].startswith("mb:"):
                continue
            branch = row["branch"]
            if branch == "main":
                branch = f"main {row['sub_batch']}"
            wanted = ("stage_C", "stage_D") if row["sub_batch"] == "on" else ("total",)
            if row["op"] in wanted:
                cycles = found.setdefault(row["trace"], {})
                cycles[branch] = cycles.get(branch, 0) + int(row["value"])
    return found
