"""Every key of every preset on every path that takes it: what is changed, and what that moves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from benchmarks.valid_configs import words_of
from cards import small_card

from pimsim.config.errors import InputError
from pimsim.config.loader import (
    CONFIG_MODELS,
    load_energy,
    load_preset,
    load_run,
    load_system,
)
from pimsim.config.memory import CONTAINED
from pimsim.config.resources import preset_names
from pimsim.config.schema import quantity_at
from pimsim.engine.xpu_device import capacity_bytes
from pimsim.hardware.area import device_area
from pimsim.hardware.dram.replay import replay
from pimsim.hardware.energy.dram import count_dram, dram_energy
from pimsim.hardware.energy.static import peak_gb_per_s
from pimsim.simulate import resolve, simulate

__all__ = [
    "SUBJECTS", "Subject", "Verdict", "config_of", "cores_of", "keys_of", "verdict", "write_inputs",
]  # fmt: skip

CARD = small_card()
CONTEXTS = (700, 31, 511, 64, 1279)
"""Some that are about to fill a burst of new values (multiples of 32), some longer than a row."""
_SMALL = (
    "memory.organization.channels=2", "npu.systolic.rows=32", "npu.systolic.cols=16",
    "npu.systolic.arrays=2", "npu.vector.lanes=64", "npu.vector.units=2", "workload.layers=1",
)  # fmt: skip
_FOLDER = Path("knobs")
_LABELS = {"name", "description", "source", "sources", "standard"}
"""Keys that only say what a thing is called."""

Verdict = Literal["moves", "limits", "refused", "nothing"]
"""Another value moves a figure; a run is refused by the key's name, as of a limit; no other value
is taken; nothing happens."""


@dataclass(frozen=True)
class Subject:
    """A preset on one path."""

    path: str
    """``command`` and ``fast`` (runs), ``replay``, ``system``, ``energy``, ``area``."""
    kind: str
    preset: str

    @property
    def own(self) -> tuple[str, ...]:
        """Overrides that make it small, and at ``fast`` keep it to rates: so few weights are
        simulated by commands beside two sub-batches."""
        if self.kind == "memory":
            return ("organization.channels=1",)
        if self.kind != "hardware":
            return ()
        own = [*_SMALL]
        if self.path == "fast":
            own.append("schedule.sub_batches=false")
        if load_run(self.preset).config.schedule.product_placement != "npu":
            # of a few tokens together PIM might have nothing to do
            own += ["schedule.product_placement=pim", "workload.batch=1"]
        return tuple(own)

    def variants(self, key: str) -> Iterator[tuple[str, ...]]:
        """Overrides under which another value of the key may act where it does not without."""
        yield ()
        if self.kind == "memory" and "tRFCpb" in config_of(self).timings:
            yield ("controller.refresh=per-bank",)
        if key == "link.congestion":  # neighbours in a ring share no link
            yield ("link.topology=switch",)
        if self.kind == "system":
            yield ("xpu.l1_per_core=24KiB", "xpu.l2=128KiB")
            yield ("devices=4",)  # several heads of keys a device
            if key.startswith("parallel."):
                yield ("parallel.pp=2",)
        section, found, timing = key.rpartition("timings.")
        if found:
            known = _value(config_of(self), (*section.split(".")[:-1], "timings"))
            for whole, parts in CONTAINED:
                # within the other, a larger value is refused
                if timing in parts and whole in known:
                    yield (f"{section}timings.{whole}={8 * known[whole]}",)

    def __str__(self) -> str:
        return f"{self.preset}-{self.path}"


SUBJECTS = [
    Subject(path, kind, preset)
    for path, kind in (
        ("command", "hardware"), ("fast", "hardware"), ("replay", "memory"), ("system", "system"),
        ("energy", "energy"), ("area", "area"),
    )
    for preset in preset_names(kind)
]  # fmt: skip


def write_inputs(folder: Path) -> None:
    """The small model and its requests, where ``figures`` finds them."""
    global _FOLDER
    _FOLDER = folder
    (folder / "card.yaml").write_text(CARD)
    (folder / "one-byte.yaml").write_text(_ONE_BYTE)
    lines = [f"{i},0.0,{c - 1},10,1" for i, c in enumerate(CONTEXTS)]
    header = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens"
    (folder / "requests.csv").write_text("\n".join([header, *lines, ""]))


# keys and other values ----------------------------------------------------------------------------


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if key in _LABELS:
            continue
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


@cache
def config_of(subject: Subject) -> Any:
    return load_preset(subject.kind, subject.preset, subject.own).config


def cores_of(subject: Subject) -> int:
    """Of a run's device."""
    return int(config_of(subject).npu.cores)


