"""AttAcc's Python model of GPU servers: every row, through the same function as ``validate``."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from pimsim.validate.attacc_system import TABLES, table_rows
from pimsim.validate.judge import status_of
from pimsim.validate.tolerances import load_tolerances

DATA = Path(__file__).resolve().parents[1] / "data"


def _records() -> Iterator[dict[str, str]]:
    for name in TABLES:
        with (DATA / name).open(newline="") as stream:
            yield from csv.DictReader(stream)


def _quick(record: dict[str, str]) -> bool:
    """Not those whose attention alone takes over ten seconds; ``pimsim validate`` has them all."""
    return record["pim"] != "buffer" or record["batch"] == "1"


RECORDS = [record for record in _records() if _quick(record)]
IDS = [
    f"{each['system']}{each['pim']}{each['opts'].replace(' ', '')}-{each['ngpu']}{each['gpu']}-"
    f"{each['model']}-{each['lin']}-{each['lout']}-{each['batch']}"
    for each in RECORDS
]


@pytest.mark.parametrize("record", RECORDS, ids=IDS)
def test_a_row_of_the_table(record: dict[str, str]) -> None:
    rows = list(table_rows(record))
    assert len(rows) == 6
    assert [
        (row.metric, row.reference, row.ours) for row in rows if status_of(row) == "outside"
    ] == []


def test_only_what_depends_on_attention_in_pim_is_not_exact() -> None:
    """A GPU's parts are closed forms on both sides."""
    limits = load_tolerances()
    parts = limits["attacc.system_parts"].each
    assert parts is not None
    assert parts < 5e-4
    gpus = [record for record in RECORDS if record["system"] != "dgx-attacc"]
    groups = {row.group for record in gpus for row in table_rows(record)}
    assert groups == {"attacc.system_throughput", "attacc.system_parts", "attacc.system_energy"}
    assert all(limits[f"attacc.system_{name}"].each is not None for name in (
        "throughput", "attention", "attention_bank", "exposed", "energy"
    ))  # fmt: skip
