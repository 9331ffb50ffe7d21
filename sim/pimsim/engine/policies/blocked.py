"""Attention on PIM, NPU and PIM never at once: the naive NPU+PIM machine (NeuPIMs section 3)."""

from __future__ import annotations

from pimsim.engine.policies.serial import stages

__all__ = ["stages"]
