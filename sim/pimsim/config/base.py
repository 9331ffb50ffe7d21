"""What every config model shares: frozen, nothing unknown accepted, no silent conversion."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["ConfigModel"]


class ConfigModel(BaseModel):
    """A frozen, closed pydantic model. Unknown keys are refused by the loader with a near miss."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
    )
