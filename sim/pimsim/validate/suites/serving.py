"""Serving: schedules of vLLM and Vidur, and a server's measured run."""

from __future__ import annotations

from pimsim.validate import serving
from pimsim.validate.types import Suite

__all__ = ["SUITE"]

SUITE = Suite("serving", "requests and steps of other projects' schedulers", serving.rows)
