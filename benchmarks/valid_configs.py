"""Random configs that the tool accepts, over everything that the registries have.

A draw names a preset and its parts, and then changes some of the config's values: numbers to half,
double or something near, switches and words to any other that their types allow.
"""

from __future__ import annotations

import random
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel

from pimsim.config.errors import InputError
from pimsim.config.loader import load_preset
from pimsim.config.plugins import ModuleName
from pimsim.config.resources import preset_names
from pimsim.config.schema import annotation_at, marks_at, quantity_at
from pimsim.workload.cards import ModelCard, load_card, parallelism

__all__ = ["FAMILIES", "Draw", "draw_config", "words_of"]

Family = Literal["hardware", "system", "stream", "memory"]


@dataclass(frozen=True)
class Draw:
    """A config and what it is asked to do."""

    family: Family
    preset: str
    overrides: tuple[str, ...]
    work: tuple[int | str, ...] = ()
    """``system``: model, batch, input and output tokens. ``stream``: an operation and its sizes.
    ``memory``: how many requests, and their seed."""

    def __str__(self) -> str:
        changes = " ".join(f"--set '{text}'" for text in self.overrides)
        return f"{self.family} {self.preset} {' '.join(map(str, self.work))} {changes}"


FAMILIES: Mapping[Family, int] = {"hardware": 7, "system": 1, "stream": 1, "memory": 1}
"""Kinds of preset that bring a config, and how often each is drawn."""

_FIXED = {"name", "description", "source", "sources", "standard", "family", "design", "dtype",
          "operations", "activations", "rules", "commands"}  # fmt: skip
"""Keys that say what a thing is called or how its parts are tied."""


def draw_config(draw: random.Random) -> Draw:
    """A config of any family; it may still be one that the tool refuses."""
    family = draw.choices(list(FAMILIES), list(FAMILIES.values()))[0]
    return _DRAWS[family](draw)


# values -------------------------------------------------------------------------------------------


def _leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if key in _FIXED:
            continue
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


@cache
def _config(kind: str, preset: str, overrides: tuple[str, ...] = ()) -> Any:
    return load_preset(kind, preset, overrides).config


def words_of(model: type[BaseModel], path: tuple[str, ...]) -> list[Any]:
    """Words that a key takes: those of its type, or of the modules that it names."""
    for mark in marks_at(model, path):
        if isinstance(mark, ModuleName):
            return list(mark.choices)
    annotation = annotation_at(model, path)
    return list(typing.get_args(annotation)) if typing.get_origin(annotation) is Literal else []


