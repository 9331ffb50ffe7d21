"""AttAcc's software pipeline: which piece of which head a channel works on in which step.

A step ends with a barrier. In a step the banks multiply, while results of the step before and
operands of the next head move beside them. Two heads share a channel's pipeline: scores of the
first; scores of the second beside the softmax of the first; values of the first beside the
softmax of the second; values of the second (AttAcc section 5; the published trace generator).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import prod

from pimsim.config.pim_attention import AttentionMapConfig, InnerLevel
from pimsim.config.pim_stream import StreamOrganizationConfig

__all__ = [
    "AttentionShape",
    "Part",
    "Piece",
    "channel_plan",
    "heads_by_turn",
    "level_size",
    "shape_of",
]


class Part(IntEnum):
    """What a piece of work is."""

    QUERY = 0
    SCORE_MAC = 1
    SCORE_MOVE = 2
    SOFTMAX = 3
    PROBABILITY = 4
    VALUE_MAC = 5
    VALUE_MOVE = 6
    BARRIER = 7
    FIRST_ROW = 8
    """The first MAC of the scores, ahead of its step, for the sake of its activate."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Items ``start`` to ``stop`` of a part of one head's work, the head of turn ``turn``."""

    part: Part
    turn: int = 0
    start: int = 0
    stop: int = 0


_BARRIER = Piece(Part.BARRIER)


