"""Requests of a service: from a trace or drawn, and when they come."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import ModuleName

__all__ = ["FROM_FILE", "MOST_REQUESTS", "ArrivalSettings", "LengthConfig", "RequestsConfig"]

FROM_FILE = "file"
"""As the trace says."""
MOST_REQUESTS = 100_000_000
"""Of a service."""
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
    cv: float | None = Field(default=None, gt=0, le=100)
    """Standard deviation of that law over its mean; None: 1."""
    least: int | None = Field(default=None, ge=1, le=_MOST_TOKENS)
    """Of that law; None: 1."""
    most: int | None = Field(default=None, ge=1, le=_MOST_TOKENS)
    """Of that law; None: a million."""

    @model_validator(mode="before")
    @classmethod
    def _a_mapping(cls, given: Any) -> Any:
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            raise ValueError(f"a mapping is expected; for that many tokens: {{fixed: {given}}}")
        return given

    @model_validator(mode="after")
    def _one_kind(self) -> LengthConfig:
        ends = (self.low is not None) + (self.high is not None)
        kinds = (self.fixed is not None) + (ends > 0) + (self.mean is not None)
        if kinds != 1 or ends == 1:
            raise ValueError("either fixed, or low and high, or mean (with cv, least, most)")
        for key in ("cv", "least", "most"):
            if self.mean is None and getattr(self, key) is not None:
                other = "fixed" if self.fixed is not None else "low and high"
                raise ValueError(f"{key} is of a log-normal law (mean); {other} has none")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low ({self.low}) exceeds high ({self.high})")
        least, most = self.ends
        if least > most:
            raise ValueError(f"least ({least}) exceeds most ({most})")
        return self

    @property
    def ends(self) -> tuple[int, int]:
        """What the log-normal law is cut to."""
        return self.least or 1, self.most or _MOST_TOKENS


class RequestsConfig(ConfigModel):
    """Who asks for what, and when."""

    file: str | None = None
    """A request trace's name (``traces/``) or path, packed by gzip or not; None: lengths are
    drawn."""
    format: Annotated[str, ModuleName("request_format", ("auto",))] = "auto"
    """Of the trace; ``auto``: what its columns or keys say."""
    count: int | None = Field(default=None, ge=1, le=MOST_REQUESTS)
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
