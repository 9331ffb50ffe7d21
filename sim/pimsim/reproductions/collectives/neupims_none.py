"""The NeuPIMs artifact models no communication: tensor parallelism costs nothing."""

from __future__ import annotations

from pimsim.hardware.fabric.schedule import Operation, Schedule, Symmetry

__all__ = ["schedule"]


def schedule(operation: Operation, devices: int) -> Schedule:
    """Nothing is sent.

    Parameters
    ----------
    operation
        Not read.
    devices
        That take part.
    """
    del operation
    return Schedule(devices, Symmetry.ROTATION, ())
