"""Banks with numbers in them, and the timing model's own PIM programs run on these numbers.

Keys and values go where ``mapping.kv`` sends their bursts, and the instructions are those that the
engine schedules (``hardware.pim.programs``). An error in the layout or in a program so shows as a
wrong number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.layout import P_COMPS, P_MARK, P_OP, P_ROW
from pimsim.hardware.dram.pim_program import written_out
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import Scatter
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import AttentionShape, score_program, value_program
from pimsim.mapping.kv import key_scatters, value_scatters
from pimsim.reference.arithmetic import PimDatapath, pim_dot

__all__ = ["BankArray", "attend_in_banks", "write_cache"]

ELEMENT_BYTES = 2
Ints = NDArray[np.int64]


class BankArray:
    """One channel's rows: numbers of ``ELEMENT_BYTES`` each, shape (rows, banks, elements)."""

    def __init__(self, memory: MemoryConfig, rows: int) -> None:
        org = memory.organization
        self.memory = memory
        self.banks = org.ranks * org.banks
        self.row_elements = org.row_bytes // ELEMENT_BYTES
        self.per_burst = org.burst_bytes // ELEMENT_BYTES
        self.cells = torch.zeros(rows, self.banks, self.row_elements)
        self._map = AddressMap.parse(memory.stream_map, org)

    def write(self, scatter: Scatter, numbers: Any) -> None:
        """Write a scatter's bursts; ``numbers`` (count, elements of a burst)."""
        for at in range(scatter.count):
            row, bank, column = self._place(scatter.first + at * scatter.stride)
            start = column * self.per_burst
            self.cells[row, bank, start : start + self.per_burst] = numbers[at]

    def _place(self, burst: int) -> tuple[int, int, int]:
        """Row, bank and column of a burst of this channel."""
        bit, width = self._map.position["ch"], self._map.width["ch"]
        low = burst & ((1 << bit) - 1)
        whole = (burst >> bit) << (bit + width) | low
        found = self._map.decode(np.array([whole], dtype=np.int64))
        return int(found.row[0]), int(found.bank[0]), int(found.column[0])

    def run(self, program: Ints, sources: Sequence[Any], path: PimDatapath) -> dict[int, list[Any]]:
        """Run a program: results of every READRES by mark, one number a bank, in order.

        ``sources``: what each GWRITE brings to the global buffer, in order. Dot products of a tile
        begin at the row's first column and go on where the last one ended.
        """
        results: dict[int, list[Any]] = {}
        buffer = torch.zeros(self.row_elements)
        waiting = list(sources)
        column, row, latched = 0, -1, []  # type: ignore[var-annotated]
        for line in written_out(program):
            op = int(line[P_OP])
            if op == int(Command.GWRITE):
                buffer = torch.zeros(self.row_elements)
                numbers = waiting.pop(0)
                buffer[: len(numbers)] = numbers
            elif op == int(Command.HEADER):
                column, latched = 0, []
            elif op in (int(Command.GEMV), int(Command.COMP)):
                row = int(line[P_ROW])
                end = column + int(line[P_COMPS]) * path.lanes
                latched.append((column, end))
                column = end
                if op == int(Command.GEMV):
                    results.setdefault(int(line[P_MARK]), []).append(
                        self._dot(row, latched, buffer, path)
                    )
                    latched = []
            elif op == int(Command.READRES):
                results.setdefault(int(line[P_MARK]), []).append(
                    self._dot(row, latched, buffer, path)
                )
                latched = []
        return results

    def _dot(
        self, row: int, spans: Sequence[tuple[int, int]], buffer: Any, path: PimDatapath
    ) -> Any:
        start, end = spans[0][0], min(spans[-1][1], self.row_elements)
        return pim_dot(self.cells[row][:, start:end], buffer[start:end], path)


