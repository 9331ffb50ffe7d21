"""AttAcc: its HBM3-PIM attention and its system model."""

from __future__ import annotations

from collections.abc import Iterator

from pimsim.validate import attacc, attacc_system
from pimsim.validate.types import References, Row, Suite

__all__ = ["SUITE"]


def _rows(references: References) -> Iterator[Row]:
    yield from attacc.rows(references)
    yield from attacc_system.rows(references)


SUITE = Suite("attacc", "AttAcc's attention in HBM3-PIM and its GPU system", _rows)
