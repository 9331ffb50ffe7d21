"""Operators of a block to tasks: where each runs, what it moves, in which tiles.

What an operator is follows from its kind and its sizes, never from its name. Attention is the
scores, the values and what lies between them; what attention needs comes before it, all else
after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimConfig
from pimsim.config.pim_link import PimLinkConfig
from pimsim.config.run import LinkConfig
from pimsim.hardware.dram.system import Stream
from pimsim.hardware.fabric.collectives import Collective, all_gather, all_reduce, send
from pimsim.hardware.npu.tiling import GemmTile
from pimsim.hardware.pim.gemv import GemvShape
from pimsim.hardware.pim.operations import OperationRuns
from pimsim.mapping.addresses import AddressPlan
from pimsim.mapping.attention_tasks import AttentionMapper
from pimsim.mapping.block_placement import BlockPlacement
from pimsim.mapping.design_experts import expert_task
from pimsim.mapping.experts import (
    ExpertLevel,
    ExpertPlacement,
    expert_bytes,
    expert_levels,
    expert_tasks,
    input_scatters,
    stored_element_bytes,
)
from pimsim.mapping.gemm import bytes_per_kcycle
from pimsim.mapping.joined_tiles import joined_tiles
from pimsim.mapping.operands import operands
from pimsim.mapping.parts import block_parts
from pimsim.mapping.pim_products import PimProducts
from pimsim.mapping.product_tiles import product_tiles
from pimsim.mapping.program import link_block
from pimsim.mapping.scratchpad import gemm_sram_bytes
from pimsim.mapping.tasks import WHOLE_BATCH, BlockProgram, GemmStep, NpuTask, PimTask, StreamTask
from pimsim.mapping.vector import vector_work
from pimsim.workload.operators import Block, CollectiveKind, ForwardPass, Operator, OperatorKind

__all__ = ["BlockMapper"]

_GEMMS = (OperatorKind.GEMM, OperatorKind.ROUTER, OperatorKind.EXPERT_GEMM)


@dataclass(frozen=True)
class BlockMapper:
    """Maps one (sub-)batch's operators onto the device."""

    npu: NpuConfig
    memory: MemoryConfig
    pim: PimConfig | None
    link: LinkConfig
    addresses: AddressPlan
    element_bytes: int
    kv_element_bytes: int
    products: PimProducts | None = None
    """Products of all tokens that a PIM design does; None: the NPU does all."""
    pim_link: PimLinkConfig | None = None
    """To the memory that PIM and the KV cache are in; None: the device's."""
    design_runs: OperationRuns | None = None
    """Of a PIM design with a controller of its own, each scheduled once for estimates and runs;
    None: it is no such design."""
    expert_runs: OperationRuns | None = None
    """Of a PIM design with a controller of its own that does experts; None: it is no such design,
    or does none."""
    joins_tiles: bool = False
    """Tiles between the ends of a product are few steps: the same work in fewer transfers."""

    @cached_property
    def attention(self) -> AttentionMapper:
        """What maps attention."""
        return AttentionMapper(
            self.npu, self.memory, self.pim, self.addresses, self.element_bytes,
            self.kv_element_bytes, self._vector, self.pim_link,
        )  # fmt: skip

    def program(self, forward: ForwardPass, placed: BlockPlacement) -> BlockProgram:
        """Tasks of a block. Attention goes to PIM where it has a shape, experts as placed."""
        layer = placed.layer
        block = forward.blocks[layer]
        parts = block_parts(block)
        before: list[NpuTask | StreamTask] = [
            self.attention.append(o, forward, placed)
            if o.kind is OperatorKind.KV_APPEND else self._placed(o, block, forward, layer)
            for o in parts.before
        ]  # fmt: skip
        before = [
            self.attention.over_cache(task, o, forward.step, placed, self._in_dram(o))
            if o.kv_read_bytes and isinstance(task, NpuTask) and task.steps else task
            for task, o in zip(before, parts.before, strict=True)
        ]  # fmt: skip
        chains = list(self.attention.tasks(parts.attention, block, forward, placed))
        attention = tuple(each for chain in chains for each in chain)
        after = [self._placed(o, block, forward, layer) for o in parts.after]
        late: list[NpuTask | StreamTask] = []
        experts: list[PimTask] = []
        inputs: NpuTask | None = None
        read: set[str] = set()
        levels = expert_levels(block) if placed.experts is not None else ()
        routed = {o.name for level in levels for o in (*level.gemms, *level.after)}
        if placed.experts is not None:
            if self.expert_runs is None:
                experts = self._pim_experts(levels, placed.experts, layer)
            if experts:
                inputs = self._send_inputs(levels, placed.experts, forward, layer)
                read = {name for gemm in levels[0].gemms for name in gemm.depends_on}
                ends = [at + 1 for at, task in enumerate(after) if task.name in read]
                after.insert(max(ends, default=0), inputs)
            for o in parts.late:
                late += (
                    self._routed(o, layer, placed.experts)
                    if o.name in routed else [self._placed(o, block, forward, layer)]
                )  # fmt: skip
        groups = BlockProgram(tuple(before), attention, tuple(after), tuple(late), tuple(experts))
        return link_block(
            groups, block, placed.part, layer, [o.name for o in parts.attention], inputs, read,
            routed, chains,
        )  # fmt: skip

    def outside(self, block: Block, forward: ForwardPass, number: int) -> BlockProgram:
        """Tasks of what is no decoder block, the one of this ``number``; its weights lie behind
        those of the blocks."""
        at = forward.layers + number
        tasks = tuple(self._placed(o, block, forward, at) for o in block.operators)
        return link_block(BlockProgram(tasks, (), ()), block, WHOLE_BATCH, at)

    # the NPU side -----------------------------------------------------------------------------
    def _placed(
        self, operator: Operator, block: Block, forward: ForwardPass, layer: int
    ) -> NpuTask | StreamTask:
        """On the NPU, or a product of all tokens on a PIM design that takes it."""
        if self.products is not None and self.products.takes(operator):
            return self.products.task(operator, layer)
        return self._npu(operator, block, forward, layer)

    def _npu(self, operator: Operator, block: Block, forward: ForwardPass, layer: int) -> NpuTask:
        if operator.kind in _GEMMS and operator.m:
            return self.gemm_task(operator, layer)
        if operator.kind is OperatorKind.COLLECTIVE:
            moved = self._collective(operator, forward.tp)
            return NpuTask(
                operator.name, str(operator.kind), "link", layer, 0, 0, 0,
                link_ps=moved.time_ps, link_bytes=moved.link_bytes,
                sram_bytes=2 * moved.link_bytes,  # sent and received
            )  # fmt: skip
        if operator.kind is OperatorKind.EMBEDDING:
            return self._embedding(operator, layer)
        return self._vector(operator, layer, _passing_bytes(operator, block))

    def _collective(self, operator: Operator, tp: int) -> Collective:
        match operator.collective:
            case CollectiveKind.ALL_REDUCE:
                return all_reduce(operator.output_bytes, tp, self.link)
            case CollectiveKind.ALL_GATHER:
                return all_gather(operator.output_bytes, tp, self.link)
            case CollectiveKind.SEND:
                return send(operator.output_bytes, self.link)

    def _embedding(self, operator: Operator, layer: int) -> NpuTask:
        """Rows of a table come in, one a token."""
        at = self.addresses.weights(operator.name, layer)
        return NpuTask(
            operator.name, str(operator.kind), "dma", layer, operator.flops,
            operator.weight_bytes, 0, streams=(Stream(at, self._bursts(operator.weight_bytes)),),
            sram_bytes=operator.weight_bytes,
        )  # fmt: skip

    def _bursts(self, size: int) -> int:
        return -(-size // self.memory.organization.burst_bytes)

    def _in_dram(self, operator: Operator) -> bool:
        """Activations cross the DRAM bus: always, or because they do not fit on chip."""
        pad = self.npu.scratchpad
        if pad.activations == "dram":
            return True
        moved = operator.input_bytes + operator.kv_read_bytes + operator.output_bytes
        return moved > pad.capacity // 4

    def gemm_task(
        self, operator: Operator, layer: int, experts: ExpertPlacement | None = None
    ) -> NpuTask:
        """A matrix product in tiles, its weights where the address plan has them.

        An operator of several products (heads, experts) does them one after the other, each with
        its own weights; of experts those that ``experts`` leaves to the NPU.
        """
        steps: list[GemmStep] = []
        weight_bytes = flops = sram_bytes = 0
        for one, part in _products(operator, experts):
            own, cut = self._steps(one, self.addresses.weights(operator.name, layer, part))
            steps += own
            sram_bytes += gemm_sram_bytes(
                own, cut, one.k, self.element_bytes, self.memory.organization.burst_bytes
            )
            weight_bytes += one.weight_bytes
            flops += one.flops
        return NpuTask(
            operator.name, str(operator.kind), "systolic", layer, flops, weight_bytes, 0,
            steps=self._joined(steps) if self.joins_tiles else tuple(steps),
            weights_chosen=operator.weights_chosen, sram_bytes=sram_bytes,
        )  # fmt: skip

    def _joined(self, steps: Sequence[GemmStep]) -> tuple[GemmStep, ...]:
        memory = self.memory
        burst = 1000 * memory.organization.burst_bytes / bytes_per_kcycle(self.npu, memory)
        opened = sum(memory.timings[name] for name in ("tRP", "tRCDRD", "CL", "nBL"))
        latency_ps = (opened + memory.controller.fabric_latency) * memory.tCK
        return joined_tiles(steps, burst, latency_ps * self.npu.frequency / 10**12)

    def _steps(self, one: Operator, at: int) -> tuple[Sequence[GemmStep], list[GemmTile]]:
        """Steps of one product whose weights begin at burst ``at``."""
        tiles = product_tiles(self.npu.tiling)(
            self.npu, self.memory, self.element_bytes, self.addresses.activation_burst
        )
        return tiles.steps(one, at, self._in_dram(one))

    def _vector(self, operator: Operator, layer: int, passing_bytes: int = 0) -> NpuTask:
        """Vector work; ``passing_bytes`` of its inputs pass the vector units on their way from the
        arrays (an epilogue), so that they are not loaded, and the product stores what it made."""
        unit = self.npu.vector
        work = vector_work(operator, unit)
        each = work.cycles
        at = self.addresses.activation_burst if self._in_dram(operator) else None
        moved = operator
        if at is not None and passing_bytes and self.npu.scratchpad.activations != "dram":
            left = max(operator.input_bytes - passing_bytes, 0)
            moved = replace(operator, input_bytes=left, output_bytes=0)
        layout = operands(self.npu.operand_layout)
        found = layout.vector_streams(moved, each, at, self.memory)
        streams = tuple(stream for stream in found if stream.total)
        return NpuTask(
            operator.name, str(operator.kind), "vector", layer, operator.flops,
            operator.weight_bytes, 0, streams=streams,
            compute_cycles=-(-operator.rows // unit.units) * each,
            vector_unit_cycles=each * operator.rows, vector_each=max(each, 1),
            vector_lane_ops=work.lane_ops * operator.rows,
            sram_bytes=operator.input_bytes + operator.output_bytes + self._size(streams),
        )  # fmt: skip

    def _size(self, streams: Sequence[Stream]) -> int:
        """Bytes of ``streams``: each passes the scratchpad on its way to or from DRAM."""
        return sum(s.total for s in streams) * self.memory.organization.burst_bytes

    # experts ----------------------------------------------------------------------------------
    def _routed(
        self, operator: Operator, layer: int, experts: ExpertPlacement
    ) -> list[NpuTask | StreamTask]:
        """An operator of the experts, without what PIM does beside the NPU's tasks.

        A design with a controller of its own takes turns with the NPU, so that its products stand
        among the NPU's, and one task of the vector units works on the results of both.
        """
        tasks: list[NpuTask | StreamTask] = []
        if self.expert_runs is not None and operator.kind is not OperatorKind.EXPERT_GEMM:
            experts = replace(experts, threshold=0)
        elif self.expert_runs is not None and experts.on_pim:
            tasks.append(expert_task(operator, layer, experts))
            streams = self._biases(operator, layer, experts.on_pim)
            if streams:  # the vector units add them
                tasks.append(
                    NpuTask(
                        operator.name, str(operator.kind), "dma", layer, 0, 0, 0, streams=streams,
                        sram_bytes=self._size(streams),
                    )
                )  # fmt: skip
        own = self._own_experts(operator, layer, experts)
        return tasks if own is None else [*tasks, own]

    def _biases(self, operator: Operator, layer: int, of: Sequence[int]) -> tuple[Stream, ...]:
        """What stands behind the matrices ``of`` experts."""
        matrix, beside = expert_bytes(operator)
        bursts = self._bursts(beside)
        starts = (self.addresses.weights(operator.name, layer, each) for each in of)
        return tuple(Stream(at + self._bursts(matrix), bursts) for at in starts if bursts)

    def _own_experts(
        self, operator: Operator, layer: int, experts: ExpertPlacement
    ) -> NpuTask | None:
        """The NPU's part of an operator of the experts; None where there is none."""
        pairs, total = experts.pairs(experts.on_npu), experts.pairs(experts.tokens)
        if not pairs:
            return None
        if operator.kind is OperatorKind.EXPERT_GEMM:
            return self.gemm_task(operator, layer, experts)
        share = replace(
            operator,
            **{
                name: getattr(operator, name) * pairs // total
                for name in ("rows", "flops", "input_bytes", "output_bytes")
            },
        )
        return self._vector(share, layer)

    def gemv_shape(self, operator: Operator) -> GemvShape:
        """One expert's matrix of ``operator`` in the banks."""
        assert self.pim is not None
        width = stored_element_bytes(operator)
        return GemvShape.of(operator.n, operator.k, self.memory, self.pim, width)

    def _send_inputs(
        self, levels: Sequence[ExpertLevel], experts: ExpertPlacement, forward: ForwardPass,
        layer: int,
    ) -> NpuTask:  # fmt: skip
        """Tokens with an expert on PIM go to the channels once, whichever experts they have: as
        many as there are, or as there are pairs. The biases of these experts come to the NPU,
        whose vector units add them."""
        assert self.pim is not None
        gemm = levels[0].gemms[0]
        vectors = min(forward.tokens, experts.pairs(experts.on_pim))
        scatters = input_scatters(
            self.gemv_shape(gemm), vectors, self.addresses.operand_row, self.memory, self.pim,
            stored_element_bytes(gemm),
        )  # fmt: skip
        streams = []
        for each in (g for level in levels for g in level.gemms):
            rows = self.gemv_shape(each).rows_per_channel(self.memory.organization.channels)
            bursts = self._bursts(expert_bytes(each)[1])
            for expert in experts.on_pim if bursts else ():
                first = self.addresses.weights(each.name, layer, expert)
                streams.append(Stream(first + rows * self.addresses.row_bursts, bursts))
        size = sum(s.count for s in scatters) + sum(s.bursts for s in streams)
        return NpuTask(
            "expert_inputs", "dispatch", "dma", layer, 0, 0, 0, streams=tuple(streams),
            scatters=tuple(scatters), sram_bytes=size * self.memory.organization.burst_bytes,
        )  # fmt: skip

    def _pim_experts(
        self, levels: Sequence[ExpertLevel], experts: ExpertPlacement, layer: int
    ) -> list[PimTask]:
        """PIM's experts, level after level."""
        if not experts.on_pim:
            return []
        assert self.pim is not None
        tasks: list[PimTask] = []
        for level, following in zip(levels, (*levels[1:], None), strict=True):
            gemms = (*level.gemms, *(following.gemms if following else ()))
            rows = {
                g.name: {e: self.addresses.weights_row(g.name, layer, e) for e in experts.on_pim}
                for g in level.gemms
            }
            tasks += expert_tasks(
                level, following, experts, {g.name: self.gemv_shape(g) for g in gemms}, rows,
                self.addresses.operand_row, layer, self.memory, self.pim, self.npu.vector,
            )  # fmt: skip
        return tasks


def _passing_bytes(operator: Operator, block: Block) -> int:
    """Of the inputs of ``operator``, bytes that a matrix product makes right before it, where each
    element is worked on by itself: no norm, whose rows must be there as a whole."""
    if operator.kind not in (OperatorKind.ACTIVATION, OperatorKind.ELEMENTWISE):
        return 0
    return sum(
        other.output_bytes for other in block.operators
        if other.kind is OperatorKind.GEMM and other.name in operator.depends_on
    )  # fmt: skip


def _products(
    operator: Operator, experts: ExpertPlacement | None
) -> Iterator[tuple[Operator, int]]:
    """The single products of a matrix operator, and which of its matrices each multiplies."""
    if operator.kind is OperatorKind.EXPERT_GEMM:
        total = sum(operator.expert_tokens)
        chosen = set(operator.experts if experts is None else experts.on_npu)
        for expert, tokens in zip(operator.experts, operator.expert_tokens, strict=True):
            if expert in chosen:
                share = (tokens, total)
                yield _share(operator, tokens, len(operator.experts), share), expert
        return
    for part in range(operator.count):
        yield _share(operator, operator.m, operator.count, (1, operator.count)), part


def _share(operator: Operator, m: int, parts: int, share: tuple[int, int]) -> Operator:
    """One of ``parts`` products: its matrix of as many, and ``share`` of the activations."""
    of, whole = share
    return replace(
        operator,
        m=m,
        weight_bytes=operator.weight_bytes // parts,
        input_bytes=operator.input_bytes * of // whole,
        output_bytes=operator.output_bytes * of // whole,
        flops=operator.flops * of // whole,
    )