def keys_of(subject: Subject) -> list[str]:
    """Dotted keys of all values but names and lists, which have tests of their own."""
    config = config_of(subject)
    found = []
    for path in _leaves(config.model_dump(mode="json")):
        value, section = _value(config, path), path[0]
        # inputs, and PIM designs in systems, have tests of their own
        if section == "workload" or (subject.kind, section) == ("system", "pim"):
            continue
        if path == ("fidelity",) or isinstance(value, (list, Mapping)):
            continue
        found.append(".".join(path))
    return found


def _value(config: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        config = config[key] if isinstance(config, Mapping) else getattr(config, key)
    return config


_INSTEAD_OF_NULL = {
    "npu.network": ["{frequency: 1GHz}", "{frequency: 100MHz}"],
    "npu.scratchpad.accumulator": ["16KiB"],
    "npu.tdp_w": ["0.001"],
    "memory.controller.write_drain_high": ["4", "16"],
    "memory.controller.requests_in_flight": ["1"],
    "memory.currents.IDD5PB": ["80"],
    "memory.power_ceiling_pj_per_bit": ["0.001"],
    "pim": ["newton", "neupims"],
    "pim.power_cap_w": ["0.001"],
    "parallel.tp": ["1", "4"],
    "parallel.pp": ["2"],
    "max_error": ["0.001"],
    "host": ["dgx-a100a-cpu"],
    "stacks": ["{}"],
    "nccl": ["h100"],
    "parallel.batches": ["1"],
    "attention_contexts": ["2"],
}
"""Values where there is none."""


def others(subject: Subject, key: str) -> list[str]:
    """Other values of a key as ``--set`` takes them, from small steps to large ones."""
    path = tuple(key.split("."))
    value = _value(config_of(subject), path)
    model = CONFIG_MODELS[subject.kind]
    words = [json.dumps(word) for word in words_of(model, path) if word != value]
    if words:
        return words
    if isinstance(value, bool):
        return [json.dumps(not value)]
    if value is None:
        full = key if subject.kind != "memory" else f"memory.{key}"
        return _INSTEAD_OF_NULL.get(full, [])
    if isinstance(value, str):
        # of an expression, of a map of fields of two letters, of the name of a preset
        own = [f"({value}) * 2", value[2:] + value[:2]]
        return [*own, *(name for name in preset_names(subject.kind) if name != value)]
    quantity = quantity_at(model, path)
    unit = quantity.units[0][0] if quantity else ""
    if isinstance(value, float):
        reals = (value * 1.5 + 0.25, value * 0.9, value * 0.5, value * 0.01, value * 1e-4)
        return [str(real) for real in reals if real != value]
    numbers = (value * 2, value + 1, value // 2, value * 8, value * 64, value // 64, 127, 0)
    return [f"{number}{unit}" for number in dict.fromkeys(numbers) if number != value]


# figures ------------------------------------------------------------------------------------------


def _run(subject: Subject, *overrides: str) -> Iterator[object]:
    own = [
        *subject.own, f"workload.model={_FOLDER / 'card.yaml'}",
        f"workload.requests={_FOLDER / 'requests.csv'}", f"fidelity={subject.path}",
    ]  # fmt: skip
    found = simulate(resolve(subject.preset, [*own, *overrides])).to_dict()
    for key in ("provenance", "warnings"):
        del found[key]
    yield json.dumps(found)


def _replay(subject: Subject, *overrides: str) -> Iterator[object]:
    """Random bursts, a stream, a hot row, and writes to the same, in queues and at their pace."""
    memory = load_preset("memory", subject.preset, [*subject.own, *overrides]).config
    draw = np.random.default_rng(3)
    org = memory.organization
    space = org.capacity_bytes // org.burst_bytes
    rows = 4 * org.columns * org.banks
    bursts = np.concatenate([
        draw.integers(0, space, 600), draw.integers(0, space, 600), np.arange(600),
        draw.integers(0, org.columns, 300) + rows * (draw.random(300) < 0.1), np.arange(600),
    ])  # fmt: skip
    mixed = [np.ones(600, dtype=bool), draw.random(1500) < 0.4, np.arange(600) % 8 < 3]
    writes = np.concatenate(mixed).astype(np.int64)
    yield peak_gb_per_s(memory), org.capacity_bytes
    for arrivals in (None, np.arange(len(bursts), dtype=np.int64) * 23):
        done = replay(memory, bursts * org.burst_bytes, writes, arrivals)
        time_ps = done.time_ps(memory)
        counts = count_dram(memory, done.commands, done.active_rank_cycles, done.cycles, time_ps)
        energy = dram_energy(counts, memory, load_energy("default").config)
        yield time_ps, done.commands, done.row_hits, done.avg_read_latency_cycles, energy


_ONE_BYTE = """\
name: one-byte
source: a card of tests
layers: 2
hidden: 4096
heads: 32
kv_heads: 8
head_dim: 128
ffn_hidden: 14336
ffn_gated: true
activation: silu
norm: rmsnorm
bias: false
rope: true
vocab: 1000
tied_embeddings: false
max_context: 8192
dtype_bytes: 1
kv_dtype_bytes: 1
"""
_ON_GPUS = (
    ("gpt3-7b", "equal:700+1", 40, ()),
    ("gpt3-7b", "equal:9+1", 999, ()),
    ("gpt3-7b", "equal:1499+1", 2, ("workload.steps=3",)),
    ("llama-3-8b", "equal:31+1", 9, ("workload.steps=4",)),
    ("llama-3-8b", "equal:89+1", 5, ()),
    ("one-byte", "equal:8+1", 999, ()),
    # attention's blocks for a part of the cores, and, of all lengths, for all several times over
    ("llama-3-8b", "equal:700", 3, ("workload.phase=prefill", "workload.chunk=500")),
    ("llama-3-8b", "equal:3000", 5, ("workload.phase=prefill",)),
    # few tokens, whose experts leave memory waiting; experts on other devices
    ("olmoe-1b-7b", "equal:40+1", 1, ("workload.layers=1",)),
    ("olmoe-1b-7b", "equal:40+1", 24, ("workload.layers=1", "parallel.ep=4")),
)
"""Model, requests, how many, and what else."""


def _gpus(subject: Subject, *overrides: str) -> Iterator[object]:
    silicon = config_of(subject).xpu.silicon
    yield capacity_bytes(load_system(subject.preset, overrides).config)
    for model, requests, batch, more in _ON_GPUS:
        if model == "olmoe-1b-7b" and (silicon is None or silicon.experts is None):
            continue
        card = str(_FOLDER / "one-byte.yaml") if model == "one-byte" else model
        own = [f"workload.model={card}", f"workload.requests={requests}", *more]
        resolved = resolve(subject.preset, [*overrides, *own, f"workload.batch={batch}"])
        found = simulate(resolved, over_time=False)
        names = ("time_s", "iteration_s", "cycles", "energy_j", "static_w", "bound_cycles")
        yield json.dumps([found.to_dict(names), found.warnings])


def _energy(subject: Subject, *overrides: str) -> Iterator[object]:
    own = [f"energy={subject.preset}", *(f"energy.{text}" for text in overrides)]
    yield from _run(Subject("command", "hardware", "neupims"), *own)


def _area(subject: Subject, *overrides: str) -> Iterator[object]:
    area = load_preset("area", subject.preset, overrides).config
    run = load_run("neupims").config
    yield device_area(run.npu, run.memory, run.pim, area)


_FIGURES: dict[str, Callable[..., Iterator[object]]] = {
    "command": _run, "fast": _run, "replay": _replay, "system": _gpus, "energy": _energy,
    "area": _area,
}  # fmt: skip


class _Kept:
    """Figures, each made when it is first compared; one that is refused raises each time."""

    def __init__(self, figures: Iterator[object]) -> None:
        self._figures = figures
        self._made: list[object] = []
        self._refusal: InputError | None = None

    def __getitem__(self, at: int) -> object:
        while len(self._made) <= at:
            if self._refusal is not None:
                raise self._refusal
            try:
                self._made.append(next(self._figures))
            except InputError as refusal:
                self._refusal = refusal
        return self._made[at]


@cache
def _unchanged(subject: Subject, variant: tuple[str, ...]) -> _Kept:
    return _Kept(_FIGURES[subject.path](subject, *variant))


def _found(subject: Subject, variant: tuple[str, ...], overrides: tuple[str, ...]) -> Verdict:
    """What ``overrides`` do beside ``variant``: the first figure that moves is enough."""
    kept = _unchanged(subject, variant)
    try:
        kept[0]
    except InputError:
        return "refused"
    figures = _FIGURES[subject.path](subject, *overrides)
    at = 0
    try:
        for figure in figures:
            if figure != kept[at]:
                return "moves"
            at += 1
    except InputError as refusal:
        key = overrides[-1].partition("=")[0]
        return "limits" if str(refusal).startswith(key) else "refused"
    return "nothing"


def verdict(subject: Subject, key: str) -> tuple[Verdict, str]:
    """What other values of a key do, and the one that did it."""
    accepted = ""
    for variant in subject.variants(key):
        for other in others(subject, key):
            overrides = (*variant, f"{key}={other}")
            try:
                load_preset(subject.kind, subject.preset, [*subject.own, *overrides])
            except InputError:
                continue
            found = _found(subject, variant, overrides)
            if found in ("moves", "limits"):
                return found, " ".join(overrides)
            if found == "nothing":
                accepted = " ".join(overrides)
    return ("nothing", accepted) if accepted else ("refused", "")
