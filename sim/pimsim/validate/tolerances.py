"""How far a group of rows may be off, and why: ``configs/validate/tolerances.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pydantic import Field, RootModel, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.errors import InputError, near_miss
from pimsim.config.resources import data_dir

__all__ = ["Tolerance", "load_tolerances", "tolerance_of"]


class Tolerance(ConfigModel):
    """Limits of one group, relative; what is not given is reported and not judged."""

    each: float | None = Field(default=None, ge=0)
    """Of every row's error. 0: exact."""
    share: float | None = Field(default=None, gt=0, le=1)
    """Of the rows that must be within ``each``; null: all."""
    median: float | None = Field(default=None, ge=0)
    """Of the median of the absolute errors."""
    mean: float | None = Field(default=None, ge=0)
    """Of the mean of the absolute errors."""
    bias: float | None = Field(default=None, ge=0)
    """Of the sum of ours over the sum of the references, less one."""
    p90: float | None = Field(default=None, ge=0)
    """Of the 90th percentile of the absolute errors."""
    signed: float | None = Field(default=None, ge=0)
    """Of the mean of the signed errors."""
    reason: str
    """Where the limit comes from."""
    misses: Mapping[str, str] = Field(default_factory=dict)
    """Rows known to be outside ``each``, ``case metric`` to cause: shown, and failing if they come
    inside."""

    @model_validator(mode="after")
    def _share_of_a_limit(self) -> Tolerance:
        if self.share is not None and self.each is None:
            raise ValueError("share is of the rows within each, which is not given")
        return self

    @property
    def limits(self) -> tuple[float | None, ...]:
        """All of them."""
        return (self.each, self.median, self.mean, self.bias, self.p90, self.signed)

    @property
    def judges(self) -> bool:
        """Whether it sets any limit."""
        return any(limit is not None for limit in self.limits)


_Tolerances = RootModel[dict[str, Tolerance]]


@cache
def load_tolerances() -> Mapping[str, Tolerance]:
    """The shipped limits by group. Raises ``InputError`` where the file is wrong."""
    return read_document(_Tolerances, data_dir("configs") / "validate" / "tolerances.yaml").root


def tolerance_of(group: str) -> Tolerance:
    """The limits of ``group``.

    Parameters
    ----------
    group
        Of rows.

    Raises
    ------
    InputError
        With the near miss where it has none.
    """
    known = load_tolerances()
    if group not in known:
        raise InputError(
            f"no tolerance for group {group!r}{near_miss(group, known)} in "
            f"configs/validate/tolerances.yaml"
        )
    return known[group]
