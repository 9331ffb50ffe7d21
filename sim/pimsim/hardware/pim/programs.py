"""How attention of one request becomes PIM commands (NeuPIMs section 5, its Algorithm 1).

Keys: the tokens of a tile lie one in each bank; a row holds a slice of the key vector, several
heads wide (a chunk). Scores of a chunk: the query's slice goes to the global buffer (GWRITE), then
for each tile of tokens a header and, for each head, dot products over the head's elements and a
read of one result from every bank.

A head that is wider than a row (MLA's latent and rope key together) is a matrix of its own, see
``gemv.py``: its scores are the product of the query with a row for each token.

Values: a row holds one element of the value vector for many tokens (a chunk of the context), the
elements lie one in each bank. For each head and chunk the weights go to the global buffer, then
each tile of elements is one header, dot products over the tokens and one result read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import P_MARK, P_OP, P_ROW
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.pim.columns import check_column
from pimsim.hardware.pim.gemv import GemvShape, emit, emit_dot, gemv_program
from pimsim.hardware.remembered import remembered

__all__ = ["AttentionShape", "score_program", "value_program"]

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
            head_dim if value_dim is None else value_dim,
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
    def key_chunks(self) -> int:
        """Rows that hold the keys of one tile of tokens; of a wide head, pieces of its query."""
        if self.is_wide:
            return self.kv_heads * -(-self.head_dim // self.row_elements)
        return -(-self.kv_heads // self.heads_per_row)

    def wide_keys(self, context: int) -> GemvShape:
        """The keys of one wide head as a matrix: a row for each token."""
        return GemvShape(
            context, self.head_dim, self.banks, self.row_elements, self.elements_per_comp
        )

    def key_rows(self, context: int) -> int:
        """Rows of each bank that the keys of ``context`` tokens take."""
        if self.is_wide:
            return self.kv_heads * self.wide_keys(context).rows
        return -(-context // self.banks) * self.key_chunks

    def value_rows(self, context: int) -> int:
        """Rows of each bank that the values take."""
        tiles = -(-self.value_dim // self.banks)
        return self.kv_heads * -(-context // self.row_elements) * tiles


def _turn(row: int, wrap: tuple[int, int]) -> int:
    """``row``, kept within the rows that GWRITE's sources take in turn."""
    first, count = wrap
    return first + (row - first) % count


