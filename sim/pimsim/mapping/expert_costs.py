"""What an expert costs on either machine, from the machines' own times."""

from __future__ import annotations

from dataclasses import dataclass, field

from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimConfig
from pimsim.hardware.npu.gemm import steady_cycles
from pimsim.hardware.pim.gemv import GemvShape
from pimsim.hardware.pim.gemv_time import gemv_cycles
from pimsim.mapping.experts import stored_element_bytes
from pimsim.mapping.gemm import bytes_per_kcycle
from pimsim.workload.operators import Block, Operator, OperatorKind

__all__ = ["ExpertCosts"]


@dataclass(frozen=True)
class ExpertCosts:
    """Times in NPU cycles of one expert's products with some tokens."""

    npu: NpuConfig
    memory: MemoryConfig
    pim: PimConfig
    _of_vector: dict[GemvShape, int] = field(default_factory=dict, compare=False, repr=False)

    def product_cycles(self, m: int, n: int, k: int, weight_bytes: int) -> int:
        """On the NPU: streaming the weights, or the arrays, whichever takes longer."""
        stream = -(-weight_bytes * 1000 // bytes_per_kcycle(self.npu, self.memory))
        return max(stream, steady_cycles(m, n, k, self.npu.systolic) // self.npu.cores)

    def on_npu(self, block: Block, tokens: int) -> int:
        """All products of an expert of ``block`` with ``tokens`` tokens, on the NPU."""
        return sum(
            self.product_cycles(tokens, o.n, o.k, o.weight_bytes // len(o.experts))
            for o in _experts(block)
        )

    def on_pim(self, block: Block, tokens: int) -> int:
        """The same in the banks: a product with a vector for each token."""
        cycle_ps = self.memory.tCK
        npu_ps = 10**12 // self.npu.frequency
        each = sum(self._vector_cycles(o) for o in _experts(block))
        return -(-tokens * each * cycle_ps // npu_ps)

    def _vector_cycles(self, operator: Operator) -> int:
        width = stored_element_bytes(operator)
        shape = GemvShape.of(operator.n, operator.k, self.memory, self.pim, width)
        if shape not in self._of_vector:
            self._of_vector[shape] = gemv_cycles(shape, self.memory, self.pim)
        return self._of_vector[shape]

    def other_products(self, block: Block) -> int:
        """What the NPU multiplies in a block beside experts."""
        return sum(
            o.count * self.product_cycles(o.m, o.n, o.k, o.weight_bytes // o.count)
            for o in block.operators
            if o.kind in (OperatorKind.GEMM, OperatorKind.ROUTER) and o.m
        )


def _experts(block: Block) -> list[Operator]:
    return [o for o in block.operators if o.kind is OperatorKind.EXPERT_GEMM and o.experts]