def attend_in_banks(
    shape: AttentionShape, memory: MemoryConfig, queries: Any, keys: Any, values: Any,
    softmax: Any, path: PimDatapath, composite: bool, array: BankArray | None = None,
) -> Any:  # fmt: skip
    """Decode attention of one request on one channel.

    Parameters
    ----------
    shape
        Heads, and how the banks hold them.
    memory
        Of the channel.
    queries
        Shape (heads, head_dim), already scaled; like keys and values held by the cells'
        format.
    keys
        Shape (kv_heads, context, head_dim).
    values
        Shape (kv_heads, context, value_dim).
    softmax
        From scores of a head to weights, both of shape (context,).
    path
        Of the units beside the banks.
    composite
        Whether one command does the dot products and the read of their result.
    array
        Banks that hold the cache already; None: it is written.

    Returns
    -------
    Tensor
        Shape (heads, value_dim).

    Raises
    ------
    InputError
        Where a head is no whole number of COMPs: its layout is not modelled here.
    """
    if shape.is_wide or shape.head_dim % shape.elements_per_comp:
        raise InputError(
            f"heads of {shape.head_dim} elements: whole COMPs of {shape.elements_per_comp} within "
            f"a row of {shape.row_elements} are modelled"
        )
    context = keys.shape[1]
    rows = KvRows.from_row(0, shape.kv_sections, context)
    banks = array
    if banks is None:
        banks = BankArray(memory, rows.count)
        write_cache(banks, shape, rows, keys, values)
    group = shape.heads // shape.kv_heads
    program = score_program(shape, context, rows, 0, 0, composite, (0, 1))
    found = banks.run(program, _query_sources(shape, queries), path)
    weights = []
    for head in range(shape.heads):
        scores = torch.cat(found[head])[:context]
        weights.append(softmax(scores))
    program = value_program(shape, context, rows, 0, 0, composite, (0, 1))
    chunks = -(-context // shape.row_elements)
    sources = [
        weights[head][chunk * shape.row_elements : (chunk + 1) * shape.row_elements]
        for head in range(shape.heads)
        for chunk in range(chunks)
    ]
    found = banks.run(program, sources, path)
    tiles = -(-shape.value_dim // shape.banks)
    out = torch.zeros(shape.heads, shape.value_dim)
    for head in range(shape.heads):
        for at, part in enumerate(found[head]):
            tile = at % tiles
            width = min(shape.banks, shape.value_dim - tile * shape.banks)
            out[head, tile * shape.banks : tile * shape.banks + width] += part[:width]
    assert group * shape.kv_heads == shape.heads
    return out


def _query_sources(shape: AttentionShape, queries: Any) -> list[Any]:
    """What each GWRITE of the scores brings: of each piece and member of a group of query heads,
    the queries that meet the row's keys, once for each tile that shares the row."""
    group = shape.heads // shape.kv_heads
    sources = []
    for piece in shape.key_pieces:
        for member in range(group):
            own = torch.cat([queries[kv * group + member] for kv in piece.heads])
            sources.append(own.repeat(piece.tiles))
    return sources


def write_cache(
    banks: BankArray, shape: AttentionShape, rows: KvRows, keys: Any, values: Any
) -> None:
    """Append every token as the engine does.

    The last values, which wait on chip until a burst is full, are written with zeros behind them.

    Parameters
    ----------
    banks
        Of one channel.
    shape
        Heads, and how the banks hold them.
    rows
        Where the request's cache lies.
    keys
        Shape (kv_heads, context, head_dim).
    values
        Shape (kv_heads, context, value_dim).
    """
    kv_heads, context, _ = keys.shape
    memory, per = banks.memory, banks.per_burst
    for position in range(context):
        scatters = key_scatters(shape, rows, 0, position, memory, ELEMENT_BYTES)
        for piece, scatter in zip(shape.key_pieces, scatters, strict=True):
            numbers = torch.cat([keys[head, position] for head in piece.heads])
            short = -len(numbers) % per
            padded = torch.cat([numbers, torch.zeros(short)])
            banks.write(scatter, padded.view(-1, per)[: scatter.count])
    last = -(-context // per) * per
    padded_values = torch.zeros(kv_heads, last, shape.value_dim)
    padded_values[:, :context] = values
    tiles = -(-shape.value_dim // shape.banks)
    for position in range(per - 1, last, per):
        scatters = value_scatters(shape, rows, 0, position, memory, ELEMENT_BYTES)
        for slot, scatter in enumerate(scatters):
            head, tile = divmod(slot, tiles)
            start = tile * shape.banks
            part = padded_values[
                head, position - per + 1 : position + 1, start : start + shape.banks
            ]
            numbers = part.T
            if len(numbers) < scatter.count:
                fill = torch.zeros(scatter.count - len(numbers), per)
                numbers = torch.cat([numbers, fill])
            banks.write(scatter, numbers)
