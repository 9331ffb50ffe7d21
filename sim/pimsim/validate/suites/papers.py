"""Papers: peaks and ratios that published designs state, from our presets and simulations."""

from __future__ import annotations

from collections.abc import Iterator

from pimsim.validate import duplex, papers
from pimsim.validate.types import References, Row, Suite

__all__ = ["SUITE"]


def _rows(references: References) -> Iterator[Row]:
    yield from papers.rows(references)
    yield from duplex.rows(references)


SUITE = Suite("papers", "what papers state of their designs", _rows)
