"""PIM in a memory of its own: the link between a device and it."""

from __future__ import annotations

from pydantic import Field

from pimsim.config.base import ConfigModel

__all__ = ["PimLinkConfig"]


class PimLinkConfig(ConfigModel):
    """Between a device and the memory that its PIM is in: all stacks or cards of it together."""

    sources: dict[str, str]
    """Source of each number, by its key; ``assumed`` where nobody gives one."""
    bandwidth_gb_per_s: float = Field(ge=0.001, le=1e6)
    """In one direction, GB/s (10^9 bytes)."""
    latency_ns: float = Field(default=0.0, ge=0, le=1e9)
    """Of each transfer, before its first byte arrives."""
    pj_per_bit: float = Field(ge=0, le=1e6)
    """Of a bit that goes over it, either way."""
