"""What machines and energy cost, at the user's prices; none ship. They are of no run's config, so
that what a result is known by does not change with them."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.paths import Pathlike, given_path

__all__ = ["Prices", "load_prices"]


class Prices(ConfigModel):
    """What a machine costs, by its parts or by the hour, and running it, in any one currency."""

    currency: str = Field(min_length=1, max_length=20)
    """As results write it (``USD``)."""
    memory_gb: float | None = Field(default=None, ge=0, le=1e6)
    """Of a GB (2^30 bytes) of DRAM, PIM in it; null: not counted."""
    logic_mm2: float | None = Field(default=None, ge=0, le=1e6)
    """Of a mm2 of logic dies (``configs/area``); null: not counted."""
    device: float | None = Field(default=None, ge=0, le=1e9)
    """Of what else a device needs (board, packaging, its part of a host), or of all of one whose
    silicon is not known, as a GPU's; null: not counted."""
    hours: float | None = Field(default=None, gt=0, le=1e6)
    """At work in which the parts are paid off; null: no cost of a token is told of them."""
    replica_hour: float | None = Field(default=None, ge=0, le=1e9)
    """In place of parts: of a run's machine, or of a service's replica, all of its devices, for an
    hour, whether it works or not."""
    decode_replica_hour: float | None = Field(default=None, ge=0, le=1e9)
    """The same of a service's ``decode``; null: as the others."""
    kwh: float | None = Field(default=None, ge=0, le=1e6)
    """Of a kilowatt-hour, where ``replica_hour`` does not have it; null: energy is not counted."""
    power_overhead: float = Field(default=1.0, ge=1, le=10)
    """Power at the meter over that of the devices: host, network, cooling."""

    @property
    def of_parts(self) -> bool:
        """Whether parts have a price, so that a machine has one as a whole."""
        return self.replica_hour is None

    @property
    def of_time(self) -> bool:
        """Whether an hour of a machine has a price, so that tokens have one."""
        return self.replica_hour is not None or self.hours is not None

    @model_validator(mode="after")
    def _of_something(self) -> Self:
        parts = [
            key for key in ("memory_gb", "logic_mm2", "device") if getattr(self, key) is not None
        ]
        if self.replica_hour is None and not parts:
            raise ValueError(
                "memory_gb, logic_mm2 or device is needed, or replica_hour: nothing else has a "
                "price"
            )
        if self.replica_hour is not None and parts:
            raise ValueError(
                f"replica_hour is of a whole machine, and {parts[0]} of a part of it: one of the "
                "two"
            )
        if self.replica_hour is not None and self.hours is not None:
            raise ValueError("hours are those in which parts are paid off; replica_hour has them")
        if self.replica_hour is None and self.decode_replica_hour is not None:
            raise ValueError("decode_replica_hour is beside replica_hour, which is missing")
        if self.kwh is not None and not self.of_time:
            raise ValueError(
                "kwh is of what a token costs, of which the machine is a part: hours is missing"
            )
        if self.kwh is None and self.power_overhead != 1.0:
            raise ValueError("power_overhead is of the energy that kwh is the price of")
        return self


def load_prices(path: Pathlike) -> Prices:
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
    return read_document(Prices, Path(given_path(path)))
