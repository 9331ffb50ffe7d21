"""PIM designs: HBM-PIM and GDDR6-AiM against their makers' simulators."""

from __future__ import annotations

from collections.abc import Iterator

from pimsim.validate import aim, hbm_pim
from pimsim.validate.types import References, Row, Suite

__all__ = ["SUITE"]


def _rows(references: References) -> Iterator[Row]:
    yield from hbm_pim.rows(references)
    yield from aim.rows(references)


SUITE = Suite("pim", "PIM designs against PIMSimulator (HBM-PIM) and aim_simulator (AiM)", _rows)
