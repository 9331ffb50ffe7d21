"""Activation ratios of large models by the Sparsing Law (Luo et al., arXiv 2411.02335v1).

With D billion training tokens, equations (4) and (5): ReLU ``exp(-c D^alpha + b) + A0``, SiLU
``A0 - c / D^alpha``; coefficients of table 2, of models of 0.1 to 1.2 billion parameters at
PPL-1 %. The limit A0 hardly depends on size (section 4.4), so those of the largest model stand for
larger ones. Below a bottleneck of 114 (0.1B ReLU, section 4.3) the limit grows linearly with the
ratio of width to depth; the paper gives no slope in numbers: **assumed** proportional.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

__all__ = ["BOTTLENECK", "COEFFICIENTS", "Coefficients", "activation_ratio"]

BOTTLENECK = 114.0


@dataclass(frozen=True)
class Coefficients:
    """Of one curve; ``b`` is of ReLU alone."""

    alpha: float
    b: float
    c: float
    limit: float
    """A0: the ratio with unlimited data."""


COEFFICIENTS = {
    "relu": {
        "0.1b": Coefficients(0.101, -0.0151, 3.20, 0.0614),
        "0.2b": Coefficients(0.449, -3.05, 0.286, 0.0674),
        "0.4b": Coefficients(0.683, -3.46, 0.0790, 0.0690),
        "0.8b": Coefficients(1.01, -3.49, 0.00797, 0.0721),
        "1.2b": Coefficients(1.33, -3.89, 0.000903, 0.0782),
    },
    "silu": {
        "0.1b": Coefficients(0.479, 0.0, 0.102, 0.409),
        "0.2b": Coefficients(0.844, 0.0, 0.208, 0.390),
        "0.4b": Coefficients(1.03, 0.0, 0.420, 0.385),
        "0.8b": Coefficients(0.995, 0.0, 0.562, 0.383),
        "1.2b": Coefficients(0.967, 0.0, 0.538, 0.382),
    },
}


def activation_ratio(
    activation: str, size: str, billion_tokens: float, width_depth: float | None = None
) -> float:
    """Share of active features, 0 to 1.

    Parameters
    ----------
    activation
        ``relu`` or ``silu``.
    size
        Of the model whose coefficients are taken, as the paper's table has it.
    billion_tokens
        Of training.
    width_depth
        Hidden features over blocks; None: that of the paper's models, beyond the bottleneck.

    Raises
    ------
    KeyError
        For an activation or size that the paper does not have.

    References
    ----------
    Luo et al., arXiv 2411.02335v1, equations (4) and (5), table 2.
    """
    c = COEFFICIENTS[activation][size]
    limit = c.limit
    if width_depth is not None:
        limit *= min(width_depth, BOTTLENECK) / BOTTLENECK
    if activation == "relu":
        ratio = exp(-c.c * billion_tokens**c.alpha + c.b) + limit
    else:
        ratio = limit - c.c / billion_tokens**c.alpha
    return min(max(ratio, 0.0), 1.0)
