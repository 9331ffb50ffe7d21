"""A KV cache that lies in memory in fewer bits than it is multiplied in.

Bytes of the cache's operands change while they are symbolic: packed elements, scales, zero points,
and the last tokens of a request that are kept as the model has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import OperandRole, OperatorTrace, SymbolicOperator, window_symbol

__all__ = ["CacheFormat", "packed_cache"]


@dataclass(frozen=True)
class CacheFormat:
    """How the keys, or the values, of a head lie in memory."""

    dtype: str
    """Of an element, as operands name it."""
    bits: int
    group: int = 0
    """Elements for each scale; 0: those of a head and token."""
    scale_bits: int = 16
    zero_bits: int = 0
    """Of a zero point, one with each scale; 0: there are none."""
    residual: int = 0
    """Last tokens of a request that are not packed yet."""
    scale_dtype: str = "f16"
    keys_by_channel: bool = False
    """Groups of keys go over tokens, those of values over a token's channels."""

    def head_bytes(self, dim: int) -> int:
        """Bytes of a token's key or value of ``dim`` elements; of groups that go over tokens, its
        part of them."""
        scales = -(-dim // min(self.group or dim, dim))
        return -(-(dim * self.bits + scales * (self.scale_bits + self.zero_bits)) // 8)


def packed_cache(trace: OperatorTrace, fmt: CacheFormat) -> OperatorTrace:
    """The model whose cache is in a format.

    Parameters
    ----------
    trace
        Of the model, as it reads its cache.
    fmt
        Of keys and values.

    Raises
    ------
    InputError
        Where keys and values are latents, or are not less than without it.
    """
    phases = {
        name: phase.model_copy(
            update={
                "blocks": {
                    kind: _block(trace.model, operators, fmt)
                    for kind, operators in phase.blocks.items()
                }
            }
        )
        for name, phase in trace.phases.items()
    }
    decode = phases["decode"]
    token_bytes = sum(
        _token_bytes(operators, fmt)
        for operators in (decode.blocks[kind] for kind in decode.sequence())
    )
    facts = trace.facts.model_copy(update={"kv_bytes_per_token": token_bytes})
    return trace.model_copy(update={"phases": phases, "facts": facts})


def _attention(
    operators: Sequence[SymbolicOperator],
) -> tuple[SymbolicOperator, SymbolicOperator] | None:
    """Scores and values of a block; None: it has none."""
    found = [
        next((o for o in operators if o.kind is kind), None)
        for kind in (OperatorKind.ATTENTION_SCORE, OperatorKind.ATTENTION_VALUE)
    ]
    score, value = found
    return None if score is None or value is None else (score, value)


def _token_bytes(operators: Sequence[SymbolicOperator], fmt: CacheFormat) -> int:
    """Of a packed token in one block."""
    return sum(o.kv_heads * fmt.head_bytes(o.head_dim) for o in _attention(operators) or ())


def _block(
    model: str, operators: tuple[SymbolicOperator, ...], fmt: CacheFormat
) -> tuple[SymbolicOperator, ...]:
    attention = _attention(operators)
    if attention is None:
        return operators
    score, value = attention
    if score.head_dim != value.head_dim:
        raise InputError(
            f"model {model} keeps latents (MLA), which have no keys and values of single heads"
        )
    return tuple(_operator(model, each, _token_bytes(operators, fmt), fmt) for each in operators)


def _operator(
    model: str, operator: SymbolicOperator, token_bytes: int, fmt: CacheFormat
) -> SymbolicOperator:
    if all(each.role is not OperandRole.KV for each in operator.operands):
        return operator
    if operator.kind is not OperatorKind.KV_APPEND:
        token_bytes = operator.kv_heads * fmt.head_bytes(operator.head_dim)
    operands = []
    for each in operator.operands:
        if each.role is OperandRole.KV:
            own = max(each.bytes.values())
            if token_bytes >= own:
                raise InputError(
                    f"it takes {token_bytes} bytes a token where model {model} has {own} "
                    f"({operator.name}): nothing is saved"
                )
            form = _form(each.bytes, token_bytes, fmt.residual, each.write, operator.window)
            each = each.model_copy(update={"bytes": form, "dtype": fmt.dtype})
        operands.append(each)
    return operator.model_copy(update={"operands": tuple(operands)})


def _form(
    given: Mapping[str, int], packed: int, residual: int, write: bool, window: int | None
) -> dict[str, int]:
    """Bytes of tokens that take ``packed`` each, but for the last ones."""
    ((symbol, own),) = given.items()
    if not residual:
        return {symbol: packed}
    if write:  # as it comes, and packed once it is none of the last
        return {symbol: own + packed}
    last = residual if window is None else min(residual, window)
    found = {symbol: packed}
    recent = window_symbol("K", last)
    found[recent] = found.get(recent, 0) + own - packed
    return found
