"""The tables of docs/fabric.md are what the code gives: ``python tests/unit/test_fabric_page.py``
writes them."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_nccl
from pimsim.config.plugins import is_reproduction, load_module, module_names
from pimsim.config.resources import preset_names
from pimsim.hardware.fabric.links import LinkSpec, LinkTiming
from pimsim.hardware.fabric.nccl import Protocol
from pimsim.hardware.fabric.plan import Fabric, Level
from pimsim.hardware.fabric.schedule import Operation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fabric.md"
BEGIN, END = "<!-- made by tests/unit/test_fabric_page.py: {} -->", "<!-- end -->"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the documentation is in a checkout only")


def collectives() -> list[str]:
    """1 MiB on 8 devices, links of 450 GB/s and 1 us, in us, for each way to do it."""
    operations = [operation for operation in Operation if operation is not Operation.SEND]
    lines = [
        f"| topology | algorithm | {' | '.join(operations)} |",
        f"|---|---|{'---|' * len(operations)}",
    ]
    for topology in module_names("topology"):
        if load_module("topology", topology).TAKES_LINKS:
            continue
        for algorithm in module_names("collective"):
            if is_reproduction("collective", algorithm):
                continue
            level = Level(8, topology, algorithm, LinkSpec.of(450, 1000))
            cells = []
            for operation in operations:
                found = Fabric((level,), LinkTiming(), True).run(operation, Fraction(2**20))
                cells.append(f"{found.time_ps / 1e6:.2f}")
            lines.append(f"| {topology} | {algorithm} | {' | '.join(cells)} |")
    return lines


def constants() -> list[str]:
    """NCCL's protocols on each device: us, us a step, GB/s."""
    lines = ["| device | " + " | ".join(Protocol) + " |", "|---|" + len(Protocol) * "---|"]
    for name in preset_names("nccl"):
        config = load_nccl(name).config
        cells = []
        for protocol in Protocol:
            own = getattr(config, protocol)
            cells.append(f"{own.base_us:g} + {own.hop_us:g} a step, {own.gb_per_s:g}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


TABLES = {"collectives": collectives, "constants": constants}


def _block(text: str, name: str) -> tuple[str, str, str]:
    before, begin, rest = text.partition(BEGIN.format(name))
    block, end, after = rest.partition(END)
    assert begin and end, name
    return before, block.strip(), after


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_the_code_gives(name: str) -> None:
    _, block, _ = _block(PAGE.read_text(), name)
    assert block == "\n".join(TABLES[name]())


def test_the_ranges_are_those_of_the_page_of_limits() -> None:
    own = {line for line in PAGE.read_text().splitlines() if line.startswith("| fabric.")}
    limits = (PAGE.parent / "limits.md").read_text().splitlines()
    assert own == {line for line in limits if line.startswith("| fabric.")}
    assert len(own) == 5


def test_halving_wants_a_power_of_two() -> None:
    with pytest.raises(InputError, match="power of two of devices, found 12"):
        load_module("collective", "halving_doubling").schedule(Operation.ALL_REDUCE, 12)


def main() -> int:
    """Write the tables into the page."""
    text = PAGE.read_text()
    for name, table in TABLES.items():
        before, _, after = _block(text, name)
        text = f"{before}{BEGIN.format(name)}\n\n" + "\n".join(table()) + f"\n\n{END}{after}"
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
