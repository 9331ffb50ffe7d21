"""Static power of one device of a system: the processor, its PIM stacks, its share of the host."""

from __future__ import annotations

from math import fsum

from pimsim.config.system import SystemConfig
from pimsim.hardware.energy.pim import static_stack_w

__all__ = ["processor_w", "system_static"]

_MIB = 2**20
_PROCESSOR = ("cores", "sram", "memory", "link", "rest")


def system_static(config: SystemConfig) -> dict[str, float]:
    """Watt of one of ``config.devices``, by part, and ``total``; all the time.

    Parameters
    ----------
    config
        Its ``xpu.static``, ``stacks`` and ``host``.

    Returns
    -------
    dict of str to float
        W: ``cores``, ``sram``, ``memory``, ``link``, ``rest``, where there are any ``pim`` and
        ``host``, and ``total``.
    """
    xpu, static = config.xpu, config.xpu.static
    parts = {
        "cores": xpu.cores * static.core_w,
        "sram": (xpu.cores * xpu.l1_per_core + xpu.l2) / _MIB * static.sram_w_per_mib,
        "memory": xpu.memory_bandwidth_gb_per_s * static.memory_w_per_gb_per_s,
        "link": static.link_w,
        "rest": static.rest_w,
    }
    if config.attention == "pim" and config.stacks is not None and config.pim is not None:
        parts["pim"] = config.stacks.count * static_stack_w(config.pim)
    if config.host is not None:
        parts["host"] = config.host.sockets * config.host.static_w / config.devices
    return parts | {"total": fsum(parts.values())}


def processor_w(static_w: dict[str, float]) -> float:
    """Of the processor alone, which its TDP is of.

    Parameters
    ----------
    static_w
        Of ``system_static``, W by part.

    Returns
    -------
    float
        W: without PIM, host and total.
    """
    return fsum(static_w[part] for part in _PROCESSOR)
