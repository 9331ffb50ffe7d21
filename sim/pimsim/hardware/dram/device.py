"""The memory system that a memory's controller model asks for."""

from __future__ import annotations

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import Records
from pimsim.hardware.dram.request_order import RequestOrder
from pimsim.hardware.dram.system import MemorySystem, Network

__all__ = ["make_memory_system"]


def make_memory_system(
    memory: MemoryConfig,
    pim: PimConfig | None = None,
    network: Network | None = None,
    order: RequestOrder | None = None,
    log_entries: int = 0,
    parameters: Records | None = None,
) -> MemorySystem:
    """All channels idle.

    Parameters
    ----------
    memory
        Its ``controller.model`` decides.
    pim
        On the memory's dies; None: none.
    network
        Between cores and channels; None: none.
    order
        Of streams that name their operands; None: there are none.
    log_entries
        Commands that the log has room for; 0: none is kept.
    parameters
        Of an earlier system of the same configs, (1,); None: they are made.

    Returns
    -------
    MemorySystem
        Of the ``channel-queues`` model its subclass ``QueueMemorySystem``.

    Raises
    ------
    InputError
        The controller cannot serve the design, or keeps no log.
    """
    if memory.controller.model == "bank-queues":
        return MemorySystem(memory, pim, log_entries, network, order, parameters)
    if log_entries:
        raise InputError(
            f"memory {memory.name}: controller.model channel-queues logs no commands on a device"
        )
    if order is not None:
        raise InputError(
            f"memory {memory.name}: controller.model channel-queues has no request order of its "
            "own, which npu.operand_layout asks for; allowed: bank-queues"
        )
    if pim is not None:
        raise InputError(
            f"memory {memory.name}: controller.model channel-queues knows no PIM commands; "
            "a PIM design needs bank-queues"
        )
    from pimsim.hardware.dram.channel_queues.system import QueueMemorySystem

    return QueueMemorySystem(memory, network=network, parameters=parameters)
