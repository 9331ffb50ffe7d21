"""Attention alone on the NPU: requests whose keys and values come from memory, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.config.run import RunConfig
from pimsim.engine.machine import Machine
from pimsim.engine.npu_records import task_streams
from pimsim.engine.schedules import Schedule
from pimsim.hardware.dram.device import make_memory_system
from pimsim.mapping.addresses import BlockKv, plan_addresses
from pimsim.mapping.attention_split import linear_layout
from pimsim.mapping.attention_tasks import AttentionMapper
from pimsim.mapping.block_placement import BlockPlacement
from pimsim.mapping.gemm import bytes_per_kcycle, core_network
from pimsim.mapping.program import Program
from pimsim.mapping.tasks import NpuTask
from pimsim.workload.instantiate import block_share
from pimsim.workload.operators import Block, ForwardPass, Operator
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry
from pimsim.workload.step_operators import StepOperator
from pimsim.workload.symbolic import OperatorMaker

__all__ = ["NpuAttentionResult", "run_npu_attention"]

ELEMENT_BYTES = 2


@dataclass(frozen=True)
class NpuAttentionResult:
    """What attention took, and what each side alone would take. Cycles are NPU cycles."""

    cycles: int
    """From the first load to the last result."""
    array_cycles: int
    """In which the arrays are taken up, mean over all."""
    vector_cycles: int
    """In which the vector units are, mean over all."""
    memory_cycles: int
    """Least for the bytes that moved."""
    flops: int
    """That are needed: of pairs of a token and a key that it sees."""
    executed_flops: int
    """That are done: of tiles on the diagonal all."""
    read_bytes: int
    written_bytes: int
    causes: dict[str, int]
    """NPU cycles by cause; they add up to ``cycles``."""


def run_npu_attention(
    config: RunConfig, heads: int, kv_heads: int, head_dim: int, contexts: Sequence[int],
    new_tokens: int, window: int | None = None,
) -> NpuAttentionResult:  # fmt: skip
    """Scores, softmax and values of requests with these contexts, 2-byte elements.

    Parameters
    ----------
    config : RunConfig
        Its NPU and its memory, in which the cache lies in order.
    heads, kv_heads, head_dim : int
        Of one device.
    contexts : sequence of int
        Tokens of each request, the new ones among them.
    new_tokens : int
        Of each request.
    window : int, optional
        A token sees so many last ones.

    Raises
    ------
    InputError
        Where a context has fewer tokens than are new, or the heads do not share their keys evenly.
    """
    for at, context in enumerate(contexts):
        if context < new_tokens:
            raise InputError(
                f"--new-tokens {new_tokens}: request {at} has a context of {context} tokens, the "
                f"new ones among them; allowed: 1 to {context}"
            )
    if heads % kv_heads:
        raise InputError(f"--kv-heads {kv_heads}: it must divide the {heads} heads")
    forward = _forward(heads, kv_heads, head_dim, contexts, new_tokens, window)
    (block,) = forward.blocks
    tasks = _tasks(config, forward, block)
    npu = config.npu
    system = make_memory_system(config.memory, network=core_network(npu))
    with Machine(npu, config.memory, system) as machine:
        step = machine.run(Program.of(*tasks), Schedule())
    recorder = machine.recorder
    burst_bytes = config.memory.organization.burst_bytes
    read, written = (
        sum(s.total for task in tasks for s in task_streams(task) if s.write is write) * burst_bytes
        for write in (False, True)
    )
    return NpuAttentionResult(
        cycles=machine.clock.npu_cycle(step.end_ps),
        array_cycles=recorder.array_cycles,
        vector_cycles=recorder.vector_unit_cycles // npu.vector.units,
        memory_cycles=-(-(read + written) * 1000 // bytes_per_kcycle(npu, config.memory)),
        flops=sum(task.flops for task in tasks if task.unit == "systolic"),
        executed_flops=2 * recorder.macs["npu"],
        read_bytes=read,
        written_bytes=written,
        causes={cause: cycles for cause, cycles in recorder.npu_causes.items() if cycles},
    )


def _forward(
    heads: int, kv_heads: int, head_dim: int, contexts: Sequence[int], new_tokens: int,
    window: int | None,
) -> ForwardPass:  # fmt: skip
    """A block of attention alone."""
    entries = tuple(
        StepEntry(Request(at, 0.0, context, 1, 0), new_tokens, context)
        for at, context in enumerate(contexts)
    )
    step = Step(entries)
    make = OperatorMaker(ELEMENT_BYTES, ELEMENT_BYTES)
    symbolic = make.scores(heads, kv_heads, head_dim, head_dim, window, (), ("softmax",))
    operators = block_share([StepOperator(each, step) for each in symbolic], 1, None)
    return ForwardPass(
        "attention", step, (Block("attention", operators),), (("attention", 1),), (0,), 1, 1,
        ELEMENT_BYTES, ELEMENT_BYTES,
    )  # fmt: skip


def _tasks(config: RunConfig, forward: ForwardPass, block: Block) -> list[NpuTask]:
    size = sum(o.input_bytes + o.output_bytes for o in block.operators)
    requests = range(len(forward.contexts))
    score, _, value = block.operators
    burst_bytes = config.memory.organization.burst_bytes
    layout = linear_layout(score, value, forward.step, burst_bytes)
    addresses = plan_addresses(
        config.memory, [{}], size, [BlockKv(None, score.window or None, layout)],
        forward.contexts, [0] * len(requests), 0, new_tokens=forward.step.new_tokens,
    )  # fmt: skip

    def no_vector_work(operator: Operator, layer: int) -> NpuTask:
        raise AssertionError("attention has no vector work but softmax")

    mapper = AttentionMapper(
        config.npu, config.memory, None, addresses, ELEMENT_BYTES, ELEMENT_BYTES, no_vector_work
    )
    placed = BlockPlacement(0, 0, tuple(requests), (0,) * len(requests), None, layout)
    chains = mapper.tasks(block.operators, block, forward, placed)
    return [task for chain in chains for task in chain if isinstance(task, NpuTask)]
