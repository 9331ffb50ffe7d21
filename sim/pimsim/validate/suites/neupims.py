"""NeuPIMs: the artifact's three branches, quirks included."""

from __future__ import annotations

from pimsim.validate import neupims_artifact
from pimsim.validate.types import Suite

__all__ = ["SUITE"]

SUITE = Suite("neupims", "the NeuPIMs artifact, branch by branch", neupims_artifact.rows)
