"""Collectives between devices that share a model: one module for each way to do them.

A module offers ``all_reduce``, ``all_gather`` and ``send`` with the parameters of those here, which
ask the one that ``link.collectives`` names.
"""

from __future__ import annotations

from typing import Protocol, cast

from pimsim.config.plugins import load_module
from pimsim.config.run import LinkConfig
from pimsim.hardware.fabric.cost import Collective

__all__ = ["Collective", "Collectives", "all_gather", "all_reduce", "send"]


class Collectives(Protocol):
    """What a module of collectives offers."""

    def all_reduce(self, payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
        """Sum ``payload_bytes`` over ``devices``, so that each has the sum."""

    def all_gather(self, payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
        """Give each of ``devices`` all of ``payload_bytes``, of which each has an equal part."""

    def send(self, payload_bytes: int, link: LinkConfig) -> Collective:
        """``payload_bytes`` from one device to another."""


def _chosen(link: LinkConfig) -> Collectives:
    return cast(Collectives, load_module("collective", link.collectives))


def all_reduce(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """What a sum of ``payload_bytes`` over ``devices`` costs each, by ``link.collectives``."""
    return _chosen(link).all_reduce(payload_bytes, devices, link)


def all_gather(payload_bytes: int, devices: int, link: LinkConfig) -> Collective:
    """What it costs each of ``devices`` to get all of a payload, by ``link.collectives``."""
    return _chosen(link).all_gather(payload_bytes, devices, link)


def send(payload_bytes: int, link: LinkConfig) -> Collective:
    """What a transfer between two devices costs, by ``link.collectives``."""
    return _chosen(link).send(payload_bytes, link)
