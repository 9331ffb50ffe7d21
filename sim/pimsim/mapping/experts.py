"""Experts of a MoE block: which run on PIM, and what PIM then does.

A block's routed experts are levels of products (first FFN matrices, second ones) with vector work
between them. An expert on PIM multiplies each of its tokens with matrices that lie in the banks of
all channels (``hardware/pim/gemv.py``); one on the NPU streams the same bytes and multiplies all
its tokens at once. So few tokens favour PIM and many the NPU; where the two meet follows from the
times of both (``place_by_tokens``), not from a constant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import VectorConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.dram.layout import N_INSTRUCTION, P_MARK, P_OP, P_ROW
from pimsim.hardware.dram.rules import Command
from pimsim.hardware.dram.system import ResultWork, Scatter
from pimsim.hardware.npu.vector import vector_cycles
from pimsim.hardware.pim.gemv import GemvShape, gemv_program
from pimsim.mapping.attention import NOTHING
from pimsim.mapping.kv import channel_burst
from pimsim.mapping.tasks import PimTask
from pimsim.mapping.vector import vector_work
from pimsim.workload.ancestors import ancestors
from pimsim.workload.operators import Block, Operator, OperatorKind

__all__ = [
    "ExpertEnergies", "ExpertLevel", "ExpertPlacement", "expert_bytes", "expert_levels",
    "expert_tasks", "input_bursts", "input_scatters",
    "place_by_tokens", "stored_element_bytes", "together",
]  # fmt: skip

Ints = NDArray[np.int64]
MAX_TASK_INSTRUCTIONS = 1 << 20
"""Instructions of one PIM operation; more experts are a further operation."""


@dataclass(frozen=True)
class ExpertLevel:
    """Expert products that may run at once, and the vector work on their results."""

    gemms: tuple[Operator, ...]
    after: tuple[Operator, ...]
    """Up to the next level; empty after the last one, whose results leave the experts."""


@dataclass(frozen=True)
class ExpertPlacement:
    """Which experts of a block run on PIM."""

    threshold: int
    """Tokens up to which an expert is on PIM; 0: none is."""
    tokens: Mapping[int, int]
    """By expert that has any: its tokens."""

    @property
    def on_pim(self) -> tuple[int, ...]:
        """Experts that run on PIM."""
        return tuple(e for e, tokens in self.tokens.items() if tokens <= self.threshold)

    @property
    def on_npu(self) -> tuple[int, ...]:
        """Experts that run on the NPU."""
        return tuple(e for e, tokens in self.tokens.items() if tokens > self.threshold)

    def pairs(self, experts: Iterable[int]) -> int:
        """Pairs of a token and one of ``experts``."""
        return sum(self.tokens[e] for e in experts)


def expert_levels(block: Block) -> tuple[ExpertLevel, ...]:
    """The levels of a block's experts, in order; none where it has no experts.

    Parameters
    ----------
    block
        Of a model.
    """
    depth: dict[str, int] = {}
    needs = ancestors(block.operators)
    by_name = {operator.name: operator for operator in block.operators}
    for operator in block.operators:
        above = max((depth[name] for name in operator.depends_on), default=0)
        depth[operator.name] = above + (operator.kind is OperatorKind.EXPERT_GEMM)
    experts = [o for o in block.operators if o.kind is OperatorKind.EXPERT_GEMM]
    needed = {name for o in experts for name in needs[o.name]}
    levels = []
    for level in sorted({depth[o.name] for o in experts}):
        between = tuple(
            o for name, o in by_name.items()
            if name in needed and depth[name] == level and o.kind is not OperatorKind.EXPERT_GEMM
            and any(e.name in needs[name] for e in experts)
        )  # fmt: skip
        levels.append(ExpertLevel(tuple(o for o in experts if depth[o.name] == level), between))
    return tuple(levels)


def stored_element_bytes(operator: Operator) -> int:
    """Bytes of a weight as it lies in the banks: whole ones, as PIM's multipliers take them.

    Block formats below a byte (MXFP4) are widened when they are laid out.

    Parameters
    ----------
    operator
        Products of experts.

    Returns
    -------
    int
        1, 2 or 4.
    """
    exact = operator.weight_bytes / (len(operator.experts) * operator.n * operator.k)
    return next((width for width in (1, 2) if exact < width + 0.5), 4)


def expert_bytes(operator: Operator) -> tuple[int, int]:
    """Bytes of one expert's matrix, and of what stands beside it (biases).

    Parameters
    ----------
    operator
        Products of experts.
    """
    each = operator.weight_bytes // len(operator.experts)
    matrix = min(each, operator.n * operator.k * stored_element_bytes(operator))
    return matrix, each - matrix


@dataclass(frozen=True)
class ExpertEnergies:
    """What experts cost beside time."""

    npu_j: Callable[[int], float]
    """Joule of one expert with so many tokens on the NPU, static power apart."""
    pim_j: Callable[[int], float]
    """The same in the banks."""
    static_j: float
    """Joule of an NPU cycle, whatever runs."""
    delay: bool
    """The product of energy and time is asked for, not energy alone."""

    def objective(self, time: int, spent_j: float) -> float:
        """What is to be least, for so many NPU cycles and so much dynamic energy."""
        joule = spent_j + time * self.static_j
        return joule * time if self.delay else joule


def together(npu: int, pim: int, stream_share: tuple[int, int] | None) -> int:
    """Time until both are done: ``npu`` of the NPU's products, ``pim`` of PIM's.

    Parameters
    ----------
    npu
        Time of the NPU's products.
    pim
        Time of PIM's, in the same unit.
    stream_share
        Parts that PIM leaves of the NPU's rate while both work, and parts in all; None: they take
        turns.
    """
    if stream_share is None:
        return npu + pim
    left, whole = stream_share
    return pim + max(npu - pim * left // whole, 0)


def place_by_tokens(
    tokens: Mapping[int, int], npu_cost: Callable[[int], int],
    pim_cost: Callable[[int], int | None],
    npu_else: int = 0, pim_else: int = 0, stream_share: tuple[int, int] | None = None,
    energies: ExpertEnergies | None = None,
) -> ExpertPlacement:  # fmt: skip
    """Experts with few tokens on PIM, the others on the NPU.

    The threshold is the one with the least time of all of it, or what ``energies`` asks for in its
    place, of equal ones the smallest.

    Parameters
    ----------
    tokens
        By expert.
    npu_cost
        Time on the NPU of one expert with so many tokens.
    pim_cost
        The same on PIM, in the same unit; None where PIM cannot do it, nor one with more.
    npu_else
        What the NPU does beside.
    pim_else
        What PIM does beside.
    stream_share
        Parts that PIM leaves of the NPU's rate while both work, and parts in all; None: they take
        turns.
    energies
        What is least in place of time; None: time.
    """

    def cost(npu: int, pim: int, spent_j: float) -> float:
        time = together(npu, pim, stream_share)
        return time if energies is None else energies.objective(time, spent_j)

    loads = sorted(tokens.values())
    spent = [energies.npu_j(load) for load in loads] if energies is not None else []
    npu = npu_else + sum(npu_cost(load) for load in loads)
    pim = pim_else
    best, threshold = cost(npu, pim, fsum(spent)), 0
    for position, load in enumerate(loads):
        if energies is None and pim >= best:
            break  # both are done no sooner than PIM, whose times may take long to find
        own = pim_cost(load)
        if own is None:
            break
        npu -= npu_cost(load)
        pim += own
        if energies is not None:
            spent[position] = energies.pim_j(load)
        if position + 1 < len(loads) and loads[position + 1] == load:
            continue  # experts with the same tokens go together
        found = cost(npu, pim, fsum(spent))
        if found < best:
            best, threshold = found, load
    return ExpertPlacement(threshold, tokens)


def input_scatters(
    shape: GemvShape, vectors: int, operand_row: int, memory: MemoryConfig, pim: PimConfig,
    element_bytes: int,
) -> list[Scatter]:  # fmt: skip
    """Bursts that bring ``vectors`` vectors to the channels that multiply them.

    Parameters
    ----------
    shape
        Of the matrix in the banks.
    vectors
        That are multiplied.
    operand_row
        First of the rows that vectors are read from, in turn.
    memory
        Of the device.
    pim
        Its ``operand_rows`` are used.
    element_bytes
        Of a vector.
    """
    org = memory.organization
    rows = pim.operand_rows
    found = []
    for channel in range(org.channels):
        chunks = shape.chunks_of(shape.share(channel, org.channels))
        for vector in range(vectors):
            for number, chunk in enumerate(chunks):
                row = operand_row + (vector * len(chunks) + number) % rows
                bursts = -(-shape.chunk_elements(chunk) * element_bytes // org.burst_bytes)
                first = channel_burst(memory, row, 0, 0)
                found.append(Scatter(channel, first, min(bursts, org.columns)))
    return found


def input_bursts(shape: GemvShape, memory: MemoryConfig, element_bytes: int) -> int:
    """Bursts over all channels that one vector takes.

    Parameters
    ----------
    shape
        Of the matrix in the banks.
    memory
        Of the device.
    element_bytes
        Of the vector.
    """
    org = memory.organization
    return sum(
        min(-(-shape.chunk_elements(chunk) * element_bytes // org.burst_bytes), org.columns)
        for channel in range(org.channels)
        for chunk in shape.chunks_of(shape.share(channel, org.channels))
    )


def expert_tasks(
    level: ExpertLevel, following: ExpertLevel | None, placement: ExpertPlacement,
    shapes: Mapping[str, GemvShape], rows: Mapping[str, Mapping[int, int]], operand_row: int,
    layer: int, memory: MemoryConfig, pim: PimConfig, vector: VectorConfig,
) -> list[PimTask]:  # fmt: skip
    """One level of all experts on PIM.

    Parameters
    ----------
    level
        Products, and the vector work behind them.
    following
        The level that multiplies the results, which are written to its channels; None: none.
    placement
        Which experts PIM has, and with how many tokens.
    shapes
        By operator, its matrices in the banks.
    rows
        By operator and expert, the first row of its matrix.
    operand_row
        First of the rows that vectors are read from.
    layer
        Of the block.
    memory
        Of the device.
    pim
        The units in it.
    vector
        Units that add partial sums and do the vector work.
    """
    tasks: list[PimTask] = []
    for experts in _batches(level, placement, shapes, memory.organization.channels, pim):
        pairs = placement.pairs(experts)
        programs = _programs(level, experts, placement, shapes, rows, operand_row, memory, pim)
        works = [vector_work(operator, vector) for operator in level.after]
        sums = {g.name: shapes[g.name].chunks - (expert_bytes(g)[1] == 0) for g in level.gemms}
        adds = sum(sums[g.name] * vector_cycles("add", g.n, vector) for g in level.gemms)
        duration = adds + sum(work.cycles for work in works)
        bursts = 0
        if following is not None:
            target = following.gemms[0]
            bursts = input_bursts(shapes[target.name], memory, stored_element_bytes(target))
        after = ResultWork(
            duration=np.full(pairs, duration if duration or bursts else NOTHING, dtype=np.int64),
            bursts=np.full(pairs, bursts, dtype=np.int64),
            channel=np.zeros(pairs, dtype=np.int64),
            units=vector.units,
            spread=True,
            overlap=pim.softmax_overlap,
        )
        lane_ops = pairs * sum(work.lane_ops for work in works)
        lane_ops += pairs * sum(sums[g.name] * g.n for g in level.gemms)
        total = placement.pairs(placement.tokens)
        width = stored_element_bytes(level.gemms[0])
        # a partial result of each chunk comes and is read; then what follows reads and writes
        sram_bytes = 2 * pairs * sum(shapes[g.name].chunks * g.n for g in level.gemms) * width
        sram_bytes += sum((o.input_bytes + o.output_bytes) * pairs // total for o in level.after)
        tasks.append(
            PimTask(
                "+".join(g.name for g in level.gemms), str(OperatorKind.EXPERT_GEMM), "pim",
                layer, sum(g.flops * pairs // total for g in level.gemms),
                sum(expert_bytes(g)[0] * len(experts) for g in level.gemms), 0,
                programs=programs, marks=pairs, vector_work=after,
                vector_lane_ops=lane_ops,
                sram_bytes=sram_bytes, element_bytes=width,
            )
        )  # fmt: skip
    return tasks


def _batches(
    level: ExpertLevel, placement: ExpertPlacement, shapes: Mapping[str, GemvShape],
    channels: int, pim: PimConfig,
) -> list[list[int]]:  # fmt: skip
    """Experts on PIM in runs that are one operation each."""
    per_row = 2 if pim.composite_gemv else 3
    each = sum(
        shapes[g.name].rows * per_row * shapes[g.name].tiles_per_row
        + channels * shapes[g.name].chunks
        for g in level.gemms
    )
    batches: list[list[int]] = []
    room = 0
    for expert in placement.on_pim:
        size = each * placement.tokens[expert]
        if not batches or size > room:
            batches.append([])
            room = MAX_TASK_INSTRUCTIONS
        batches[-1].append(expert)
        room -= size
    return batches


def _programs(
    level: ExpertLevel, experts: Sequence[int], placement: ExpertPlacement,
    shapes: Mapping[str, GemvShape], rows: Mapping[str, Mapping[int, int]], operand_row: int,
    memory: MemoryConfig, pim: PimConfig,
) -> tuple[Ints, ...]:  # fmt: skip
    """Instructions by channel: expert after expert, token after token."""
    channels, sources = memory.organization.channels, pim.operand_rows
    tokens = np.array([placement.tokens[e] for e in experts], dtype=np.int64)
    pairs = int(tokens.sum())
    by_channel: list[list[Ints]] = [[] for _ in range(channels)]
    for gemm in level.gemms:
        shape = shapes[gemm.name]
        first = np.repeat(np.array([rows[gemm.name][e] for e in experts], dtype=np.int64), tokens)
        for channel in range(channels):
            run = shape.share(channel, channels)
            chunks = len(shape.chunks_of(run))
            one = gemv_program(shape, run, 0, range(chunks), 0, pim.composite_gemv)
            program = np.tile(one, (pairs, 1))
            pair = np.repeat(np.arange(pairs, dtype=np.int64), len(one))
            is_source = program[:, P_OP] == int(Command.GWRITE)
            turn = operand_row + (pair * chunks + program[:, P_ROW]) % sources
            program[:, P_ROW] = np.where(is_source, turn, program[:, P_ROW] + first[pair])
            program[:, P_MARK] = np.where(program[:, P_MARK] >= 0, pair, -1)
            by_channel[channel].append(program)
    empty = np.zeros((0, N_INSTRUCTION), dtype=np.int64)
    return tuple(np.concatenate(parts) if parts else empty for parts in by_channel)
