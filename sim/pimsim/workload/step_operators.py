"""Which of a trace's operators a step runs in a block, and on which of its entries.

A trace has two forms of a block: one for prompts, one for tokens that all get logits. Of most
models they are the same. Latent attention differs: of a prompt the latent is expanded to keys and
values, of a single token that is absorbed into queries and outputs (DeepSeek-V2, arXiv 2405.04434,
section 2.1.2). In a step of both, what the forms have in common runs once over all tokens, and
each entry's attention is that of its own form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.workload.ancestors import ancestors
from pimsim.workload.operators import OperatorKind
from pimsim.workload.step import Step
from pimsim.workload.trace import (
    ModelFacts,
    Operand,
    OperandRole,
    OperatorTrace,
    SymbolicOperator,
)

__all__ = ["StepOperator", "step_operators"]

_ATTENTION = (
    OperatorKind.ATTENTION_SCORE, OperatorKind.SOFTMAX, OperatorKind.ATTENTION_VALUE,
)  # fmt: skip
_PROMPT = ".prompt"
"""Behind the name of a prompt's operator where the other entries have one of that name."""


@dataclass(frozen=True)
class StepOperator:
    """An operator, and what it works on."""

    symbolic: SymbolicOperator
    step: Step
    entries: tuple[int, ...] = ()
    """Numbers of the entries of ``step`` in the whole one; empty: it is the whole one."""

    def forms(self) -> Iterator[Mapping[str, int]]:
        """All of its sizes that depend on the step."""
        symbolic = self.symbolic
        yield from (symbolic.m, symbolic.rows, symbolic.flops)
        yield from (operand.bytes for operand in symbolic.operands)


def step_operators(trace: OperatorTrace, kind: str, step: Step) -> list[StepOperator]:
    """The operators of a block of ``kind`` in ``step``, each after those that it depends on.

    Parameters
    ----------
    trace
        Of the model.
    kind
        Of the block.
    step
        What each request is asked.

    Raises
    ------
    InputError
        Where the step feeds a prompt and the trace has no form for it.
    """
    prompts = tuple(at for at, entry in enumerate(step.entries) if entry.feeds_prompt)
    others = tuple(at for at, entry in enumerate(step.entries) if not entry.feeds_prompt)
    single = trace.phases["decode"].blocks[kind]
    if not prompts:
        return [StepOperator(operator, step) for operator in single]
    if "prefill" not in trace.phases:
        raise InputError(f"trace of {trace.model}: it has no prefill")
    of_prompt = trace.phases["prefill"].blocks.get(kind)
    if of_prompt is None:
        raise InputError(f"trace of {trace.model}: its prefill has no block {kind!r}")
    cached = any(step.entries[at].cached for at in prompts)
    of_prompt = _expanded(of_prompt, cached, trace.facts)
    if not others:
        return [StepOperator(operator, step) for operator in of_prompt]
    return _merged(single, of_prompt, step, others, prompts)


def _expanded(
    operators: Sequence[SymbolicOperator], cached: bool, facts: ModelFacts
) -> tuple[SymbolicOperator, ...]:
    """With what lies between the cache and the scores (MLA's expansion) for what it is.

    The keys and values that it makes are activations, not a cache. Where tokens are ``cached``,
    it is done for these too, not for the new tokens alone, and the first product that needs them
    reads them from the cache: all that it keeps of a token, the part of the key that needs no
    expansion too.
    """
    above = ancestors(operators)
    appends = {o.name: o for o in operators if o.kind is OperatorKind.KV_APPEND}
    needed = {name for o in operators if o.kind in _ATTENTION for name in above[o.name]}
    between = [
        o.name for o in operators
        if o.name in needed and o.kind not in _ATTENTION and above[o.name] & set(appends)
    ]  # fmt: skip
    read = [operand for each in appends.values() for operand in each.operands if operand.write]
    found = []
    for operator in operators:
        if operator.kind in _ATTENTION and above[operator.name] & set(between):
            operator = _of_activations(operator, facts)
        elif cached and operator.name in between:
            operator = _of_keys(operator, read if operator.name == between[0] else [])
        found.append(operator)
    return tuple(found)


