"""Weights that lie in memory in fewer bits than they are multiplied in.

The products of the blocks are what is quantised; tables, norms, biases, routers and the output
layer keep the model's own elements. Bytes are those of packed weights, scales, zero points, and
what says where weights that are not zero stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from fractions import Fraction
from math import ceil

from pimsim.config.errors import InputError
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import Operand, OperandRole, OperatorTrace, SymbolicOperator

__all__ = ["WeightFormat", "quantised"]


@dataclass(frozen=True)
class WeightFormat:
    """How a quantised matrix of k inputs and n outputs lies in a checkpoint."""

    dtype: str
    """Of its elements, as operands name it; empty: that of the matrix."""
    bits: int
    group: int
    """Inputs that share a scale; 0: all of them."""
    outputs: int = 1
    """Outputs that share it, too."""
    scale_dtype: str = "f16"
    scale_bits: int = 16
    zero_bits: int = 0
    """Of a zero point, one with each scale; 0: there are none."""
    ordered: bool = False
    """The group of each input is stored (``desc_act``)."""
    keeps: tuple[str, ...] = ()
    """Modules that are not quantised: parts of their names, or patterns."""
    experts_only: bool = False
    output_layer: bool = False
    kept: Fraction = Fraction(1)
    """Part of the weights that is not zero, and is stored."""
    index_bits: int = 0
    """Of a weight that is stored: where in its run of ``period`` inputs it stands."""
    period: int = 1
    """Inputs of a run, which must divide a matrix's."""
    bitmap: bool = False
    """A bit for each weight, stored or not."""

    @property
    def words(self) -> str:
        """``int4, groups of 128, zero points``."""
        shared = f"blocks of {self.outputs} x {self.group}" if self.outputs > 1 else (
            f"groups of {self.group}" if self.group else "a scale an output"
        )  # fmt: skip
        return f"{self.dtype}, {shared}{', zero points' if self.zero_bits else ''}"

    def pieces(self, k: int, n: int) -> dict[str, tuple[str, int]]:
        """Type and bytes of each tensor of a matrix, by what it is."""
        scales = -(-k // (self.group or k)) * -(-n // self.outputs)
        stored = ceil(k * n * self.kept)
        found = {
            "": (self.dtype, -(-stored * self.bits // 8)),
            ".indices": (f"uint{self.index_bits}", -(-stored * self.index_bits // 8)),
            ".bitmap": ("bit", -(-k * n // 8) if self.bitmap else 0),
            ".scales": (self.scale_dtype, scales * self.scale_bits // 8),
            ".zero points": (f"uint{self.zero_bits}", -(-scales * self.zero_bits // 8)),
            ".group of each input": ("int32", 4 * k if self.ordered else 0),
        }
        return {what: piece for what, piece in found.items() if piece[1]}


def quantised(trace: OperatorTrace, fmt: WeightFormat) -> OperatorTrace:
    """The trace with the products of its blocks in a format.

    Parameters
    ----------
    trace
        With weights of the config's dtype.
    fmt
        Of the weights.

    Returns
    -------
    OperatorTrace
        Weight bytes are those of the checkpoint.

    Raises
    ------
    InputError
        Where a product's matrix is not told from its other weights.
    """
    element = trace.facts.dtype_bytes
    phases = {}
    saved = 0
    for name, phase in trace.phases.items():
        outside = {phase.before, None if fmt.output_layer else phase.after}
        blocks = {
            kind: operators if kind in outside else tuple(
                _operator(trace.model, each, fmt, element) for each in operators
            )
            for kind, operators in phase.blocks.items()
        }  # fmt: skip
        phases[name] = phase.model_copy(update={"blocks": blocks})
        if name == "decode":
            order = [*phase.sequence(), *(kind for kind in (phase.after,) if kind is not None)]
            saved = sum(
                _held(trace, phase.blocks[kind]) - _held(trace, blocks[kind]) for kind in order
            )
    facts = trace.facts.model_copy(
        update={"parameter_bytes": max(trace.facts.parameter_bytes - saved, 1)}
    )
    return trace.model_copy(update={"phases": phases, "facts": facts})


def _held(trace: OperatorTrace, operators: Sequence[SymbolicOperator]) -> int:
    """Bytes of the weights of a block, each tensor once."""
    tensors: dict[str, int] = {}
    for operator in operators:
        for operand in operator.operands:
            if operand.role is OperandRole.WEIGHT:
                experts = operand.bytes.get("E", 0) * trace.facts.experts
                size = operand.bytes.get("1", 0) + experts
                tensors[operand.name] = max(tensors.get(operand.name, 0), size)
    return sum(tensors.values())


def _operator(
    model: str, operator: SymbolicOperator, fmt: WeightFormat, element: int
) -> SymbolicOperator:
    expert = operator.kind is OperatorKind.EXPERT_GEMM
    if not expert and (operator.kind is not OperatorKind.GEMM or fmt.experts_only):
        return operator
    elements = operator.n * operator.k * operator.count
    unit = "E" if expert else "1"
    weights = [each for each in operator.operands if each.role is OperandRole.WEIGHT]
    matrices = [each for each in weights if dict(each.bytes) == {unit: elements * element}]
    if len(matrices) != 1:
        raise InputError(
            f"model {model}, operator {operator.name}: {len(matrices)} of its {len(weights)} "
            f"weights have {operator.k} x {operator.n} elements; a format needs one"
        )
    matrix = matrices[0]
    if any(_matches(matrix.name, pattern) for pattern in fmt.keeps):
        return operator
    if operator.k % fmt.period:
        raise InputError(
            f"model {model}, operator {operator.name}: its {operator.k} inputs are no multiple of "
            f"{fmt.period}, of which the format keeps {fmt.period * fmt.kept}"
        )
    pieces = fmt.pieces(operator.k, operator.n * operator.count)
    stored = [
        Operand(
            name=f"{matrix.name}{what}", role=OperandRole.WEIGHT, dtype=dtype or matrix.dtype,
            bytes={unit: size}, whole=matrix.whole,
        )
        for what, (dtype, size) in pieces.items()
    ]  # fmt: skip
    rest = [each for each in operator.operands if each is not matrix]
    return operator.model_copy(update={"operands": (*stored, *rest)})


def _matches(name: str, pattern: str) -> bool:
    """As transformers does: a part of the name, or with stars; blocks are not told apart."""
    return pattern in name or fnmatchcase(name, f"*{pattern}*")
