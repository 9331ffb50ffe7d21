"""An operator trace and a batch to an iteration: symbols get values, devices get their share.

Tensor parallelism is Megatron's (Shoeybi et al. 2019, arXiv 1909.08053, section 3): operators cut
by columns, rows or heads as their ``shard`` says, partial sums added up over the devices before
anything but a linear operator uses them. Where there are fewer key heads than devices, several
devices hold the same one. Experts are cut like any other product, so each device has a part of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pimsim.config.errors import InputError
from pimsim.workload.moe import ExpertLoad, Routing, UniformRouting
from pimsim.workload.operators import Block, CollectiveKind, Iteration, Operator, OperatorKind
from pimsim.workload.requests import Request
from pimsim.workload.stages import cut_blocks, misfit
from pimsim.workload.trace import (
    OperandRole,
    OperatorTrace,
    Phase,
    Shard,
    SymbolicOperator,
    evaluate,
)

__all__ = ["BlockBytes", "Step", "block_share", "held_bytes", "instantiate", "sample_blocks"]

PhaseName = Literal["prefill", "decode"]
_OF_EXPERTS = ("expert_fc1", "expert_act", "expert_fc2")
"""Groups that are cut over the devices which hold the same experts."""
_LINEAR = ("combine",)
"""Groups that may work on partial sums: they add and scale."""


@dataclass(frozen=True)
class Step:
    """What the symbols of a trace stand for in one batch."""

    tokens: int
    contexts: tuple[int, ...]
    """Tokens that each request's attention reads, the current ones included."""
    new_tokens: tuple[int, ...]
    """Tokens that each request adds."""

    @classmethod
    def of(cls, requests: Sequence[Request], phase: PhaseName) -> Step:
        """Decode: one token of each request. Prefill: its whole prompt."""
        if phase == "decode":
            contexts = tuple(request.context for request in requests)
            return cls(len(requests), contexts, (1,) * len(requests))
        prompts = tuple(request.prompt_tokens for request in requests)
        return cls(sum(prompts), prompts, prompts)

    def symbols(self, forms: Sequence[Mapping[str, int]]) -> dict[str, int]:
        """Values of the symbols that ``forms`` use, but for those of a routing."""
        values = {"T": self.tokens, "B": len(self.contexts), "L": len(self.contexts)}
        for form in forms:
            for symbol in form:
                if symbol[0] in "PK" and symbol not in values:
                    window = int(symbol[2:]) if "@" in symbol else None
                    values[symbol] = self._pairs(window) if symbol[0] == "P" else self._keys(window)
        return values

    def _keys(self, window: int | None) -> int:
        return sum(c if window is None else min(c, window) for c in self.contexts)

    def _pairs(self, window: int | None) -> int:
        """Sum over new tokens of the keys that each sees: itself and all before it."""
        total = 0
        for context, new in zip(self.contexts, self.new_tokens, strict=True):
            limit = context if window is None else min(window, context)
            first = context - new + 1
            growing = max(min(limit, context) - first, 0)  # positions before the limit is reached
            total += growing * (2 * first + growing - 1) // 2 + (new - growing) * limit
        return total


