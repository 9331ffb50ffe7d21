"""AttAcc (ASPLOS 2024): decode attention in an HBM3 stack, beside banks, bank groups or buffer die.

Heads go to channels in turn, one at a time; all that a head needs lies in its channel. The plan
(``attacc_plan``) says which piece comes when; here the pieces become commands with addresses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import LEVELS
from pimsim.config.pim import PimDesignConfig
from pimsim.config.pim_attention import AttentionMapConfig, InnerLevel
from pimsim.hardware.pim.attacc_plan import (
    AttAccAttention,
    Part,
    Piece,
    Plan,
    Stage,
    level_size,
    shape_of,
)
from pimsim.hardware.pim.stream import MAX_COMMANDS, CommandStream, run_stream

__all__ = [
    "AttAccAttentionResult", "attention", "attention_commands", "attention_cycles",
    "batch_attention",
]  # fmt: skip

Ints = NDArray[np.int64]

_WAIT_ISSUED = 1
_COLUMNS = 10
"""Columns of ``CommandStream.entries``."""


@dataclass(frozen=True)
class AttAccAttentionResult:
    """Decode attention of one token of each head, in one stack."""

    cycles: int
    """Cycles of ``tCK`` until the last result is on its way to the softmax buffer."""
    time_ps: int
    commands: Mapping[str, int]
    """Of all channels together, with what the controller added (ACTAB, PREA, REFab)."""


def attention_cycles(
    pim_config: PimDesignConfig, heads: int, head_dim: int, context: int, element_bytes: int
) -> AttAccAttentionResult:
    """Attention of ``heads`` heads over ``context`` tokens each, on one stack.

    Parameters
    ----------
    pim_config
        AttAcc's; its ``element_bytes`` is replaced.
    heads
        Of queries, each with a K and V of its own.
    head_dim
        Elements of a head.
    context
        Tokens.
    element_bytes
        Of K, V, query and probabilities.

    Raises
    ------
    InputError
        For what the stack cannot hold.
    """
    design = pim_config.model_copy(update={"element_bytes": element_bytes})
    result = run_stream(design, attention(design, heads, heads, head_dim, context))
    return AttAccAttentionResult(result.cycles, result.cycles * design.tCK, result.commands)


def attention(
    design: PimDesignConfig, heads: int, kv_heads: int, head_dim: int, context: int
) -> CommandStream:
    """The stream of decode attention; a K and V that query heads share is read for each.

    Parameters
    ----------
    design
        AttAcc's.
    heads
        Of queries.
    kv_heads
        Of keys and values.
    head_dim
        Elements of a head.
    context
        Tokens.

    Raises
    ------
    InputError
        For what the stack cannot hold, or for more commands than are simulated.
    """
    mapping, shape = _mapping(design, heads, kv_heads, head_dim, context)
    plan = Plan(mapping, shape, heads, design.organization.channels)
    channels = plan.by_channel()
    commands = sum(plan.commands(stage).total() for stages in channels for stage in stages)
    if commands > MAX_COMMANDS:
        raise InputError(
            f"{design.name}: {commands:,} commands; at most {MAX_COMMANDS:,} are simulated"
        )
    layout = _Layout(design, mapping, shape, head_dim)
    entries = np.empty((commands, _COLUMNS), dtype=np.int64)
    filled = 0
    for channel, stages in enumerate(channels):
        for stage in stages:
            block = layout.entries(stage)
            entries[filled : filled + len(block)] = block
            entries[filled : filled + len(block), 1] = channel
            filled += len(block)
    entries[:, 9] = np.arange(len(entries))
    return CommandStream(
        entries=entries,
        blocking=np.zeros(len(entries), dtype=np.bool_),
        copies=tuple(channels.values()),
        lanes=1,
    )


def batch_attention(
    design: PimDesignConfig, heads: int, kv_heads: int, head_dim: int, contexts: Sequence[int]
) -> tuple[CommandStream, ...]:
    """Attention of several requests in one stream.

    Heads of equal contexts are dealt to the channels as those of one request are, two at a time in
    a pipeline. Other contexts follow, from the channel on that had its turn next: channels are fed
    independently, so that each goes on with its own next head.

    Parameters
    ----------
    design
        AttAcc's.
    heads
        Of queries, of one request.
    kv_heads
        Of keys and values, of one request.
    head_dim
        Elements of a head.
    contexts
        Tokens of each request.

    Returns
    -------
    tuple[CommandStream, ...]
        One.
    """
    org = design.organization
    groups: list[CommandStream] = []
    order: list[list[int]] = [[] for _ in range(org.channels)]
    dealt = 0
    for context, requests in Counter(contexts).items():
        count = heads * requests
        made = attention(design, count, kv_heads * requests, head_dim, context)
        busy = [number for number, copies in enumerate(made.copies) for _ in range(copies)]
        for channel in range(org.channels):
            at = (channel - dealt) % org.channels
            order[channel].append(busy[at] if at < len(busy) else -1)
        groups.append(made)
        dealt += count
    if len(groups) == 1:
        return (groups[0],)
    return (_merged(design, groups, Counter(map(tuple, order))),)


def _merged(
    design: PimDesignConfig, groups: Sequence[CommandStream], kinds: Mapping[tuple[int, ...], int]
) -> CommandStream:
    """One stream of several that follow one another on each channel.

    ``kinds``: for each unlike channel, which of each stream's channels it is (-1: none), and how
    many channels are like it. Each stream's rows lie behind those of the one before.
    """
    half = design.organization.rows // 2
    first_rows, row = [], 0
    for group in groups:
        first_rows.append(row)
        rows = group.entries[:, 6]
        row += int((rows[rows >= 0] % half).max(initial=-1)) + 1
    if row > half:
        raise InputError(
            f"{design.name}: K of {len(groups)} contexts takes {row:,} rows of each bank; there "
            f"are {half:,} for K, and as many for V"
        )
    blocks = []
    for number, kind in enumerate(kinds):
        for group, channel, first in zip(groups, kind, first_rows, strict=True):
            block = group.entries[group.entries[:, 1] == channel].copy()
            block[:, 6] += np.where(block[:, 6] >= 0, first, 0)
            block[:, 1] = number
            blocks.append(block)
    entries = np.concatenate(blocks)
    if len(entries) > MAX_COMMANDS:
        raise InputError(
            f"{design.name}: {len(entries):,} commands; at most {MAX_COMMANDS:,} are simulated"
        )
    entries[:, 9] = np.arange(len(entries))
    return CommandStream(
        entries, np.zeros(len(entries), dtype=np.bool_), tuple(kinds.values()), lanes=1
    )


def attention_commands(
    design: PimDesignConfig, heads: int, head_dim: int, context: int
) -> dict[str, int]:
    """Commands of the stream by name, of all channels, without scheduling them.

    Parameters
    ----------
    design
        AttAcc's.
    heads
        Of queries, each with a K and V of its own.
    head_dim
        Elements of a head.
    context
        Tokens.

    Returns
    -------
    dict[str, int]
        By name, those on a bus alone.
    """
    mapping, shape = _mapping(design, heads, heads, head_dim, context)
    plan = Plan(mapping, shape, heads, design.organization.channels)
    names = _command_names(mapping)
    total = dict.fromkeys(names.values(), 0)
    for stages, copies in plan.by_channel().items():
        for stage in stages:
            for part, count in plan.commands(stage).items():
                total[names[part]] += count * copies
    return {name: count for name, count in total.items() if design.all_commands[name].bus != "none"}


def _mapping(
    design: PimDesignConfig, heads: int, kv_heads: int, head_dim: int, context: int
) -> tuple[AttentionMapConfig, AttAccAttention]:
    mapping, org = design.attention, design.organization
    if mapping is None:
        raise InputError(f"{design.name}: key attention is missing; design attacc needs it")
    spread = {*mapping.token_levels, *mapping.dim_levels}
    reached = design.all_commands[mapping.commands.mac].broadcast
    if spread != set(reached):
        raise InputError(
            f"{design.name}: attention spreads a head over {', '.join(sorted(spread))}, but "
            f"{mapping.commands.mac} reaches all of {', '.join(sorted(reached))}"
        )
    for what, size in (("heads", heads), ("head_dim", head_dim), ("context", context)):
        if size < 1:
            raise InputError(f"{design.name}: {what} is {size}; at least 1 is needed")
    if kv_heads < 1 or heads % kv_heads:
        raise InputError(f"{design.name}: {heads} heads cannot share {kv_heads} KV heads")
    if org.burst_bytes % design.element_bytes:
        raise InputError(
            f"{design.name}: elements of {design.element_bytes} bytes do not fill a column of "
            f"{org.burst_bytes}"
        )
    shape = shape_of(mapping, org, head_dim, context, design.element_bytes)
    used = shape.macs // prod(
        level_size(org, level) for level in mapping.column_order if level not in ("column", "row")
    )
    turns = -(-heads // org.channels)
    rows = ((turns - 1) * _head_columns(design, mapping, head_dim) + used) // org.columns
    if rows > org.rows // 2:
        raise InputError(
            f"{design.name}: K of {heads} heads of {head_dim} over {context} tokens takes {rows:,} "
            f"rows of each bank; there are {org.rows // 2:,} for K, and as many for V"
        )
    return mapping, shape


def _head_columns(design: PimDesignConfig, mapping: AttentionMapConfig, head_dim: int) -> int:
    """Columns in each bank from the K of one head to that of the next."""
    room = mapping.reserved_context * head_dim * mapping.reserved_element_bytes
    org = design.organization
    return ceil(ceil(room / org.channel_banks) / org.burst_bytes)


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
        design: PimDesignConfig,
        mapping: AttentionMapConfig,
        shape: AttAccAttention,
        head_dim: int,
    ) -> None:
        self.design, self.mapping, self.shape = design, mapping, shape
        self.head_columns = _head_columns(design, mapping, head_dim)
        number = {name: index for index, name in enumerate(design.all_commands)}
        self.command = {part: number[name] for part, name in _command_names(mapping).items()}
        self.macs = self._mac_columns()
        self._blocks: dict[tuple[int, int], Ints] = {}
        self.moves = {
            Part.QUERY: self._places(mapping.query_writes, shape.query_writes),
            Part.PROBABILITY: self._places(mapping.probability_moves, shape.probability_moves),
            Part.SCORE_MOVE: self._places(mapping.score_moves, shape.score_moves),
            Part.VALUE_MOVE: self._places(mapping.value_moves, shape.value_moves),
        }

    def entries(self, stage: Stage) -> Ints:
        """The commands of ``stage`` in order, channel and instruction not yet filled in.

        Stages of the same pieces differ in their rows only, as long as they begin at the same
        column of a row.
        """
        org = self.design.organization
        rows, offset = divmod(stage.turn * self.head_columns, org.columns)
        if (stage.number, offset) not in self._blocks:
            pieces = [block for piece in stage.pieces for block in self._piece(piece, offset)]
            self._blocks[stage.number, offset] = np.concatenate(pieces)
        block = self._blocks[stage.number, offset].copy()
        block[:, 6] += np.where(block[:, 6] >= 0, rows, 0)
        return block

    def _piece(self, piece: Piece, offset: int) -> Iterator[Ints]:
        part = piece.part
        if part in (Part.FIRST_ROW, Part.SCORE_MAC, Part.VALUE_MAC):
            yield self._macs(piece, offset)
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

    def _macs(self, piece: Piece, offset: int) -> Ints:
        """Columns of the piece, of a stage that begins at column ``offset`` of row 0.

        K lies from row 0 of each bank, V from its middle.
        """
        org, shape = self.design.organization, self.shape
        each = shape.token_steps if piece.part is Part.VALUE_MAC else shape.batch * shape.dim_steps
        first, last = piece.start * each, min(piece.stop * each, shape.macs)
        if piece.part is Part.FIRST_ROW:
            first, last = 0, 1
        columns = self.macs[first:last]
        block = self._block(piece.part, columns[:, :4])
        begin = offset + piece.head * self.head_columns
        base = org.rows // 2 if piece.part is Part.VALUE_MAC else 0
        block[:, 6] = base + (columns[:, 4] + begin) // org.columns
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
