"""How attention of one request becomes PIM commands (NeuPIMs section 5, its Algorithm 1).

Keys: the tokens of a tile lie one in each bank; a row holds a slice of the key vector, several
heads wide (a chunk). Scores of a chunk: the query's slice goes to the global buffer (GWRITE), then
for each tile of tokens a header and, for each head, dot products over the head's elements and a
read of one result from every bank.

Values: a row holds one element of the value vector for many tokens (a chunk of the context), the
elements lie one in each bank. For each head and chunk the weights go to the global buffer, then
each tile of elements is one header, dot products over the tokens and one result read.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import (
    N_INSTRUCTION,
    P_COMPS,
    P_LAST,
    P_MARK,
    P_OP,
    P_READS,
    P_READY,
    P_ROW,
)
from pimsim.hardware.dram.rules import Command

__all__ = ["AttentionShape", "front_end_ready", "score_program", "value_program"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AttentionShape:
    """Attention of one request on one channel, on this device."""

    heads: int
    kv_heads: int
    head_dim: int
    banks: int
    """Banks that multiply at once: all of the channel."""
    row_elements: int
    elements_per_comp: int

    @classmethod
    def of(
        cls, heads: int, kv_heads: int, head_dim: int, memory: MemoryConfig, pim: PimConfig,
        element_bytes: int,
    ) -> AttentionShape:  # fmt: skip
        """The shape on ``memory``. Raises ``InputError`` where a head is wider than a row."""
        org = memory.organization
        row = org.row_bytes // element_bytes
        if head_dim > row:
            raise InputError(
                f"pim {pim.name}: a head of {head_dim} elements does not fit a row of {row}"
            )
        return cls(heads, kv_heads, head_dim, org.ranks * org.banks, row, pim.elements_per_comp)

    @property
    def heads_per_row(self) -> int:
        """Key heads that share a row."""
        return max(self.row_elements // self.head_dim, 1)

    @property
    def key_chunks(self) -> int:
        """Rows that hold the keys of one tile of tokens."""
        return -(-self.kv_heads // self.heads_per_row)

    def key_rows(self, context: int) -> int:
        """Rows of each bank that the keys of ``context`` tokens take."""
        return -(-context // self.banks) * self.key_chunks

    def value_rows(self, context: int) -> int:
        """Rows of each bank that the values take."""
        tiles = -(-self.head_dim // self.banks)
        return self.kv_heads * -(-context // self.row_elements) * tiles


def _emit(
    op: Command, row: int, comps: int = 0, reads: int = 0, mark: int = -1, last: int = 0
) -> list[int]:
    instruction = [0] * N_INSTRUCTION
    instruction[P_OP] = int(op)
    instruction[P_ROW] = row
    instruction[P_COMPS] = comps
    instruction[P_READS] = reads
    instruction[P_MARK] = mark
    instruction[P_LAST] = last
    return instruction


def _turn(row: int, wrap: tuple[int, int]) -> int:
    """``row``, kept within the rows that GWRITE's sources take in turn."""
    first, count = wrap
    return first + (row - first) % count


def _dot(composite: bool, row: int, comps: int, mark: int, last: int) -> list[list[int]]:
    """``comps`` dot products and the read of their result."""
    if composite:
        return [_emit(Command.GEMV, row, comps, mark=mark, last=last)]
    return [
        _emit(Command.COMP, row, comps, mark=-1),
        _emit(Command.READRES, row, mark=mark, last=last),
    ]


def score_program(
    shape: AttentionShape, context: int, first_row: int, query_row: int, first_mark: int,
    composite: bool, wrap: tuple[int, int],
) -> Ints:  # fmt: skip
    """Scores of one request, (instructions, N_INSTRUCTION). Mark ``first_mark + h``: head h.

    Keys lie in rows from ``first_row``; the query's slices in rows from ``query_row`` of the
    bank that GWRITE reads, within ``wrap`` (first of those rows, how many).
    """
    tiles = -(-context // shape.banks)
    comps = -(-shape.head_dim // shape.elements_per_comp)
    group = shape.heads // shape.kv_heads
    pieces: list[Ints] = []
    for chunk in range(shape.key_chunks):
        kv_heads = range(
            chunk * shape.heads_per_row, min((chunk + 1) * shape.heads_per_row, shape.kv_heads)
        )
        for member in range(group):
            # every query head of a group has its own query: the buffer is filled once for each
            pieces.append(
                np.array([_emit(Command.GWRITE, _turn(query_row + chunk * group + member, wrap))])
            )
            tile = [_emit(Command.HEADER, 0, comps * len(kv_heads), len(kv_heads))]
            for kv_head in kv_heads:
                mark = first_mark + kv_head * group + member
                last = int(kv_head == kv_heads[-1])
                tile += _dot(composite, 0, comps, mark, last)
            block = np.array(tile, dtype=np.int64)
            repeated = np.tile(block, (tiles, 1))
            rows = first_row + np.arange(tiles) * shape.key_chunks + chunk
            repeated[:, P_ROW] = np.repeat(rows, len(block))
            pieces.append(repeated)
    return np.concatenate(pieces)


def value_program(
    shape: AttentionShape, context: int, first_row: int, weights_row: int, first_mark: int,
    composite: bool, wrap: tuple[int, int],
) -> Ints:  # fmt: skip
    """Weighted values of one request. Mark ``first_mark + h``: all results of head h."""
    tiles = -(-shape.head_dim // shape.banks)
    chunks = -(-context // shape.row_elements)
    group = shape.heads // shape.kv_heads
    # one head's instructions, then as many copies as there are heads, each with its own rows
    one: list[list[int]] = []
    for chunk in range(chunks):
        tokens = min(context - chunk * shape.row_elements, shape.row_elements)
        comps = -(-tokens // shape.elements_per_comp)
        # a header announces its dot products as a power of two (MECHANISMS 4.1)
        announced = 1 << (comps - 1).bit_length()
        one.append(_emit(Command.GWRITE, chunk))
        for tile in range(tiles):
            row = first_row + tile * chunks + chunk
            one.append(_emit(Command.HEADER, row, announced, 1))
            one += _dot(composite, row, comps, 0, 1)
    block = np.array(one, dtype=np.int64)
    program = np.tile(block, (shape.heads, 1))
    head = np.repeat(np.arange(shape.heads), len(block))
    sources = program[:, P_OP] == int(Command.GWRITE)
    first, count = wrap
    program[:, P_ROW] += np.where(sources, 0, head // group * tiles * chunks)
    turn = (weights_row + head * chunks + program[:, P_ROW] - first) % count + first
    program[sources, P_ROW] = turn[sources]
    program[:, P_MARK] = np.where(program[:, P_MARK] >= 0, first_mark + head, -1)
    return program


def front_end_ready(programs: list[Ints]) -> None:
    """Set ``P_READY`` for a front end that feeds one instruction a cycle to all channels.

    ``programs``: one for each request, in the order in which the front end walks them. This is
    what the NeuPIMs artifact's npu+pim branch does (MECHANISMS 0.4); each COMP is one
    instruction.
    """
    at = 0
    for program in programs:
        cost = np.where(program[:, P_OP] == int(Command.COMP), program[:, P_COMPS], 1)
        program[:, P_READY] = at + np.cumsum(cost) - cost
        at += int(cost.sum())
