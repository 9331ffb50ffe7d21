"""AttAcc's software pipeline: which piece of which head a channel works on in which step.

A step ends with a barrier. In a step the banks multiply, while results of the step before and
operands of the next head move beside them. Two heads share a channel's pipeline: scores of the
first; scores of the second beside the softmax of the first; values of the first beside the
softmax of the second; values of the second (AttAcc section 5; the published trace generator).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from math import prod

from pimsim.config.memory import OrganizationConfig
from pimsim.config.pim_attention import AttentionMapConfig, InnerLevel
from pimsim.config.plugins import load_module

__all__ = [
    "AttAccAttention",
    "Part",
    "Piece",
    "Plan",
    "Stage",
    "StageMaker",
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
    """Items ``start`` to ``stop`` of a part of one head's work."""

    part: Part
    head: int = 0
    """0 or 1: the first or second head of its stage."""
    start: int = 0
    stop: int = 1


@dataclass(frozen=True, slots=True)
class Stage:
    """What a channel does for two heads, or for the last one that has no partner."""

    turn: int
    """Of its first head."""
    number: int
    """Equal for equal pieces, among the stages of one plan."""
    pieces: tuple[Piece, ...] = field(compare=False)


_BARRIER = Piece(Part.BARRIER)


@dataclass(frozen=True)
class AttAccAttention:
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
        if part is Part.SCORE_MAC:  # the last step may be short
            tokens = min(stop * self.batch, self.token_steps) - start * self.batch
            return tokens * self.dim_steps
        each = {
            Part.VALUE_MAC: self.token_steps,
            Part.SCORE_MOVE: self.score_moves,
            Part.VALUE_MOVE: self.value_moves,
        }.get(part, 1)
        return (stop - start) * each


def level_size(organization: OrganizationConfig, level: str) -> int:
    """Nodes of ``level`` below one node of the level above.

    Parameters
    ----------
    organization
        Of the memory.
    level
        ``pseudo_channel``, ``rank``, ``bank_group`` or ``bank``.
    """
    return {
        "pseudo_channel": organization.pseudo_channels,
        "rank": organization.ranks,
        "bank_group": organization.bank_groups,
        "bank": organization.banks_per_group,
    }[level]


