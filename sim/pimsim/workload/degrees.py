"""Over how many devices a traced model is shared: as asked for, or the fewest that hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pimsim.config.errors import InputError
from pimsim.workload.cards import ModelCard, Parallelism, tensor_degrees
from pimsim.workload.operators import OperatorKind
from pimsim.workload.pipeline import (
    MemoryNeed,
    NoRoomError,
    Room,
    TableBytes,
    fullest,
    refusal,
    stage_needs,
)
from pimsim.workload.stages import misfit as stages_misfit
from pimsim.workload.step import Step
from pimsim.workload.trace import OperandRole, OperatorTrace, SymbolicOperator

__all__ = [
    "check_degrees", "larger_degrees", "trace_degrees", "trace_memory_bytes", "trace_memory_needs",
]  # fmt: skip

_MAX_DEGREE = 1024


def trace_memory_needs(
    trace: OperatorTrace, step: Step, tp: int, pp: int, batches: int | None = None
) -> tuple[MemoryNeed, ...]:
    """What a device of each pipeline stage must hold.

    What is outside blocks is cut by ``tp``: the last stage holds last norm and output layer, the
    first the rest.

    Parameters
    ----------
    trace
        Of the model.
    step
        Whose contexts the cache holds.
    tp
        Devices that share each layer.
    pp
        Stages.
    batches
        Like this one, under way at once; None: one a stage.

    Returns
    -------
    tuple[MemoryNeed, ...]
        Bytes, by stage.
    """
    return stage_needs(trace, step, tp, pp, _tables(trace, tp), batches)


def trace_memory_bytes(
    trace: OperatorTrace, step: Step, tp: int, pp: int, batches: int | None = None
) -> tuple[int, int]:
    """Bytes of weights and of KV cache on a device of the fullest pipeline stage.

    Parameters
    ----------
    trace
        Of the model.
    step
        Whose contexts the cache holds.
    tp
        Devices that share each layer.
    pp
        Stages.
    batches
        Like this one, under way at once; None: one a stage.
    """
    need = fullest(trace_memory_needs(trace, step, tp, pp, batches))
    return need.weights_bytes, need.kv_bytes


def _tables(trace: OperatorTrace, tp: int) -> TableBytes:
    """What lies outside the blocks, of parameters that are known as a sum."""
    phase, experts = trace.phases["decode"], trace.facts.experts
    in_blocks = 0
    for kind in phase.sequence():
        for operator in phase.blocks[kind]:
            form = _weight_form(operator)
            in_blocks += form.get("1", 0) + form.get("E", 0) * experts
    outside = max(trace.facts.parameter_bytes - in_blocks, 0)
    behind = phase.blocks[phase.after] if phase.after is not None else ()
    last = min(sum(_weight_form(each).get("1", 0) for each in behind), outside)
    first, table = outside - last, 0
    if first < _input_table_bytes(trace) // 2:  # tied: only learned positions are left, or nothing
        table = next((_weight_form(o).get("1", 0) for o in behind if o.n), 0)
        first += table
    whole, first, last = (-(-size // tp) for size in (outside, first, last))
    return TableBytes(first, last, first + last - whole)


def _input_table_bytes(trace: OperatorTrace) -> int:
    """A row for each word, as large as what a token reads; 0 where nothing is looked up."""
    phase = trace.phases["decode"]
    before = phase.blocks[phase.before] if phase.before is not None else ()
    row = sum(
        _weight_form(each).get("T", 0) for each in before if each.kind is OperatorKind.EMBEDDING
    )
    return trace.facts.vocab * row


def _weight_form(operator: SymbolicOperator) -> dict[str, int]:
    return operator.bytes_of(OperandRole.WEIGHT, write=False)


def trace_degrees(
    trace: OperatorTrace, step: Step, tp: int | None, pp: int | None, room: Room,
    batches: int | None = None,
) -> Parallelism:  # fmt: skip
    """``tp`` and ``pp`` as given; else one stage, and the smallest ``tp`` that holds the model.

    Parameters
    ----------
    trace
        Of the model.
    step
        Whose contexts the cache holds.
    tp
        Devices that share each layer.
    pp
        Stages.
    room
        Of a device.
    batches
        Like this one, under way at once; None: one a stage.

    Raises
    ------
    InputError
        Where degrees do not suit the model, or do not hold it.
    """
    pp = 1 if pp is None else pp
    most = min(trace.facts.heads, _MAX_DEGREE)
    problem, last = "", 0
    needs: tuple[MemoryNeed, ...] = ()
    for degree in range(1, most + 1) if tp is None else (tp,):
        found = _misfit(trace, degree, pp)
        if found:
            problem = found
            continue
        last, needs = degree, trace_memory_needs(trace, step, degree, pp, batches)
        if all(map(room.holds, needs)):
            return Parallelism(degree, pp)
    if not last:
        raise InputError(f"model {trace.model}: {problem}")
    raise NoRoomError(refusal(trace, step, Parallelism(last, pp), needs, room, batches))


def check_degrees(trace: OperatorTrace, tp: int, pp: int) -> None:
    """Raise where degrees do not divide the model.

    Parameters
    ----------
    trace
        Of the model.
    tp
        Devices that share each layer.
    pp
        Stages.

    Raises
    ------
    InputError
        With the degree that does not divide.
    """
    found = _misfit(trace, tp, pp)
    if found:
        raise InputError(f"model {trace.model}: {found}")


def larger_degrees(
    model: ModelCard | OperatorTrace, degrees: Parallelism, ep: int
) -> Iterator[int]:
    """Over how many more devices a layer may be shared than it is, ascending.

    Parameters
    ----------
    model
        Card or trace.
    degrees
        As it is.
    ep
        Groups of experts, which divide all that is found.
    """
    if isinstance(model, ModelCard):
        suitable: Iterable[int] = tensor_degrees(model)
    else:
        most = min(model.facts.heads, _MAX_DEGREE)
        suitable = (tp for tp in range(1, most + 1) if not _misfit(model, tp, degrees.pp))
    return (tp for tp in suitable if tp > degrees.tp and tp % ep == 0)


def _misfit(trace: OperatorTrace, tp: int, pp: int) -> str:
    facts = trace.facts
    if tp < 1 or facts.heads % tp:
        return f"heads ({facts.heads}) cannot be shared by tp {tp}"
    if facts.kv_heads % tp and tp % facts.kv_heads:
        return f"kv_heads ({facts.kv_heads}) cannot be shared by tp {tp}"
    for kind, operators in trace.phases["decode"].blocks.items():
        for one in operators:  # blocks may differ in their heads
            if one.heads % tp or (one.kv_heads % tp and tp % one.kv_heads):
                return f"heads of {kind} ({one.heads}, {one.kv_heads} of keys) and tp {tp}"
    return stages_misfit(facts.layers, pp)
