"""What goes over the links between GPUs: as NCCL does it, or as topology and algorithm say."""

from __future__ import annotations

from pimsim.config.system import SystemConfig
from pimsim.hardware.fabric.nccl import nccl_time
from pimsim.hardware.fabric.plan import collective
from pimsim.hardware.fabric.schedule import Operation

__all__ = ["moved_between"]

_OF_A_STAGE = (Operation.ALL_REDUCE, Operation.ALL_GATHER)


def moved_between(
    operation: Operation, payload_bytes: int, config: SystemConfig
) -> tuple[float, int]:
    """What an operation takes between the devices of a stage; a ``SEND``, from one to its like in
    the next stage.

    Parameters
    ----------
    operation
        All-reduces and all-gathers are NCCL's where ``config`` has a section for it.
    payload_bytes
        As ``hardware.fabric.schedule.Operation`` counts them.
    config
        The machine.

    Returns
    -------
    tuple[float, int]
        Seconds, and bytes that leave a device.
    """
    devices = 2 if operation is Operation.SEND else config.tp
    if config.nccl is not None and operation in _OF_A_STAGE:
        found = nccl_time(operation, payload_bytes, devices, config.nccl)
        return found.time_ps * 1e-12, found.link_bytes
    cost = collective(operation, payload_bytes, devices, config.link)
    return cost.time_ps * 1e-12, cost.link_bytes
