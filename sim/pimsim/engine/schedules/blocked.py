"""Attention on PIM, NPU and PIM never at once: the naive NPU+PIM machine (NeuPIMs section 3)."""

from __future__ import annotations

from pimsim.engine.schedules.serial import Serial

__all__ = ["SCHEDULE", "Blocked"]


class Blocked(Serial):
    """The stages of ``Serial``; the NPU waits while experts run on PIM."""

    uses_pim = True


SCHEDULE = Blocked
