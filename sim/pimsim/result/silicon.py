"""How much silicon a machine has: what prices are of."""

from __future__ import annotations

from pimsim.config.loader import load_area
from pimsim.config.run import RunConfig
from pimsim.hardware.area import device_area

__all__ = ["machine_area", "machine_memory_bytes", "priced_figures"]


def machine_area(config: RunConfig, devices: int) -> dict[str, float]:
    """Of all devices, by part, in mm2.

    Parameters
    ----------
    config
        Of the machine.
    devices
        That it has.
    """
    found = device_area(
        config.npu, config.memory, config.pim, load_area().config, config.pim_memory
    )
    return {part: devices * mm2 for part, mm2 in found.by_part().items()}


def machine_memory_bytes(config: RunConfig, devices: int) -> int:
    """DRAM of all devices, that of PIM beside it too.

    Parameters
    ----------
    config
        Of the machine.
    devices
        That it has.
    """
    of_pim = config.pim_memory
    memories = [config.memory, *([] if of_pim is None else [of_pim])]
    return devices * sum(each.organization.capacity_bytes for each in memories)


def priced_figures(config: RunConfig, devices: int) -> dict[str, float]:
    """What ``cost.machine_cost`` asks of a machine, by the names in ``result.json``.

    Parameters
    ----------
    config
        Of the machine.
    devices
        That it has.
    """
    return {
        "devices": devices,
        "memory_bytes": machine_memory_bytes(config, devices),
        "area_mm2.logic_dies": machine_area(config, devices)["logic_dies"],
    }
