"""Which key an objective hangs on: shares of variance worked out by hand."""

from __future__ import annotations

from itertools import product
from math import log

import pytest

from pimsim.explore.importance import importance

SIGNS = (-1.0, 1.0)
BOTH = [{"a": a, "b": b} for a, b in product((0, 1), repeat=2)]


def test_variances_of_a_sum() -> None:
    """3 a + 4 b over all of 0 and 1: variances 9 / 4 and 16 / 4."""
    found = importance(BOTH, [3 * p["a"] + 4 * p["b"] for p in BOTH], {"a": float, "b": float})
    assert found is not None
    assert found.points == 4
    assert found.keys == pytest.approx({"a": 0.36, "b": 0.64})
    assert found.together == pytest.approx(0.0, abs=1e-12)


def test_a_key_that_adds_nothing_has_nothing() -> None:
    """Though it nearly always changes along with the one that does: means of its groups are 1.75
    and 5.25."""
    values = [0, 1, 2, 4, 3, 5, 6, 7]
    points = [{"x": x, "follows": at >= 4} for at, x in enumerate(values)]
    found = importance(points, [2.0 * x for x in values], {"x": float})
    assert found is not None
    assert found.keys == pytest.approx({"x": 1.0, "follows": 0.0}, abs=1e-12)


def test_what_only_both_keys_say_is_neither_s() -> None:
    points = [{"a": a, "b": b} for a, b in product(SIGNS, repeat=2)]
    found = importance(points, [p["a"] * p["b"] for p in points], {"a": float, "b": float})
    assert found is not None
    assert found.keys == pytest.approx({"a": 0.0, "b": 0.0}, abs=1e-12)
    assert found.together == pytest.approx(1.0)


def test_chance_is_taken_off() -> None:
    """a + a b over 8 points of three signs: squares of 8 for a, 8 for the rest with 4 points left
    over, so 2 a point; a keeps (8 - 2) / 8 of 2.75."""
    points = [{"a": a, "b": b, "c": c} for a, b, c in product(SIGNS, repeat=3)]
    values = [p["a"] + p["a"] * p["b"] for p in points]
    found = importance(points, values, dict.fromkeys("abc", float))
    assert found is not None
    assert found.keys == pytest.approx({"a": 0.75 / 2.75, "b": 0.0, "c": 0.0}, abs=1e-12)
    assert found.together == pytest.approx(2 / 2.75)


def test_chance_is_taken_off_for_each_coefficient() -> None:
    """n + b c over 12 points: squares of 8 for n, which has two coefficients, and of 12 for the
    rest with 7 points left over; n keeps (8 - 2 x 12 / 7) / 12 beside 12 / 7."""
    values = {"x": -1.0, "y": 0.0, "z": 1.0}
    points = [{"n": n, "b": b, "c": c} for n, b, c in product(values, SIGNS, SIGNS)]
    objective = [values[str(p["n"])] + float(p["b"]) * float(p["c"]) for p in points]
    found = importance(points, objective, {"b": float, "c": float})
    assert found is not None
    assert found.keys == pytest.approx({"n": 2 / 11, "b": 0.0, "c": 0.0}, abs=1e-12)
    assert found.together == pytest.approx(9 / 11)


def test_names_have_a_value_each() -> None:
    values = {"x": 0.0, "y": 3.0, "z": 1.0}
    points = [{"name": name, "on": on} for name, on in product(values, (True, False))]
    found = importance(points, [values[str(p["name"])] + 2 * bool(p["on"]) for p in points], {})
    assert found is not None
    # variances: of 0, 3, 1 it is 14 / 9; of 0, 2 it is 1
    assert found.keys == pytest.approx({"name": 14 / 23, "on": 9 / 23})


def test_numbers_lie_on_their_axis() -> None:
    """With 6 points for one key only a straight line and a parabola are fitted."""
    points = [{"x": 4.0**at} for at in range(6)]
    values = [log(p["x"]) for p in points]
    even, plain = importance(points, values, {"x": log}), importance(points, values, {"x": float})
    assert even is not None and plain is not None
    assert even.keys["x"] == pytest.approx(1.0)
    assert plain.keys["x"] < 0.95


def test_a_curve_is_the_key_s_own() -> None:
    """Enough points: a polynomial of degree 4 takes x^4 whole; of fewer, a part."""
    many = [{"x": at / 10, "on": bool(at % 2)} for at in range(-10, 11)]
    found = importance(many, [float(p["x"]) ** 4 for p in many], {"x": float})
    assert found is not None and found.keys["x"] == pytest.approx(1.0)
    few = many[::5]
    found = importance(few, [float(p["x"]) ** 4 for p in few], {"x": float})
    assert found is not None and found.keys["x"] < 0.9


def test_what_is_the_same_everywhere_has_no_shares() -> None:
    found = importance(BOTH, [7.1] * 4, {"a": float})
    assert found is not None
    assert (found.keys, found.together) == ({"a": 0.0, "b": 0.0}, 0.0)
    constant = [{"a": 5, "b": at} for at in range(6)]  # a key with one value
    found = importance(constant, [float(p["b"]) for p in constant], {"a": float, "b": float})
    assert found is not None
    assert found.keys == pytest.approx({"a": 0.0, "b": 1.0}, abs=1e-12)


def test_too_few_points_tell_nothing() -> None:
    assert importance([], [], {}) is None
    # two slopes and a mean leave nothing of three points
    assert importance(BOTH[:3], [1.0, 2.0, 3.0], {"a": float, "b": float}) is None