def _other(draw: random.Random, model: type[BaseModel], path: tuple[str, ...], value: Any) -> str:
    """Another value of a key, as ``--set`` takes it; empty where there is none."""
    words = [word for word in words_of(model, path) if word != value]
    if words:
        return str(draw.choice(words))
    if isinstance(value, bool):
        return str(not value).lower()
    quantity = quantity_at(model, path)
    if isinstance(value, int):
        near = (value * 2, value // 2, value + 1, value * 4, max(value - 1, 0))
        return f"{draw.choice(near)}{quantity.units[0][0] if quantity else ''}"
    if isinstance(value, float):
        return str(value * draw.choice((0.5, 0.8, 1.25, 2.0)))
    return ""


def _changes(draw: random.Random, kind: str, preset: str, own: Sequence[str]) -> list[str]:
    """Up to five values changed, of the config with its ``own`` overrides."""
    config = _config(kind, preset, tuple(own))
    leaves = sorted(_leaves(config.model_dump(mode="json")))
    changes = []
    for path in draw.sample(leaves, min(len(leaves), draw.choice((0, 1, 2, 3, 5)))):
        if kind == "hardware" and path[0] == "workload":
            continue
        value: Any = config
        for key in path:
            value = value[key] if isinstance(value, Mapping) else getattr(value, key)
        other = _other(draw, type(config), path, value)
        if other:
            changes.append(f"{'.'.join(path)}={other}")
    return changes


# families -----------------------------------------------------------------------------------------


@cache
def _cards() -> dict[str, ModelCard]:
    return {name: load_card(name) for name in preset_names("model")}


_MOST_BYTES = 30e6
"""Of weights that a run reads: seconds of simulation on a device of full size."""
_FULL_SIZE = 2048
"""Processing elements of such a device."""


@cache
def _affordable(preset: str, batch: int, layers: int) -> list[tuple[str, int]]:
    """Models and the devices that share them, of which one has little work."""
    npu = _config("hardware", preset).npu
    elements = npu.cores * npu.systolic.arrays * npu.systolic.rows * npu.systolic.cols
    most = _MOST_BYTES * min(1.0, max(1 / 8, elements / _FULL_SIZE))
    found: dict[tuple[str, int], float] = {}
    for name, card in sorted(_cards().items()):
        for tp in (degree for degree in range(1, 129) if card.heads % degree == 0):
            try:
                parallelism(card, tp)
            except InputError:
                continue
            found[name, tp] = layers * _read_bytes(card, batch) / tp
    within = [key for key, size in found.items() if size <= most]
    return within or [min(found, key=found.__getitem__)]


def _read_bytes(card: ModelCard, batch: int) -> int:
    """Weights of a block that a batch reads, about."""
    matrices = 3 if card.ffn_gated else 2
    ffn = card.ffn_hidden
    if card.moe is not None:
        experts = min(card.moe.experts, batch * card.moe.experts_per_token)
        ffn = experts * card.moe.expert_hidden + card.moe.shared_hidden
    columns = card.qkv_features + card.attention_features + matrices * ffn
    return card.hidden * columns * card.dtype_bytes


def _hardware(draw: random.Random) -> Draw:
    preset = draw.choice(preset_names("hardware"))
    batch, layers = draw.choice((1, 2, 3, 5, 8, 12, 17)), draw.choice((1, 1, 1, 2))
    model, tp = draw.choice(_affordable(preset, batch, layers))
    card = _cards()[model]
    requests = draw.choice(preset_names("trace"))
    own = [
        f"workload.model={model}", f"parallel.tp={tp}", f"workload.requests={requests}",
        f"workload.batch={batch}", f"workload.layers={layers}",
        f"fidelity={draw.choice(('command', 'fast'))}", f"seed={draw.randrange(100)}",
    ]  # fmt: skip
    if draw.random() < 0.3:
        stages = draw.choice(range(1, card.layers + 1))
        own.append(f"parallel.pp={stages}")
        if stages % 3 == 0:
            own.append(f"parallel.batches={stages // 3}")
    if draw.random() < 0.7:
        own.append(f"memory={draw.choice(preset_names('memory'))}")
        own.append("memory.organization.rows=131072")
    if draw.random() < 0.8:
        own.append(f"memory.organization.channels={draw.choice((2, 4, 8, 16))}")
    if _config("hardware", preset).pim is not None and draw.random() < 0.6:
        newton = [name for name in preset_names("pim") if _config("pim", name).controller is None]
        own.append(f"pim={draw.choice(newton)}")
    if draw.random() < 0.3:
        own.append(f"energy={draw.choice(preset_names('energy'))}")
    if draw.random() < 0.3:
        own.append("workload.outside=true")
    own += _techniques(draw, card, tp)
    return Draw("hardware", preset, (*own, *_changes(draw, "hardware", preset, ())))


def _techniques(draw: random.Random, card: ModelCard, tp: int) -> list[str]:
    """Experts, sparsity and where they run."""
    own = []
    if card.moe is not None:
        own.append(f"workload.routing={draw.choice(('uniform', 'zipf:1.2', 'token-id'))}")
        if draw.random() < 0.5:
            own.append(f"workload.capacity_factor={draw.choice((0.5, 1.0, 1.5))}")
        if draw.random() < 0.3:
            own.append(f"parallel.ep={draw.choice((2, tp))}")
        placement = draw.choice(("npu", "by-tokens", "pim"))
        own.append(f"schedule.expert_placement={placement}")
    elif draw.random() < 0.3:
        own.append(f"workload.sparsity={draw.choice(('law:relu', 'law:silu'))}")
        own.append(f"workload.sparsity_order={draw.choice(('as-trained', 'popularity'))}")
        own.append(f"workload.sparsity_predictor={draw.choice(('none', 'oracle'))}")
    return own


def _system(draw: random.Random) -> Draw:
    preset = draw.choice(preset_names("system"))
    model = draw.choice(sorted(_cards()))
    work = (
        model, draw.choice((1, 2, 7, 16, 64, 200)), draw.choice((1, 31, 512, 2048)),
        draw.choice((2, 16, 129)),
    )  # fmt: skip
    return Draw("system", preset, tuple(_changes(draw, "system", preset, ())), work)


def _stream(draw: random.Random) -> Draw:
    names = [name for name in preset_names("pim") if _config("pim", name).controller is not None]
    preset = draw.choice(names)
    operation = draw.choice(sorted({"gemv", "attention"} & set(_config("pim", preset).operations)))
    if operation == "gemv":
        sizes = draw.choice((16, 100, 768, 2048)), draw.choice((16, 100, 1024)), draw.choice((1, 3))
    else:
        kv_heads = draw.choice((1, 2, 4))
        heads = kv_heads * draw.choice((1, 2, 4))
        sizes = heads, kv_heads, draw.choice((64, 128)), draw.choice((1, 100, 1024, 1500))
    return Draw("stream", preset, tuple(_changes(draw, "pim", preset, ())), (operation, *sizes))


def _memory(draw: random.Random) -> Draw:
    preset = draw.choice(preset_names("memory"))
    work = (draw.choice((50, 700, 3000)), draw.randrange(10**6))
    return Draw("memory", preset, tuple(_changes(draw, "memory", preset, ())), work)


_DRAWS: dict[Family, Callable[[random.Random], Draw]] = {
    "hardware": _hardware, "system": _system, "stream": _stream, "memory": _memory,
}  # fmt: skip
