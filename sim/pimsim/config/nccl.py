"""NCCL's ring on one device's links: what its three protocols take, and how it chooses one."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pimsim.config.base import ConfigModel

__all__ = ["NcclConfig", "NcclTunerConfig", "ProtocolConfig"]

_GbPerS = Annotated[float, Field(gt=0, le=1e6)]


class ProtocolConfig(ConfigModel):
    """What a ring takes under one protocol: ``base_us``, ``hop_us`` for each step, and its bytes at
    ``gb_per_s``."""

    base_us: float = Field(ge=0, le=1e6)
    """Whatever there is to do."""
    hop_us: float = Field(ge=0, le=1e6)
    """Of each step of the ring: 2 (N - 1) of an all-reduce, else N - 1."""
    gb_per_s: _GbPerS
    """At which a device works off pieces of 1/N of the payload: one a step, and one more."""


class NcclTunerConfig(ConfigModel):
    """What NCCL's own model of its time knows of the device; its latencies are the same for all."""

    ring_gb_per_s: _GbPerS
    """Channels of its ring times what each carries."""
    ll_gb_per_s: _GbPerS
    """The most under LL."""
    ll128_gb_per_s: _GbPerS
    """The most under LL128: so much a channel, times channels."""


class NcclConfig(ConfigModel):
    """NCCL between the devices of one node."""

    name: str
    """What reports call it."""
    description: str = ""
    """One line for ``pimsim list``."""
    sources: dict[str, str]
    """Where each number is from, by its key."""
    tuner: NcclTunerConfig
    """By which a protocol is chosen."""
    ll: ProtocolConfig
    """Eight bytes, of them four data: a flag with each, so that nobody waits for a whole piece."""
    ll128: ProtocolConfig
    """128 bytes with one flag of eight."""
    simple: ProtocolConfig
    """Whole pieces, then a fence and a flag."""