def _of_activations(operator: SymbolicOperator, facts: ModelFacts) -> SymbolicOperator:
    """Attention whose keys and values were made in the step."""
    operands = []
    for each in operator.operands:
        if each.role is OperandRole.KV:
            wide = {
                symbol: size * facts.dtype_bytes // facts.kv_dtype_bytes
                for symbol, size in each.bytes.items()
            }
            each = each.model_copy(update={"role": OperandRole.ACTIVATION, "bytes": wide})
        operands.append(each)
    return operator.model_copy(update={"operands": tuple(operands)})


def _of_keys(operator: SymbolicOperator, read: Sequence[Operand]) -> SymbolicOperator:
    """The operator, once for each key that is read in place of each new token.

    ``read``: what the cache keeps of each token, where the operator takes it from there; its inputs
    are then those of the new tokens.
    """

    def keys(form: Mapping[str, int]) -> dict[str, int]:
        return {"K" if symbol == "T" else symbol: n for symbol, n in form.items()}

    operands = [
        each if read and each.role is OperandRole.ACTIVATION and not each.write
        else each.model_copy(update={"bytes": keys(each.bytes)})
        for each in operator.operands
    ]  # fmt: skip
    for each in read:
        size = each.bytes.get("T", 0)
        # every device has the latent of all heads, whatever it has of the product
        operands.append(
            each.model_copy(
                update={"write": False, "whole": True, "bytes": {"K": size, "T": -size}}
            )
        )
    return operator.model_copy(
        update={
            "m": keys(operator.m), "rows": keys(operator.rows), "flops": keys(operator.flops),
            "operands": tuple(operands),
        }
    )  # fmt: skip


def _merged(
    single: Sequence[SymbolicOperator], of_prompt: Sequence[SymbolicOperator], step: Step,
    others: tuple[int, ...], prompts: tuple[int, ...],
) -> list[StepOperator]:  # fmt: skip
    """Both forms of a block in one: what they have in common over all entries."""

    def bare(operator: SymbolicOperator) -> SymbolicOperator:
        return operator.model_copy(update={"depends_on": ()})

    mine = {operator.name: operator for operator in single}
    common = {o.name for o in of_prompt if o.name in mine and bare(o) == bare(mine[o.name])}
    if any(o.kind in _ATTENTION and o.name not in common for o in single):
        common -= {o.name for o in single if o.kind in _ATTENTION}
    renamed = {o.name: o.name + _PROMPT for o in of_prompt if o.name in mine.keys() - common}
    twins = {
        o.name: o.model_copy(
            update={
                "name": renamed.get(o.name, o.name),
                "group": o.group + _PROMPT if o.name in renamed else o.group,
                "depends_on": tuple(renamed.get(name, name) for name in o.depends_on),
            }
        )
        for o in of_prompt
    }  # fmt: skip
    result: list[StepOperator] = []
    left, of_others, of_prompts = list(of_prompt), step.part(others), step.part(prompts)

    def prompts_up_to(name: str | None) -> None:
        while left and left[0].name != name:
            operator = left.pop(0)
            assert operator.name not in common, "forms have their operators in different orders"
            result.append(StepOperator(twins[operator.name], of_prompts, prompts))

    for operator in single:
        if operator.name not in common:
            result.append(StepOperator(operator, of_others, others))
            continue
        prompts_up_to(operator.name)
        left.pop(0)
        after = dict.fromkeys((*operator.depends_on, *twins[operator.name].depends_on))
        both = operator.model_copy(update={"depends_on": tuple(after)})
        result.append(StepOperator(both, step))
    prompts_up_to(None)
    return result
