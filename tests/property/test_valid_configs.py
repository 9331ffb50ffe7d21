"""Random valid configs over all presets keep all laws; ``PIMSIM_FUZZ=500`` draws as many.

``python -m benchmarks laws`` runs 500 and says which break.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from benchmarks import laws
from benchmarks.valid_configs import FAMILIES, Draw, draw_config
from fuzzing import CASES

from pimsim.config.resources import preset_names


def test_random_valid_configs_keep_all_laws() -> None:
    found = list(laws.outcomes("in the suite", CASES))
    assert [f"{each.draw}: {each.why}" for each in found if each.kind == "broken"] == []
    accepted = sum(each.kind == "kept" for each in found)
    assert accepted == CASES
    assert accepted > len(found) / 4, "most draws are refused: they say little"


def test_every_preset_of_every_family_is_drawn() -> None:
    draw = random.Random("coverage")
    drawn = [draw_config(draw) for _ in range(3000)]
    assert Counter(each.family for each in drawn).keys() == FAMILIES.keys()
    for family, kind in (("hardware", "hardware"), ("system", "system"), ("memory", "memory")):
        assert {each.preset for each in drawn if each.family == family} == set(preset_names(kind))
    words = {word for each in drawn for word in each.overrides}
    values = {word.partition("=")[2] for word in words} | {each.preset for each in drawn}
    for kind in ("memory", "pim", "energy"):
        assert set(preset_names(kind)) <= values
    assert set(preset_names("model")) <= values | {str(each.work[0]) for each in drawn if each.work}
    assert {"command", "fast"} <= values
    assert drawn[0] == draw_config(random.Random("coverage"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_broken_law_is_seen(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in any family's run, or one that its laws yield, is no config that keeps them."""
    draw = Draw(family, "x", ())  # type: ignore[arg-type]

    def broken(_: Draw) -> list[str]:
        return ["a law"]

    def fails(_: Draw) -> list[str]:
        raise KeyError("act")

    monkeypatch.setitem(laws._LAWS, family, broken)
    assert laws.check(draw) == laws.Outcome(draw, "broken", "a law")
    monkeypatch.setitem(laws._LAWS, family, fails)
    assert laws.check(draw).kind == "broken"
