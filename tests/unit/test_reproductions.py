"""What published simulators do differently: found by name, said of a run, read nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import pimsim
from pimsim import reproductions
from pimsim.config.errors import InputError
from pimsim.config.loader import CONFIG_MODELS, load_preset, load_run
from pimsim.config.plugins import chosen_modules, is_reproduction, load_module, module_names
from pimsim.config.resources import preset_names
from pimsim.reproductions import FORMER_NAMES, departures
from pimsim.simulate import simulate

SOURCES = Path(pimsim.__file__).parent
OWN = Path(reproductions.__file__).parent
MODULES = sorted(
    str(path.relative_to(OWN)) for path in OWN.rglob("*.py") if path.name != "__init__.py"
)
SUITES = "".join(path.read_text() for path in sorted((SOURCES / "validate").rglob("*.py")))
PRESETS = [(kind, name) for kind in CONFIG_MODELS for name in preset_names(kind)]


def test_no_quirk_is_named_elsewhere() -> None:
    named = re.compile(r"\bartifact_\w|\"artifact[-\"]")
    found = [
        f"{path.relative_to(SOURCES)}: {line.strip()}"
        for path in sorted(SOURCES.rglob("*.py")) if OWN not in path.parents
        for line in path.read_text().splitlines() if named.search(line)
    ]  # fmt: skip
    assert not found, "\n".join(found)


def _sections(value: Any) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
        for name in type(value).model_fields:
            yield from _sections(getattr(value, name))
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _sections(each)


@pytest.mark.parametrize("name", MODULES)
def test_each_says_in_its_first_sentence_whose_it_is(name: str) -> None:
    first = (OWN / name).read_text().partition("\n\n")[0]
    assert re.match(r'"""[^"]*\b(NeuPIMs|AttAcc|ONNXim|PIMSimulator|Vidur|ASTRA-sim)', first), first


@pytest.mark.parametrize("name", module_names("setting"))
def test_a_setting_is_of_a_key_that_departs_in_a_preset_and_not_by_default(name: str) -> None:
    module = load_module("setting", name)
    field = module.SECTION.model_fields[module.KEY]
    if not field.is_required():
        assert not module.departs(field.default)
    on = [
        preset for kind, preset in PRESETS
        for section in _sections(load_preset(kind, preset).config)
        if isinstance(section, module.SECTION) and module.departs(getattr(section, module.KEY))
    ]  # fmt: skip
    assert on or f"{module.KEY}=" in SUITES


def test_the_others_are_on_in_a_preset_or_in_a_suite() -> None:
    chosen = {
        name
        for kind, preset in PRESETS
        for section in _sections(load_preset(kind, preset).config)
        for _, module, name in chosen_modules(section)
        if is_reproduction(module, name)
    }
    for name in MODULES:
        # or the ground of one that is, for those who want the rest of it only
        others = "".join((OWN / other).read_text() for other in MODULES if other != name)
        stem = Path(name).stem
        assert name.startswith("settings/") or stem in chosen or stem in SUITES + others, name


@pytest.mark.parametrize("name", preset_names("hardware"))
def test_they_are_on_only_where_a_simulator_is_reproduced(name: str) -> None:
    reproduces = "artifact" in name or name.startswith("onnxim-")
    assert bool(departures(load_run(name).config)) == reproduces


@pytest.mark.parametrize("former", FORMER_NAMES)
def test_a_former_name_is_refused_with_the_new_one(former: str) -> None:
    path, _, value = former.partition("=")
    of_run = [f"{section}.{path}" for section in ("npu", "npu.systolic", "pim", "schedule", "x")]
    of_run = [one for one in (path, *of_run) if _is_section(one.rpartition(".")[0])]
    assert of_run, former
    with pytest.raises(InputError) as refusal:
        load_run("neupims", [f"{of_run[0]}={value or 'true'}"])
    assert "\n" not in str(refusal.value)
    assert f"; it is {FORMER_NAMES[former]} now" in str(refusal.value)


def _is_section(path: str) -> bool:
    """Whether a run has such a section."""
    section: Any = load_run("neupims").config
    for key in path.split(".") if path else ():
        section = getattr(section, key, None)
    return isinstance(section, BaseModel)


def test_a_run_says_that_it_follows_one(tiny_card: Path) -> None:
    overrides = [f"workload.model={tiny_card}", "workload.batch=4", "workload.layers=1"]
    told = [
        warning
        for warning in simulate(load_run("neupims-artifact-npu-pim", overrides)).warnings
        if "quirks of a published artifact are on" in warning
    ]
    assert len(told) == 1
    for key in ("link.collectives", "pim.front_end", "pim.operand_rows", "schedule.kv_append"):
        assert key in told[0]