def score_program(
    shape: AttentionShape, context: int, first_row: int, query_row: int, first_mark: int,
    composite: bool, wrap: tuple[int, int],
) -> Ints:  # fmt: skip
    """Scores of one request, (instructions, N_INSTRUCTION). Mark ``first_mark + h``: head h.

    Keys lie in rows from ``first_row``; the query's slices in rows from ``query_row`` of the
    bank that GWRITE reads, within ``wrap`` (first of those rows, how many).
    """
    if shape.is_wide:
        return _wide_scores(shape, context, first_row, query_row, first_mark, composite, wrap)
    template = _score_template(shape, -(-context // shape.banks), composite)
    group = shape.heads // shape.kv_heads
    sources = query_row + np.arange(shape.key_chunks * group)
    return template.placed(first_row, sources, first_mark, wrap)


_TEMPLATES_BYTES = 24 << 20
"""Of score and of value programs that are remembered: those of a batch of 256."""


@dataclass(frozen=True)
class _Template:
    """A program whose rows and marks count from 0; what GWRITE reads is not said yet."""

    program: Ints
    sources: Ints
    """Its GWRITEs, in order."""
    computing: Ints
    """1 for each instruction that is none, 0 for others."""
    marked: Ints
    """1 for each instruction with a mark, 0 for others."""

    @property
    def nbytes(self) -> int:
        """Of its arrays."""
        arrays = (self.program, self.sources, self.computing, self.marked)
        return sum(array.nbytes for array in arrays)

    @classmethod
    def of(cls, program: Ints) -> _Template:
        is_source = program[:, P_OP] == int(Command.GWRITE)
        return cls(
            program, np.flatnonzero(is_source), (~is_source).astype(np.int64),
            (program[:, P_MARK] >= 0).astype(np.int64),
        )  # fmt: skip

    def placed(
        self, first_row: int, source_rows: Ints, first_mark: int, wrap: tuple[int, int]
    ) -> Ints:
        """The program of one request; ``source_rows``: of each GWRITE, before ``wrap``."""
        found = self.program.copy()
        found[:, P_ROW] += first_row * self.computing
        found[:, P_MARK] += first_mark * self.marked
        first, count = wrap
        found[self.sources, P_ROW] = first + (source_rows - first) % count
        return found


@remembered(_TEMPLATES_BYTES, lambda template: template.nbytes)
def _score_template(shape: AttentionShape, tiles: int, composite: bool) -> _Template:
    """Scores over so many tiles of keys; a request's context says no more."""
    comps = shape.comps_per_key
    group = shape.heads // shape.kv_heads
    pieces: list[Ints] = []
    for chunk in range(shape.key_chunks):
        kv_heads = range(
            chunk * shape.heads_per_row, min((chunk + 1) * shape.heads_per_row, shape.kv_heads)
        )
        for member in range(group):
            # every query head of a group has its own query: the buffer is filled once for each
            pieces.append(np.array([emit(Command.GWRITE, 0)]))
            tile = [emit(Command.HEADER, 0, comps * len(kv_heads), len(kv_heads))]
            for kv_head in kv_heads:
                last = int(kv_head == kv_heads[-1])
                tile += emit_dot(composite, 0, comps, kv_head * group + member, last)
            block = np.array(tile, dtype=np.int64)
            repeated = np.tile(block, (tiles, 1))
            rows = np.arange(tiles) * shape.key_chunks + chunk
            repeated[:, P_ROW] = np.repeat(rows, len(block))
            pieces.append(repeated)
    return _Template.of(np.concatenate(pieces))


def _wide_scores(
    shape: AttentionShape, context: int, first_row: int, query_row: int, first_mark: int,
    composite: bool, wrap: tuple[int, int],
) -> Ints:  # fmt: skip
    """Scores where a key takes several rows: each query is multiplied with its head's matrix."""
    keys = shape.wide_keys(context)
    group = shape.heads // shape.kv_heads
    pieces: list[Ints] = []
    for head in range(shape.heads):
        sources = [
            _turn(query_row + head * keys.chunks + chunk, wrap) for chunk in range(keys.chunks)
        ]
        row = first_row + head // group * keys.rows
        pieces.append(
            gemv_program(keys, (0, keys.rows), row, sources, first_mark + head, composite)
        )
    return np.concatenate(pieces)


def value_program(
    shape: AttentionShape, context: int, first_row: int, weights_row: int, first_mark: int,
    composite: bool, wrap: tuple[int, int],
) -> Ints:  # fmt: skip
    """Weighted values of one request. Mark ``first_mark + h``: all results of head h."""
    chunks = -(-context // shape.row_elements)
    rest = context - (chunks - 1) * shape.row_elements
    template = _value_template(shape, chunks, -(-rest // shape.elements_per_comp), composite)
    sources = weights_row + np.arange(shape.heads * chunks)
    return template.placed(first_row, sources, first_mark, wrap)


@remembered(_TEMPLATES_BYTES, lambda template: template.nbytes)
def _value_template(
    shape: AttentionShape, chunks: int, last_comps: int, composite: bool
) -> _Template:
    """Values of so many rows' worth of tokens, the last of which takes ``last_comps``."""
    tiles = -(-shape.value_dim // shape.banks)
    group = shape.heads // shape.kv_heads
    # one head's instructions, then as many copies as there are heads, each with its own rows
    one: list[list[int]] = []
    for chunk in range(chunks):
        full = -(-shape.row_elements // shape.elements_per_comp)
        comps = full if chunk < chunks - 1 else last_comps
        # a header announces its dot products as a power of two (MECHANISMS 4.1)
        announced = 1 << (comps - 1).bit_length()
        one.append(emit(Command.GWRITE, 0))
        for tile in range(tiles):
            row = tile * chunks + chunk
            one.append(emit(Command.HEADER, row, announced, 1))
            one += emit_dot(composite, row, comps, 0, 1)
    block = np.array(one, dtype=np.int64)
    program = np.tile(block, (shape.heads, 1))
    head = np.repeat(np.arange(shape.heads), len(block))
    computing = program[:, P_OP] != int(Command.GWRITE)
    program[:, P_ROW] += np.where(computing, head // group * tiles * chunks, 0)
    program[:, P_MARK] = np.where(program[:, P_MARK] >= 0, head, -1)
    return _Template.of(program)
