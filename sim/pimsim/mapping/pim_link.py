"""Tasks of the link between a device and PIM in a memory of its own."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from pimsim.config.pim_link import PimLinkConfig
from pimsim.hardware.dram.system import Rows
from pimsim.mapping.tasks import NpuTask

__all__ = ["PIM_LINK", "transfer_ps", "transfer_task"]

PIM_LINK = "pim_link"
"""``Task.unit`` of what goes over it."""


def transfer_ps(size_bytes: int, link: PimLinkConfig) -> int:
    """Picoseconds of one transfer, from its first byte's start to its last one's arrival.

    Parameters
    ----------
    size_bytes
        That go in one direction.
    link
        Its bandwidth and latency.
    """
    return ceil(size_bytes * 1000 / link.bandwidth_gb_per_s + link.latency_ns * 1000)


def transfer_task(
    name: str, kind: str, layer: int, size_bytes: int, link: PimLinkConfig,
    streams: Sequence[Rows] = (), kv_bytes: int = 0,
) -> NpuTask:  # fmt: skip
    """A transfer between the device's scratchpads and PIM.

    Parameters
    ----------
    name, kind
        Of the operator that it is for.
    layer
        Number of the simulated block.
    size_bytes
        That go over the link.
    link
        Which takes them.
    streams
        What is written in PIM's memory, or read there, meanwhile.
    kv_bytes
        Of keys and values among them.

    Returns
    -------
    NpuTask
        Of the unit ``PIM_LINK``.
    """
    return NpuTask(
        name, kind, PIM_LINK, layer, 0, 0, kv_bytes, streams=tuple(streams),
        link_ps=transfer_ps(size_bytes, link), link_bytes=size_bytes, sram_bytes=size_bytes,
    )  # fmt: skip
