"""Where an address lives: fields of a burst index, from a map string.

A map such as ``rorabgbachco`` names the fields from the most to the least significant bit
above the burst offset (DRAMsim3's notation): ro row, ra rank, bg bank group, ba bank in its
group, ch channel, co column (burst in the row), pc pseudo channel where there are any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import OrganizationConfig

__all__ = ["AddressMap", "Coordinates"]


@dataclass(frozen=True)
class Coordinates:
    """Decoded bursts, one entry each: ``bank`` counts over the channel's pseudo channels and
    their ranks."""

    channel: NDArray[np.int64]
    bank: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


@dataclass(frozen=True)
class AddressMap:
    """Bit position and width of each field of a burst index."""

    position: dict[str, int]
    width: dict[str, int]
    burst_bytes: int
    organization: OrganizationConfig

    @classmethod
    @lru_cache(maxsize=64)
    def parse(cls, text: str, organization: OrganizationConfig) -> AddressMap:
        """The map that ``text`` describes; ``MemoryConfig`` has checked its fields."""
        counts = {
            "ro": organization.rows,
            "pc": organization.pseudo_channels,
            "ra": organization.ranks,
            "bg": organization.bank_groups,
            "ba": organization.banks_per_group,
            "ch": organization.channels,
            "co": organization.columns,
        }
        width = {name: count.bit_length() - 1 for name, count in counts.items()}
        position: dict[str, int] = {}
        low = 0
        position["pc"] = 0  # of no width where the map has none
        for name in reversed([text[i : i + 2] for i in range(0, len(text), 2)]):
            position[name] = low
            low += width[name]
        return cls(position, width, organization.burst_bytes, organization)

    @property
    def vector(self) -> tuple[str, ...]:
        """Fields of an address vector as Ramulator writes it, levels from the top: a pseudo
        channel and a rank only where there is such a level."""
        org = self.organization
        halves = ("pc",) if org.pseudo_channels > 1 else ()
        ranks = ("ra",) if org.ranks > 1 or not halves else ()
        return ("ch", *halves, *ranks, "bg", "ba", "ro", "co")

    def encode(self, fields: Mapping[str, NDArray[np.int64] | int]) -> NDArray[np.int64]:
        """Byte addresses of bursts by field; fields not given are 0, high bits are cut off."""
        burst = np.zeros((), dtype=np.int64)
        for name, value in fields.items():
            kept = np.asarray(value, dtype=np.int64) & ((1 << self.width[name]) - 1)
            burst = burst | (kept << self.position[name])
        return burst * self.burst_bytes

    def below(self, burst: int | NDArray[np.int64]) -> NDArray[np.int64]:
        """How many bursts below ``burst`` each channel has, (channels,); for an array of shape
        (runs, 1), (runs, channels)."""
        low, width = self.position["ch"], self.width["ch"]
        whole = (burst >> (low + width)) << low
        rest = (burst & ((1 << (low + width)) - 1)) - self._first_of_channel
        # np.clip takes several times as long
        below: NDArray[np.int64] = whole + np.minimum(np.maximum(rest, 0), 1 << low)
        return below

    @cached_property
    def _first_of_channel(self) -> NDArray[np.int64]:
        """First burst of each channel."""
        return np.arange(self.organization.channels, dtype=np.int64) << self.position["ch"]

    def decode(self, bursts: NDArray[np.int64]) -> Coordinates:
        """Coordinates of burst indices (byte address // burst size); higher bits wrap."""

        def take(name: str) -> NDArray[np.int64]:
            return (bursts >> self.position[name]) & ((1 << self.width[name]) - 1)

        org = self.organization
        rank = take("pc") * org.ranks + take("ra")
        bank = (rank * org.bank_groups + take("bg")) * org.banks_per_group + take("ba")
        return Coordinates(take("ch"), bank, take("ro"), take("co"))
