"""A cache that keeps a bounded number of tokens, first ones and last ones, as operators say it.

Of ``n`` tokens kept a query reads ``min(context, n)`` keys: as many as with a window of ``n``, so
that the forms of a sliding window (``K@n``, ``P@n``) say what is read, multiplied and held. What is
neither among the first nor the last tokens is evicted.
"""

from __future__ import annotations

from collections.abc import Mapping

from pimsim.config.errors import InputError
from pimsim.workload.arithmetic import ROPE_FLOPS
from pimsim.workload.operators import OperatorKind
from pimsim.workload.requests import MAX_TOKENS
from pimsim.workload.trace import OperatorTrace, Shard, SymbolicOperator, window_symbol, windowed

__all__ = ["keeping"]

_ATTENTION = (
    OperatorKind.ATTENTION_SCORE, OperatorKind.SOFTMAX, OperatorKind.ATTENTION_VALUE,
)  # fmt: skip
_ROTATE = "rotate_keys"


def keeping(trace: OperatorTrace, tokens: int, rotates_keys: bool, name: str) -> OperatorTrace:
    """The model whose blocks keep ``tokens`` tokens; those with a smaller window stay.

    Parameters
    ----------
    trace
        Of the model.
    tokens
        First and last ones together.
    rotates_keys
        Keys are cached as they were before the rotary embedding and turned when they are read:
        vector work on each key read, and none on new ones. Where the model has no such embedding
        nothing is turned.
    name
        Of the view, for messages.

    Raises
    ------
    InputError
        Where keys and values are latents.
    """
    phases = {
        key: phase.model_copy(
            update={
                "blocks": {
                    kind: _block(operators, tokens, rotates_keys, f"{name}: model {trace.model}")
                    for kind, operators in phase.blocks.items()
                }
            }
        )
        for key, phase in trace.phases.items()
    }
    facts = trace.facts.model_copy(update={"max_context": MAX_TOKENS})
    return trace.model_copy(update={"facts": facts, "phases": phases})


def _block(
    operators: tuple[SymbolicOperator, ...], tokens: int, rotates_keys: bool, where: str
) -> tuple[SymbolicOperator, ...]:
    score = next((o for o in operators if o.kind is OperatorKind.ATTENTION_SCORE), None)
    value = next((o for o in operators if o.kind is OperatorKind.ATTENTION_VALUE), None)
    if score is None or value is None:
        return operators
    if score.head_dim != value.head_dim:
        raise InputError(
            f"workload.kv_view: {where} keeps latents (MLA), of which keys and values of single "
            "heads cannot be chosen"
        )
    window = tokens if score.window is None else min(tokens, score.window)
    rope = next((o for o in operators if o.kind is OperatorKind.ROPE), None)
    turned = rotates_keys and rope is not None
    found: list[SymbolicOperator] = []
    for each in operators:
        if each.kind in _ATTENTION:
            each = windowed(each, window)
        if turned and each is rope:
            each = _of_queries(each)
        if turned and each.kind is OperatorKind.ATTENTION_SCORE:
            assert rope is not None
            appends = {o.name for o in operators if o.kind is OperatorKind.KV_APPEND}
            after = tuple(name for name in each.depends_on if name in appends)
            found.append(_rotation(each, rope, window, after))
            each = each.model_copy(update={"depends_on": (*each.depends_on, _ROTATE)})
        found.append(each)
    return tuple(found)


def _of_queries(rope: SymbolicOperator) -> SymbolicOperator:
    """The rotation of a step's tokens without that of their keys."""
    both = rope.heads + rope.kv_heads

    def form(given: Mapping[str, int]) -> dict[str, int]:
        return {symbol: times * rope.heads // both for symbol, times in given.items()}

    operands = tuple(each.model_copy(update={"bytes": form(each.bytes)}) for each in rope.operands)
    return rope.model_copy(
        update={
            "rows": form(rope.rows), "flops": form(rope.flops), "kv_heads": 0,
            "operands": operands,
        }
    )  # fmt: skip


def _rotation(
    score: SymbolicOperator, rope: SymbolicOperator, window: int, after: tuple[str, ...]
) -> SymbolicOperator:
    """Turns each key on its way from the cache: no bytes beside those that the scores read."""
    keys = window_symbol("K", window)
    return SymbolicOperator(
        name=_ROTATE, kind=OperatorKind.ROPE, group=_ROTATE, shard=Shard.HEADS,
        rows={keys: score.kv_heads}, width=rope.width, kv_heads=score.kv_heads,
        head_dim=score.head_dim, flops={keys: ROPE_FLOPS * score.kv_heads * rope.width},
        depends_on=after,
    )  # fmt: skip
