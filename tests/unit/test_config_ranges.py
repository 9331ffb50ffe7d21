"""Every quantity has a plausible range, and a message that names it."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from pydantic import BaseModel

from pimsim.config.documents import load_document
from pimsim.config.errors import InputError
from pimsim.config.loader import CONFIG_MODELS, load_memory, load_pim, load_run
from pimsim.config.schema import marks_at
from pimsim.workload.cards import ModelCard

MODELS: dict[str, type[BaseModel]] = {**CONFIG_MODELS, "model": ModelCard}
OF_A_FEW = {"dtype_bytes", "kv_dtype_bytes"}
"""Numbers of a list of their own."""
HUGE = 10**30


def numbers(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths to all whole and real numbers of a config; ``*`` is any key or place."""
    for name, field in model.model_fields.items():
        yield from _of(field.annotation, (*path, name))


def _of(annotation: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _of(arguments[0], path)
    elif origin in (typing.Union, types.UnionType):
        for each in arguments:
            yield from _of(each, path)
    elif origin in (dict, Mapping):
        yield from _of(arguments[-1], (*path, "*"))
    elif origin is list:
        yield from _of(arguments[0], (*path, "0"))
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from numbers(annotation, path)
    elif annotation in (int, float):
        yield path


def limits(model: type[BaseModel], path: tuple[str, ...]) -> list[object]:
    places = tuple(int(key) if key == "0" else key for key in path)
    return [mark for mark in marks_at(model, places) if hasattr(mark, "__slots__") or mark]


@pytest.mark.parametrize("kind", MODELS)
def test_every_number_has_a_least_and_a_most(kind: str) -> None:
    without = []
    for path in numbers(MODELS[kind]):
        marks = limits(MODELS[kind], path)
        low = any(hasattr(mark, "ge") or hasattr(mark, "gt") for mark in marks)
        high = any(hasattr(mark, "le") or hasattr(mark, "lt") for mark in marks)
        if not (low and high) and path[-1] not in OF_A_FEW:
            without.append(".".join(path))
    assert without == []


RUN_NUMBERS = sorted(
    {
        ".".join(path)
        for path in numbers(CONFIG_MODELS["hardware"])
        if "*" not in path and "0" not in path
    }
)


PIM_ONLY = ("pim.attention.", "pim.controller.", "pim.peak.", "pim.units.")
"""Sections that the PIM of no preset run has."""


def _section(key: str) -> list[str]:
    """What gives a run the section of ``key``, where no preset has it."""
    if not key.startswith("link.outer"):
        return []
    return ["link.outer={group: 8, bandwidth_gb_per_s: 50, latency_ns: 2000}"]


@pytest.mark.parametrize("key", RUN_NUMBERS)
def test_a_number_beyond_64_bits_is_refused_by_its_key(key: str) -> None:
    """The same line whether it comes from ``--set`` or from a file."""
    run = "onnxim-tpuv4" if key.startswith("npu.network") else "neupims"
    if key.startswith(("pim_memory.", "pim_link.")):
        run = "npu-attacc"
    if key.startswith(PIM_ONLY):
        design = "duplex" if key.startswith("pim.units.") else "attacc-bank"
        key = key.removeprefix("pim.")
        with pytest.raises(InputError, match=key.replace(".", r"\.")) as error:
            load_pim(design, [f"{key}={HUGE}"])
    else:
        with pytest.raises(InputError, match=key.replace(".", r"\.")) as error:
            load_run(run, [*_section(key), f"{key}={HUGE}"])
    assert any(
        words in str(error.value)
        for words in ("at most", "less than", "needs its unit", "2 to 64 parts")
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("npu.frequency", "0Hz"), ("npu.frequency", "200GHz"), ("memory.tCK", "500ns"),
        ("memory.tCK", "0ps"), ("memory.tCK", "49ps"), ("npu.scratchpad.capacity", "2TiB"),
        ("link.bandwidth_gb_per_s", "0"), ("link.bandwidth_gb_per_s", "1e-300"),
        ("memory.timings.CL", "-1"), ("memory.timings.CL", "10000001"),
        ("npu.vector.add_latency", "100001"), ("memory.organization.burst_length", "5"),
        ("pim.elements_per_comp", "12"), ("npu.scratchpad.capacity", "32"),
        ("npu.frequency", "1.2"), ("memory.tCK", "'3'"), ("memory.tCK", "true"),
        ("energy.npu_mac_pj", "1e300"), ("seed", str(2**63)),
    ],
)  # fmt: skip
def test_the_same_line_for_a_file_and_for_set(key: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    nested = "".join(f"{{{part}: " for part in key.split(".")[1:])
    first = key.split(".")[0]
    file.write_text(f"extends: neupims\n{first}: {nested}{value}{'}' * nested.count('{')}\n")
    with pytest.raises(InputError) as by_file:
        load_run(str(file))
    with pytest.raises(InputError) as by_set:
        load_run("neupims", [f"{key}={value}"])
    what = [str(error.value).partition(": ")[2] for error in (by_file, by_set)]
    assert what[0] == what[1]
    assert key in what[0]


def test_the_ends_of_a_range_are_in_it() -> None:
    for key, values in {
        "memory.tCK": ("50ps", "20ns"), "npu.frequency": ("1MHz", "100GHz"),
        "npu.vector.add_latency": ("1", "100000"), "npu.scratchpad.capacity": ("1B", "1TiB"),
    }.items():  # fmt: skip
        for value in values:
            load_run("neupims", [f"{key}={value}"])


TIMING = "timings: {tRCD: 38}\n"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("memory", f"extends: hbm2\n{TIMING}"),
        ("hardware", f"extends: neupims\nmemory: {{{TIMING.strip()}}}\n"),
        ("pim", f"extends: neupims\n{TIMING}"),
        ("pim", f"extends: aim\n{TIMING}"),
        ("hardware", "extends: neupims\npim: {timings: {tXYZ: 1}}\n"),
    ],
)
def test_a_timing_that_nothing_reads_is_refused_in_a_file_too(
    kind: str, text: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml:2: .*timings\.t(RCD|XYZ)"):
        load_document(MODELS[kind], kind, str(file))


def test_a_timing_left_over_from_replaced_rules_stays(tmp_path: Path) -> None:
    """Whoever brings rules of their own need not take the parent's timings away."""
    rules = [rule for rule in load_memory("hbm2").config.rules if "tRREFD" not in rule.delay]
    listed = ", ".join(
        f"{{level: {r.level}, first: [{', '.join(r.first)}], then: [{', '.join(r.then)}], "
        f'delay: "{r.delay}", window: {r.window}}}'
        for r in rules
    )
    file = tmp_path / "a.yaml"
    file.write_text(f"extends: hbm2\nrules: [{listed}]\n")
    assert "tRREFD" in load_memory(str(file)).config.timings
    assert "tRREFD" in load_memory("hbm2", [f"rules=[{listed}]"]).config.timings
    file.write_text(f"extends: hbm2\nrules: [{listed}]\ntimings: {{tRREFD: 9}}\n")
    with pytest.raises(InputError, match=r"timings\.tRREFD"):
        load_memory(str(file))


def test_multipliers_beside_a_bank_are_a_power_of_two() -> None:
    with pytest.raises(InputError, match="elements_per_comp is 12"):
        load_pim("neupims", ["elements_per_comp=12"])
