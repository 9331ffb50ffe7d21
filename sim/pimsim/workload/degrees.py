"""Over how many devices a traced model is shared: as asked for, or the fewest that hold it."""

from __future__ import annotations

from collections.abc import Sequence

from pimsim.config.errors import InputError
from pimsim.workload.cards import Parallelism
from pimsim.workload.instantiate import held_bytes
from pimsim.workload.requests import Request
from pimsim.workload.trace import OperandRole, OperatorTrace

__all__ = ["trace_degrees", "trace_memory_bytes"]

_MAX_DEGREE = 1024


def trace_memory_bytes(
    trace: OperatorTrace, requests: Sequence[Request], tp: int, pp: int
) -> tuple[int, int]:
    """Bytes of weights and of KV cache on the fullest device.

    What is outside blocks (tables, output layer) is cut by ``tp`` and lies on one stage.
    """
    held = held_bytes(trace, requests, tp, pp)
    phase, experts = trace.phases["decode"], trace.facts.experts
    in_blocks = 0
    for kind in phase.sequence():
        for operator in phase.blocks[kind]:
            form = operator.bytes_of(OperandRole.WEIGHT, write=False)
            in_blocks += form.get("1", 0) + form.get("E", 0) * experts
    outside = max(trace.facts.parameter_bytes - in_blocks, 0)
    return held.weights + -(-outside // tp), held.kv


def trace_degrees(
    trace: OperatorTrace, requests: Sequence[Request], tp: int | None, pp: int | None,
    capacity_bytes: int,
) -> Parallelism:  # fmt: skip
    """``tp`` and ``pp`` as given; else one stage, and the smallest ``tp`` that holds the model.

    Raises ``InputError`` where degrees do not divide the model, or do not hold it.
    """
    pp = 1 if pp is None else pp
    most = min(trace.facts.heads, _MAX_DEGREE)
    problem, need, last = "", 0, 0
    for degree in range(1, most + 1) if tp is None else (tp,):
        found = _misfit(trace, degree, pp)
        if found:
            problem = found
            continue
        last, need = degree, sum(trace_memory_bytes(trace, requests, degree, pp))
        if need <= capacity_bytes:
            return Parallelism(degree, pp)
    if not last:
        raise InputError(f"model {trace.model}: {problem}")
    raise InputError(
        f"model {trace.model} (tp {last}, pp {pp}, {len(requests)} requests) needs "
        f"{need / 2**30:.2f} GiB on each device, memory has {capacity_bytes / 2**30:.2f} GiB"
    )


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
    if pp < 1 or facts.layers % pp:
        return f"layers ({facts.layers}) cannot be cut into pp {pp} stages"
    return ""
