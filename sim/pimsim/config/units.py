"""Quantities with units: parsed at the edge, plain integers inside.

A YAML value such as ``1GHz``, ``14ns`` or ``32MiB`` becomes an integer number of hertz,
picoseconds or bytes; the unit stands in the type's name from there on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema

from pimsim.config.errors import near_miss

__all__ = [
    "WRITTEN",
    "Bytes",
    "Hertz",
    "Picoseconds",
    "Quantity",
    "Share",
    "parse_quantity",
    "parse_size",
    "parse_time",
]

_FREQUENCY = {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9}
_TIME_PS = {"ps": 1, "ns": 10**3, "us": 10**6, "ms": 10**9, "s": 10**12}
_BYTES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?)\s*([^\W\d_]*)\s*")
_SPELT_OUT = {
    "hertz": "Hz", "kilohertz": "kHz", "megahertz": "MHz", "gigahertz": "GHz",
    "picosecond": "ps", "nanosecond": "ns", "microsecond": "us", "µs": "us", "μs": "us",
    "millisecond": "ms", "second": "s", "sec": "s", "byte": "B", "kilobyte": "kB",
    "megabyte": "MB", "gigabyte": "GB", "kibibyte": "KiB", "mebibyte": "MiB", "gibibyte": "GiB",
    "tebibyte": "TiB",
}  # fmt: skip
"""What units are called otherwise, in the singular."""


WRITTEN: Mapping[str, bool] = {"written": True}
"""Context of a validation of what somebody wrote: every quantity needs its unit. Code that builds
configs of its own gives integers of the base unit."""


def parse_quantity(value: Any, units: dict[str, int], what: str, written: bool = False) -> int:
    """Turn ``14ns`` into an integer of the base unit.

    Parameters
    ----------
    value
        A text with a unit, or an integer of the base unit.
    units
        By name, how many of the base unit each is.
    what
        Is expected, for messages.
    written
        Whether somebody wrote it who, with a bare integer, may have meant another unit; that is
        refused.

    Raises
    ------
    ValueError
        Naming what was found and which units are allowed.
    """
    allowed = ", ".join(units)
    if isinstance(value, bool):
        raise ValueError(f"{what} expected, found {value!r}")
    if isinstance(value, int) and not written:
        if value < 0:
            raise ValueError(f"{what} must not be negative, found {value}")
        return value
    if isinstance(value, (int, float)):
        raise ValueError(f"{what} needs its unit ({allowed}), found {_shortened(str(value))}")
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(
            f"{what} expected (a number and one of {allowed}), found {_shortened(str(value))!r}"
        )
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"{what} needs its unit ({allowed}), found {_shortened(value)!r}")
    if unit not in units:
        near = _near_unit(unit, units)
        raise ValueError(f"unit {unit!r} of {value!r} is none of {allowed}{near}")
    try:
        scaled = Decimal(number) * units[unit]
    except InvalidOperation as error:
        raise ValueError(f"{what} expected, found {value!r}") from error
    if scaled != int(scaled):
        raise ValueError(f"{value!r} is no whole number of {next(iter(units))}")
    return int(scaled)


def _near_unit(unit: str, units: Iterable[str]) -> str:
    """The end of a message, with the unit that was meant: in other letters, spelt out, or cut
    short."""
    names, folded = list(units), unit.casefold()
    alike = [name for name in names if name.casefold() == folded]
    spelt = _SPELT_OUT.get(folded.removesuffix("s"), _SPELT_OUT.get(folded))
    begun = [name for name in names if name[:-1] and name.casefold().startswith(folded)]
    for found in (alike, [name for name in names if name == spelt], begun):
        if len(found) == 1:
            return f"; did you mean {found[0]!r}?"
    # another prefix is another unit: THz is no slip for Hz
    same = [name for name in names if name[0].casefold() == folded[0]]
    return "" if begun else near_miss(unit, same)


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


@dataclass(frozen=True, slots=True)
class Quantity:
    """Marks a config field as a quantity: which units YAML may use for it."""

    what: str
    units: tuple[tuple[str, int], ...]

    def parse(self, value: Any, written: bool = False) -> int:
        """The integer of the base unit behind ``value``, see ``parse_quantity``."""
        return parse_quantity(value, dict(self.units), self.what, written)

    def validate(self, value: Any, info: ValidationInfo) -> int:
        """The same as pydantic calls it."""
        return self.parse(value, bool(info.context and info.context.get("written")))

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """As text: what YAML must have."""
        names = "|".join(unit for unit, _ in self.units)
        return {
            "type": "string",
            "pattern": rf"^\s*[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{{1,2}})?\s*({names})\s*$",
        }

    def format(self, value: int) -> str:
        """``value`` exactly, in the unit that needs the smallest number: ``"32MiB"``."""
        fitting = [(value // scale, unit) for unit, scale in self.units if value % scale == 0]
        number, unit = min(fitting, key=lambda pair: pair[0]) if value else fitting[0]
        return f"{number}{unit}"


_AS_FREQUENCY = Quantity("a frequency", tuple(_FREQUENCY.items()))
_AS_TIME = Quantity("a time", tuple(_TIME_PS.items()))
_AS_BYTES = Quantity("a size", tuple(_BYTES.items()))

Hertz = Annotated[int, BeforeValidator(_AS_FREQUENCY.validate), _AS_FREQUENCY]
"""A frequency in hertz; YAML writes ``1GHz``."""

Picoseconds = Annotated[int, BeforeValidator(_AS_TIME.validate), _AS_TIME]
"""A time in picoseconds; YAML writes ``14ns``."""

Bytes = Annotated[int, BeforeValidator(_AS_BYTES.validate), _AS_BYTES]
"""A size in bytes; YAML writes ``32MiB``."""


def parse_size(text: str) -> int:
    """Bytes of ``1MiB``.

    Parameters
    ----------
    text
        With its unit.

    Raises
    ------
    ValueError
        As ``parse_quantity`` does.
    """
    return parse_quantity(text, _BYTES, "a size", written=True)


def parse_time(text: str) -> int:
    """Picoseconds of ``10s``.

    Parameters
    ----------
    text
        With its unit.

    Raises
    ------
    ValueError
        As ``parse_quantity`` does.
    """
    return parse_quantity(text, _TIME_PS, "a time", written=True)


def _parse_share(value: Any) -> Any:
    """``"2%"`` as 0.02; numbers as they are."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(Decimal(value.strip()[:-1]) / 100)
        except InvalidOperation as error:
            raise ValueError(f"a share expected (0.02 or 2%), found {value!r}") from error
    return value


class _ShareForm:
    """What YAML may have for a share."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(core), {"type": "string", "pattern": r"^\s*[0-9.eE+-]+\s*%\s*$"}]}


Share = Annotated[float, BeforeValidator(_parse_share), _ShareForm()]
"""A part of 1; YAML may write ``2%``."""
