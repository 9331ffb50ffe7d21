"""Attention of a batch on PIM: one program a channel, one vector operation a (request, head)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain, islice

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import VectorConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import N_INSTRUCTION, P_MARK
from pimsim.hardware.dram.system import ResultWork
from pimsim.hardware.npu.vector import vector_cycles
from pimsim.hardware.npu.vector_timing import vector_timing
from pimsim.hardware.pim.kv_layout import KvRows
from pimsim.hardware.pim.programs import (
    AttentionShape,
    Placement,
    place,
    score_placement,
    value_chunks,
    value_placement,
)
from pimsim.hardware.remembered import Remembered
from pimsim.mapping.front_end import front_end
from pimsim.mapping.result_writes import result_writes

__all__ = [
    "NOTHING",
    "AttentionBatch",
    "PimWork",
    "attention_work",
    "score_work",
    "value_work",
]

Ints = NDArray[np.int64]
NOTHING = -1
"""Duration where no vector work follows a result."""
PimWork = tuple[tuple[Ints, ...], int, ResultWork]
"""Programs by channel, marks, and the vector work behind these."""


@dataclass(frozen=True)
class AttentionBatch:
    """Requests that attend on PIM: all that their programs on one machine depend on, so that
    equal ones have equal programs."""

    shape: AttentionShape
    rows: tuple[KvRows, ...]
    """By request, as what follows."""
    contexts: tuple[int, ...]
    """Tokens that each sees."""
    channel: tuple[int, ...]
    places: tuple[tuple[range, ...], ...] = ()
    """Of these tokens, where they lie in a ring; empty: each sees its cache from the first on."""

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """Of all but hundreds of caches and their places, once however often it is looked for."""
        return hash((self.shape, self.contexts, self.channel))

    def spans(self, number: int) -> tuple[range, ...]:
        """Places of what request ``number`` sees."""
        return self.places[number] if self.places else (range(self.contexts[number]),)


Product = Callable[[AttentionBatch, int, MemoryConfig, PimConfig, VectorConfig, int], PimWork]
"""``score_work`` or ``value_work``."""


@dataclass(frozen=True)
class _Asked:
    """All that the work of a product depends on."""

    product: Product
    batch: AttentionBatch
    operand_row: int
    memory: MemoryConfig
    pim: PimConfig
    vector: VectorConfig
    element_bytes: int

    def __hash__(self) -> int:
        # configs have no hash; few differ in nothing else
        return hash((self.product, self.batch, self.operand_row, self.element_bytes))


_KNOWN_BYTES = 12 << 20
"""Of works that are remembered from run to run: a few batches' worth."""
_REQUEST_BYTES = 1000
"""Of a request in the key of one, about."""
_known: Remembered[tuple[PimWork, int]] = Remembered(_KNOWN_BYTES, lambda known: known[1])


def attention_work(
    product: Product, batch: AttentionBatch, operand_row: int, memory: MemoryConfig,
    pim: PimConfig, vector: VectorConfig, element_bytes: int,
) -> PimWork:  # fmt: skip
    """What ``product`` says of these arguments, found once: the points of a sweep ask for the same
    again and again. Nobody changes it.

    Parameters
    ----------
    product
        ``score_work`` or ``value_work``.
    batch
        Requests, with where their caches lie.
    operand_row
        First of the rows that operands are read from.
    memory
        Of the device.
    pim
        The units in it.
    vector
        Units that do what follows.
    element_bytes
        Of an operand and a result.
    """

    def find() -> tuple[PimWork, int]:
        programs, marks, after = product(batch, operand_row, memory, pim, vector, element_bytes)
        arrays = (*programs, after.duration, after.bursts, after.channel)
        size = sum(each.nbytes for each in arrays) + _REQUEST_BYTES * len(batch.rows)
        return (programs, marks, after), size

    asked = _Asked(product, batch, operand_row, memory, pim, vector, element_bytes)
    return _known.get(asked, find)[0]


def _gather(
    programs: list[Ints], channel: Sequence[int], channels: int, pim: PimConfig
) -> tuple[Ints, ...]:
    """Programs of requests as programs of channels, in batch order."""
    front_end(pim).release(programs)
    empty = np.zeros((0, N_INSTRUCTION), dtype=np.int64)
    mine: list[list[Ints]] = [[] for _ in range(channels)]
    for program, c in zip(programs, channel, strict=True):
        mine[c].append(program)
    return tuple(np.concatenate(parts) if parts else empty for parts in mine)


