"""Links: collectives against ASTRA-sim, and NCCL as measured."""

from __future__ import annotations

from pimsim.validate import fabric
from pimsim.validate.types import Suite

__all__ = ["SUITE"]

SUITE = Suite("fabric", "collectives against ASTRA-sim, and NCCL's on measured GPUs", fabric.rows)
