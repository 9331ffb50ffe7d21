"""An operator trace and a step to a forward pass: symbols get values, devices get their share.

Tensor parallelism is Megatron's (Shoeybi et al. 2019, arXiv 1909.08053, section 3): operators cut
by columns, rows or heads as their ``shard`` says, partial sums added up over the devices before
anything but a linear operator uses them. Where there are fewer key heads than devices, several
devices hold the same one. Experts are cut like any other product, so each device has a part of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from pimsim.config.errors import InputError
from pimsim.workload.moe import ExpertLoad, Routing, UniformRouting
from pimsim.workload.operator_share import operator_share
from pimsim.workload.operators import Block, CollectiveKind, ForwardPass, Operator, OperatorKind
from pimsim.workload.stages import cut_blocks, misfit
from pimsim.workload.step import Step
from pimsim.workload.step_operators import StepOperator, step_operators
from pimsim.workload.trace import (
    OperatorTrace,
    Phase,
    Shard,
    SymbolicOperator,
    windowed,
)

__all__ = ["BlockBytes", "block_share", "held_bytes", "instantiate", "sample_blocks"]

_OF_EXPERTS = ("expert_fc1", "expert_act", "expert_fc2")
"""Groups that are cut over the devices which hold the same experts."""
_LINEAR = ("combine",)
"""Groups that may work on partial sums: they add and scale."""


def sample_blocks(kinds: Sequence[str], count: int | None, spread: bool = False) -> list[int]:
    """Numbers of the blocks that stand for a model of these ``kinds``, in its order.

    As many as there are or more: all, over again from the first. Fewer: each kind in proportion but
    at least once, evenly spread over its blocks; of a single kind the first ones, unless
    ``spread``.

    Parameters
    ----------
    kinds
        Of all blocks, in order.
    count
        Blocks wanted; None: all.
    spread
        Blocks of a single kind are spread too.

    Raises
    ------
    InputError
        Where there are more kinds than blocks wanted.
    """
    if count is None:
        return list(range(len(kinds)))
    if count >= len(kinds):
        return [at % len(kinds) for at in range(count)]
    numbers: dict[str, list[int]] = {}
    for number, kind in enumerate(kinds):
        numbers.setdefault(kind, []).append(number)
    if len(numbers) == 1 and not spread:
        return list(range(count))
    if count < len(numbers):
        raise InputError(
            f"layers is {count}; the model has {len(numbers)} kinds of block "
            f"({', '.join(numbers)}), so at least {len(numbers)} are needed"
        )
    share = {kind: 1 for kind in numbers}
    for _ in range(count - len(numbers)):
        # the kind that is furthest below its share, the first of equal ones
        neediest = max(
            (kind for kind in numbers if share[kind] < len(numbers[kind])),
            key=lambda kind: len(numbers[kind]) * count - share[kind] * len(kinds),
        )
        share[neediest] += 1
    chosen = []
    for kind, wanted in share.items():
        have = numbers[kind]
        chosen += [have[at * len(have) // wanted] for at in range(wanted)]
    return sorted(chosen)


def instantiate(
    trace: OperatorTrace, step: Step, *, tp: int = 1, pp: int = 1, layers: int | None = None,
    routing: Routing | None = None, seed: int = 0, append_kv: bool = True, ep: int = 1,
    spread: bool = False,
) -> ForwardPass:  # fmt: skip
    """``step`` on one of ``tp`` x ``pp`` devices.

    Parameters
    ----------
    trace
        Of the model.
    step
        What each request is asked.
    tp
        Devices that share each block.
    pp
        Stages.
    layers
        Blocks to take; None: as many as the fullest stage has, at least one of each kind.
    routing
        Of a mixture of experts; None: uniform.
    seed
        Of uniform routing.
    append_kv
        Whether new keys and values are written.
    ep
        Groups of devices with experts of their own, so that an expert is cut over ``tp / ep`` of
        them; the routing is then of one group.
    spread
        As of ``sample_blocks``.

    Raises
    ------
    InputError
        For a context beyond the model, a step that the trace has no operators for, or degrees that
        do not divide it.
    """
    _check(trace, step)
    if layers is not None and layers < 1:
        raise InputError(f"layers is {layers}; at least 1 is needed")
    facts, phase = trace.facts, trace.phases["decode"]
    problem = misfit(facts.layers, pp)
    if problem:
        raise InputError(f"model {trace.model}: {problem}")
    kinds = list(phase.sequence())
    if layers is None:
        layers = max(len(set(kinds)), *(len(stage) for stage in cut_blocks(facts.layers, pp)))
    numbers = sample_blocks(kinds, layers, spread)
    if routing is None and facts.experts:
        routing = UniformRouting(facts.experts, facts.experts_per_token, seed)
    symbolic = {
        kind: step_operators(trace, kind, step) for kind in {kinds[number] for number in numbers}
    }
    made: dict[object, Block] = {}
    blocks = []
    for number in numbers:
        kind = kinds[number]
        load = None
        if _has_experts(phase, kind):
            assert routing is not None
            load = _load(trace, routing, number, step.tokens)
        key = (kind, load)
        if key not in made:
            made[key] = Block(kind, block_share(symbolic[kind], tp, load, append_kv, ep))
        blocks.append(made[key])
    return ForwardPass(
        model=trace.model,
        step=step,
        blocks=tuple(blocks),
        model_blocks=tuple((kind, kinds.count(kind)) for kind in dict.fromkeys(kinds)),
        layer_numbers=tuple(numbers),
        tp=tp,
        pp=pp,
        dtype_bytes=facts.dtype_bytes,
        kv_dtype_bytes=facts.kv_dtype_bytes,
    )


class BlockBytes(NamedTuple):
    """What a block takes on one device."""

    weights: int
    """With all experts."""
    kv: int
    """Of one batch."""


def held_bytes(trace: OperatorTrace, step: Step, tp: int) -> dict[str, BlockBytes]:
    """What a block of each kind takes on each of ``tp`` devices at the end of ``step``: of a window
    the tokens that the step's own see, which are more where several are fed at once.

    Parameters
    ----------
    trace
        Of the model.
    step
        Whose contexts the cache holds.
    tp
        Devices that share each block.
    """
    phase, facts = trace.phases["decode"], trace.facts
    everywhere = ExpertLoad(tuple(range(facts.experts)), (1,) * facts.experts)
    found = {}
    for kind in dict.fromkeys(phase.sequence()):
        load = everywhere if _has_experts(phase, kind) else None
        symbolic = [StepOperator(_keeping_all(o), step) for o in phase.blocks[kind]]
        operators = block_share(symbolic, tp, load)
        found[kind] = BlockBytes(
            sum(o.weight_bytes for o in operators), sum(o.kv_read_bytes for o in operators)
        )
    return found


def _keeping_all(operator: SymbolicOperator) -> SymbolicOperator:
    """What chooses among all tokens leaves none out of the cache."""
    return windowed(operator, None) if operator.page else operator


def _check(trace: OperatorTrace, step: Step) -> None:
    for entry in step.entries:
        if not 1 <= entry.context <= trace.facts.max_context:
            raise InputError(
                f"request {entry.request.id} has a context of {entry.context} tokens; "
                f"model {trace.model} takes 1 to {trace.facts.max_context} (max_context)"
            )


def _has_experts(phase: Phase, kind: str) -> bool:
    return any(o.kind is OperatorKind.EXPERT_GEMM for o in phase.blocks[kind])


def _load(trace: OperatorTrace, routing: Routing, layer: int, tokens: int) -> ExpertLoad:
    found = routing.assignments(layer, tokens)
    wanted = (tokens, trace.facts.experts_per_token)
    if found.shape != wanted:
        raise InputError(
            f"model {trace.model}: the routing gives {found.shape[1]} experts a token, "
            f"the model has {wanted[1]}"
        )
    try:
        return ExpertLoad.of(found, trace.facts.experts)
    except ValueError as error:
        raise InputError(f"model {trace.model}: routing of block {layer}: {error}") from error


def block_share(
    operators: Sequence[StepOperator], tp: int, load: ExpertLoad | None, append_kv: bool = True,
    ep: int = 1,
) -> tuple[Operator, ...]:  # fmt: skip
    """One device's share of a block: cut, fused, with the all-reduces between devices.

    Parameters
    ----------
    operators
        Of the block, with the entries of the step that they work on.
    tp
        Devices that share it.
    load
        Tokens of its experts; None: it has none.
    append_kv
        Whether new keys and values are written.
    ep
        Groups of devices with experts of their own.
    """
    forms: dict[tuple[int, ...], list[Mapping[str, int]]] = {}
    steps = {each.entries: each.step for each in operators}
    for each in operators:
        forms.setdefault(each.entries, []).extend(each.forms())
    values = {entries: steps[entries].symbols(own) for entries, own in forms.items()}
    if load is not None:
        for own in values.values():
            own |= {"A": load.assigned, "E": len(load.experts)}
    shares = []
    for each in operators:
        operator = each.symbolic
        if operator.kind is OperatorKind.KV_APPEND and not append_kv:
            continue
        degree = tp // ep if operator.group in _OF_EXPERTS else tp
        shares.append((operator, operator_share(each, values[each.entries], degree, load)))
    return _reduced(_fused(shares), [each.symbolic for each in operators], tp)


def _fused(shares: Sequence[tuple[SymbolicOperator, Operator]]) -> list[Operator]:
    """Operators under the names of their groups.

    Products of a group that share their input become one, as hardware runs them (q, k and v; gate
    and up). What else shares a group keeps a name of its own.
    """
    members: dict[str, list[Operator]] = {}
    for _, operator in shares:
        members.setdefault(operator.group, []).append(operator)
    names: dict[str, str] = {}
    made: dict[str, Operator] = {}
    for group, mine in members.items():
        if len(mine) > 1 and _same_input(mine):
            made[mine[0].name] = _sum(group, mine)
            names |= {each.name: group for each in mine}
        else:
            for each in mine:
                made[each.name] = each
                names[each.name] = group if len(mine) == 1 else f"{group}.{each.name}"
    result = []
    for _, operator in shares:
        if operator.name in made:
            found = made[operator.name]
            after = dict.fromkeys(names[name] for name in found.depends_on if name in names)
            name = names[operator.name]
            result.append(replace(found, name=name, depends_on=tuple(after)))
    return result


def _same_input(operators: Sequence[Operator]) -> bool:
    first = operators[0]
    return all(
        o.kind is OperatorKind.GEMM and o.count == 1
        and (o.m, o.k, o.depends_on) == (first.m, first.k, first.depends_on)
        for o in operators
    )  # fmt: skip


def _sum(group: str, operators: Sequence[Operator]) -> Operator:
    first = operators[0]
    return replace(
        first,
        name=group,
        n=sum(o.n for o in operators),
        heads=max(o.heads for o in operators),
        kv_heads=max(o.kv_heads for o in operators),
        weight_bytes=sum(o.weight_bytes for o in operators),
        output_bytes=sum(o.output_bytes for o in operators),
        flops=sum(o.flops for o in operators),
    )


def _reduced(
    block: Sequence[Operator], symbolic: Sequence[SymbolicOperator], tp: int
) -> tuple[Operator, ...]:
    """The block with an all-reduce behind each partial sum; bytes are those of one device."""
    if tp == 1:
        return tuple(block)
    by_rows = {o.group for o in symbolic if o.shard is Shard.ROWS}
    partial: set[str] = set()
    reduced: dict[str, str] = {}
    result: list[Operator] = []
    for operator in block:
        linear = operator.group in _LINEAR
        after = []
        for name in operator.depends_on:
            if name in partial and not linear:
                if name not in reduced:
                    source = next(o for o in result if o.name == name)
                    reduced[name] = f"allreduce{len(reduced) + 1}"
                    result.append(_all_reduce(reduced[name], source))
                name = reduced[name]
            after.append(name)
        if operator.group in by_rows or (linear and any(n in partial for n in after)):
            partial.add(operator.name)
        names = tuple(after)
        same = names == operator.depends_on
        result.append(operator if same else replace(operator, depends_on=names))
    return tuple(result)


def _all_reduce(name: str, source: Operator) -> Operator:
    rows = source.m or source.rows
    width = source.n or source.width
    return Operator(
        name=name,
        kind=OperatorKind.COLLECTIVE,
        collective=CollectiveKind.ALL_REDUCE,
        group=str(CollectiveKind.ALL_REDUCE),
        rows=rows,
        width=width,
        input_bytes=source.output_bytes,
        output_bytes=source.output_bytes,
        depends_on=(source.name,),
    )