def shape_of(
    mapping: AttentionMapConfig,
    organization: OrganizationConfig,
    head_dim: int,
    context: int,
    element_bytes: int,
) -> AttAccAttention:
    """Commands of a head of ``head_dim`` elements over ``context`` tokens.

    Parameters
    ----------
    mapping
        Which levels tokens and elements are spread over, and what moves when.
    organization
        Of the stack's memory.
    head_dim
        Elements of a head's key, and of its value.
    context
        Tokens.
    element_bytes
        Of keys, values, query and probabilities.
    """

    def nodes(levels: list[InnerLevel]) -> int:
        return prod(level_size(organization, level) for level in levels)

    column = organization.burst_bytes // element_bytes
    tokens = nodes(mapping.token_levels)
    dims = nodes(mapping.dim_levels)
    return AttAccAttention(
        token_steps=-(-context // tokens),
        dim_steps=-(-head_dim // (dims * column)),
        batch=mapping.score_batch,
        query_writes=nodes(mapping.query_writes) * -(-head_dim // (dims * column)),
        probability_moves=nodes(mapping.probability_moves) * -(-context // (tokens * column)),
        score_moves=nodes(mapping.score_moves),
        value_moves=nodes(mapping.value_moves),
    )


class Plan:
    """What each channel does. Channels take heads in turn, one each; the last turn may be short."""

    def __init__(
        self, mapping: AttentionMapConfig, shape: AttAccAttention, heads: int, channels: int
    ) -> None:
        self.shape = shape
        self._mapping = mapping
        self._busy = [min(channels, heads - done) for done in range(0, heads, channels)]
        self._made: dict[tuple[bool, int, int | None, int], tuple[int, tuple[Piece, ...]]] = {}
        self._numbers: dict[tuple[Piece, ...], int] = {}
        self._items: dict[int, Counter[Part]] = {}

    def stages(self, channel: int) -> tuple[Stage, ...]:
        """The stages of ``channel`` in order."""
        busy = self._busy
        return tuple(
            Stage(turn, *self._stage(turn == 0, busy[turn], second, channel))
            for turn, second in zip(
                range(0, len(busy), 2), [*busy[1::2], None][: (len(busy) + 1) // 2], strict=True
            )
        )

    def by_channel(self) -> dict[tuple[Stage, ...], int]:
        """Distinct lists of stages, and how many channels follow each."""
        return dict(Counter(self.stages(channel) for channel in range(self._busy[0])))

    def commands(self, stage: Stage) -> Counter[Part]:
        """Commands of ``stage`` by part."""
        if stage.number not in self._items:
            total: Counter[Part] = Counter()
            for piece in stage.pieces:
                total[piece.part] += self.shape.items(piece.part, piece.start, piece.stop)
            self._items[stage.number] = total
        return self._items[stage.number]

    def _stage(
        self, opens: bool, first: int, second: int | None, channel: int
    ) -> tuple[int, tuple[Piece, ...]]:
        key = (opens, first, second, channel)
        if key not in self._made:
            busy = (first,) if second is None else (first, second)
            maker = _stage_maker(tuple(self._mapping.stage_rules))(
                self._mapping, self.shape, busy, channel
            )
            pieces = tuple(maker.single() if second is None else maker.pair(opens))
            number = self._numbers.setdefault(pieces, len(self._numbers))
            self._made[key] = (number, pieces)
        return self._made[key]


@dataclass(frozen=True)
class StageMaker:
    """The pieces of one stage on one channel. A stage rule is a subclass of it, ``Stages``."""

    mapping: AttentionMapConfig
    shape: AttAccAttention
    busy: tuple[int, ...]
    """Channels that work on the stage's first head, and on its second."""
    channel: int

    def pair(self, opens: bool) -> Iterator[Piece]:
        """Two heads, the second half a phase behind the first."""
        first, second = 0, 1
        steps, groups = self.shape.score_steps, self.shape.dim_steps
        yield from self._whole(Part.QUERY, first, self.shape.query_writes)
        if opens and self.mapping.opens_first_row:
            yield from self._whole(Part.FIRST_ROW, first, 1)
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
        yield from self._values(self.closing_head(first, second))

    def single(self) -> Iterator[Piece]:
        """A head without a partner: nothing runs beside its softmax."""
        head = 0
        steps = self.shape.score_steps
        softmax = [
            *self._whole(Part.SOFTMAX, head, 1),
            *self._whole(Part.PROBABILITY, head, self.shape.probability_moves),
            _BARRIER,
        ]
        yield from self._whole(Part.QUERY, head, self.shape.query_writes)
        yield _BARRIER
        for step in range(steps + 1):
            yield from self._mac_and_move(Part.SCORE_MAC, Part.SCORE_MOVE, head, step, steps)
            if step < steps:
                yield _BARRIER
            if self.softmax_follows(step, steps):
                yield from softmax
        yield from self._values(head)

    def closing_head(self, first: int, second: int) -> int:
        """Of a pair, the head whose values come last."""
        del first
        return second

    def softmax_follows(self, step: int, steps: int) -> bool:
        """Whether the softmax of a head without a partner comes behind ``step`` of its scores."""
        return step == steps

    def share(self, total: int, steps: int) -> int:
        """Items of each of ``steps`` that move ``total`` of them; the last may have fewer."""
        return -(-total // steps)

    def _values(self, head: int) -> Iterator[Piece]:
        groups = self.shape.dim_steps
        for step in range(groups + 1):
            yield from self._mac_and_move(Part.VALUE_MAC, Part.VALUE_MOVE, head, step, groups)
            if step < groups:
                yield _BARRIER

    def _softmax(self, head: int, step: int, steps: int) -> Iterator[Piece]:
        """Beside another head's MACs: softmax first, its results in the second half."""
        if step == 0:
            yield from self._whole(Part.SOFTMAX, head, 1)
        if step < steps:
            begin = steps // 2
            if step >= begin:
                yield from self._share(Part.PROBABILITY, head, step - begin, steps - begin)
            yield _BARRIER

    def _mac_and_move(
        self, mac: Part, move: Part, head: int, step: int, steps: int
    ) -> Iterator[Piece]:
        """MACs of ``step``, and the results of the step before."""
        if step < steps:
            yield from self._whole(mac, head, step + 1, step)
        if step > 0:
            yield from self._whole(move, head, step, step - 1)

    def _whole(self, part: Part, head: int, stop: int, start: int = 0) -> Iterator[Piece]:
        if self.channel < self.busy[head]:
            yield Piece(part, head, start, stop)

    def _share(self, part: Part, head: int, step: int, steps: int) -> Iterator[Piece]:
        """This channel's items of one step's share, where items go to the channels in turn."""
        items = self.shape.query_writes if part is Part.QUERY else self.shape.probability_moves
        busy = self.busy[head]
        total = items * busy
        share = self.share(total, steps)
        bounds = (min(step * share, total), min((step + 1) * share, total))
        start, stop = (-(-(bound - self.channel) // busy) for bound in bounds)
        if self.channel < busy and start < stop:
            yield Piece(part, head, start, stop)


@cache
def _stage_maker(rules: tuple[str, ...]) -> type[StageMaker]:
    """A maker of stages that follows all of ``rules``."""
    bases = tuple(load_module("stage_rule", rule).Stages for rule in rules)
    return type("Stages", bases, {}) if bases else StageMaker