def sample_blocks(kinds: Sequence[str], count: int | None, spread: bool = False) -> list[int]:
    """Numbers of the blocks that stand for a model of these ``kinds``, in its order.

    ``None``: all of them. As many as there are or more: all, over again from the first. Fewer:
    each kind in proportion but at least once, evenly spread over its blocks; of a single kind
    the first ones, unless ``spread``. Raises ``InputError`` where there are more kinds than blocks
    wanted.
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
    trace: OperatorTrace, requests: Sequence[Request], *, phase: PhaseName = "decode", tp: int = 1,
    pp: int = 1, layers: int | None = None, routing: Routing | None = None, seed: int = 0,
    append_kv: bool = True, ep: int = 1, spread: bool = False,
) -> Iteration:  # fmt: skip
    """One step of ``requests`` on one of ``tp`` x ``pp`` devices.

    ``layers``: how many of the model's blocks to take, and ``spread``: see ``sample_blocks``; None:
    as many as the fullest of ``pp`` stages has, at least one of each kind.
    ``routing``: of a mixture of experts, uniform with ``seed`` where there is none.
    ``append_kv=False`` leaves out the writing of new keys and values. ``ep``: groups of devices
    with experts of their own, so that an expert is cut over ``tp / ep`` of them; the routing is
    then of one group. Raises ``InputError`` for an empty batch, a phase that the trace does not
    have, a context beyond the model, or degrees that do not divide it.
    """
    _check(trace, requests, phase)
    if layers is not None and layers < 1:
        raise InputError(f"layers is {layers}; at least 1 is needed")
    facts, chosen = trace.facts, trace.phases[phase]
    problem = misfit(facts.layers, pp)
    if problem:
        raise InputError(f"model {trace.model}: {problem}")
    kinds = list(chosen.sequence())
    if layers is None:
        layers = max(len(set(kinds)), *(len(stage) for stage in cut_blocks(facts.layers, pp)))
    numbers = sample_blocks(kinds, layers, spread)
    step = Step.of(requests, phase)
    if routing is None and facts.experts:
        routing = UniformRouting(facts.experts, facts.experts_per_token, seed)
    made: dict[object, Block] = {}
    blocks = []
    for number in numbers:
        kind = kinds[number]
        load = None
        if _has_experts(chosen, kind):
            assert routing is not None
            load = _load(trace, routing, number, step.tokens)
        key = (kind, load)
        if key not in made:
            operators = block_share(chosen.blocks[kind], step, tp, load, append_kv, ep)
            made[key] = Block(kind, operators)
        blocks.append(made[key])
    return Iteration(
        model=trace.model,
        phase=phase,
        tokens=step.tokens,
        contexts=step.contexts,
        requests=tuple(requests),
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


def held_bytes(trace: OperatorTrace, requests: Sequence[Request], tp: int) -> dict[str, BlockBytes]:
    """What a block of each kind takes on each of ``tp`` devices."""
    phase, facts = trace.phases["decode"], trace.facts
    everywhere = ExpertLoad(tuple(range(facts.experts)), (1,) * facts.experts)
    step = Step.of(requests, "decode")
    found = {}
    for kind in dict.fromkeys(phase.sequence()):
        load = everywhere if _has_experts(phase, kind) else None
        operators = block_share(phase.blocks[kind], step, tp, load)
        found[kind] = BlockBytes(
            sum(o.weight_bytes for o in operators), sum(o.kv_read_bytes for o in operators)
        )
    return found


def _check(trace: OperatorTrace, requests: Sequence[Request], phase: PhaseName) -> None:
    if phase not in trace.phases:
        raise InputError(f"trace of {trace.model}: it has no {phase}")
    if not requests:
        raise InputError(f"model {trace.model}: the batch is empty; at least 1 request is needed")
    for request in requests:
        if not 1 <= request.context <= trace.facts.max_context:
            raise InputError(
                f"request {request.id} has a context of {request.context} tokens; "
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
    operators: Sequence[SymbolicOperator], step: Step, tp: int, load: ExpertLoad | None,
    append_kv: bool = True, ep: int = 1,
) -> tuple[Operator, ...]:  # fmt: skip
    """One device's share of a block: cut, fused, with the all-reduces between devices."""
    forms = [
        form for o in operators for form in (o.m, o.rows, o.flops, *(x.bytes for x in o.operands))
    ]
    values = step.symbols(forms)
    if load is not None:
        values |= {"A": load.assigned, "E": len(load.experts)}
    shares = []
    for operator in operators:
        if operator.kind is OperatorKind.KV_APPEND and not append_kv:
            continue
        degree = tp // ep if operator.group in _OF_EXPERTS else tp
        shares.append((operator, _share(operator, values, step, degree, load)))
    return _reduced(_fused(shares), operators, tp)


