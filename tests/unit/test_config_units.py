"""Unit strings become integers of the base unit, exactly or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from pimsim.config.npu import NpuConfig, ScratchpadConfig
from pimsim.config.schema import quantity_at
from pimsim.config.units import Bytes, Hertz, Picoseconds, Quantity, Share

NS, GHZ, KIB = 10**3, 10**9, 2**10


def _units(model: type, key: str) -> Quantity:
    quantity = quantity_at(model, (key,))
    assert quantity is not None
    return quantity


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Hertz, "1GHz", GHZ),
        (Hertz, "1.5 GHz", 3 * GHZ // 2),
        *(
            (Hertz, f"3{unit}", 3 * 10**power)
            for unit, power in (("Hz", 0), ("kHz", 3), ("MHz", 6), ("GHz", 9))
        ),
        *(
            (Picoseconds, f"3{unit}", 3 * 10**power)
            for unit, power in (("ps", 0), ("ns", 3), ("us", 6), ("ms", 9), ("s", 12))
        ),
        *(
            (Bytes, f"3{unit}", 3 * 10**power)
            for unit, power in (("B", 0), ("kB", 3), ("MB", 6), ("GB", 9))
        ),
        *(
            (Bytes, f"3{unit}", 3 * 2**power)
            for unit, power in (("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40))
        ),
        (Picoseconds, "14ns", 14 * NS),
        (Picoseconds, "0.5ns", NS // 2),
        (Bytes, "1KiB", KIB),
        (Bytes, "134218kB", 134218 * 1000),
        (Bytes, "1e3B", 1000),
        (Bytes, 77, 77),
    ],
)
def test_a_quantity_is_an_exact_integer(kind: object, text: object, expected: int) -> None:
    assert TypeAdapter(kind).validate_python(text) == expected


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (Hertz, "1ghz", "unit 'ghz' of '1ghz' is none of Hz, kHz, MHz, GHz"),
        (Picoseconds, "0.5ps", "no whole number of ps"),
        (Picoseconds, "-1ns", "a time expected"),
        (Bytes, -1, "must not be negative"),
        (Bytes, True, "a size expected, found True"),
        (Bytes, "", "a size expected"),
        (Bytes, "nanB", "a size expected"),
        (Bytes, "12", "needs its unit"),
    ],
)
def test_anything_else_is_refused_with_what_was_found(
    kind: object, value: object, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("kind", "unit", "meant"),
    [
        (Hertz, "GHZ", "GHz"), (Hertz, "gigahertz", "GHz"), (Hertz, "G", "GHz"),
        (Hertz, "hz", "Hz"), (Hertz, "THz", None), (Hertz, "GHx", "GHz"), (Bytes, "XB", None),
        (Hertz, "MBps", None), (Picoseconds, "nsec", "ns"), (Picoseconds, "µs", "us"),
        (Picoseconds, "seconds", "s"), (Picoseconds, "hours", None), (Picoseconds, "MS", "ms"),
        (Bytes, "KB", "kB"), (Bytes, "mib", "MiB"), (Bytes, "bytes", "B"),
        (Bytes, "gigabytes", "GB"),
        (Bytes, "G", None),  # GB or GiB
    ],
)  # fmt: skip
def test_a_unit_in_other_words_is_told_the_one_that_was_meant(
    kind: object, unit: str, meant: str | None
) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(kind).validate_python(f"5 {unit}")
    said = str(error.value.errors()[0]["msg"])
    assert f"unit {unit!r} of '5 {unit}' is none of" in said
    assert said.endswith(f"; did you mean {meant!r}?") if meant else "did you mean" not in said


@given(st.integers(min_value=0, max_value=2**70))
def test_a_formatted_quantity_parses_to_the_same_value(value: int) -> None:
    for quantity in (_units(NpuConfig, "frequency"), _units(ScratchpadConfig, "capacity")):
        assert quantity.parse(quantity.format(value)) == value


def test_a_quantity_is_shown_in_its_largest_fitting_unit() -> None:
    assert _units(ScratchpadConfig, "capacity").format(32 * KIB**2) == "32MiB"
    assert _units(NpuConfig, "frequency").format(GHZ) == "1GHz"
    assert _units(NpuConfig, "frequency").format(0) == "0Hz"


@pytest.mark.parametrize("text", [0.02, "2%", " 2 % ", "2.0%"])
def test_a_share_may_be_in_percent(text: object) -> None:
    assert TypeAdapter(Share).validate_python(text) == 0.02


def test_what_is_no_share_is_named() -> None:
    with pytest.raises(ValidationError, match=r"a share expected \(0\.02 or 2%\), found 'two%'"):
        TypeAdapter(Share).validate_python("two%")
