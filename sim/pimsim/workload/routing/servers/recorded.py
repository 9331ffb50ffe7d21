"""What a server recorded of its requests, whatever file it came in, made a routing trace.

A record's experts are rows of tokens; the axis of blocks has either those with experts alone or
all of them. Servers mark what they do not know by -1 (vLLM: positions that the prefix cache had;
SGLang: blocks without experts), by the largest value of an unsigned type, or by zeros in every
place (vLLM up to 0.20 and SGLang: buffers that were never written). Such tokens are left out and
counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.routing.file import RoutingTrace
from pimsim.workload.routing.shape import MoeShape

__all__ = ["ImportedRouting", "Record", "assemble"]

Ints = NDArray[np.int64]
_UNKNOWN = -1
_MOST_EXPERTS = 65_536


@dataclass(frozen=True)
class Record:
    """Experts of the tokens of one request, in the order of their positions."""

    where: str
    """File, and place in it, for messages."""
    experts: NDArray[np.integer]
    """Shape (tokens, blocks, choices), or all of them in one axis where no shape came along."""
    axes_known: bool = True
    """Tokens come first; else the model's number of blocks tells whether blocks do."""
    first_position: int | None = None
    """Of the first row; None: it follows from ``tokens_fed``, else it is 0."""
    positions: Ints | None = None
    """Of each token, where they do not follow each other."""
    tokens: Ints | None = None
    """Ids from position 0 on (with ``positions``: of each row), as many as are known."""
    tokens_fed: int | None = None
    """Tokens of the request that went through the model; rows are the last ones of them."""
    physical: NDArray[np.int64] | None = None
    """Logical expert by block and physical one, where a server balances copies of experts."""


@dataclass(frozen=True)
class ImportedRouting:
    """A routing trace, and what a reader must know of it."""

    trace: RoutingTrace
    notes: tuple[str, ...] = field(default=())


def assemble(
    records: Sequence[Record], shape: MoeShape, source: str, notes: Sequence[str] = ()
) -> ImportedRouting:
    """One trace of all records, each a sequence.

    Parameters
    ----------
    records
        At least one; each is checked against ``shape``.
    shape
        The model that the server ran.
    source
        What the trace is said to come from.
    notes
        What the reader of the file has to say already.

    Returns
    -------
    ImportedRouting
        Tokens in the order of sequences and positions.

    Raises
    ------
    InputError
        Where a number of a record is not the model's, with both numbers; where no token is left.
    """
    if not shape.experts:
        raise InputError(f"model {shape.model} has no experts; a routing is of no use to it")
    remarks = dict.fromkeys(notes)
    chosen, sequences, positions, tokens = [], [], [], []
    dropped = 0
    for number, record in enumerate(records):
        found, said = _of_model(record, shape)
        remarks.update(dict.fromkeys(said))
        known = _known(found)
        dropped += int((~known).sum())
        _check_choices(record.where, found[known], shape)
        places, ids = _places(record, len(found))
        chosen.append(found[known])
        positions.append(places[known])
        tokens.append(ids[known])
        sequences.append(np.full(int(known.sum()), number, dtype=np.int64))
    experts = np.concatenate(chosen) if chosen else np.zeros((0, 0, 0), dtype=np.int64)
    if not len(experts):
        raise InputError(f"{source}: no token has experts; the server recorded none")
    ids = np.concatenate(tokens)
    if dropped:
        remarks[
            f"{dropped} tokens without experts are left out (a prefix cache had them, or their "
            "buffer was never written)"
        ] = None
    if (ids == _UNKNOWN).any():
        unknown = int((ids == _UNKNOWN).sum())
        remarks[f"ids of {unknown} of {len(ids)} tokens are not known (-1)"] = None
    trace = RoutingTrace(
        model=shape.model, source=source, layers=shape.layers, experts=shape.experts,
        experts_per_token=shape.experts_per_token, sequence=np.concatenate(sequences),
        position=np.concatenate(positions), token=ids, moe_layers=shape.moe_layers,
        chosen=np.ascontiguousarray(experts.transpose(1, 0, 2)),
    )  # fmt: skip
    return ImportedRouting(trace, tuple(remarks))


def _places(record: Record, count: int) -> tuple[Ints, Ints]:
    """Position and id of each of a record's rows."""
    known = record.tokens if record.tokens is not None else np.zeros(0, dtype=np.int64)
    places = record.positions
    if places is not None:
        own = known
    else:
        start = record.first_position
        if start is None:
            start = max((record.tokens_fed or 0) - count, 0)
        places, own = start + np.arange(count, dtype=np.int64), known[start:]
    ids = np.full(count, _UNKNOWN, dtype=np.int64)
    some = min(count, len(own))
    ids[:some] = own[:some]
    return places, ids


def _of_model(record: Record, shape: MoeShape) -> tuple[Ints, list[str]]:
    """The record's experts as (tokens, blocks with experts, choices), -1 where not known."""
    raw = record.experts
    if raw.dtype.kind not in "iu":
        raise InputError(f"{record.where}: experts are {raw.dtype}, whole numbers are expected")
    values = raw.astype(np.int64)
    if raw.dtype.kind == "u":
        largest = np.iinfo(raw.dtype).max
        if largest >= shape.experts:
            values[raw == largest] = _UNKNOWN
    said: list[str] = []
    values = _three_axes(record, values, shape, said)
    if values.shape[1] == shape.layers != len(shape.moe_layers):
        dense = sorted(set(range(shape.layers)) - set(shape.moe_layers))
        if np.ptp(values[:, dense, :]) if values.size else 0:
            raise InputError(
                f"{record.where}: block {dense[0]} has experts; of model {shape.model} it is dense"
            )
        values = values[:, list(shape.moe_layers), :]
    values = _choices(record.where, values, shape, said)
    if record.physical is not None:
        values = _logical(record, values, shape)
    return values, said


