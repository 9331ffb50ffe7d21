"""Weights that a checkpoint holds in fewer bits, as its config says (``quantization_config``).

The products of the blocks are what is quantised; tables, norms, biases, routers and the output
layer keep the config's dtype. Bytes are those of the checkpoint, as in a graph that is imported:
packed weights, scales, zero points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pimsim.capture.config_values import positive, shown
from pimsim.config.errors import InputError, near_miss
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import Operand, OperandRole, OperatorTrace, SymbolicOperator

__all__ = ["WeightFormat", "quantised", "weight_format"]


@dataclass(frozen=True)
class WeightFormat:
    """How a quantised matrix of k inputs and n outputs lies in a checkpoint."""

    dtype: str
    """Of its elements, as operands name it."""
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
        found = {
            "": (self.dtype, -(-k * n * self.bits // 8)),
            ".scales": (self.scale_dtype, scales * self.scale_bits // 8),
            ".zero points": (f"uint{self.zero_bits}", -(-scales * self.zero_bits // 8)),
            ".group of each input": ("int32", 4 * k if self.ordered else 0),
        }
        return {what: piece for what, piece in found.items() if piece[1]}


_METHODS = ("awq", "gptq", "fp8", "mxfp4")
_BITS = (2, 3, 4, 8)


def weight_format(where: str, section: Any) -> WeightFormat | None:
    """The format that ``quantization_config`` says.

    Parameters
    ----------
    where
        The file, for messages.
    section
        Of the config, with the keys of transformers' ``AwqConfig``, ``GPTQConfig``,
        ``FineGrainedFP8Config`` and ``Mxfp4Config``.

    Returns
    -------
    WeightFormat | None
        None where there is none.

    Raises
    ------
    InputError
        With the key, for another method and for values that no checkpoint has.

    References
    ----------
    OCP Microscaling Formats (MX) 1.0, for MXFP4's scales.
    """
    if section is None:
        return None
    key = f"{where}: quantization_config"
    if not isinstance(section, Mapping):
        raise InputError(f"{key} is {shown(section)}, an object is expected")
    method = section.get("quant_method")
    if method not in _METHODS:
        hint = near_miss(method, _METHODS) if isinstance(method, str) else ""
        raise InputError(
            f"{key}.quant_method is {shown(method)}{hint}; {', '.join(_METHODS)} are read, and "
            "without the section all weights have the config's dtype"
        )
    keeps = _names(key, section.get("modules_to_not_convert"))
    if method == "mxfp4":
        # OCP Microscaling Formats 1.0: 32 elements of e2m1 share a scale of e8m0
        return WeightFormat("f4e2m1", 4, 32, scale_dtype="f8e8m0", scale_bits=8, keeps=keeps,
                            experts_only=True)  # fmt: skip
    if method == "fp8":
        inputs, outputs = _block(key, section.get("weight_block_size"))
        return WeightFormat("f8e4m3fn", 8, inputs, outputs, "f32", 32, keeps=keeps)
    return _packed(key, method, section, keeps)


def _packed(
    key: str, method: str, section: Mapping[str, Any], keeps: tuple[str, ...]
) -> WeightFormat:
    """AWQ and GPTQ: integers in groups along the inputs."""
    for other in ("dynamic", "modules_in_block_to_quantize"):
        if section.get(other):
            raise InputError(f"{key}.{other}: bits that differ by module are not supported")
    bits = _first(section, "bits", "w_bit")
    group = _first(section, "group_size", "q_group_size")
    if bits not in _BITS or isinstance(bits, bool):
        raise InputError(f"{key}.bits is {shown(bits)}; {', '.join(map(str, _BITS))} are expected")
    group = 128 if group is None else group  # the default of both classes
    if group != -1 and not positive(group):
        raise InputError(f"{key}.group_size is {shown(group)}; a whole number, or -1, is expected")
    switch = "zero_point" if method == "awq" else "sym"
    value = section.get(switch, True)
    for name, found in ((switch, value), ("desc_act", section.get("desc_act", False)),
                        ("lm_head", section.get("lm_head", False))):  # fmt: skip
        if not isinstance(found, bool):
            raise InputError(f"{key}.{name} is {shown(found)}; true or false is expected")
    has_zeros = value if method == "awq" else not value
    return WeightFormat(
        f"int{bits}", int(bits), 0 if group == -1 else int(group),
        zero_bits=int(bits) if has_zeros else 0,
        ordered=method == "gptq" and section.get("desc_act", False),
        keeps=keeps, output_layer=bool(section.get("lm_head", False)),
    )  # fmt: skip


def _first(section: Mapping[str, Any], *keys: str) -> Any:
    return next((section[key] for key in keys if key in section), None)


def _block(key: str, size: Any) -> tuple[int, int]:
    """Inputs and outputs that share a scale; all of them where the tensor has one."""
    if size is None:
        return 0, 2**62
    if not (isinstance(size, Sequence) and len(size) == 2 and all(positive(each) for each in size)):
        raise InputError(
            f"{key}.weight_block_size is {shown(size)}; two whole numbers are expected"
        )
    outputs, inputs = size
    return int(inputs), int(outputs)


def _names(key: str, listed: Any) -> tuple[str, ...]:
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise InputError(f"{key}.modules_to_not_convert is {shown(listed)}; a list of names is "
                         "expected")  # fmt: skip
    for name in listed:
        if any(part.isdigit() for part in name.split(".")):
            raise InputError(
                f"{key}.modules_to_not_convert: {name!r} is of one block; blocks that differ in "
                "their formats are not supported"
            )
    return tuple(listed)


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
            f"weights have {operator.k} x {operator.n} elements; quantization_config needs one"
        )
    matrix = matrices[0]
    if any(_matches(matrix.name, pattern) for pattern in fmt.keeps):
        return operator
    pieces = fmt.pieces(operator.k, operator.n * operator.count)
    stored = [
        Operand(
            name=f"{matrix.name}{what}", role=OperandRole.WEIGHT, dtype=dtype, bytes={unit: size},
            whole=matrix.whole,
        )
        for what, (dtype, size) in pieces.items()
    ]  # fmt: skip
    rest = [each for each in operator.operands if each is not matrix]
    return operator.model_copy(update={"operands": (*stored, *rest)})


def _matches(name: str, pattern: str) -> bool:
    """As transformers does: a part of the name, or with stars; blocks are not told apart."""
    return pattern in name or fnmatchcase(name, f"*{pattern}*")
