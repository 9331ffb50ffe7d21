"""How attention of one request becomes PIM commands (NeuPIMs section 5, its Algorithm 1).

Keys: the tokens of a tile lie one in each bank; a row holds a slice of the key vector, several
heads wide (a piece). Scores of a piece: the query's slice goes to the global buffer (GWRITE), then
for each tile of tokens a header and, for each head, dot products over the head's elements and a
read of one result from every bank. A head that is wider than a row (MLA's latent and rope key
together) takes several.

A token's keys that do not fill a row (one key head a device, in grouped attention over many) share
it with those of other tiles, and so does what is left of a head that is wider than a row. The
buffer then holds the query's slice once for each of these, and a header announces as many results.

Values: a row holds one element of the value vector for many tokens (a chunk of the context), the
elements lie one in each bank. For each head and chunk the weights go to the global buffer, then
each tile of elements is one header, dot products over the tokens and one result read.

Rows are those of ``kv_layout.py``: keys tile by tile, values chunk by chunk, so that they stay
where they are while the context grows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import (
    P_LOOP,
    P_MARK,
    P_OP,
    P_RING,
    P_RING_ROWS,
    P_ROUNDS,
    P_ROW,
    P_ROW_STEP,
)
from pimsim.hardware.dram.pim_program import loop, loop_starts
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.pim.columns import check_column
from pimsim.hardware.pim.gemv import emit, emit_dot
from pimsim.hardware.pim.kv_layout import KvRows, KvSection, KvSections, RowRuns
from pimsim.hardware.remembered import remembered

__all__ = [
    "AttentionShape", "KeyPiece", "Placement", "place", "score_placement", "score_program",
    "value_chunks", "value_placement", "value_program",
]  # fmt: skip

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AttentionShape:
    """Attention of one request on one channel, on this device."""

    heads: int
    kv_heads: int
    head_dim: int
    """Elements of a key."""
    banks: int
    """Banks that multiply at once: all of the channel."""
    row_elements: int
    elements_per_comp: int
    value_dim: int
    """Elements of a value."""
    keys_share_rows: bool = True
    """Keys of several tiles of tokens share a row that one tile's do not fill."""

    @classmethod
    def of(
        cls, heads: int, kv_heads: int, head_dim: int, memory: MemoryConfig, pim: PimConfig,
        element_bytes: int, value_dim: int | None = None,
    ) -> AttentionShape:  # fmt: skip
        """The shape on ``memory``; values as wide as keys unless ``value_dim`` says otherwise.

        Raises ``InputError`` where query heads cannot be shared evenly by the key heads, or a row
        holds no column of elements.
        """
        org = memory.organization
        row = org.row_bytes // element_bytes
        if heads < 1 or kv_heads < 1 or heads % kv_heads:
            raise InputError(
                f"pim {pim.name}: {heads} query heads cannot be shared by {kv_heads} key heads; "
                f"heads must be a multiple of kv_heads"
            )
        check_column(pim, memory, element_bytes)
        return cls(
            heads, kv_heads, head_dim, org.ranks * org.banks, row, pim.elements_per_comp,
            head_dim if value_dim is None else value_dim, pim.keys_share_rows,
        )  # fmt: skip

    @cached_property
    def comps_per_key(self) -> int:
        """Dot products that a key (or its part in one row) takes; each begins at a column."""
        return -(-min(self.head_dim, self.row_elements) // self.elements_per_comp)

    @property
    def is_wide(self) -> bool:
        """A key is longer than a row."""
        return self.head_dim > self.row_elements

    @cached_property
    def heads_per_row(self) -> int:
        """Key heads that share a row."""
        return max(self.row_elements // (self.comps_per_key * self.elements_per_comp), 1)

    @cached_property
    def head_chunks(self) -> int:
        """Pieces in which one head's key, and the query that meets it, comes."""
        return -(-self.head_dim // self.row_elements)

    @cached_property
    def key_pieces(self) -> tuple[KeyPiece, ...]:
        """Rows that hold the keys of one tile of tokens, head after head."""
        if self.is_wide:
            return tuple(
                self._wide_piece(head, chunk)
                for head in range(self.kv_heads)
                for chunk in range(self.head_chunks)
            )
        heads, each = range(self.kv_heads), self.heads_per_row
        tiles = self._tiles(max(each // self.kv_heads, 1))
        return tuple(
            KeyPiece(heads[first : first + each], self.head_dim, self.comps_per_key, row, tiles)
            for row, first in enumerate(range(0, self.kv_heads, each))
        )

    def _tiles(self, room: int) -> int:
        """Tiles of tokens that share a row with ``room`` for so many."""
        return room if self.keys_share_rows else 1

    def _wide_piece(self, head: int, chunk: int) -> KeyPiece:
        """Piece ``chunk`` of the key of a head that takes several rows."""
        heads = range(head, head + 1)
        elements = min(self.head_dim - chunk * self.row_elements, self.row_elements)
        comps = -(-elements // self.elements_per_comp)
        left = -(-(self.head_dim % self.row_elements) // self.elements_per_comp)
        room = self.row_elements // (left * self.elements_per_comp) if left else 1
        tiles = self._tiles(room)
        if tiles > 1 and chunk == self.head_chunks - 1:
            return KeyPiece(heads, elements, comps, head, tiles)
        own = self.head_chunks - int(tiles > 1)
        return KeyPiece(heads, elements, comps, head * own + chunk)

    @cached_property
    def kv_sections(self) -> KvSections:
        """Pages in which the cache grows."""
        own = [piece for piece in self.key_pieces if not piece.is_shared]
        shared = [piece for piece in self.key_pieces if piece.is_shared]
        row = self.banks * self.row_elements
        keys = [
            sum(len(piece.heads) * piece.elements for piece in pieces) / row
            for pieces in (own, shared)
        ]
        values = self.kv_heads * self.value_dim / row
        tiles = shared[0].tiles if shared else 1
        return KvSections(
            KvSection(self.banks, len(own), keys[0]),
            KvSection(self.banks * tiles, len(shared), keys[1]),
            KvSection(self.row_elements, self.kv_heads * self.value_tiles, values),
        )

    @cached_property
    def value_tiles(self) -> int:
        """Tiles of a value's elements, one element in each bank."""
        return -(-self.value_dim // self.banks)

    def key_rows(self, context: int) -> int:
        """Rows of each bank that the keys of ``context`` tokens take."""
        return self.kv_sections.keys.rows(context) + self.kv_sections.shared_keys.rows(context)

    def value_rows(self, context: int) -> int:
        """Rows of each bank that the values take."""
        return self.kv_sections.values.rows(context)


@dataclass(frozen=True)
class KeyPiece:
    """A row with keys of a tile of tokens, or a part of it: what the operand of a GWRITE meets."""

    heads: range
    """Key heads that lie side by side in it."""
    elements: int
    """Of each head's key."""
    comps: int
    """Dot products over these; each begins at a column."""
    row: int
    """Which row of its section's page it is."""
    tiles: int = 1
    """Tiles of tokens that share the row."""

    @property
    def is_shared(self) -> bool:
        """Keys of several tokens of a bank lie in the row."""
        return self.tiles > 1


@dataclass(frozen=True)
class Placement:
    """A program of one request before it lies anywhere, and where it is to lie."""

    template: Ints
    """Instructions whose marks, rows and GWRITEs count from 0."""
    rows: RowRuns
    """Where the template's rows lie, those of a section behind those of the one before."""
    first_source: int
    """Row that the first GWRITE reads, before rows in turn; the others read those behind it."""
    first_mark: int


def score_placement(
    shape: AttentionShape, context: int, rows: KvRows, query_row: int, first_mark: int,
    composite: bool, first: int = 0, known: dict[int, Ints] | None = None,
) -> Placement:  # fmt: skip
    """Scores of one request. Mark ``first_mark + h``: head h.

    Of tokens from ``first`` on to ``context``, those in the page where they begin too.

    Parameters
    ----------
    shape
        Of the attention on a channel.
    context
        Tokens.
    rows
        Where the cache lies.
    query_row
        First row of the query's slices, in the bank that GWRITE reads.
    first_mark
        Ticket of head 0.
    composite
        Whether one command does the dot products and the read of their result.
    first
        Token from which on they are visible.
    known
        Programs of this shape by tiles of keys; what is found is put there.

    References
    ----------
    NeuPIMs, ASPLOS 2024, section 5 and Algorithm 1.
    """
    sections = shape.kv_sections
    page = max(sections.keys.page_tokens, sections.shared_keys.page_tokens)
    begin = first // page * page
    tiles, known = -(-(context - begin) // shape.banks), {} if known is None else known
    template = known.get(tiles)
    if template is None:
        template = known[tiles] = _score_template(shape, tiles, composite)
    own, shared = (
        at.between(section.rows(begin), section.rows(context)) if at.runs else at
        for at, section in ((rows.keys, sections.keys), (rows.shared_keys, sections.shared_keys))
    )
    if own.runs and shared.runs:
        own = RowRuns.of((*own.runs, *shared.runs))
    return Placement(template, own if own.runs else shared, query_row, first_mark)


def score_program(
    shape: AttentionShape, context: int, rows: KvRows, query_row: int, first_mark: int,
    composite: bool, wrap: tuple[int, int], first: int = 0,
) -> Ints:  # fmt: skip
    """``score_placement`` as a program.

    Parameters
    ----------
    shape
        Of the attention on a channel.
    context
        Tokens.
    rows
        Where the cache lies.
    query_row
        First row of the query's slices, in the bank that GWRITE reads.
    first_mark
        Ticket of head 0.
    composite
        Whether one command does the dot products and the read of their result.
    wrap
        First of the rows that GWRITEs read in turn, and how many there are.
    first
        Token from which on they are visible.

    Returns
    -------
    Ints
        (instructions, ``N_INSTRUCTION``).
    """
    return place(
        [score_placement(shape, context, rows, query_row, first_mark, composite, first)], wrap
    )[0]


def place(parts: Sequence[Placement], wrap: tuple[int, int]) -> list[Ints]:
    """The programs of ``parts``, one behind the other in one array.

    Parameters
    ----------
    parts
        What is placed.
    wrap
        First of the rows that GWRITEs read in turn, and how many there are.

    Returns
    -------
    list[Ints]
        Of each part, (instructions, ``N_INSTRUCTION``).
    """
    each = [p.template if len(p.rows.runs) < 2 else _cut(p.template, p.rows) for p in parts]
    if not each:
        return []
    found, sizes = np.concatenate(each), np.array([len(own) for own in each])
    ends = np.cumsum(sizes).tolist()
    whole = [slice(begin, end) for begin, end in zip((0, *ends), ends, strict=False)]

    def by_part(values: Iterable[int]) -> Ints:
        return np.repeat(np.fromiter(values, np.int64, len(parts)), sizes)

    is_source, row = found[:, P_OP] == int(Command.GWRITE), found[:, P_ROW]
    first, count = wrap
    source = first + (by_part(p.first_source for p in parts) + row - first) % count
    lies = row + by_part(p.rows.runs[0][0] if p.rows.runs else 0 for p in parts)
    for part, at in zip(parts, whole, strict=True):
        if len(part.rows.runs) > 1:
            lies[at] = part.rows.at(row[at])
    marks = found[:, P_MARK]
    found[:, P_MARK] += by_part(p.first_mark for p in parts) * (marks >= 0)
    found[:, P_ROW] = np.where(is_source, source, lies)
    found[is_source & (found[:, P_ROUNDS] > 1), P_RING : P_RING_ROWS + 1] = wrap
    return [found[at] for at in whole]


_TEMPLATES_BYTES = 4 << 20
"""Of score and of value programs that are remembered."""


def _cut(program: Ints, rows: RowRuns) -> Ints:
    """The program with its loops cut where a row lies in another run of ``rows`` than the one of
    the round before."""
    starts = np.flatnonzero(loop_starts(program))
    begins = np.cumsum([count for _, count in rows.runs])[:-1]
    found = []
    for body in np.split(program, starts[1:]):
        rounds = int(body[0, P_ROUNDS])
        if rounds == 1:
            found.append(body)
            continue
        computing = body[body[:, P_OP] != int(Command.GWRITE)]
        row, step = np.unique(computing[:, [P_ROW, P_ROW_STEP]], axis=0).T
        # the first round in which each of the rows lies in the run that begins there, or behind it
        ends = np.unique(-(-(begins[:, None] - row) // step))
        ends = np.concatenate(([0], ends[(ends > 0) & (ends < rounds)], [rounds]))
        one = body.copy()
        one[:, P_ROUNDS], one[:, [P_LOOP, P_ROW_STEP]] = 1, 0
        for first, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            one[:, P_ROW] = body[:, P_ROW] + first * body[:, P_ROW_STEP]
            found.append(loop(one.copy(), end - first, body[:, P_ROW_STEP]))
    return np.concatenate(found)


@remembered(_TEMPLATES_BYTES, lambda template: template.nbytes)
def _score_template(shape: AttentionShape, tiles: int, composite: bool) -> Ints:
    """Scores over so many tiles of keys; a request's context says no more."""
    group, heads = shape.heads // shape.kv_heads, range(shape.kv_heads)
    pieces: list[Ints] = []
    # every query head of a group has its own query: the buffer is filled once for each
    if shape.is_wide:
        for head in heads:
            own = [piece for piece in shape.key_pieces if head in piece.heads]
            for member in range(group):
                pieces += [_piece_scores(shape, p, member, tiles, composite) for p in own]
    else:
        for piece in shape.key_pieces:
            for member in range(group):
                pieces.append(_piece_scores(shape, piece, member, tiles, composite))
    for number, scores in enumerate(pieces):
        scores[0, P_ROW] = number  # its GWRITE
    return np.concatenate(pieces)


def _piece_scores(
    shape: AttentionShape, piece: KeyPiece, member: int, tiles: int, composite: bool
) -> Ints:
    """A GWRITE, then all ``tiles`` of a piece of keys, as many in a row as share one."""
    sections, group = shape.kv_sections, shape.heads // shape.kv_heads
    page, first = sections.keys.page_rows, piece.row
    if piece.is_shared:
        first += sections.keys.page_rows * tiles
        page = sections.shared_keys.page_rows
    full, rest = divmod(tiles, piece.tiles)
    blocks = [np.array([emit(Command.GWRITE, 0)])]
    for row, count, shared in ((0, full, piece.tiles), (full, int(rest > 0), rest)):
        reads = shared * len(piece.heads)
        one = [emit(Command.HEADER, 0, piece.comps * reads, reads)]
        for place in range(shared):
            for head in piece.heads:
                last = int(place == shared - 1 and head == piece.heads[-1])
                one += emit_dot(composite, 0, piece.comps, head * group + member, last)
        block = np.array(one, dtype=np.int64)
        block[:, P_ROW] = first + page * row
        blocks.append(loop(block, count, page))
    return np.concatenate(blocks)


def value_placement(
    shape: AttentionShape, context: int, rows: KvRows, weights_row: int, first_mark: int,
    composite: bool, first: int = 0, known: dict[tuple[int, int], Ints] | None = None,
) -> Placement:  # fmt: skip
    """Weighted values of one request. Mark ``first_mark + h``: all results of head h.

    Of tokens from ``first`` on to ``context``, those in the row where they begin too.

    Parameters
    ----------
    shape
        Of the attention on a channel.
    context
        Tokens.
    rows
        Where the cache lies.
    weights_row
        First row of the weights (softmax of the scores), in the bank that GWRITE reads.
    first_mark
        Ticket of head 0.
    composite
        Whether one command does the dot products and the read of their result.
    first
        Token from which on they are visible.
    known
        Programs of this shape by chunks and dot products of the last; what is found is put there.

    References
    ----------
    NeuPIMs, ASPLOS 2024, section 5 and Algorithm 1.
    """
    chunks = value_chunks(shape, range(first, context))
    rest = context - (-(-context // shape.row_elements) - 1) * shape.row_elements
    asked, known = (chunks, -(-rest // shape.elements_per_comp)), {} if known is None else known
    template = known.get(asked)
    if template is None:
        template = known[asked] = _value_template(shape, *asked, composite)
    begin = shape.value_rows(first // shape.row_elements * shape.row_elements)
    places = rows.values.between(begin, shape.value_rows(context))
    return Placement(template, places, weights_row, first_mark)


def value_program(
    shape: AttentionShape, context: int, rows: KvRows, weights_row: int, first_mark: int,
    composite: bool, wrap: tuple[int, int], first: int = 0,
) -> Ints:  # fmt: skip
    """``value_placement`` as a program.

    Parameters
    ----------
    shape
        Of the attention on a channel.
    context
        Tokens.
    rows
        Where the cache lies.
    weights_row
        First row of the weights (softmax of the scores), in the bank that GWRITE reads.
    first_mark
        Ticket of head 0.
    composite
        Whether one command does the dot products and the read of their result.
    wrap
        First of the rows that GWRITEs read in turn, and how many there are.
    first
        Token from which on they are visible.

    Returns
    -------
    Ints
        (instructions, ``N_INSTRUCTION``).
    """
    return place(
        [value_placement(shape, context, rows, weights_row, first_mark, composite, first)], wrap
    )[0]


def value_chunks(shape: AttentionShape, tokens: range) -> int:
    """Rows of each element of a value that have some of these ``tokens``.

    Parameters
    ----------
    shape
        Of the attention on a channel.
    tokens
        From a first one to before an end.
    """
    return -(-tokens.stop // shape.row_elements) - tokens.start // shape.row_elements


@remembered(_TEMPLATES_BYTES, lambda template: template.nbytes)
def _value_template(shape: AttentionShape, chunks: int, last_comps: int, composite: bool) -> Ints:
    """Values of so many rows' worth of tokens, the last of which takes ``last_comps``."""
    tiles, page = shape.value_tiles, shape.kv_sections.values.page_rows
    group = shape.heads // shape.kv_heads
    full = -(-shape.row_elements // shape.elements_per_comp)
    alike = chunks if last_comps == full else chunks - 1
    # one head's instructions, then as many copies as there are heads, each with its own rows
    blocks: list[Ints] = []
    for chunk, rounds, comps in ((0, alike, full), (chunks - 1, chunks - alike, last_comps)):
        # a header announces its dot products as a power of two (MECHANISMS 4.1)
        announced = 1 << (comps - 1).bit_length()
        one = [emit(Command.GWRITE, chunk)]
        for tile in range(tiles):
            row = chunk * page + tile
            one.append(emit(Command.HEADER, row, announced, 1))
            one += emit_dot(composite, row, comps, 0, 1)
        body = np.array(one, dtype=np.int64)
        blocks.append(loop(body, rounds, np.where(body[:, P_OP] == int(Command.GWRITE), 1, page)))
    block = np.concatenate(blocks)
    program = np.tile(block, (shape.heads, 1))
    head = np.repeat(np.arange(shape.heads), len(block))
    is_source = program[:, P_OP] == int(Command.GWRITE)
    program[:, P_ROW] += np.where(is_source, head * chunks, head // group * tiles)
    program[:, P_MARK] = np.where(program[:, P_MARK] >= 0, head, -1)
    return program