def _placed(
    batch: AttentionBatch, programs: list[Ints], duration: list[int], outputs: list[int],
    memory: MemoryConfig, pim: PimConfig, vector: VectorConfig, parts: int = 1,
) -> PimWork:  # fmt: skip
    """Programs by channel, marks, and the vector work of every head, which is done in ``parts``:
    ``duration`` cycles and ``outputs`` bytes to store of each part, both by request."""
    burst, each = memory.organization.burst_bytes, batch.shape.heads * parts
    stored = [-(-size // burst) for size in outputs]
    after = ResultWork(
        duration=np.repeat(np.array(duration, dtype=np.int64), each),
        bursts=np.repeat(np.array(stored, dtype=np.int64), each),
        channel=np.repeat(np.array(batch.channel, dtype=np.int64), each),
        units=vector.units if vector_timing(vector).queues else 0,
        spread=result_writes(pim).spread,
        overlap=pim.softmax_overlap,
        output_bytes=sum(outputs) * each,
    )
    by_channel = _gather(programs, batch.channel, memory.organization.channels, pim)
    return by_channel, len(programs) * each, after


def _by_request(
    parts: Sequence[Sequence[Placement]], operand_row: int, pim: PimConfig
) -> list[Ints]:
    """The program of each request, whose parts follow one another."""
    found = iter(place(list(chain(*parts)), (operand_row, pim.operand_rows)))
    programs = (list(islice(found, len(own))) for own in parts)
    return [own[0] if len(own) == 1 else np.concatenate(own) for own in programs]


def _mark_parts(program: Ints, parts: int) -> None:
    """Give ``program`` a mark for each part of a head, whose ``parts`` are read one after the
    other, chunk by chunk, in place of one for the head."""
    marked = np.flatnonzero(program[:, P_MARK] >= 0)
    program[marked, P_MARK] *= parts
    program[marked, P_MARK] += np.arange(len(marked)) % parts


def score_work(
    batch: AttentionBatch, operand_row: int, memory: MemoryConfig, pim: PimConfig,
    vector: VectorConfig, element_bytes: int,
) -> PimWork:  # fmt: skip
    """Scores and softmax: programs by channel, marks, vector work.

    Where a key takes several rows, a vector unit adds the partial scores first.
    Operands come from rows in turn, from ``operand_row`` on.

    Parameters
    ----------
    batch
        Requests, with where their caches lie.
    operand_row
        First of the rows that queries are read from.
    memory
        Of the device.
    pim
        The units in it.
    vector
        Units that make the softmax.
    element_bytes
        Of keys, queries and scores.
    """
    shape, contexts = batch.shape, batch.contexts
    parts: list[list[Placement]] = []
    known: dict[int, Ints] = {}
    for number, own in enumerate(batch.rows):
        row, mark = operand_row + number * len(shape.key_pieces), number * shape.heads
        parts.append(
            [
                score_placement(
                    shape, span.stop, own, row, mark, pim.composite_gemv, span.start, known
                )
                for span in batch.spans(number)
            ]
        )  # fmt: skip
    programs = _by_request(parts, operand_row, pim)
    timing = vector_timing(vector)
    partial = shape.head_chunks - 1
    duration = [
        vector_cycles("softmax", timing.pim_scores(c, element_bytes), vector)
        + partial * vector_cycles("add", c, vector)
        for c in contexts
    ]
    outputs = [c * element_bytes for c in contexts]
    return _placed(batch, programs, duration, outputs, memory, pim, vector)


def value_work(
    batch: AttentionBatch, operand_row: int, memory: MemoryConfig, pim: PimConfig,
    vector: VectorConfig, element_bytes: int,
) -> PimWork:  # fmt: skip
    """Weighted values: programs by channel, marks, vector work.

    A context longer than a row gives several partial results that a vector unit adds; results
    stay in the scratchpad, or go where ``pim.result_writes`` has them go.

    Parameters
    ----------
    batch
        Requests, with where their caches lie.
    operand_row
        First of the rows that weights are read from.
    memory
        Of the device.
    pim
        The units in it.
    vector
        Units that add partial results.
    element_bytes
        Of values and results.
    """
    shape = batch.shape
    placed: list[list[Placement]] = []
    known: dict[tuple[int, int], Ints] = {}
    duration, outputs = [], []
    writes = result_writes(pim)
    add = vector_cycles("add", shape.value_dim, vector)
    head_bytes = shape.value_dim * element_bytes
    for number, own in enumerate(batch.rows):
        spans, mark = batch.spans(number), number * shape.heads
        each = [value_chunks(shape, span) for span in spans]
        chunks = sum(each)
        row = operand_row + number * shape.heads * chunks
        placed.append(
            [
                value_placement(
                    shape, span.stop, own, row + shape.heads * before, mark, pim.composite_gemv,
                    span.start, known,
                )
                for span, before in zip(spans, (0, *accumulate(each)), strict=False)
            ]
        )  # fmt: skip
        partial = chunks > 1
        duration.append((chunks - 1) * add if partial else NOTHING)
        outputs.append(writes.value_bytes(head_bytes, partial))
    parts = writes.parts(shape)
    programs = _by_request(placed, operand_row, pim)
    if parts > 1:
        for program in programs:
            _mark_parts(program, parts)
    return _placed(batch, programs, duration, outputs, memory, pim, vector, parts)
