"""What a device does once for a batch beside its decoder blocks, by pipeline stage.

The first stage looks up embeddings, the last one makes logits; each stage but the last hands its
activations on. Vocabulary tables are cut by rows over the devices of a stage, so that embeddings
are added up over them (each device has looked up its own tokens) and logits are gathered
(Megatron-LM, arXiv 1909.08053, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pimsim.workload.instantiate import block_share
from pimsim.workload.operators import Block, CollectiveKind, Operator, OperatorKind
from pimsim.workload.step import Step
from pimsim.workload.step_operators import StepOperator
from pimsim.workload.trace import OperatorTrace, Shard, SymbolicOperator

__all__ = ["Outside", "outside_work", "table_bytes_read"]

_KIND = "outside"


@dataclass(frozen=True)
class Outside:
    """Work beside the blocks, and which stages do it."""

    stages: tuple[int, ...]
    """Numbers of the pipeline stages, from 0, each for itself."""
    block: Block

    def label(self, pp: int) -> str:
        """What a reader calls it, of ``pp`` stages, which are counted from 1 there."""
        if pp == 1:
            return _KIND
        first, last = self.stages[0] + 1, self.stages[-1] + 1
        return f"{_KIND} {first}" if first == last else f"{_KIND} {first}-{last}"


def outside_work(
    trace: OperatorTrace, step: Step, tp: int, pp: int, with_tables: bool
) -> tuple[Outside, ...]:
    """Of each stage that has any, in their order; equal ones once.

    Parameters
    ----------
    trace
        Of the model.
    step
        What each request is asked.
    tp
        Devices of a stage.
    pp
        Stages.
    with_tables
        Embedding, last norm and output layer too, not transfers alone.
    """
    phase = trace.phases["decode"]
    found: list[Outside] = []
    for stage in range(pp):
        operators: list[Operator] = []
        if with_tables and stage == 0 and phase.before is not None:
            operators += _embedding(phase.blocks[phase.before], step, tp)
        if with_tables and stage == pp - 1 and phase.after is not None:
            operators += _logits(phase.blocks[phase.after], step, tp)
        if stage < pp - 1:
            operators.append(_send(trace, step))
        if not operators:
            continue
        block = Block(_KIND, tuple(operators))
        if found and found[-1].block == block:
            found[-1] = replace(found[-1], stages=(*found[-1].stages, stage))
        else:
            found.append(Outside((stage,), block))
    return tuple(found)


def table_bytes_read(trace: OperatorTrace, step: Step, tp: int) -> int:
    """Weights that embedding and output layer read for a batch, on one device of each stage.

    Parameters
    ----------
    trace
        Of the model.
    step
        What each request is asked.
    tp
        Devices of a stage.
    """
    return sum(
        operator.weight_bytes
        for outside in outside_work(trace, step, tp, 1, with_tables=True)
        for operator in outside.block.operators
    )


def _share(symbolic: Sequence[SymbolicOperator], step: Step, tp: int) -> tuple[Operator, ...]:
    """One device's part of what runs on the whole step."""
    return block_share([StepOperator(operator, step) for operator in symbolic], tp, None)


def _embedding(symbolic: Sequence[SymbolicOperator], step: Step, tp: int) -> list[Operator]:
    """The rows of each device's part of the table, and their sum over the devices."""
    result: list[Operator] = []
    renamed: dict[str, str] = {}
    for operator in _share(symbolic, step, tp):
        after = tuple(renamed.get(name, name) for name in operator.depends_on)
        result.append(replace(operator, depends_on=after))
        if operator.kind is OperatorKind.EMBEDDING and tp > 1:
            name = f"{operator.name}_allreduce"
            renamed[operator.name] = name
            result.append(
                _collective(
                    name, CollectiveKind.ALL_REDUCE, operator, operator.output_bytes,
                    operator.output_bytes,
                )
            )  # fmt: skip
    return result


def _logits(symbolic: Sequence[SymbolicOperator], step: Step, tp: int) -> list[Operator]:
    """The last norm and each device's columns of logits, gathered behind what is cut so and is
    not worked on in that cut."""
    shares = list(_share(symbolic, step, tp))
    cut = {operator.group for operator in symbolic if operator.shard is Shard.COLUMNS}
    if tp == 1 or not cut:
        return shares
    inner = {name for each in shares if each.group in cut for name in each.depends_on}
    result: list[Operator] = []
    renamed: dict[str, str] = {}
    for each in shares:
        after = tuple(renamed.get(name, name) for name in each.depends_on)
        result.append(replace(each, depends_on=after))
        if each.group in cut and each.name not in inner:
            name = renamed[each.name] = f"{each.name}_allgather"
            result.append(
                _collective(
                    name, CollectiveKind.ALL_GATHER, each, each.output_bytes,
                    tp * each.output_bytes,
                )
            )  # fmt: skip
    return result


def _collective(
    name: str, kind: CollectiveKind, source: Operator, input_bytes: int, output_bytes: int
) -> Operator:
    return Operator(
        name=name, kind=OperatorKind.COLLECTIVE, collective=kind, group=str(kind),
        rows=source.m or source.rows, width=source.n or source.width,
        input_bytes=input_bytes, output_bytes=output_bytes, depends_on=(source.name,),
    )  # fmt: skip


def _send(trace: OperatorTrace, step: Step) -> Operator:
    """The residual stream of all tokens goes to the next stage, from each device to its like."""
    hidden = trace.facts.hidden
    size = step.tokens * hidden * trace.facts.dtype_bytes
    return Operator(
        name="send", kind=OperatorKind.COLLECTIVE, collective=CollectiveKind.SEND,
        group=str(CollectiveKind.SEND), rows=step.tokens, width=hidden, input_bytes=size,
        output_bytes=size,
    )  # fmt: skip
