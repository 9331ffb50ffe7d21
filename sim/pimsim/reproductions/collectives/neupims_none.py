"""The NeuPIMs artifact models no communication: tensor parallelism costs nothing."""

from __future__ import annotations

from pimsim.config.run import LinkConfig
from pimsim.hardware.fabric.cost import Collective

__all__ = ["all_gather", "all_reduce", "send"]

_NOTHING = Collective(time_ps=0, link_bytes=0)


def all_reduce(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Takes no time and moves nothing."""
    del payload_bytes, devices, link
    return _NOTHING


def all_gather(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """Takes no time and moves nothing."""
    del payload_bytes, devices, link
    return _NOTHING


def send(payload_bytes: int, link: LinkConfig) -> Collective:
    """Takes no time and moves nothing."""
    del payload_bytes, link
    return _NOTHING
