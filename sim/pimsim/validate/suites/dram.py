"""DRAM: DRAMsim3 and Ramulator 2.1, cycles and commands."""

from __future__ import annotations

from collections.abc import Iterator

from pimsim.validate import dramsim3, ramulator2
from pimsim.validate.types import References, Row, Suite

__all__ = ["SUITE"]


def _rows(references: References) -> Iterator[Row]:
    yield from dramsim3.rows(references)
    yield from ramulator2.rows(references)


SUITE = Suite("dram", "DRAM commands against DRAMsim3 and Ramulator 2.1", _rows)
