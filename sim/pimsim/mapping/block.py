"""Operators of a decoder block to tasks: where each runs, what it moves, in which tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimConfig
from pimsim.config.run import LinkConfig
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.system import Follows, Scatter, Stream
from pimsim.hardware.fabric.collectives import ring_all_reduce
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.hardware.npu.tiling import GemmTile, tile_gemm
from pimsim.hardware.npu.vector import vector_cycles, vector_lane_ops
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.addresses import AddressPlan
from pimsim.mapping.artifact_operands import gemm_operands, vector_operands
from pimsim.mapping.attention import score_work, softmax_cycles, value_work
from pimsim.mapping.gemm import GemmPlaces, gemm_steps, tile_product
from pimsim.mapping.tasks import BlockProgram, GemmStep, NpuTask, PimTask
from pimsim.workload.operators import Iteration, Operator, OperatorKind

__all__ = ["BlockMapper"]

_VECTOR = {
    OperatorKind.ACTIVATION: ("gelu", "silu", "relu"),
    OperatorKind.ELEMENTWISE: ("add",),
    OperatorKind.ROPE: ("rope",),
}


@dataclass(frozen=True)
class BlockMapper:
    """Maps one (sub-)batch's operators onto the device."""

    npu: NpuConfig
    memory: MemoryConfig
    pim: PimConfig | None
    link: LinkConfig
    addresses: AddressPlan
    activation: str
    """The model's activation function."""
    norm: str
    append_kv: bool
    element_bytes: int
    attention_work: dict[tuple[str, tuple[int, ...]], Any] = field(
        default_factory=dict, compare=False, repr=False
    )
    """Programs by operator and members: they are the same in every block."""

    def program(
        self, iteration: Iteration, layer: int, members: Sequence[int], channel: Sequence[int],
        shape: AttentionShape | None,
    ) -> BlockProgram:  # fmt: skip
        """Tasks of block ``layer`` for ``members`` of the batch; ``channel`` is theirs.

        Attention goes to PIM where ``shape`` is given, else to the NPU.
        """
        qkv: list[NpuTask] = []
        attention: list[PimTask | NpuTask] = []
        rest: list[NpuTask] = []
        for operator in iteration.blocks[layer].operators:
            if operator.kind in (
                OperatorKind.ATTENTION_SCORE, OperatorKind.SOFTMAX, OperatorKind.ATTENTION_VALUE,
            ):  # fmt: skip
                attention += self._attention(operator, iteration, layer, members, channel, shape)
            elif operator.kind is OperatorKind.KV_APPEND:
                if self.append_kv:
                    qkv.append(self._kv_append(operator, iteration, layer, members, channel, shape))
            else:
                (rest if attention else qkv).append(self._npu(operator, iteration, layer))
        return BlockProgram(tuple(qkv), tuple(attention), tuple(rest), iteration.tokens)

    # the NPU side -----------------------------------------------------------------------------
    def _npu(self, operator: Operator, iteration: Iteration, layer: int) -> NpuTask:
        if operator.kind in (OperatorKind.GEMM, OperatorKind.EXPERT_GEMM, OperatorKind.ROUTER):
            return self.gemm_task(operator, layer)
        if operator.kind is OperatorKind.COLLECTIVE:
            moved = ring_all_reduce(operator.input_bytes, iteration.tp, self.link)
            return NpuTask(
                operator.name, str(operator.kind), "link", layer, 0, 0, 0,
                link_ps=moved.time_ps, link_bytes=moved.link_bytes,
            )  # fmt: skip
        return self._vector(operator, layer)

    def _bursts(self, size: int) -> int:
        return -(-size // self.memory.organization.burst_bytes)

    def _in_dram(self, operator: Operator) -> bool:
        """Activations cross the DRAM bus: always, or because they do not fit on chip."""
        pad = self.npu.scratchpad
        if pad.activations == "dram":
            return True
        return operator.input_bytes + operator.output_bytes > pad.capacity // 4

    def gemm_task(self, operator: Operator, layer: int) -> NpuTask:
        """A matrix product in tiles, its weights where the address plan has them."""
        if self.npu.systolic.preload.startswith("artifact"):
            return self._artifact_gemm(operator, layer)
        size, spill = self.element_bytes, self._in_dram(operator)
        dims = (operator.m, operator.n, operator.k)
        activation = self.addresses.activation_burst
        places = GemmPlaces(
            self.addresses.weights(operator.name, layer),
            activation if spill else None,
            activation + self._bursts(operator.input_bytes) if spill else None,
        )
        tiling = tile_product(*dims, size, self.npu, self.memory)
        bias = max(operator.weight_bytes - operator.n * operator.k * size, 0)
        steps = gemm_steps(dims, tiling, places, size, self.npu, self.memory, bias)
        return self._systolic_task(operator, layer, steps, list(chain(*tiling.cores)))

    def _systolic_task(
        self, operator: Operator, layer: int, steps: Sequence[GemmStep], tiles: Sequence[GemmTile]
    ) -> NpuTask:
        return NpuTask(
            operator.name, str(operator.kind), "systolic", layer, operator.flops,
            operator.weight_bytes, 0, steps=tuple(steps),
            sram_bytes=sum(t.weight_bytes + t.input_bytes + t.output_bytes for t in tiles),
        )  # fmt: skip

    def _artifact_gemm(self, operator: Operator, layer: int) -> NpuTask:
        """Tiles of the artifact's rule; activations are loaded block by block between the
        weights that they meet."""
        at = self.addresses.weights(operator.name, layer)
        spill = self._in_dram(operator)
        tiles = tile_gemm(
            operator.m, operator.n, operator.k, self.element_bytes, self.npu.scratchpad,
            "halve-largest",
        )  # fmt: skip
        bias = max(operator.weight_bytes - operator.n * operator.k * self.element_bytes, 0)
        steps = []
        activation = self.addresses.activation_burst
        for number, tile in enumerate(tiles):
            if self._by_operand:
                steps.append(self._artifact_step(operator, tile, bias > 0))
                continue
            weights = tile.weight_bytes + (bias if number == 0 else 0)
            ride = tile.input_bytes + tile.partial_bytes if spill else 0
            loads = []
            if weights + ride:
                loads.append(Stream(at, self._bursts(weights + ride), track_blocks=True))
                at += self._bursts(tile.weight_bytes)
            stored = self._stored(operator, tile.output_bytes) if spill else 0
            stores = (Stream(activation, self._bursts(stored), write=True),) if stored else ()
            block = min(operator.m, self.npu.systolic.rows) * operator.k * self.element_bytes
            scale = 1.0 + min(ride, block) / weights if ride and weights else 1.0
            plan = plan_gemm(tile.m, tile.n, tile.k, self.npu.systolic, self.element_bytes)
            steps.append(GemmStep(plan, tuple(loads), stores, 0, scale))
        return self._systolic_task(operator, layer, steps, tiles)

    @property
    def _by_operand(self) -> bool:
        """Whether loads and stores follow the artifact's order, operand by operand."""
        return self.npu.artifact_request_order != "none"

    def _artifact_step(self, operator: Operator, tile: GemmTile, has_bias: bool) -> GemmStep:
        rows = self.npu.systolic.rows
        operands = gemm_operands(
            tile, operator.m, operator.n, rows, self.element_bytes, has_bias,
            self.npu.artifact_store_bug,
        )  # fmt: skip
        plan = plan_gemm(tile.m, tile.n, tile.k, self.npu.systolic, self.element_bytes)
        loads = (self._operand_stream(operands.loads, track=True),)
        stores = tuple(self._operand_stream((size,), write=True) for size in operands.stores)
        return GemmStep(
            plan, loads, stores, 0, needed=operands.needed, stored_after=operands.stored_after
        )

    def _operand_stream(
        self, operands: tuple[int, ...], write: bool = False, track: bool = False
    ) -> Stream:
        return Stream(0, self._bursts(sum(operands)), write, track, operands)

    def _stored(self, operator: Operator, output_bytes: int) -> int:
        """Bytes of results that go back to DRAM."""
        if not self.npu.artifact_store_bug:
            return output_bytes
        rows = self.npu.systolic.rows
        kept = operator.m * min(operator.n, rows * -(-operator.m // rows)) * self.element_bytes
        return min(output_bytes, kept)

    def _vector(self, operator: Operator, layer: int) -> NpuTask:
        unit = self.npu.vector
        if operator.kind is OperatorKind.NORM:
            kind = self.norm
        elif operator.kind is OperatorKind.ACTIVATION:
            kind = "gelu" if self.activation == "gelu" else self.activation
            kind = kind if kind in _VECTOR[OperatorKind.ACTIVATION][:2] else "add"
        else:
            kind = _VECTOR[operator.kind][0]
        each = vector_cycles(kind, operator.width, unit)  # type: ignore[arg-type]
        total = each * operator.rows
        streams: tuple[Stream, ...] = ()
        if self._by_operand:
            loads, stores = vector_operands(operator)
            common = len(loads) % len(stores)
            # the row's way to the vector unit and the result's way back
            lag = each + 2 * self.memory.controller.fabric_latency
            follows = Follows(common, len(loads) // len(stores), lag)
            streams = (
                self._operand_stream(loads, track=True),
                replace(self._operand_stream(stores, write=True), follows=follows),
            )
        elif self._in_dram(operator):
            at = self.addresses.activation_burst
            loaded = operator.input_bytes + operator.weight_bytes
            streams = (
                Stream(at, self._bursts(loaded)),
                Stream(at, self._bursts(operator.output_bytes), write=True),
            )
        return NpuTask(
            operator.name, str(operator.kind), "vector", layer, operator.flops,
            operator.weight_bytes, 0, streams=streams,
            compute_cycles=-(-operator.rows // unit.units) * each, vector_unit_cycles=total,
            vector_lane_ops=vector_lane_ops(kind, operator.width) * operator.rows,  # type: ignore[arg-type]
            sram_bytes=operator.input_bytes + operator.output_bytes,
        )  # fmt: skip

    # the KV cache -----------------------------------------------------------------------------
    def _kv_append(
        self, operator: Operator, iteration: Iteration, layer: int, members: Sequence[int],
        channel: Sequence[int], shape: AttentionShape | None,
    ) -> NpuTask:  # fmt: skip
        """New keys and values go to their rows.

        With the PIM layout a new key fills its slice of a row. A new value is one element in
        each of many rows, so values are kept on chip until a burst's worth of tokens has come:
        then one burst for each element of the vector.
        """
        streams: tuple[Stream, ...] = ()
        scatters: list[Scatter] = []
        if shape is None:
            at = self.addresses.activation_burst
            streams = (Stream(at, self._bursts(operator.kv_write_bytes), write=True),)
        else:
            for i, c, context in zip(members, channel, iteration.contexts, strict=True):
                scatters += self._append_one(shape, i, c, context - 1)
        return NpuTask(
            operator.name, str(operator.kind), "dma", layer, 0, 0, operator.kv_write_bytes,
            streams=streams, scatters=tuple(scatters), sram_bytes=operator.kv_write_bytes,
        )  # fmt: skip

    def _append_one(
        self, shape: AttentionShape, member: int, channel: int, position: int
    ) -> list[Scatter]:
        org = self.memory.organization
        rows = self.addresses.kv[member]
        per_burst = org.burst_bytes // self.element_bytes
        bank = position % shape.banks
        row = rows.keys + position // shape.banks * shape.key_chunks
        slice_bursts = -(-shape.heads_per_row * shape.head_dim // per_burst)
        whole = -(-shape.kv_heads * shape.head_dim // per_burst)
        found = []
        for chunk in range(shape.key_chunks):
            count = min(slice_bursts, whole - chunk * slice_bursts)
            found.append(Scatter(channel, self._burst(row + chunk, bank, 0), count))
        if (position + 1) % per_burst:
            return found
        chunks = -(-(position + 1) // shape.row_elements)
        tiles = -(-shape.head_dim // shape.banks)
        column = position % shape.row_elements // per_burst
        stride = self._burst(0, 1, 0) - self._burst(0, 0, 0)
        for slot in range(shape.kv_heads * tiles):
            row = rows.values + slot * chunks + chunks - 1
            count = min(shape.banks, shape.head_dim)
            found.append(Scatter(channel, self._burst(row, 0, column), count, stride))
        return found

    def _burst(self, row: int, bank: int, column: int) -> int:
        """Index, within its channel, of a burst of the stream map."""
        org = self.memory.organization
        mapping = AddressMap.parse(self.memory.stream_map, org)
        channel_bit, channel_width = mapping.position["ch"], mapping.width["ch"]
        group, member = divmod(bank, org.banks_per_group)
        rank, group = divmod(group, org.bank_groups)
        values = {"ro": row, "ra": rank, "bg": group, "ba": member, "co": column}
        index = sum(value << mapping.position[name] for name, value in values.items())
        low = index & ((1 << channel_bit) - 1)
        return (index >> (channel_bit + channel_width)) << channel_bit | low

    # attention --------------------------------------------------------------------------------
    def _attention(
        self, operator: Operator, iteration: Iteration, layer: int, members: Sequence[int],
        channel: Sequence[int], shape: AttentionShape | None,
    ) -> list[PimTask | NpuTask]:  # fmt: skip
        if shape is None or self.pim is None:
            return [self._npu_attention(operator, iteration, layer)]
        if operator.kind is OperatorKind.SOFTMAX:
            return []  # follows the scores head by head
        score = operator.kind is OperatorKind.ATTENTION_SCORE
        work = score_work if score else value_work
        key = (operator.name, tuple(members))
        if key not in self.attention_work:
            self.attention_work[key] = work(
                shape, members, iteration.contexts, channel, self.addresses, self.memory,
                self.pim, self.npu.vector, self.element_bytes,
            )  # fmt: skip
        programs, marks, after = self.attention_work[key]
        lane_ops = 0
        if score:
            lane_ops = sum(vector_lane_ops("softmax", c) for c in iteration.contexts)
            lane_ops *= shape.heads
        return [
            PimTask(
                operator.name,
                str(operator.kind),
                "pim",
                layer,
                operator.flops,
                0,
                operator.kv_read_bytes,
                programs=programs,
                marks=marks,
                after=after,
                vector_lane_ops=lane_ops,
            )
        ]

    def _npu_attention(self, operator: Operator, iteration: Iteration, layer: int) -> NpuTask:
        """Attention on the NPU: the KV cache streams in, request after request computes."""
        if operator.kind is OperatorKind.SOFTMAX:
            unit = self.npu.vector
            each = [softmax_cycles(c, unit, self.element_bytes, False) for c in iteration.contexts]
            heads = operator.rows // max(iteration.tokens, 1)
            total = sum(each) * heads
            return NpuTask(
                operator.name, str(operator.kind), "vector", layer, operator.flops, 0, 0,
                compute_cycles=0 if unit.artifact_free else -(-total // unit.units),
                vector_unit_cycles=0 if unit.artifact_free else total,
                vector_lane_ops=heads
                * sum(vector_lane_ops("softmax", c) for c in iteration.contexts),
            )  # fmt: skip
        score = operator.kind is OperatorKind.ATTENTION_SCORE
        cycles = [self._attention_cycles(operator, c, score) for c in iteration.contexts]
        # in order of address in the artifact's presets too: there the latency of one head after
        # the other bounds attention, not its loads
        stream = Stream(self.addresses.activation_burst, self._bursts(operator.kv_read_bytes))
        return NpuTask(
            operator.name, str(operator.kind), "systolic", layer, operator.flops, 0,
            operator.kv_read_bytes,
            streams=(stream,),
            compute_cycles=sum(cycles),
            tail_cycles=cycles[-1] + self.npu.systolic.rows + self.npu.systolic.cols - 2,
            sram_bytes=operator.kv_read_bytes,
        )  # fmt: skip

    def _attention_cycles(self, operator: Operator, context: int, score: bool) -> int:
        """Array cycles of one request's scores or values, all heads."""
        systolic, dim = self.npu.systolic, operator.head_dim
        if self.npu.artifact_attention:
            # npu-only branch, half of it to each of the two operators (MECHANISMS 4.12)
            rows = systolic.rows
            fill = 2 * rows - 1
            blocks = -(-(context + rows - 1) // rows)
            softmax = softmax_cycles(context, self.npu.vector, 1, False)
            latency = systolic.rows + systolic.cols - 2 + max(rows // systolic.arrays, 4) + 1
            head = fill + context // 8 + softmax + latency * blocks
            return operator.heads * head // 2
        group = operator.heads // operator.kv_heads
        n, k = (context, dim) if score else (dim, context)
        one = plan_gemm(group, n, k, systolic.model_copy(update={"arrays": 1}), self.element_bytes)
        # with hidden preloads the next head's keys load while this one drains
        each = int(one.interval_cycles.sum()) if systolic.preload == "hidden" else one.cycles
        return -(-each * operator.kv_heads // systolic.arrays)
