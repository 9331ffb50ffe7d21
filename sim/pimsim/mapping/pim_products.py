"""Products of all tokens with the same weights on a PIM design with a controller of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from pimsim.config.errors import InputError
from pimsim.hardware.pim.operations import Gemv, OperationRuns, least_cycles
from pimsim.mapping.expert_costs import ExpertCosts
from pimsim.mapping.tasks import StreamTask
from pimsim.workload.operators import Operator, OperatorKind

__all__ = ["PimProducts"]


@dataclass(frozen=True)
class PimProducts:
    """Which products the design does, and as what."""

    runs: OperationRuns
    costs: ExpertCosts
    """What the NPU takes for a product."""
    always: bool
    """All that it can; else those that it does sooner than the NPU by the estimates."""
    _known: dict[tuple[Gemv, int], bool] = field(default_factory=dict, compare=False, repr=False)

    def takes(self, operator: Operator) -> bool:
        """Whether ``operator`` runs on the design.

        Raises ``InputError``, in the design's words, where all are to and it cannot do this one.
        """
        if operator.kind is not OperatorKind.GEMM or not operator.m or operator.kv_read_bytes:
            return False
        asked = self._operation(operator)
        key = asked, operator.weight_bytes
        if key not in self._known:
            self._known[key] = self._decide(operator, asked)
        return self._known[key]

    def element_bytes(self, operator: Operator) -> int:
        """Of a weight as it lies in the banks."""
        return self._operation(operator).element_bytes

    def weight_bytes(self, operator: Operator) -> int:
        """Of its matrices, that the design reads at least once."""
        return operator.count * operator.n * operator.k * self._operation(operator).element_bytes

    def task(self, operator: Operator, layer: int) -> StreamTask:
        """Of an operator that it takes."""
        return StreamTask(
            operator.name, str(operator.kind), "pim", layer, operator.flops,
            self.weight_bytes(operator), 0, operation=self._operation(operator),
            sram_bytes=operator.input_bytes + operator.output_bytes,
        )  # fmt: skip

    def _operation(self, operator: Operator) -> Gemv:
        each = operator.count * operator.n * operator.k
        return Gemv(
            operator.n, operator.k, (operator.m,) * operator.count, operator.weight_bytes // each
        )

    def _decide(self, operator: Operator, asked: Gemv) -> bool:
        design = self.runs.design
        what = f"{operator.name} ({operator.n} x {operator.k}, {operator.m} tokens)"
        wrong = None
        if asked.element_bytes < 1:
            wrong = f"{design.name} reads weights of whole bytes"
        elif operator.weights_chosen:
            wrong = f"{design.name} reads all of a matrix, and only some of its features work"
        if wrong is None and not self.always and self._least_ps(asked) >= self._npu_ps(operator):
            return False  # of many tokens: scheduling every command of it would take minutes
        if wrong is None:
            try:
                found = self.runs.of(asked)
            except InputError as error:
                wrong = str(error)
        if wrong is not None:
            if self.always:
                raise InputError(f"schedule.product_placement 'pim': {what}: {wrong}")
            return False
        if self.always:
            return True
        own = (found.cycles + 2 * design.memory.timings["tRP"]) * design.tCK
        return own < self._npu_ps(operator)

    def _npu_ps(self, operator: Operator) -> int:
        """What the NPU takes for it."""
        cycles = operator.count * self.costs.product_cycles(
            operator.m, operator.n, operator.k, operator.weight_bytes // operator.count
        )
        return cycles * 10**12 // self.costs.npu.frequency

    def _least_ps(self, asked: Gemv) -> int:
        """What the design takes at the peak of all its units; of narrower elements than its own,
        as many more at once."""
        design = self.runs.design
        macs = sum(asked.vectors) * asked.outputs * asked.inputs
        return least_cycles(design, macs, asked.element_bytes) * design.tCK
