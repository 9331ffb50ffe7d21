"""One matrix product alone on a device, its operands in memory."""

from __future__ import annotations

from pimsim.config.run import RunConfig
from pimsim.engine.machine import Machine
from pimsim.engine.schedules import Schedule
from pimsim.hardware.dram.system import MemorySystem
from pimsim.mapping.addresses import WeightRegion, plan_addresses
from pimsim.mapping.block import BlockMapper
from pimsim.mapping.operands import operands
from pimsim.mapping.program import Program
from pimsim.workload.cards import ModelCard, parallelism
from pimsim.workload.operators import Operator, OperatorKind

__all__ = ["run_product"]


def run_product(config: RunConfig, card: ModelCard, m: int, n: int, k: int) -> int:
    """NPU cycles of C[m, n] = A[m, k] B[k, n] with a bias of n.

    Parameters
    ----------
    config
        Of a run, for its NPU and memory.
    card
        Says how wide an element is and, for a request order of its own, how wide the model's hidden
        state.
    m
        Rows of A and of C.
    n
        Columns of B and of C.
    k
        Columns of A, rows of B.

    Returns
    -------
    int
        Of the NPU's clock, from the first load to the last store.

    Raises
    ------
    InputError
        For sizes that the arrays or the scratchpad cannot take.
    """
    width = card.dtype_bytes
    operator = Operator(
        "product", OperatorKind.GEMM, m=m, n=n, k=k, weight_bytes=(n * k + n) * width,
        input_bytes=m * k * width, output_bytes=m * n * width, flops=2 * m * n * k,
    )  # fmt: skip
    activations = operator.input_bytes + operator.output_bytes
    weights = {operator.name: WeightRegion(operator.weight_bytes)}
    addresses = plan_addresses(config.memory, [weights], activations, (), (), (), 0)
    mapper = BlockMapper(
        npu=config.npu, memory=config.memory, pim=config.pim, link=config.link,
        addresses=addresses, element_bytes=width, kv_element_bytes=width,
    )  # fmt: skip
    split = parallelism(card, config.parallel.tp, config.parallel.pp)
    system = MemorySystem(
        config.memory,
        config.pim,
        order=operands(config.npu.operand_layout).request_order(
            config.memory, card.hidden, split.tp
        ),
    )
    with Machine(config.npu, config.memory, system) as machine:
        step = machine.run(Program.of(mapper.gemm_task(operator, 0)), Schedule())
    return machine.clock.npu_cycle(step.end_ps)
