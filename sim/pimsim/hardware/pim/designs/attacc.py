"""AttAcc (ASPLOS 2024): decode attention in an HBM3 stack, beside banks, bank groups or buffer die.

Heads go to channels in turn, one at a time; all that a head needs lies in its channel. The plan
(``attacc_plan``) says which piece comes when; here the pieces become commands with addresses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.pim_attention import AttentionMapConfig, InnerLevel
from pimsim.config.pim_stream import LEVELS, StreamPimConfig
from pimsim.hardware.pim.designs.attacc_plan import (
    AttentionShape,
    Part,
    Piece,
    channel_plan,
    heads_by_turn,
    level_size,
    shape_of,
)
from pimsim.hardware.pim.stream import MAX_COMMANDS, Stream, run_stream

__all__ = ["AttentionResult", "attention", "attention_commands", "attention_cycles"]

Ints = NDArray[np.int64]

_WAIT_ISSUED = 1
_COLUMNS = 10
"""Columns of ``Stream.entries``."""


@dataclass(frozen=True)
class AttentionResult:
    """Decode attention of one token of each head, in one stack."""

    cycles: int
    """Cycles of ``tCK`` until the last result is on its way to the softmax buffer."""
    time_ps: int
    commands: Mapping[str, int]
    """Of all channels together, with what the controller added (ACTAB, PREA, REFab)."""


def attention_cycles(
    pim_config: StreamPimConfig, heads: int, head_dim: int, context: int, element_bytes: int
) -> AttentionResult:
    """Attention of ``heads`` heads over ``context`` tokens each, on one stack.

    ``element_bytes``: of K, V, query and probabilities. Raises ``InputError`` for what the
    stack cannot hold.
    """
    design = pim_config.model_copy(update={"element_bytes": element_bytes})
    result = run_stream(design, attention(design, heads, heads, head_dim, context))
    return AttentionResult(result.cycles, result.cycles * design.tCK, result.commands)


def attention(
    design: StreamPimConfig, heads: int, kv_heads: int, head_dim: int, context: int
) -> Stream:
    """The stream of decode attention; a K and V that query heads share is read for each."""
    mapping, shape = _mapping(design, heads, kv_heads, head_dim, context)
    plans = _plans(design, mapping, shape, heads)
    commands = sum(_count(shape, piece) for plan in plans for piece in plan)
    if commands > MAX_COMMANDS:
        raise InputError(
            f"{design.name}: {commands:,} commands; at most {MAX_COMMANDS:,} are simulated"
        )
    layout = _Layout(design, mapping, shape, head_dim)
    blocks = []
    for channel, plan in enumerate(plans):
        block = layout.entries(plan)
        block[:, 1] = channel
        blocks.append(block)
    entries = np.concatenate(blocks)
    entries[:, 9] = np.arange(len(entries))
    return Stream(
        entries=entries,
        blocking=np.zeros(len(entries), dtype=np.bool_),
        copies=tuple(plans.values()),
        lanes=1,
    )


def attention_commands(
    design: StreamPimConfig, heads: int, head_dim: int, context: int
) -> dict[str, int]:
    """Commands of the stream by name, of all channels, without scheduling them."""
    mapping, shape = _mapping(design, heads, heads, head_dim, context)
    names = _command_names(mapping)
    total = dict.fromkeys(names.values(), 0)
    for plan, copies in _plans(design, mapping, shape, heads).items():
        for piece in plan:
            total[names[piece.part]] += _count(shape, piece) * copies
    return total


def _mapping(
    design: StreamPimConfig, heads: int, kv_heads: int, head_dim: int, context: int
) -> tuple[AttentionMapConfig, AttentionShape]:
    mapping, org = design.attention, design.organization
    if mapping is None:
        raise InputError(f"{design.name}: key attention is missing; design attacc needs it")
    for what, size in (("heads", heads), ("head_dim", head_dim), ("context", context)):
        if size < 1:
            raise InputError(f"{design.name}: {what} is {size}; at least 1 is needed")
    if kv_heads < 1 or heads % kv_heads:
        raise InputError(f"{design.name}: {heads} heads cannot share {kv_heads} KV heads")
    if org.column_bytes % design.element_bytes:
        raise InputError(
            f"{design.name}: elements of {design.element_bytes} bytes do not fill a column of "
            f"{org.column_bytes}"
        )
    return mapping, shape_of(mapping, org, head_dim, context, design.element_bytes)


def _plans(
    design: StreamPimConfig, mapping: AttentionMapConfig, shape: AttentionShape, heads: int
) -> dict[tuple[Piece, ...], int]:
    """Distinct plans of channels, and how many channels follow each."""
    busy = heads_by_turn(heads, design.organization.channels)
    plans: dict[tuple[Piece, ...], int] = {}
    for channel in range(min(heads, design.organization.channels)):
        plan = channel_plan(mapping, shape, busy, channel)
        plans[plan] = plans.get(plan, 0) + 1
    return plans


def _count(shape: AttentionShape, piece: Piece) -> int:
    return shape.items(piece.part, piece.start, piece.stop)


def _command_names(mapping: AttentionMapConfig) -> dict[Part, str]:
    commands = mapping.commands
    return {
        Part.QUERY: commands.write_query,
        Part.FIRST_ROW: commands.mac,
        Part.SCORE_MAC: commands.mac,
        Part.SCORE_MOVE: commands.move_score,
        Part.SOFTMAX: commands.softmax,
        Part.PROBABILITY: commands.move_probability,
        Part.VALUE_MAC: commands.mac,
        Part.VALUE_MOVE: commands.move_score,
        Part.BARRIER: commands.barrier,
    }


class _Layout:
    """Where a head's columns lie, and the entries of each piece."""

    def __init__(
        self,
        design: StreamPimConfig,
        mapping: AttentionMapConfig,
        shape: AttentionShape,
        head_dim: int,
    ) -> None:
        self.design, self.mapping, self.shape = design, mapping, shape
        org = design.organization
        room = mapping.reserved_context * head_dim * mapping.reserved_element_bytes
        self.head_columns = -(-(-(-room // org.banks)) // org.column_bytes)
        number = {name: index for index, name in enumerate(design.commands)}
        self.command = {part: number[name] for part, name in _command_names(mapping).items()}
        self.macs = self._mac_columns()
        self.moves = {
            Part.QUERY: self._places(mapping.query_writes, shape.query_writes),
            Part.PROBABILITY: self._places(mapping.probability_moves, shape.probability_moves),
            Part.SCORE_MOVE: self._places(mapping.score_moves, shape.score_moves),
            Part.VALUE_MOVE: self._places(mapping.value_moves, shape.value_moves),
        }

    def entries(self, plan: Iterable[Piece]) -> Ints:
        """The commands of ``plan`` in order, channel and instruction not yet filled in."""
        return np.concatenate([block for piece in plan for block in self._piece(piece)])

    def _piece(self, piece: Piece) -> Iterator[Ints]:
        part = piece.part
        if part in (Part.FIRST_ROW, Part.SCORE_MAC, Part.VALUE_MAC):
            yield self._macs(piece)
        elif part in (Part.SCORE_MOVE, Part.VALUE_MOVE):
            for _ in range(piece.stop - piece.start):
                yield self._block(part, self.moves[part])
        elif part in (Part.QUERY, Part.PROBABILITY):
            yield self._block(part, self.moves[part][piece.start : piece.stop])
        else:
            block = self._block(part, np.zeros((1, 4), dtype=np.int64))
            block[:, 8] = _WAIT_ISSUED if part is Part.BARRIER else 0
            yield block

    def _block(self, part: Part, places: Ints) -> Ints:
        block = np.zeros((len(places), _COLUMNS), dtype=np.int64)
        block[:, 0] = self.command[part]
        block[:, 2:6] = places
        block[:, 6] = -1
        return block

    def _macs(self, piece: Piece) -> Ints:
        """Columns of the piece; K from row 0, V from the middle of each bank."""
        org, shape = self.design.organization, self.shape
        each = shape.token_steps if piece.part is Part.VALUE_MAC else shape.batch * shape.dim_steps
        first, last = piece.start * each, min(piece.stop * each, shape.macs)
        if piece.part is Part.FIRST_ROW:
            first, last = 0, 1
        columns = self.macs[first:last]
        block = self._block(piece.part, columns[:, :4])
        row = (columns[:, 4] + piece.turn * self.head_columns) // org.columns
        half = org.rows // 2
        if len(row) and int(row.max()) >= half:
            raise InputError(
                f"{self.design.name}: head {piece.turn + 1} of a channel reaches row "
                f"{int(row.max())} of its K; there are {half}"
            )
        block[:, 6] = row + (half if piece.part is Part.VALUE_MAC else 0)
        return block

    def _mac_columns(self) -> Ints:
        """(MACs, 5): place, and column in the bank counted over its rows."""
        org, index = self.design.organization, np.arange(self.shape.macs)
        fields: dict[str, Ints] = {}
        for name in self.mapping.column_order[:-1]:
            size = org.columns if name == "column" else level_size(org, name)
            index, fields[name] = np.divmod(index, size)
        zero = np.zeros(self.shape.macs, dtype=np.int64)
        places = [fields.get(level, zero) for level in LEVELS[1:]]
        return np.stack([*places, fields["column"] + index * org.columns], axis=1)

    def _places(self, levels: list[InnerLevel], count: int) -> Ints:
        """(count, 4): nodes of ``levels``, outermost loop first, the same number of each."""
        sizes = [range(level_size(self.design.organization, level)) for level in levels]
        nodes = list(product(*sizes))
        places = np.zeros((len(nodes), 4), dtype=np.int64)
        for row, node in enumerate(nodes):
            for level, value in zip(levels, node, strict=True):
                places[row, LEVELS.index(level) - 1] = value
        return np.repeat(places, count // len(nodes), axis=0)