def _three_axes(record: Record, values: Ints, shape: MoeShape, said: list[str]) -> Ints:
    """Tokens, blocks, choices; an axis that is neither is an error that says both numbers."""
    where = record.where
    blocks = {shape.layers, len(shape.moe_layers)}
    if values.ndim == 1:
        values = _unflattened(where, values, shape)
    elif values.ndim == 2:
        if values.shape[1] not in {count * shape.experts_per_token for count in blocks}:
            raise InputError(
                f"{where}: rows of {values.shape[1]} experts; model {shape.model} has "
                f"{_blocks_of(shape)} of {shape.experts_per_token} choices"
            )
        values = values.reshape(len(values), -1, shape.experts_per_token)
    if values.ndim != 3:
        raise InputError(
            f"{where}: an array of {values.ndim} axes; tokens, blocks and choices are expected"
        )
    blocks_first = values.shape[0] in blocks and not record.axes_known
    if values.shape[1] in blocks:
        if blocks_first and values.shape[0] != values.shape[1]:
            said.append("axes are read as tokens, blocks, choices, as servers send them")
        return values
    if blocks_first:
        said.append("axes are blocks, tokens, choices")
        return values.transpose(1, 0, 2)
    raise InputError(
        f"{where}: {values.shape[1]} blocks (shape {_by(values.shape)}); model {shape.model} has "
        f"{_blocks_of(shape)}"
    )


def _unflattened(where: str, values: Ints, shape: MoeShape) -> Ints:
    """A flat buffer of whole tokens; all blocks where both ways divide it, as SGLang sends it."""
    for count in dict.fromkeys((shape.layers, len(shape.moe_layers))):
        if len(values) and len(values) % (count * shape.experts_per_token) == 0:
            return values.reshape(-1, count, shape.experts_per_token)
    raise InputError(
        f"{where}: {len(values)} numbers are no whole number of tokens; model {shape.model} has "
        f"{_blocks_of(shape)} of {shape.experts_per_token} choices"
    )


def _choices(where: str, values: Ints, shape: MoeShape, said: list[str]) -> Ints:
    """Cut to the routed choices: padding, and shared experts that a server fused, follow them."""
    found, wanted = values.shape[2], shape.experts_per_token
    extra = values[:, :, wanted:]
    if found > wanted and (extra == _UNKNOWN).all():
        return values[:, :, :wanted]
    if found > wanted and ((extra >= shape.experts) | (extra == _UNKNOWN)).all():
        said.append(f"{found - wanted} shared experts that the server routes along are left out")
        return values[:, :, :wanted]
    if found != wanted:
        raise InputError(
            f"{where}: {found} experts a token (experts_per_token), model {shape.model} "
            f"takes {wanted}"
        )
    return values


def _logical(record: Record, values: Ints, shape: MoeShape) -> Ints:
    """Copies of an expert by the expert that they are copies of."""
    table = record.physical
    assert table is not None
    if len(table) == shape.layers:
        table = table[list(shape.moe_layers)]
    if len(table) != len(shape.moe_layers):
        raise InputError(
            f"{record.where}: experts are mapped in {len(table)} blocks; model {shape.model} has "
            f"{_blocks_of(shape)}"
        )
    if values.size and int(values.max()) >= table.shape[1]:
        raise InputError(
            f"{record.where}: physical expert {int(values.max())}; there are {table.shape[1]}"
        )
    block = np.arange(len(table))[None, :, None]
    return np.where(values == _UNKNOWN, _UNKNOWN, table[block, values])


def _known(values: Ints) -> NDArray[np.bool_]:
    """Which tokens have experts in every block; zeros in all places are a buffer's first state."""
    known: NDArray[np.bool_] = (values != _UNKNOWN).all(axis=(1, 2))
    if values.shape[2] > 1:
        known &= (values != 0).any(axis=(1, 2))
    return known


def _check_choices(where: str, values: Ints, shape: MoeShape) -> None:
    if not values.size:
        return
    least, most = int(values.min()), int(values.max())
    if not 0 <= least <= most < shape.experts:
        raise InputError(
            f"{where}: expert {most if most >= shape.experts else least}; model {shape.model} has "
            f"0 to {shape.experts - 1} (experts)"
        )
    ordered = np.sort(values, axis=2)
    twice = (ordered[:, :, 1:] == ordered[:, :, :-1]).any(axis=(1, 2))
    if twice.any():
        raise InputError(
            f"{where}: token {int(np.flatnonzero(twice)[0])} goes to one expert twice in a block"
        )


def _blocks_of(shape: MoeShape) -> str:
    if len(shape.moe_layers) == shape.layers:
        return f"{shape.layers} blocks (layers)"
    return f"{shape.layers} blocks (layers), {len(shape.moe_layers)} of them with experts"


def _by(sizes: Sequence[int]) -> str:
    return " x ".join(str(size) for size in sizes)
