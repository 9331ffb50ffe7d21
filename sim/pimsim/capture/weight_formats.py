"""Weights that a checkpoint holds in fewer bits, as its config says (``quantization_config``).

The products of the blocks are what is quantised; tables, norms, biases, routers and the output
layer keep the config's dtype. Bytes are those of the checkpoint, as in a graph that is imported:
packed weights, scales, zero points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pimsim.capture.config_values import positive, shown
from pimsim.config.errors import InputError, near_miss
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["weight_format"]


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
