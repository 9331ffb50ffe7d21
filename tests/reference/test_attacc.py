"""AttAcc against its public simulator: fresh runs, and the log that is shipped with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from pimsim.validate.attacc import DIRECT, LOG, direct_rows, log_rows
from pimsim.validate.types import References, Row


def by_group(rows: Iterable[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups


@pytest.fixture(scope="module")
def direct(repo_dir: Path) -> dict[str, list[Row]]:
    references = References(repo_dir / "tests" / "data", None)
    return by_group(row for name in DIRECT for row in direct_rows(references.table(name)))


def test_cycles_of_fresh_runs(direct: dict[str, list[Row]]) -> None:
    rows = direct["attacc.direct_cycles"]
    assert len(rows) == 21 + 30
    # what is left: REFab of the second pseudo channel ends a cycle later than the first's
    assert [row for row in rows if abs(row.error) > 0.0004] == []


def test_commands_of_fresh_runs(direct: dict[str, list[Row]]) -> None:
    rows = direct["attacc.counts"]
    assert len(rows) == 51 * 5
    assert [row for row in rows if row.error] == []


@pytest.fixture(scope="module")
def log(reference_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Row]]:
    """Some rows of each placement; ``pimsim validate`` takes all."""
    head, *lines = (reference_dir / LOG).read_text().splitlines(keepends=True)
    some = [
        line
        for placement, stride in (("BA", 12), ("BG", 10), ("BUFFER", 40))
        for line in [line for line in lines if f",{placement}," in line][::stride]
    ]
    table = tmp_path_factory.mktemp("log") / "some.csv"
    table.write_text("".join([head, *some]))
    return by_group(log_rows(table, simulated_commands=600_000))


def test_commands_of_the_log(log: dict[str, list[Row]]) -> None:
    rows = log["attacc.counts"]
    assert len(rows) == (13 + 5 + 11) * 5
    assert [row for row in rows if row.error] == []


def test_cycles_of_the_log(log: dict[str, list[Row]]) -> None:
    bank, others = log["attacc.log_bank_cycles"], log["attacc.log_cycles"]
    assert bank and others
    assert all("attacc-bank" in row.case for row in bank)
    assert not any("attacc-bank" in row.case for row in others)
    # the log's bank rows are of another state of that simulator than any published
    assert sum(abs(row.error) for row in bank) / len(bank) < 0.03
    assert [row for row in others if abs(row.error) > 0.0002] == []
