"""A config value without effect is a bug: change each one, and some result must move.

Every number and switch of the hardware and of the schedule is changed in turn, on small machines
that between them use every part. ``WITHOUT_EFFECT`` lists the ones that cannot move anything here,
each with its reason; one that begins to move something must leave the list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

import pytest
from cards import small_card

from pimsim.config.errors import InputError
from pimsim.config.loader import load_run
from pimsim.config.run import RunConfig
from pimsim.simulate import resolve, simulate

CARD = small_card(layers=2, hidden=1024, heads=8, ffn_hidden=2048)
SMALLER = small_card(layers=2, hidden=512, heads=4, ffn_hidden=1024)
"""Of the slow base, whose cores pass every burst over their network."""
CONTEXTS = (700, 31, 300, 64, 511, 900, 95, 1279)
"""Some that are about to fill a burst of new values (multiples of 32), some longer than a row."""
SMALL = (
    "memory.organization.channels=2",
    "npu.systolic.rows=32",
    "npu.systolic.cols=16",
    "npu.systolic.arrays=2",
    "npu.vector.lanes=64",
    "npu.vector.units=2",
    "workload.layers=2",
)
BASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "neupims": ("neupims", ()),
    "spilling": (
        "neupims",
        ("npu.scratchpad.capacity=64KiB", "npu.scratchpad.double_buffered=false"),
    ),
    "activations-in-dram": ("neupims", ("npu.scratchpad.activations=dram",)),
    "npu-pim": ("npu-pim", ()),
    "npu-only": ("npu-only", ()),
    "refresh-per-bank": (
        "npu-only",
        ("memory.controller.refresh=per-bank", "memory.currents.IDD5PB=80.0"),
    ),
    "pj-per-bit": ("neupims", ("energy=pj-per-bit",)),
    "artifact": ("neupims-artifact-npu-pim", ("schedule.kv_append=true",)),
    "one-head": ("neupims", ("parallel.tp=8",)),
    "cores": (
        "npu-only",
        (
            "workload.layers=1",
            "npu.cores=2",
            "npu.operand_layout=row-major",
            "npu.scratchpad.capacity=32KiB",
            "npu.scratchpad.accumulator=16KiB",
            "npu.scratchpad.activations=dram",
            "npu.network.frequency=1GHz",
            "npu.network.channel_hash=ipoly",
            "npu.network.ports_per_core=2",
        ),
    ),
}
"""Presets with overrides; a knob is alive if it moves the result of any of them. The slowest is
the last."""

SECTIONS = ("npu", "memory", "pim", "link", "energy", "schedule", "parallel")
WITHOUT_EFFECT = {
    "memory.organization.pseudo_channels": "refused without pc in the address maps of these "
    "memories; test_channel_queues.py",
    "memory.command_bus.ticks_per_clock": "half clocks are those of trace replay; "
    "test_channel_queues.py",
    "memory.organization.channels_per_stack": "what a power cap is of; test_power_limits.py",
    "memory.power_ceiling_pj_per_bit": "a limit: refused above it; test_power_limits.py",
    "pim.power_cap_w": "a limit: refused above it; test_power_limits.py",
    "pim.banks_per_unit": "refused: the memory's controller multiplies in all banks; "
    "test_pim_schema.py",
    "pim.element_bytes": "refused: a run has its own number format; test_pim_schema.py",
    "pim.static_w_per_channel": "refused without a controller of its own; test_pim_schema.py",
    **{
        f"pim.commands.{name}.drives": "refused without a controller of its own; test_pim_schema.py"
        for name in ("COMP", "GEMV", "GWRITE", "G_ACT", "HEADER", "PIM_PRE", "READRES")
    },
    "schedule.attention_pim_tokens": "a decode step feeds one token; test_run_steps.py",
    "parallel.ep": "refused for a model without experts; test_models_on_device.py",
}
KNOWN_BUGS: dict[str, str] = {}
"""Strict: a bug that has been mended must leave this list."""


def _leaves(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        here = (*path, key)
        if isinstance(value, Mapping):
            yield from _leaves(value, here)
        elif isinstance(value, int | float):
            yield ".".join(here), value


def _config(base: str, *more: str) -> RunConfig:
    preset, overrides = BASES[base]
    return load_run(preset, [*SMALL, *overrides, *more]).config


@cache
def _knobs(base: str) -> dict[str, Any]:
    """Every number and switch of a base by its path."""
    values = _config(base).model_dump(mode="json")
    found: dict[str, Any] = {}
    for section in SECTIONS:
        if values[section] is not None:
            found |= _leaves(values[section], (section,))
    return found


KNOBS = {path for base in BASES for path in _knobs(base)}


UNITS = {".capacity": "B", ".accumulator": "B", ".frequency": "Hz", ".tCK": "ps"}
"""Of quantities, by the end of their key."""


def _changes(value: float) -> list[float]:
    """Other values, from small steps to large ones; powers of two stay so."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, float):
        return [value * 1.5 + 0.25, value * 0.9]
    return [value * 2, value + 1, value // 2, value * 8, value * 64, 0, 1]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Overrides that name the small model and its requests."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "card.yaml").write_text(CARD)
    (folder / "smaller.yaml").write_text(SMALLER)
    lines = [f"{i},0.0,{c - 1},10,1" for i, c in enumerate(CONTEXTS)]
    header = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens"
    (folder / "requests.csv").write_text("\n".join([header, *lines, ""]))
    return (
        f"workload.model={folder / 'card.yaml'}",
        f"workload.requests={folder / 'requests.csv'}",
    )


@cache
def _result(base: str, overrides: tuple[str, ...]) -> str:
    """All that a run says, but for its provenance."""
    preset, own = BASES[base]
    if base == "cores":
        overrides = tuple(each.replace("/card.yaml", "/smaller.yaml") for each in overrides)
    found = simulate(resolve(preset, [*SMALL, *own, *overrides])).to_dict()
    for key in ("provenance", "warnings"):
        del found[key]
    return json.dumps(found)


def _moves(path: str, files: tuple[str, ...]) -> str | None:
    """The first base and change that move a result. A change is tried on all bases before the next
    one is, the slow base at the end."""
    bases = [base for base in BASES if path in _knobs(base)]
    slow = [base for base in bases if base == "cores"]
    quick = [base for base in bases if base not in slow]
    most = len(_changes(2))
    if path in WITHOUT_EFFECT:
        slow, most = [], 3
    for some in (quick, slow):
        for number, base in product(range(most), some):
            changes = _changes(_knobs(base)[path])
            if number >= len(changes):
                continue
            unit = next((u for ends, u in UNITS.items() if path.endswith(ends)), "")
            override = f"{path}={json.dumps(changes[number])}{unit}"
            try:
                changed = _result(base, (*files, override))
            except InputError:
                continue
            if changed != _result(base, files):
                return f"{base} {override}"
    return None


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.xfail(reason=KNOWN_BUGS[path], strict=True))
        if path in KNOWN_BUGS
        else path
        for path in sorted(KNOBS)
    ],
)
def test_every_knob_moves_a_result(path: str, files: tuple[str, ...]) -> None:
    moved = _moves(path, files)
    if path in WITHOUT_EFFECT:
        assert moved is None, f"{moved} moves a result: take {path} off the list"
    else:
        assert moved is not None, f"{path} changes nothing"


CHOICES = {
    "memory.controller.scheduler": ["fcfs"],
    "memory.controller.page_policy": ["closed"],
    "memory.controller.refresh": ["per-bank", "none"],
    "memory.controller.write_drain_high": ["16", "4"],
}
"""Values of knobs that are no numbers in the presets."""


@pytest.mark.parametrize(
    ("path", "value"), [(path, value) for path, values in CHOICES.items() for value in values]
)
def test_every_choice_of_the_controller_moves_a_result(
    path: str, value: str, files: tuple[str, ...]
) -> None:
    assert _result("npu-only", (*files, f"{path}={value}")) != _result("npu-only", files)


def test_the_list_of_exceptions_names_knobs_that_exist() -> None:
    assert set(WITHOUT_EFFECT) <= KNOBS
    assert set(KNOWN_BUGS) <= KNOBS
    assert all(WITHOUT_EFFECT.values())
