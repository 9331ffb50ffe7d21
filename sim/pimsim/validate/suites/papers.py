"""Papers: peaks and ratios that published designs state, from our presets and simulations."""

from __future__ import annotations

from pimsim.validate import papers
from pimsim.validate.types import Suite

__all__ = ["SUITE"]

SUITE = Suite("papers", "what papers state of their designs, from our presets", papers.rows)
