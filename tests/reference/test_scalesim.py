"""Every row of SCALE-Sim 3.0.0, all dataflows: exact (tests/data/scalesim.csv)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pimsim.config.npu import SystolicConfig
from pimsim.hardware.npu.gemm import plan_gemm, utilisation

ROWS = list(
    csv.DictReader((Path(__file__).parents[1] / "data" / "scalesim.csv").read_text().splitlines())
)


def test_all_dataflows_are_in_the_table() -> None:
    assert {row["dataflow"] for row in ROWS} == {"ws", "os", "is"}
    assert len(ROWS) > 60


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda row: "{dataflow}-{rows}x{cols}-{M}x{N}x{K}".format(**row)
)
def test_exposed_preload_is_scalesim(row: dict[str, str]) -> None:
    systolic = SystolicConfig.model_validate(
        {
            "arrays": 1,
            "rows": int(row["rows"]),
            "cols": int(row["cols"]),
            "dataflow": row["dataflow"],
            "preload": "exposed",
        }
    )
    m, n, k = int(row["M"]), int(row["N"]), int(row["K"])
    plan = plan_gemm(m, n, k, systolic)
    assert plan.cycles == int(row["formula_lines"])
    # SCALE-Sim reports an index, one less than the count.
    assert plan.cycles - 1 == int(row["compute_cycles"])
    # Its utilisation divides by that index, and by stalls where its own SRAM stalled.
    reported = 100 * utilisation(plan, systolic) * plan.cycles / (plan.cycles - 1)
    assert float(row["util_pct"]) <= reported + 6e-5
