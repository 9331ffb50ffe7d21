"""What decoding strategies have in common."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.settings_text import NONE

__all__ = ["NO_DECODING", "DecodingSettings"]

NO_DECODING = NONE
"""Of ``workload.decoding``: a token a step."""


class DecodingSettings(ConfigModel):
    """How often drafts are right, and what the host does; every strategy has these keys."""

    FILES: ClassVar[tuple[str, ...]] = ()
    """Keys that name a preset or a file."""
    TABLES: ClassVar[tuple[str, ...]] = ("measured",)
    """Keys that name a row of such a file, behind a slash."""
    tokens: float | None = Field(default=None, ge=1, le=1000)
    """Tokens that a step makes on average, the one that the model adds itself included."""
    acceptance: float | None = Field(default=None, ge=0, le=1)
    """Probability that one of the drafts of a depth is right where all before it were, each time
    anew: ``(1 - a^(depth + 1)) / (1 - a)`` tokens a step."""
    measured: str | None = None
    """``TABLE/MODEL``: tokens a step of this strategy as a table has them (``spec-bench``)."""
    host_us: float = Field(default=0.0, ge=0, le=1e7)
    """What the host does in a step (tables of drafts, trees, sampling), microseconds."""
    host_overlapped: bool = False
    """It does so beside the device: a step takes the longer of both; else their sum."""

    @model_validator(mode="after")
    def _one_acceptance(self) -> DecodingSettings:
        keys = ("tokens", "acceptance", "measured")
        given = [key for key in keys if getattr(self, key) is not None]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "none is given"
            raise ValueError(f"one of tokens, acceptance and measured says what is right; {found}")
        return self
