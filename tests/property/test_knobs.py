"""Every key of every preset acts on each path that takes it, or is refused there.

All keys of memories, systems, energies and areas are walked, but of a system that extends another
one a third of those that are as they are there; of runs a share, and all of all with
``PIMSIM_KNOBS=all pytest tests/property/test_knobs.py`` (half an hour). ``test_dead_knobs.py`` has
each key of a run once, on machines that are made for it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from typing import Any

import knobs
import pytest
import yaml
from inactive_keys import INACTIVE, Inactive
from knobs import SUBJECTS, Subject, keys_of, verdict

from pimsim.config.resources import preset_path

_SHARE = os.environ.get("PIMSIM_KNOBS", "40")
"""Keys of runs that are walked, of devices with one core by commands; ``all``: of all presets at
both fidelities."""


@pytest.fixture(autouse=True, scope="module")
def _inputs(tmp_path_factory: pytest.TempPathFactory) -> None:
    knobs.write_inputs(tmp_path_factory.mktemp("knobs"))


def _hold(subject: Subject, key: str) -> None:
    found, how = verdict(subject, key)
    covering = [each for each in INACTIVE if each.covers(subject, key)]
    if any(each.needs_load for each in covering):
        return
    reasons = [each.why for each in covering]
    if reasons:
        assert found in ("nothing", "refused"), f"{how} {found}: take it off the list: {reasons}"
    else:
        assert found != "nothing", f"{subject}: {how} is taken and changes nothing"


_RUNS = [each for each in SUBJECTS if each.kind == "hardware"]
_OF_RUNS = [(subject, key) for subject in _RUNS for key in keys_of(subject)]
_QUICK = [
    pair for pair in _OF_RUNS if pair[0].path == "command" and knobs.cores_of(pair[0]) == 1
]  # fmt: skip
_SOME = _OF_RUNS if _SHARE == "all" else random.Random("knobs").sample(_QUICK, int(_SHARE))


@pytest.mark.parametrize(("subject", "key"), _SOME, ids=str)
def test_a_key_of_a_run_acts_or_is_refused(subject: Subject, key: str) -> None:
    _hold(subject, key)


def _walked(subject: Subject) -> list[str]:
    """Keys of a preset, but for what a system has from the one that it extends."""
    keys = keys_of(subject)
    parent = yaml.safe_load(preset_path(subject.kind, subject.preset).read_text()).get("extends")
    if _SHARE == "all" or subject.kind != "system" or parent is None:
        return keys
    theirs = knobs.config_of(Subject(subject.path, subject.kind, parent))
    own = knobs.config_of(subject)
    inherited = [key for key in keys if _at(own, key) == _at(theirs, key)]
    left_out = random.Random(subject.preset).sample(inherited, 2 * len(inherited) // 3)
    return [key for key in keys if key not in left_out]


def _at(config: Any, key: str) -> Any:
    """What a config has at a dotted key; None: no such section."""
    for part in key.split("."):
        config = config.get(part) if isinstance(config, Mapping) else getattr(config, part, None)
    return config


@pytest.mark.parametrize("subject", [each for each in SUBJECTS if each not in _RUNS], ids=str)
def test_all_keys_of_a_preset_act_or_are_refused(subject: Subject) -> None:
    for key in _walked(subject):
        _hold(subject, key)


@pytest.mark.parametrize("reason", INACTIVE, ids=lambda each: each.keys)
def test_every_exception_is_one(reason: Inactive) -> None:
    """It names keys that exist, has a reason, and does not cover all presets where it has a
    condition."""
    covered = [
        subject for subject in SUBJECTS
        if any(reason.covers(subject, key) for key in keys_of(subject))
    ]  # fmt: skip
    assert covered
    assert len(reason.why) > 10


def test_a_dead_key_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that its path no longer reads."""
    subject = Subject("area", "area", "default")
    assert verdict(subject, "mac_um2")[0] == "moves"
    monkeypatch.setitem(knobs._FIGURES, "area", lambda *_: iter([0]))
    knobs._unchanged.cache_clear()
    assert verdict(subject, "mac_um2")[0] == "nothing"
    with pytest.raises(AssertionError, match="changes nothing"):
        _hold(subject, "mac_um2")
    knobs._unchanged.cache_clear()


def test_bursts_may_be_long() -> None:
    """The last write of an operator is on the bus when it ends: a burst of 8 clocks broke the law
    of its roof."""
    found, how = verdict(Subject("command", "hardware", "onnxim-transformer"), "memory.timings.nBL")
    assert (found, how) == ("moves", "memory.timings.nBL=8")