def _share(
    operator: SymbolicOperator, values: Mapping[str, int], step: Step, tp: int,
    load: ExpertLoad | None,
) -> Operator:  # fmt: skip
    """The operator's part on one of ``tp`` devices, under its own name."""
    cut = _Cut.of(operator, tp)
    rows = evaluate(operator.rows, values)
    if operator.shard is Shard.HEADS and rows:
        rows = _part(rows, cut.heads)
    width = _part(operator.width, cut.columns)
    softmax = operator.kind is OperatorKind.SOFTMAX
    if softmax:
        window = operator.window
        width = max(c if window is None else min(c, window) for c in step.contexts)
    if operator.kind is OperatorKind.KV_APPEND:
        width = _part(operator.width, cut.keys)
    experts = load if operator.kind is OperatorKind.EXPERT_GEMM else None
    read = {role: _bytes(operator, role, False, values, cut) for role in OperandRole}
    written = {role: _bytes(operator, role, True, values, cut) for role in OperandRole}
    return Operator(
        name=operator.name,
        kind=operator.kind,
        group=operator.group,
        function=operator.function,
        m=evaluate(operator.m, values),
        n=_part(operator.n, cut.columns),
        k=_part(operator.k, cut.rows),
        count=_part(operator.count, cut.counted),
        rows=rows,
        width=width,
        heads=_part(operator.heads, cut.queries),
        kv_heads=_part(operator.kv_heads, cut.keys),
        head_dim=operator.head_dim,
        window=operator.window or 0,
        flops=_part(evaluate(operator.flops, values), cut.work),
        weight_bytes=read[OperandRole.WEIGHT],
        input_bytes=read[OperandRole.ACTIVATION],
        output_bytes=written[OperandRole.ACTIVATION],
        kv_read_bytes=read[OperandRole.KV],
        kv_write_bytes=written[OperandRole.KV],
        depends_on=operator.depends_on,
        expert_tokens=experts.tokens if experts else (),
        weights_chosen=experts is not None and operator.group == "expert_fc1",
        experts=experts.experts if experts else (),
    )


Fraction = tuple[int, int]
_ONE: Fraction = (1, 1)


@dataclass(frozen=True)
class _Cut:
    """Which part of each size one device has."""

    columns: Fraction = _ONE
    rows: Fraction = _ONE
    counted: Fraction = _ONE
    queries: Fraction = _ONE
    keys: Fraction = _ONE
    heads: Fraction = _ONE
    """Of vectors that are one a head: query heads, key heads, or both together."""
    work: Fraction = _ONE
    inputs: Fraction = _ONE
    outputs: Fraction = _ONE
    weights: Fraction = _ONE

    @classmethod
    def of(cls, operator: SymbolicOperator, tp: int) -> _Cut:
        """The cut that ``operator.shard`` asks for."""
        if tp == 1 or operator.shard is Shard.NONE:
            return cls()
        part = (1, tp)
        kv = operator.kv_heads
        keys = (max(kv // tp, 1), kv) if kv else part
        if operator.shard is Shard.COLUMNS:
            own = keys if kv else part
            return cls(columns=own, work=own, outputs=own, weights=own, queries=part, keys=keys,
                       inputs=own if operator.rows else _ONE)  # fmt: skip
        if operator.shard is Shard.ROWS:
            return cls(rows=part, work=part, inputs=part, weights=part)
        both = operator.heads + kv
        mine = operator.heads // tp + (max(kv // tp, 1) if kv else 0)
        heads = (mine, both) if operator.kind in _OF_HEADS and both else part
        if operator.kind is OperatorKind.KV_APPEND:
            heads = keys
        rows = heads if operator.kind is not OperatorKind.KV_APPEND else _ONE
        return cls(
            counted=part if operator.count > 1 else _ONE, queries=part, keys=keys, heads=rows,
            work=heads, inputs=heads, outputs=heads, weights=heads,
        )  # fmt: skip


_OF_HEADS = (OperatorKind.ROPE, OperatorKind.NORM)


def _part(size: int, fraction: Fraction) -> int:
    """The larger part where it does not come out even."""
    return -(-size * fraction[0] // fraction[1])


def _bytes(
    operator: SymbolicOperator, role: OperandRole, write: bool, values: Mapping[str, int], cut: _Cut
) -> int:
    total = 0
    for operand in operator.operands:
        if operand.role is not role or operand.write != write:
            continue
        size = evaluate(operand.bytes, values)
        if operand.whole:
            total += size
        elif role is OperandRole.WEIGHT:
            total += _part(size, cut.weights)
        elif role is OperandRole.KV:
            total += _part(size, cut.keys)
        else:
            total += _part(size, cut.outputs if write else cut.inputs)
    return total


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
                name = group if len(mine) == 1 else f"{group}.{each.name}"
                made[each.name] = replace(each, name=name)
                names[each.name] = name
    result = []
    for _, operator in shares:
        if operator.name in made:
            found = made[operator.name]
            after = dict.fromkeys(names[name] for name in found.depends_on if name in names)
            result.append(replace(found, depends_on=tuple(after)))
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
        result.append(replace(operator, depends_on=tuple(after)))
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
