"""Dataflows by name: one module each, with its closed form and its source.

``DATAFLOWS`` is what ``plan_gemm`` looks up: the configured dataflow, or the preload where that
names a plan of its own (the artifact's).
"""

from __future__ import annotations

from pimsim.hardware.npu.dataflows.artifact import (
    plan_artifact_overlapped,
    plan_artifact_serial,
)
from pimsim.hardware.npu.dataflows.is_ import plan_input_stationary
from pimsim.hardware.npu.dataflows.os import plan_output_stationary
from pimsim.hardware.npu.dataflows.ws import plan_weight_stationary
from pimsim.hardware.npu.plan import Dataflow

__all__ = ["DATAFLOWS"]

DATAFLOWS: dict[str, Dataflow] = {
    "ws": plan_weight_stationary,
    "os": plan_output_stationary,
    "is": plan_input_stationary,
    "artifact-overlapped": plan_artifact_overlapped,
    "artifact-serial": plan_artifact_serial,
}
