"""How wide an interval is that a few samples give."""

from __future__ import annotations

__all__ = ["student_t"]

_STUDENT_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % points with 1 to 30 degrees of freedom (any table)."""
_NORMAL = 1.959964
"""The same of the normal distribution."""


def student_t(freedom: int) -> float:
    """Two-sided 95 % point of Student's t.

    Parameters
    ----------
    freedom
        Degrees, at least 1.

    References
    ----------
    Abramowitz and Stegun 26.7.5, an expansion in 1 / degrees, beyond the table.
    """
    if freedom <= len(_STUDENT_T):
        return _STUDENT_T[freedom - 1]
    z = _NORMAL
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
