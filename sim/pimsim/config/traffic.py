"""Requests of a service: from a trace or drawn, and when they come."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import ModuleName

__all__ = ["FROM_FILE", "ArrivalSettings", "LengthConfig", "RequestsConfig"]

FROM_FILE = "file"
"""As the trace says."""
_MOST_TOKENS = 1_000_000


class ArrivalSettings(ConfigModel):
    """When requests come."""

    process: Annotated[str, ModuleName("arrivals", (FROM_FILE,))] = FROM_FILE
    """``file``: as the trace says; else a module of ``pimsim.workload.arrivals``, or a plugin's,
    whose keys the others are."""


class LengthConfig(ConfigModel):
    """Tokens of a prompt or of an output: a number, any between two, or log-normal ones."""

    fixed: int | None = Field(default=None, ge=1, le=_MOST_TOKENS)
    """All as many."""
    low: int | None = Field(default=None, ge=1, le=_MOST_TOKENS)
    """Any from here ..."""
    high: int | None = Field(default=None, ge=1, le=_MOST_TOKENS)
    """... to here, each as often."""
    mean: float | None = Field(default=None, ge=1, le=_MOST_TOKENS)
    """Of a log-normal law, before it is cut to ``least`` and ``most``."""
    cv: float = Field(default=1.0, gt=0, le=100)
    """Standard deviation of that law over its mean."""
    least: int = Field(default=1, ge=1, le=_MOST_TOKENS)
    """Of that law."""
    most: int = Field(default=_MOST_TOKENS, ge=1, le=_MOST_TOKENS)
    """Of that law."""

    @model_validator(mode="after")
    def _one_kind(self) -> LengthConfig:
        ends = (self.low is not None) + (self.high is not None)
        kinds = (self.fixed is not None) + (ends > 0) + (self.mean is not None)
        if kinds != 1 or ends == 1:
            raise ValueError("either fixed, or low and high, or mean (with cv, least, most)")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low ({self.low}) exceeds high ({self.high})")
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) exceeds most ({self.most})")
        return self


class RequestsConfig(ConfigModel):
    """Who asks for what, and when."""

    file: str | None = None
    """A request trace's name (``traces/``) or path, packed by gzip or not; None: lengths are
    drawn."""
    format: Annotated[str, ModuleName("request_format", ("auto",))] = "auto"
    """Of the trace; ``auto``: what its columns or keys say."""
    count: int | None = Field(default=None, ge=1, le=100_000_000)
    """Requests to serve, from the front of the trace. Where it has fewer it is gone through again,
    in another order each time. None: all of it."""
    skip_empty: bool = False
    """Leave requests without output out (those that failed where the trace was taken)."""
    rate_scale: float = Field(default=1.0, gt=0, le=1e6)
    """Arrivals come so many times as fast."""
    arrivals: ArrivalSettings = ArrivalSettings()
    prompt: LengthConfig | None = None
    """Of drawn requests."""
    output: LengthConfig | None = None
    """The same, the first token included."""

    @model_validator(mode="after")
    def _from_somewhere(self) -> RequestsConfig:
        if self.file is None:
            for key in ("prompt", "output", "count"):
                if getattr(self, key) is None:
                    raise ValueError(f"{key} is missing: without a file, lengths are drawn")
            if self.arrivals.process == FROM_FILE:
                raise ValueError("arrivals.process is missing: without a file, times are drawn")
        elif self.prompt is not None or self.output is not None:
            drawn = "prompt" if self.prompt is not None else "output"
            raise ValueError(f"{drawn}: lengths are those of the file; leave one of the two out")
        return self
