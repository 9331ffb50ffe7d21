"""Step times from measured layers: a folder of tables, as LLMServingSim's profiler writes them.

- ``dense.csv`` (``layer,tokens,time_us``): a launch of each layer but attention, by the tokens fed;
  ``layernorm`` runs twice a block, ``embedding`` and ``final_layernorm`` once a step;
- ``per_sequence.csv`` (``layer,sequences,time_us``): output layer and sampler, by requests;
- ``attention.csv`` (``prefill_chunk,kv_prefill,n_decode,kv_decode,time_us``): attention of a block,
  for a piece of a prompt behind so many cached tokens beside requests that decode.

Between measured points times are interpolated linearly, in whole picoseconds; beyond the largest
one nothing is known. Requests of one token in a step decode, and count with their mean context;
others (drafts that are verified, too) are pieces of prompts in one launch, and count as one piece
of all their tokens behind what a token of them has cached before it on average. Beside more
requests than were measured with a piece, it adds what it adds beside the most that were.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.paths import Pathlike, given_path
from pimsim.config.resources import display_path
from pimsim.hardware.compiled import njit
from pimsim.serving.schedulers import Batch
from pimsim.workload.columns import read_columns

__all__ = ["LayerProfile", "load_profile"]

Ints = NDArray[np.int64]
_PS_PER_US = 10**6
_MOST_US = 1e9
"""Of one launch: more is no time of a layer."""
_ONCE = ("embedding", "final_layernorm")
"""Layers outside the blocks."""
_TWICE = "layernorm"
"""Before attention, and before the feed-forward network."""
_AXES = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
_WORDS = (
    "tokens of prompts", "tokens before them", "requests that decode", "tokens of mean context",
)  # fmt: skip


@dataclass(frozen=True)
class LayerProfile:
    """Measured layers of a model on a device.

    Raises ``InputError`` for steps that were not measured.
    """

    source: str
    """The folder, for messages."""
    layers: int
    """Blocks of the model."""
    dense_ps: Ints
    """All layers but attention of a step of so many tokens, from 0."""
    sequences_ps: Ints
    """Output layer and sampler for so many requests, from 0."""
    axes: tuple[Ints, Ints, Ints, Ints]
    """Measured values of the four columns of ``attention.csv``."""
    attention_ps: Ints
    """One block's attention at these, a dimension each."""
    beside: int
    """Requests that decode, of those measured beside pieces of prompts, at most."""

    def duration_ps(self, batch: Batch) -> int:
        """Layers one after the other, attention in each block."""
        self._check("tokens", batch.tokens, len(self.dense_ps) - 1, "dense.csv")
        self._check("requests", batch.requests, len(self.sequences_ps) - 1, "per_sequence.csv")
        attention, axis, found = _attention_ps(
            batch.entries, batch.requests, *self.axes, self.attention_ps, self.beside
        )
        if axis >= 0:
            self._check(_WORDS[axis], found, int(self.axes[axis][-1]), "attention.csv")
        around = self.dense_ps[batch.tokens] + self.sequences_ps[batch.requests]
        return int(around) + self.layers * int(attention)

    def _check(self, what: str, found: int, most: int, table: str) -> None:
        if found > most:
            raise InputError(
                f"{self.source}/{table}: a step has {found} {what}; the profile was measured up to "
                f"{most}"
            )


def load_profile(folder: Pathlike, layers: int) -> LayerProfile:
    """Read a profile's folder.

    Parameters
    ----------
    folder
        With the three tables.
    layers
        Blocks of the model; the tables have one.

    Raises
    ------
    InputError
        For tables that are not there, not of this form, or leave points of their grid out.
    """
    place = given_path(folder)
    if not place.is_dir():
        raise InputError(f"{place}: no folder with a profile's tables")
    dense = _series(place / "dense.csv", "tokens", lambda name: _uses(name, layers))
    sequences = _series(place / "per_sequence.csv", "sequences", lambda name: 1)
    axes, table, beside = _grid(place / "attention.csv")
    return LayerProfile(display_path(place), layers, dense, sequences, axes, table, beside)


def _uses(layer: str, layers: int) -> int:
    """Launches of a layer in a step."""
    if layer in _ONCE:
        return 1
    return 2 * layers if layer == _TWICE else layers


def _series(path: Path, by: str, uses: Callable[[str], int]) -> Ints:
    """Picoseconds of all layers of a table together, by 0, 1, 2 ... of the column ``by``."""
    columns = read_columns(path, "a table of a profile", text=("layer",), whole=(by,),
                           numbers=("time_us",))  # fmt: skip
    most = _common_most(columns, by)
    times_ps = _ps(path, columns["time_us"])
    total = np.zeros(most + 1, dtype=np.int64)
    for layer in dict.fromkeys(columns["layer"]):
        mine = np.flatnonzero([name == layer for name in columns["layer"]])
        order = mine[np.argsort(columns[by][mine])]
        points, times = columns[by][order], times_ps[order]
        total[1:] += uses(layer) * _between(points, times, np.arange(1, most + 1))
    return total


def _common_most(columns: dict[str, Any], by: str) -> int:
    """The largest value that every layer was measured at."""
    largest: dict[str, int] = {}
    for layer, value in zip(columns["layer"], columns[by].tolist(), strict=True):
        largest[layer] = max(largest.get(layer, 0), value)
    return min(largest.values())


