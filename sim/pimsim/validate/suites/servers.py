"""Servers of GPUs beside measured ones."""

from __future__ import annotations

from collections.abc import Iterator

from pimsim.validate import gpu_power, gpu_serving
from pimsim.validate.types import References, Row, Suite

__all__ = ["SUITE"]


def _rows(references: References) -> Iterator[Row]:
    yield from gpu_serving.preset_rows(references)
    yield from gpu_power.rows(references)
    yield from gpu_serving.rows(references)


SUITE = Suite("servers", "services on GPUs beside measured servers", _rows)
