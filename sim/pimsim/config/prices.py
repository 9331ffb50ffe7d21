"""What machines and energy cost, at the user's prices; none ship. They are of no run's config, so
that what a result is known by does not change with them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.paths import Pathlike, given_path

__all__ = ["PartPrices", "load_prices"]


class PartPrices(ConfigModel):
    """What the parts of a machine cost, and running it, in any one currency."""

    currency: str = Field(min_length=1, max_length=20)
    """As tables write it (``USD``)."""
    memory_gb: float | None = Field(default=None, ge=0, le=1e6)
    """Of a GB (2^30 bytes) of DRAM, PIM in it; null: not counted."""
    logic_mm2: float | None = Field(default=None, ge=0, le=1e6)
    """Of a mm2 of logic dies (``configs/area``); null: not counted."""
    device: float | None = Field(default=None, ge=0, le=1e9)
    """Of what else a device needs (board, packaging, its part of a host), or of all of one whose
    silicon is not known, as a GPU's; null: not counted."""
    hours: float | None = Field(default=None, gt=0, le=1e6)
    """At work in which the machine is paid off; null: no cost of a token is told."""
    kwh: float | None = Field(default=None, ge=0, le=1e6)
    """Of a kilowatt-hour; null: energy is not counted."""
    power_overhead: float = Field(default=1.0, ge=1, le=10)
    """Power at the meter over that of the devices: host, network, cooling."""

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        if self.memory_gb is None and self.logic_mm2 is None and self.device is None:
            raise ValueError("memory_gb, logic_mm2 or device is needed: nothing else has a price")
        if self.kwh is not None and self.hours is None:
            raise ValueError(
                "kwh is of what a token costs, of which the machine is a part: hours is missing"
            )
        if self.kwh is None and self.power_overhead != 1.0:
            raise ValueError("power_overhead is of the energy that kwh is the price of")
        return self


def load_prices(path: Pathlike) -> PartPrices:
    """Read a file of prices.

    Parameters
    ----------
    path
        Of the YAML.

    Raises
    ------
    InputError
        With file, line and key.
    """
    return read_document(PartPrices, Path(given_path(path)))
