"""Feed-forward networks that leave out features which are not active.

The second matrix (``fc2``) skips rows of features that no token of the batch uses. The first ones
are needed to know which these are, unless a predictor says so before (``predictor="oracle"``: one
that is always right; Deja Vu, arXiv 2310.17157, trains one). Hardware skips whole groups of
``granularity`` features, so what counts is the union over the batch, rounded up to groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.operators import Block, ForwardPass, Operator
from pimsim.workload.sparsity.union import kept
from pimsim.workload.transforms import Transform

__all__ = ["sparse_ffn"]

Mask = NDArray[np.bool_]


def sparse_ffn(
    *, union: Callable[[int], Mask], granularity: int, predictor: str = "none"
) -> Transform:
    """Leave out the features that a batch does not use.

    Blocks without ``fc2`` (experts) stay.

    Parameters
    ----------
    union
        Of a block's number: features of the device that the batch uses in it, (ffn,).
    granularity
        Features of a group, which hardware skips as a whole.
    predictor
        ``none`` or ``oracle``.

    Raises
    ------
    InputError
        For a granularity below 1 or an unknown predictor; the transform raises it for masks of
        another size.
    """
    if granularity < 1:
        raise InputError(f"sparse_ffn: granularity is {granularity}; at least 1 is needed")
    if predictor not in ("none", "oracle"):
        raise InputError(f"sparse_ffn: predictor is {predictor!r}; allowed: none, oracle")

    def transform(forward: ForwardPass) -> ForwardPass:
        blocks = []
        for number, block in zip(forward.layer_numbers, forward.blocks, strict=True):
            blocks.append(
                _block(
                    block, number, union, granularity, predictor == "oracle", forward.dtype_bytes
                )
            )
        return replace(forward, blocks=tuple(blocks))

    return transform


def _block(
    block: Block,
    number: int,
    union: Callable[[int], Mask],
    granularity: int,
    predicted: bool,
    element_bytes: int,
) -> Block:
    if not block.has("fc2"):
        return block
    features = block.operator("fc2").k
    mask = union(number)
    if mask.shape != (features,):
        raise InputError(
            f"sparse_ffn: block {number} has {features} features, the mask {len(mask)}"
        )
    left = max(int(kept(mask, granularity).sum()), 1)
    second = _fewer(block.operator("fc2"), "k", left, features, element_bytes)
    changed = {"fc2": replace(second, weights_chosen=not predicted)}
    if predicted:
        first = block.operator("fc1")
        halves = first.n // features
        changed["fc1"] = _fewer(first, "n", left * halves, first.n, element_bytes)
        act = block.operator("act")
        changed["act"] = replace(
            act, width=left, flops=act.flops * left // features,
            input_bytes=act.input_bytes * left // features,
            output_bytes=act.output_bytes * left // features,
        )  # fmt: skip
    operators: Sequence[Operator] = [changed.get(o.name, o) for o in block.operators]
    return replace(block, operators=tuple(operators))


def _fewer(operator: Operator, dim: str, left: int, before: int, element_bytes: int) -> Operator:
    """The product with ``left`` of its ``before`` rows or columns of weights; a bias of another
    dimension stays whole.

    What is above ``element_bytes`` a weight is the bias. Weights in a packed format are below that:
    they shrink as a whole, with their scales.
    """
    matrix = operator.n * operator.k * element_bytes
    bias = operator.weight_bytes - matrix
    if bias < 0:
        kept_bytes = -(-operator.weight_bytes * left // before)
    elif dim == "k":
        kept_bytes = matrix * left // before + bias
    else:
        kept_bytes = (matrix + bias) * left // before
    if dim == "k":
        new = replace(operator, k=left, input_bytes=operator.input_bytes * left // before)
    else:
        new = replace(operator, n=left, output_bytes=operator.output_bytes * left // before)
    return replace(new, weight_bytes=kept_bytes, flops=operator.flops * left // before)
