"""What published simulators do differently from the hardware that they stand for.

One quirk is one module. Where the main path has a choice of strategies, the quirk is one more of
them, in the folder of that kind (``collectives/``, ``dataflows/`` and so on), and a config asks for
it by its name as for any other. Where the quirk is a value of an ordinary key that no hardware
would have, a module of ``settings/`` says so: the section's model (``SECTION``), the key (``KEY``)
and which values those are (``departs``). Nothing else in pimsim imports these modules or knows what
they are called: they are found by the path that plugins use (``pimsim.config.plugins``).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from pimsim.config.asked_once import Latest
from pimsim.config.plugins import chosen_modules, is_reproduction, load_module, module_names

__all__ = ["FORMER_NAMES", "departures"]

FORMER_NAMES = {
    "artifact_free_comps": "timed_comps (false)",
    "artifact_one_operand_row": "operand_rows (1)",
    "artifact_uncounted_activations": "windowed_activations (false)",
    "artifact_short_pipeline": "pipeline_fill (tCCD_S)",
    "artifact_hits_hold_moves": "hits_hold_moves",
    "artifact_drops": "drops_late",
    "artifact_place": "other_place",
    "artifact_drops_remainder": "stage_rules ([attacc_drops_remainder])",
    "artifact_replays_first_head": "stage_rules ([attacc_replays_first_head])",
    "artifact_repeats_softmax": "stage_rules ([attacc_repeats_softmax])",
    "artifact_shared_issue": "front_end (neupims_shared)",
    "artifact_kv_write": "result_writes (neupims_by_tile)",
    "artifact_no_kv_append": "kv_append (false)",
    "artifact_channel_order": "request_order (channel)",
    "artifact_request_order": "operand_layout (neupims_counter, neupims_whole_counter)",
    "artifact_short_runs": "operand_layout (onnxim_short_runs)",
    "systolic.preload=artifact-overlapped": "systolic.dataflow (neupims_overlapped)",
    "systolic.preload=artifact-serial": "systolic.dataflow (neupims_serial)",
    "artifact_store_bug": "tiling (neupims_partial_stores)",
    "vector.artifact_free": "vector.timing (neupims_free)",
    "artifact_attention": "attention (neupims_head_by_head)",
    "artifact_internal_scale": "ffn_read_multiple",
    "artifact_softmax": "cost_rules ([attacc_hiding_softmax])",
    "artifact_ffn_energy": "cost_rules ([attacc_ffn_energy])",
    "artifact_host_per_device": "cost_rules ([attacc_host_per_device])",
    "link.artifact_free": "link.collectives (neupims_none)",
}
"""Keys, or values of keys, of before each quirk was a module of its own, and what they are now."""


def departures(config: BaseModel) -> list[str]:
    """Dotted keys of ``config`` by which it follows a published simulator and no hardware.

    Parameters
    ----------
    config
        Any section, or a whole config.
    """
    return sorted(_departures(config, ()))


_KNOWN: Latest[tuple[BaseModel, tuple[str, ...]]] = Latest(128)
"""Departures of sections, which are frozen; the points of a sweep have most of theirs in common."""


def _of_section(section: BaseModel) -> tuple[str, ...]:
    known = _KNOWN.get(id(section))
    if known is None:
        known = section, tuple(_departures(section, ()))
        _KNOWN.put(id(section), known)
    return known[1]


def _departures(value: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, BaseModel):
        chosen = [key for key, kind, name in chosen_modules(value) if is_reproduction(kind, name)]
        settings = [
            each.KEY for each in _settings_of(type(value))
            if each.departs(getattr(value, each.KEY))
        ]  # fmt: skip
        for key in dict.fromkeys((*chosen, *settings)):
            yield ".".join((*path, key))
    for name, each in _members(value):
        if isinstance(each, BaseModel) and not path:
            yield from (f"{name}.{key}" for key in _of_section(each))
        elif isinstance(each, _WITH_MEMBERS):
            yield from _departures(each, (*path, name))


_WITH_MEMBERS = (BaseModel, list, dict)


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    """What a part of a config is made of, by name."""
    if isinstance(value, BaseModel):
        return ((name, getattr(value, name)) for name in _fields(type(value)))
    if isinstance(value, dict):
        return ((str(name), each) for name, each in value.items())
    return ((str(number), each) for number, each in enumerate(value))


@cache
def _fields(section: type[BaseModel]) -> tuple[str, ...]:
    return tuple(section.model_fields)


@cache
def _settings_of(section: type[BaseModel]) -> tuple[ModuleType, ...]:
    """Those of a section's model."""
    return tuple(each for each in _settings() if issubclass(section, each.SECTION))


@cache
def _settings() -> tuple[ModuleType, ...]:
    """The modules of ``settings/``."""
    return tuple(load_module("setting", name) for name in module_names("setting"))
