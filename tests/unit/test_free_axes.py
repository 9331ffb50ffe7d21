"""Figures of a sweep that may be chosen as axes in its page."""

from __future__ import annotations

from typing import Any

import pytest

from pimsim.report.free_axes import Named, free_axes


def point(machine: str, rate: float, batch: Any = 1, **more: float) -> Named:
    row = {"tokens_per_s": rate, "batch": batch, "policy": "x", "fast": True, **more}
    return Named(machine, f"{machine} at {rate}", row)


def test_what_differs_may_be_chosen_and_nothing_else() -> None:
    points = [
        point("a", 10.0, 1, **{"utilisation.npu": 0.5, "devices": 2}),
        point("a", 20.0, 2, **{"devices": 2}),
        point("b", 1234567.8, 4, **{"utilisation.npu": 0.25, "devices": 2}),
    ]
    found = free_axes(points, ["batch", "policy", "fast"], "npu", "tokens_per_s")
    assert found is not None
    assert found.figures == (
        ("tokens_per_s", "throughput (tokens/s)"),
        ("npu", "multiply-accumulates (% of peak)"),
        ("tokens_per_s_device", "throughput of a device (tokens/s/device)"),
        ("batch", "batch"),
    )
    assert (found.across, found.up) == ("npu", "tokens_per_s")
    assert [(at, words, values[:2], values[3]) for at, words, values in found.points] == [
        (0, "a at 10.0", (10.0, 50.0), 1.0), (0, "a at 20.0", (20.0, None), 2.0),
        (1, "b at 1234567.8", (1234570.0, 25.0), 4.0),
    ]  # fmt: skip
    assert [name for name, _ in found.legend] == ["a", "b"]
    data = found.data()
    assert data["figures"][0] == ["tokens_per_s", "throughput (tokens/s)"]
    assert data["points"][1][2][1] is None and len(data["colours"]) == 2


@pytest.mark.parametrize(
    ("across", "up", "expected"),
    [
        ("tokens_per_s", "batch", ("tokens_per_s", "batch")),
        ("tokens_per_s", "tokens_per_s", ("batch", "tokens_per_s")),
        ("cycles", "power_w", ("batch", "tokens_per_s")),
    ],
)
def test_axes_that_do_not_differ_give_way(across: str, up: str, expected: tuple[str, str]) -> None:
    found = free_axes([point("a", 1.0, 1), point("a", 2.0, 2)], ["batch"], across, up)
    assert found is not None
    assert (found.across, found.up) == expected


def test_machines_have_the_colours_that_other_pictures_give_them() -> None:
    points = [point("fast", 2.0, 1), point("slow", 1.0, 2)]
    plain = free_axes(points, ["batch"], "batch", "tokens_per_s")
    found = free_axes(points, ["batch"], "batch", "tokens_per_s", ["gone", "slow", "fast"])
    assert plain is not None and found is not None
    assert [name for name, _ in plain.legend] == ["fast", "slow"]
    assert [name for name, _ in found.legend] == ["slow", "fast"]
    assert [colour for _, colour in found.legend] == [colour for _, colour in plain.legend]
    assert [(at, words) for at, words, _ in found.points] == [
        (1, "fast at 2.0"),
        (0, "slow at 1.0"),
    ]


def test_of_many_machines_the_first_have_a_colour() -> None:
    points = [point(f"m{n % 9}", 100.0 - n, n) for n in range(20)]
    found = free_axes(points, ["batch"], "batch", "tokens_per_s")
    assert found is not None
    assert [name for name, _ in found.legend] == [*(f"m{n}" for n in range(6)), "3 other machines"]
    assert {at for at, words, _ in found.points if words.startswith(("m6", "m7", "m8"))} == {6}
    assert len({colour for _, colour in found.legend}) == 7


def test_one_figure_is_no_choice() -> None:
    assert free_axes([point("a", 1.0, 1), point("a", 2.0, 1)], ["batch"], "npu", "cycles") is None
    assert free_axes([], ["batch"], "npu", "cycles") is None