@dataclass(frozen=True)
class AttentionShape:
    """One head on one channel, in commands."""

    token_steps: int
    """Tokens that one unit holds: context over the units of ``token_levels``."""
    dim_steps: int
    """MAC commands of one token's score: head dimension over units and elements of a column."""
    batch: int
    """Tokens of a unit in one step of the scores."""
    query_writes: int
    probability_moves: int
    score_moves: int
    """Moves that send the scores of one step."""
    value_moves: int
    """Moves that send one group of dimensions of the output."""

    @property
    def score_steps(self) -> int:
        """Steps of the scores, each ``batch`` tokens of a unit, the last maybe fewer."""
        return -(-self.token_steps // self.batch)

    @property
    def macs(self) -> int:
        """MAC commands of the scores, and again of the values."""
        return self.token_steps * self.dim_steps

    def items(self, part: Part, start: int, stop: int) -> int:
        """Commands of items ``start`` to ``stop`` of ``part``."""
        if part is Part.SCORE_MAC:
            tokens = min(stop * self.batch, self.token_steps) - start * self.batch
            return tokens * self.dim_steps
        each = {
            Part.VALUE_MAC: self.token_steps,
            Part.SCORE_MOVE: self.score_moves,
            Part.VALUE_MOVE: self.value_moves,
        }.get(part, 1)
        return (stop - start) * each


def level_size(organization: StreamOrganizationConfig, level: InnerLevel) -> int:
    """Nodes of ``level`` below one node of the level above."""
    return {
        "pseudo_channel": organization.pseudo_channels,
        "rank": organization.ranks,
        "bank_group": organization.bank_groups,
        "bank": organization.banks_per_group,
    }[level]


def shape_of(
    mapping: AttentionMapConfig,
    organization: StreamOrganizationConfig,
    head_dim: int,
    context: int,
    element_bytes: int,
) -> AttentionShape:
    """Commands of a head of ``head_dim`` elements over ``context`` tokens."""

    def nodes(levels: list[InnerLevel]) -> int:
        return prod(level_size(organization, level) for level in levels)

    column = organization.column_bytes // element_bytes
    tokens = nodes(mapping.token_levels)
    dims = nodes(mapping.dim_levels)
    return AttentionShape(
        token_steps=-(-context // tokens),
        dim_steps=-(-head_dim // (dims * column)),
        batch=mapping.score_batch,
        query_writes=nodes(mapping.query_writes) * -(-head_dim // (dims * column)),
        probability_moves=nodes(mapping.probability_moves) * -(-context // (tokens * column)),
        score_moves=nodes(mapping.score_moves),
        value_moves=nodes(mapping.value_moves),
    )


def heads_by_turn(heads: int, channels: int) -> list[int]:
    """Channels that work in each turn: one head a channel, what is left in the last turn."""
    return [min(channels, heads - done) for done in range(0, heads, channels)]


def channel_plan(
    mapping: AttentionMapConfig, shape: AttentionShape, busy: list[int], channel: int
) -> tuple[Piece, ...]:
    """The pieces of ``channel`` in order; ``busy[turn]`` channels have a head in that turn."""
    return tuple(_pieces(mapping, shape, busy, channel))


def _pieces(
    mapping: AttentionMapConfig, shape: AttentionShape, busy: list[int], channel: int
) -> Iterator[Piece]:
    plan = _Channel(mapping, shape, busy, channel)
    for turn in range(0, len(busy) - 1, 2):
        yield from plan.pair(turn)
    if len(busy) % 2:
        yield from plan.single(len(busy) - 1)


@dataclass(frozen=True)
class _Channel:
    mapping: AttentionMapConfig
    shape: AttentionShape
    busy: list[int]
    channel: int

    def pair(self, first: int) -> Iterator[Piece]:
        """Two heads, the second half a phase behind the first."""
        second = first + 1
        steps, groups = self.shape.score_steps, self.shape.dim_steps
        yield from self._whole(Part.QUERY, first, self.shape.query_writes)
        if first == 0 and self.mapping.opens_first_row and self.channel < self.busy[0]:
            yield Piece(Part.FIRST_ROW, first, 0, 1)
        yield _BARRIER
        for step in range(steps + 1):
            yield from self._mac_and_move(Part.SCORE_MAC, Part.SCORE_MOVE, first, step, steps)
            if step < steps:
                yield from self._share(Part.QUERY, second, step, steps)
                yield _BARRIER
        for step in range(steps + 1):
            yield from self._mac_and_move(Part.SCORE_MAC, Part.SCORE_MOVE, second, step, steps)
            yield from self._softmax(first, step, steps)
        for step in range(groups + 1):
            yield from self._mac_and_move(Part.VALUE_MAC, Part.VALUE_MOVE, first, step, groups)
            yield from self._softmax(second, step, groups)
        last = first if self.mapping.artifact_replays_first_head else second
        yield from self._values(last)

    def single(self, turn: int) -> Iterator[Piece]:
        """A head without a partner: nothing runs beside its softmax."""
        steps = self.shape.score_steps
        repeats = self.mapping.artifact_repeats_softmax
        softmax = [
            *self._whole(Part.SOFTMAX, turn, 1),
            *self._whole(Part.PROBABILITY, turn, self.shape.probability_moves),
            _BARRIER,
        ]
        yield from self._whole(Part.QUERY, turn, self.shape.query_writes)
        yield _BARRIER
        for step in range(steps + 1):
            yield from self._mac_and_move(Part.SCORE_MAC, Part.SCORE_MOVE, turn, step, steps)
            if step < steps:
                yield _BARRIER
            if repeats:
                yield from softmax
        if not repeats:
            yield from softmax
        yield from self._values(turn)

    def _values(self, turn: int) -> Iterator[Piece]:
        groups = self.shape.dim_steps
        for step in range(groups + 1):
            yield from self._mac_and_move(Part.VALUE_MAC, Part.VALUE_MOVE, turn, step, groups)
            if step < groups:
                yield _BARRIER

    def _softmax(self, turn: int, step: int, steps: int) -> Iterator[Piece]:
        """Beside another head's MACs: softmax first, its results in the second half."""
        if step == 0:
            yield from self._whole(Part.SOFTMAX, turn, 1)
        if step < steps:
            begin = steps // 2
            if step >= begin:
                yield from self._share(Part.PROBABILITY, turn, step - begin, steps - begin)
            yield _BARRIER

    def _mac_and_move(
        self, mac: Part, move: Part, turn: int, step: int, steps: int
    ) -> Iterator[Piece]:
        """MACs of ``step``, and the results of the step before."""
        if step < steps:
            yield from self._whole(mac, turn, step + 1, step)
        if step > 0:
            yield from self._whole(move, turn, step, step - 1)

    def _whole(self, part: Part, turn: int, stop: int, start: int = 0) -> Iterator[Piece]:
        if self.channel < self.busy[turn]:
            yield Piece(part, turn, start, stop)

    def _share(self, part: Part, turn: int, step: int, steps: int) -> Iterator[Piece]:
        """This channel's items of one step's share, where items go to the channels in turn."""
        items = self.shape.query_writes if part is Part.QUERY else self.shape.probability_moves
        busy = self.busy[turn]
        total = items * busy
        share = total // steps if self.mapping.artifact_drops_remainder else -(-total // steps)
        bounds = (min(step * share, total), min((step + 1) * share, total))
        start, stop = (-(-(bound - self.channel) // busy) for bound in bounds)
        if self.channel < busy and start < stop:
            yield Piece(part, turn, start, stop)