def _between(points: Ints, times: Ints, wanted: Ints) -> Ints:
    """Times at ``wanted``, interpolated in whole numbers; below the first point, the first."""
    low = np.clip(np.searchsorted(points, wanted, side="right") - 1, 0, max(len(points) - 2, 0))
    high = np.minimum(low + 1, len(points) - 1)
    width = np.maximum(points[high] - points[low], 1)
    part = np.clip(wanted - points[low], 0, width)
    found: Ints = (times[low] * (width - part) + times[high] * part) // width
    return found


def _ps(path: Path, times_us: NDArray[np.float64]) -> Ints:
    """Picoseconds of a table's times. Raises ``InputError``, with its line, for a wrong one."""
    wrong = np.flatnonzero((times_us < 0) | (times_us > _MOST_US))
    if len(wrong):
        row = int(wrong[0])
        raise InputError(
            f"{display_path(path)}:{row + 2}: time_us is {times_us[row]:g}; 0 to {_MOST_US:g} is "
            "expected"
        )
    return np.rint(times_us * _PS_PER_US).astype(np.int64)


def _grid(path: Path) -> tuple[tuple[Ints, Ints, Ints, Ints], Ints, int]:
    """The axes of ``attention.csv``, its times at all of their points, and how many requests decode
    at most beside a piece of a prompt.

    Without a chunk nothing is cached before it, and nobody decodes without a context: these points
    are those at 0.
    """
    columns = read_columns(path, "a table of a profile", whole=_AXES, numbers=("time_us",))
    axes = [np.unique(np.append(columns[name], 0)) for name in _AXES]
    table = np.full([len(axis) for axis in axes], -1, dtype=np.int64)
    places = tuple(
        np.searchsorted(axis, columns[name]) for axis, name in zip(axes, _AXES, strict=True)
    )
    table[places] = _ps(path, columns["time_us"])
    table[0, 0, 0, 0] = 0
    table[0, :] = table[0, :1]
    table[:, :, 0, :] = table[:, :, 0, :1]
    if len(axes[3]) > 1:  # no context is measured as the smallest one is
        table[:, :, 1:, 0] = table[:, :, 1:, 1]
    with_piece = np.flatnonzero((table[1:] >= 0).any(axis=(0, 1, 3)))
    most = int(with_piece[-1]) if len(with_piece) else 0
    asked = table.copy()
    asked[1:, :, most + 1 :] = 0
    if (asked < 0).any():
        missing = np.argwhere(asked < 0)[0]
        said = ", ".join(
            f"{name} {axis[at]}" for name, axis, at in zip(_AXES, axes, missing, strict=True)
        )
        raise InputError(f"{display_path(path)}: no line for {said}; the grid must be whole")
    return (axes[0], axes[1], axes[2], axes[3]), table, int(axes[2][most])


@njit(cache=True)
def _cell(axis: Any, value: int) -> tuple[int, int, int]:
    """The point below ``value``, how far behind it, and how far the next one is."""
    low = 0
    while low + 2 < len(axis) and axis[low + 1] <= value:
        low += 1
    if len(axis) == 1:
        return 0, 0, 1
    return low, value - axis[low], axis[low + 1] - axis[low]


@njit(cache=True)
def _at(
    chunks: Any, cached: Any, decodes: Any, contexts: Any, table: Any, chunk: int, before: int,
    count: int, context: int,
) -> int:  # fmt: skip
    """Time of one launch, by four interpolations one in the other, rounded down."""
    a, a_part, a_width = _cell(chunks, chunk)
    b, b_part, b_width = _cell(cached, before)
    c, c_part, c_width = _cell(decodes, count)
    d, d_part, d_width = _cell(contexts, context)
    over_a = 0
    for i in range(2 if a_part > 0 else 1):
        over_b = 0
        for j in range(2 if b_part > 0 else 1):
            over_c = 0
            for k in range(2 if c_part > 0 else 1):
                over_d = table[a + i, b + j, c + k, d]
                if d_part > 0:
                    next_d = table[a + i, b + j, c + k, d + 1]
                    over_d = (over_d * (d_width - d_part) + next_d * d_part) // d_width
                over_c += over_d * (c_part if k else c_width - c_part)
            over_b += over_c // c_width * (b_part if j else b_width - b_part)
        over_a += over_b // b_width * (a_part if i else a_width - a_part)
    return over_a // a_width


@njit(cache=True)
def _attention_ps(
    entries: Any,
    count: int,
    chunks: Any,
    cached: Any,
    decodes: Any,
    contexts: Any,
    table: Any,
    beside: int,
) -> tuple[int, int, int]:
    """Picoseconds of a block's attention; else which axis (from 0) a value leaves, and that."""
    chunk = before = decoding = context = 0
    for at in range(count):
        new = entries[at].new
        if new == 1:
            decoding += 1
            context += entries[at].context
        else:
            chunk += new
            before += new * (entries[at].context - new)
    context //= max(decoding, 1)
    before //= max(chunk, 1)
    if chunk > chunks[-1]:
        return 0, 0, chunk
    if before > cached[-1]:
        return 0, 1, before
    if decoding > decodes[-1]:
        return 0, 2, decoding
    if context > contexts[-1]:
        return 0, 3, context
    total = _at(chunks, cached, decodes, contexts, table, 0, 0, decoding, context)
    if chunk > 0:
        most = min(decoding, beside)
        total += _at(chunks, cached, decodes, contexts, table, chunk, before, most, context)
        total -= _at(chunks, cached, decodes, contexts, table, 0, 0, most, context)
    return total, -1, 0
