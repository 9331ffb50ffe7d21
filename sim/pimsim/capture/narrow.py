"""Numbers as a narrow format holds them: rounded to its elements, with its scales and zero points.

Round to nearest, without calibration and without training; scales of groups by the largest number.
"""

from __future__ import annotations

from typing import Any

import torch

from pimsim.config.errors import InputError
from pimsim.workload.stored_cache import CacheFormat
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["narrowed", "narrowed_cache", "narrowed_weights", "pruned", "relative_error"]

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""OCP Microscaling Formats 1.0, table 5."""
_LARGEST = {"f8e4m3fn": 448.0, "f4e2m1": 6.0}


def relative_error(found: Any, exact: Any) -> float:
    """Root of the mean square of the difference over that of the numbers.

    Parameters
    ----------
    found, exact
        Tensors of one shape.
    """
    return float((found - exact).norm() / exact.norm().clamp_min(1e-30))


def narrowed_weights(matrix: Any, fmt: WeightFormat) -> Any:
    """A matrix as a format holds it.

    Parameters
    ----------
    matrix
        Shape (outputs, inputs).
    fmt
        Of weights.

    Returns
    -------
    Tensor
        Of the same shape.

    Raises
    ------
    InputError
        For elements that are not known, and runs that do not divide the inputs.
    """
    kept = pruned(matrix, fmt) if fmt.kept < 1 else matrix
    if not fmt.dtype or fmt.scale_bits == 0:
        return kept
    outputs, inputs = matrix.shape
    group = min(fmt.group or inputs, inputs)
    shared = min(fmt.outputs, outputs)
    rows, columns = -(-outputs // shared), -(-inputs // group)
    wide = torch.nn.functional.pad(
        kept, (0, columns * group - inputs, 0, rows * shared - outputs)
    )  # fmt: skip
    blocks = wide.view(rows, shared, columns, group).permute(0, 2, 1, 3)
    flat = blocks.reshape(rows, columns, shared * group)
    found = narrowed(flat, fmt.dtype, fmt.scale_dtype, fmt.zero_bits)
    whole = found.view(rows, columns, shared, group).permute(0, 2, 1, 3)
    return whole.reshape(rows * shared, columns * group)[:outputs, :inputs] * (kept != 0)


def pruned(matrix: Any, fmt: WeightFormat) -> Any:
    """The largest weights of each run, or of the matrix, and zeros.

    Parameters
    ----------
    matrix
        Shape (outputs, inputs).
    fmt
        With ``kept`` below 1.

    Raises
    ------
    InputError
        For runs that do not divide the inputs.
    """
    outputs, inputs = matrix.shape
    if fmt.period > 1:
        if inputs % fmt.period:
            raise InputError(f"runs of {fmt.period} do not divide {inputs} inputs")
        runs = matrix.view(outputs, -1, fmt.period)
        stay = runs.abs().topk(int(fmt.kept * fmt.period), dim=-1).indices
        mask = torch.zeros_like(runs, dtype=torch.bool).scatter_(-1, stay, True)
        return (runs * mask).view(outputs, inputs)
    count = round(float(fmt.kept) * matrix.numel())
    least = matrix.abs().flatten().kthvalue(matrix.numel() - count + 1).values
    return matrix * (matrix.abs() >= least)


def narrowed(groups: Any, dtype: str, scale_dtype: str = "f16", zero_bits: int = 0) -> Any:
    """Groups of numbers that share a scale.

    Parameters
    ----------
    groups
        Shape (..., numbers of a group).
    dtype
        Of an element: ``int4``, ``f8e4m3fn``, ``f4e2m1``.
    scale_dtype
        ``f16``, ``f32``, ``f8e8m0`` (powers of two), ``f8e4m3fn`` (with a scale of the whole).
    zero_bits
        Of a zero point; 0: numbers lie around 0. As wide as an element: an integer; wider: the
        least number of the group.

    Returns
    -------
    Tensor
        Of the same shape.

    Raises
    ------
    InputError
        For elements that are not known.
    """
    if dtype.startswith("int"):
        return _integers(groups, int(dtype[3:]), scale_dtype, zero_bits)
    if dtype not in _LARGEST:
        raise InputError(f"elements of {dtype} are not known; int, {', '.join(_LARGEST)} are")
    largest = groups.abs().amax(dim=-1, keepdim=True)
    scale = _scales(largest, _LARGEST[dtype], scale_dtype)
    scaled = (groups / scale).clamp(-_LARGEST[dtype], _LARGEST[dtype])
    if dtype == "f8e4m3fn":
        return scaled.to(torch.float8_e4m3fn).to(groups.dtype) * scale
    steps = torch.tensor(_E2M1, dtype=groups.dtype)
    nearest = torch.bucketize(scaled.abs(), (steps[1:] + steps[:-1]) / 2)
    return steps[nearest] * scaled.sign() * scale


def _integers(groups: Any, bits: int, scale_dtype: str, zero_bits: int) -> Any:
    if not zero_bits:
        most = 2 ** (bits - 1) - 1
        scale = _scales(groups.abs().amax(dim=-1, keepdim=True), most, scale_dtype)
        return (groups / scale).round().clamp(-most, most) * scale
    most = 2**bits - 1
    low = groups.amin(dim=-1, keepdim=True)
    high = groups.amax(dim=-1, keepdim=True)
    if zero_bits > bits:
        low = low.half().to(groups.dtype)
        scale = _scales((high - low).clamp_min(0), most, scale_dtype)
        return ((groups - low) / scale).round().clamp(0, most) * scale + low
    low, high = low.clamp_max(0), high.clamp_min(0)
    scale = _scales(high - low, most, scale_dtype)
    zero = (-low / scale).round().clamp(0, most)
    return ((groups / scale).round() + zero).clamp(0, most).sub(zero) * scale


def _scales(largest: Any, most: float, scale_dtype: str) -> Any:
    """Of groups whose largest number is to be ``most``."""
    largest = largest.clamp_min(1e-12)
    if scale_dtype == "f8e8m0":
        # OCP Microscaling Formats 1.0, section 6.3: the exponents of the largest number and element
        return torch.exp2(largest.log2().floor() - int(torch.tensor(most).log2().floor()))
    scale = largest / most
    if scale_dtype == "f8e4m3fn":
        whole = scale.amax() / _LARGEST["f8e4m3fn"]
        return (scale / whole).to(torch.float8_e4m3fn).to(scale.dtype).clamp_min(2**-9) * whole
    if scale_dtype == "f16":
        return scale.half().to(scale.dtype).clamp_min(6e-8)
    return scale


def narrowed_cache(cached: Any, fmt: CacheFormat, *, keys: bool) -> Any:
    """Keys or values as a cache holds them.

    Parameters
    ----------
    cached
        Shape (requests, heads, tokens, features).
    fmt
        Of the cache.
    keys
        Whether they are keys, whose groups may go over tokens.
    """
    across = keys and fmt.keys_by_channel
    lines = cached.transpose(2, 3) if across else cached
    length = lines.shape[-1]
    group = min(fmt.group or length, length)
    if fmt.scale_bits == 0:  # one scale for all
        flat = lines.reshape(1, -1)
        found = narrowed(flat, fmt.dtype, "f32", fmt.zero_bits).view(lines.shape)
    else:
        short = -length % group
        # what fills the last group up is one of its numbers, so that it changes no scale
        full = torch.cat([lines, lines[..., -1:].expand(*lines.shape[:-1], short)], dim=-1)
        parts = full.reshape(*lines.shape[:-1], -1, group)
        whole = narrowed(parts, fmt.dtype, fmt.scale_dtype, fmt.zero_bits)
        found = whole.reshape(full.shape)[..., :length]
    return found.transpose(2, 3) if across else found
