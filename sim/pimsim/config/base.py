"""What every config model shares: frozen, nothing unknown accepted, no silent conversion."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from pimsim.config.plugins import check_modules

__all__ = ["ConfigModel"]


class ConfigModel(BaseModel):
    """A frozen, closed pydantic model. Unknown keys are refused by the loader with a near miss."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        # most models of a file are never asked for: each is built when it is
        defer_build=True,
        allow_inf_nan=False,
    )

    @model_validator(mode="after")
    def _has_what_its_modules_need(self) -> Self:
        check_modules(self)
        return self
