"""What an expert costs on either machine, from the machines' own times."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil, fsum

from pimsim.config.energy import EnergyConfig
from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.energy.dram import DramCounts, dram_energy
from pimsim.hardware.energy.npu import NpuCounts, npu_energy
from pimsim.hardware.energy.pim import PimCounts, pim_energy, stream_energy_pj
from pimsim.hardware.npu.gemm import plan_gemm, steady_cycles
from pimsim.hardware.pim.gemv import GemvShape
from pimsim.hardware.pim.gemv_time import GemvTime, gemv_time
from pimsim.hardware.pim.operations import OperationRun, OperationRuns
from pimsim.mapping.design_experts import expert_operation
from pimsim.mapping.experts import ExpertEnergies, expert_levels, input_bursts, stored_element_bytes
from pimsim.mapping.gemm import bytes_per_kcycle
from pimsim.workload.operators import Block, Operator, OperatorKind

__all__ = ["ExpertCosts"]


@dataclass(frozen=True)
class ExpertCosts:
    """Times in NPU cycles of one expert's products with some tokens."""

    npu: NpuConfig
    memory: MemoryConfig
    pim: PimConfig | None
    """None: no expert runs there."""
    sustained: Fraction = Fraction(1)
    """Of the memory's peak rate, what a stream alone is taken to get."""
    runs: OperationRuns | None = None
    """Of a PIM design with a controller of its own, in turns with the NPU; None: ``pim`` is no such
    design."""
    _known: dict[tuple[GemvShape, int], GemvTime] = field(
        default_factory=dict, compare=False, repr=False
    )

    def product_cycles(self, m: int, n: int, k: int, weight_bytes: int) -> int:
        """On the NPU: streaming the weights, or the arrays, whichever takes longer."""
        stream = self._stream_cycles(weight_bytes)
        return max(stream, steady_cycles(m, n, k, self.npu.systolic) // self.npu.cores)

    def _stream_cycles(self, moved_bytes: int) -> int:
        """Of the NPU, for so much of the memory."""
        peak = bytes_per_kcycle(self.npu, self.memory)
        return ceil(moved_bytes * 1000 / (peak * self.sustained))

    def on_npu(self, block: Block, tokens: int) -> int:
        """All products of an expert of ``block`` with ``tokens`` tokens, on the NPU."""
        return sum(
            self.product_cycles(tokens, o.n, o.k, o.weight_bytes // len(o.experts))
            for o in _experts(block)
        )

    def on_pim(self, block: Block, at_once: bool, tokens: int) -> int | None:
        """The same in the banks, a product with a vector for each token; ``at_once``: beside a
        stream of weights to the NPU. None: the design cannot do it."""
        if self.runs is not None:
            try:
                cycles = sum(found.cycles for found in self._operations(block, tokens))
            except InputError:
                return None
            return -(-cycles * self.runs.design.tCK * self.npu.frequency // 10**12)
        times = self._times(block)
        each = sum(time.beside_cycles if at_once else time.alone_cycles for time in times)
        return -(-tokens * each * self.memory.tCK * self.npu.frequency // 10**12)

    def energies(
        self, block: Block, energy: EnergyConfig, static_w: float, delay: bool
    ) -> ExpertEnergies:
        """Energy of an expert on either machine, for an objective other than time."""
        return ExpertEnergies(
            lambda tokens: fsum(
                self._npu_j(o, tokens, o.weight_bytes // len(o.experts), energy)
                for o in _experts(block)
            ),
            lambda tokens: self._all_pim_j(block, tokens, energy),
            static_w / self.npu.frequency,
            delay,
        )

    def _operations(self, block: Block, tokens: int) -> list[OperationRun]:
        """Of one expert on the design. Raises ``InputError`` in the design's words."""
        assert self.runs is not None
        return [self.runs.of(expert_operation(o, (tokens,))) for o in _experts(block)]

    def _all_pim_j(self, block: Block, tokens: int, energy: EnergyConfig) -> float:
        """One expert with so many tokens in the banks."""
        if self.runs is None:
            return tokens * fsum(self._pim_j(o, energy) for o in _experts(block))
        return 1e-12 * fsum(
            pj
            for found in self._operations(block, tokens)
            for pj in stream_energy_pj(self.runs.design, found.commands).values()
        )

    def _npu_j(self, operator: Operator, tokens: int, weights: int, energy: EnergyConfig) -> float:
        """Weights from DRAM, multiplications, what the folds read and write."""
        org = self.memory.organization
        bursts, rows = -(-weights // org.burst_bytes), -(-weights // org.row_bytes)
        dram = dram_energy(DramCounts(rows, bursts, 0, 0, 0, 0), self.memory, energy)
        plan = plan_gemm(tokens, operator.n, operator.k, self.npu.systolic)
        assert plan.traffic is not None  # plan_gemm puts it in
        sram = plan.traffic.sram_bytes(tokens * operator.n, 2, False, False) + weights
        return dram.total_j + npu_energy(NpuCounts(plan.macs, 0, sram, 0), energy).total_j

    def _pim_j(self, operator: Operator, energy: EnergyConfig) -> float:
        """One vector: rows opened in all banks, the matrix read, operands and results moved."""
        shape, org = self._shape(operator), self.memory.organization
        width = stored_element_bytes(operator)
        read = shape.rows * shape.banks * shape.row_elements * width
        counts = PimCounts(
            gact_banks=shape.rows * shape.banks,
            read_bytes=read,
            macs=read // width,
            broadcast_bytes=read // shape.banks,
            gwrite=shape.chunks * org.channels,
            readres=shape.rows * shape.tiles_per_row,
        )
        return pim_energy(counts, self.memory, energy).total_j

    def stream_share(self, block: Block) -> tuple[int, int] | None:
        """What is left of a stream's rate beside PIM's experts, as a fraction; None: they take
        turns."""
        if self.runs is not None:
            return None
        times = self._times(block)
        return sum(t.stream_bursts for t in times), sum(t.stream_alone_bursts for t in times)

    def _times(self, block: Block) -> list[GemvTime]:
        """Times of a vector by product; results of the first ones are written for the next."""
        found = []
        levels = expert_levels(block)
        for level, following in zip(levels, (*levels[1:], None), strict=True):
            for operator in level.gemms:
                written = 0
                if following is not None and operator is level.gemms[-1]:
                    target = following.gemms[0]
                    written = input_bursts(
                        self._shape(target), self.memory, stored_element_bytes(target)
                    )
                found.append(self._time(self._shape(operator), written))
        return found

    def _shape(self, operator: Operator) -> GemvShape:
        assert self.pim is not None
        width = stored_element_bytes(operator)
        return GemvShape.of(operator.n, operator.k, self.memory, self.pim, width)

    def _time(self, shape: GemvShape, written_bursts: int) -> GemvTime:
        key = (shape, written_bursts)
        assert self.pim is not None
        if key not in self._known:
            self._known[key] = gemv_time(shape, self.memory, self.pim, written_bursts)
        return self._known[key]

    def beside(self, block: Block, attends: bool) -> int:
        """What the NPU multiplies in a block beside experts; where it ``attends``, it reads the
        cache too."""
        cache = sum(o.kv_read_bytes for o in block.operators) if attends else 0
        return self._stream_cycles(cache) + sum(
            o.count * self.product_cycles(o.m, o.n, o.k, o.weight_bytes // o.count)
            for o in block.operators
            if o.kind in (OperatorKind.GEMM, OperatorKind.ROUTER) and o.m
        )


def _experts(block: Block) -> list[Operator]:
    return [o for o in block.operators if o.kind is OperatorKind.EXPERT_GEMM and o.experts]
