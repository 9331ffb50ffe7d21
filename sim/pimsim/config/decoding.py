"""What decoding strategies have in common, and how one is written in a config."""

from __future__ import annotations

from typing import cast

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import load_module
from pimsim.config.settings_text import NONE, settings_of_text

__all__ = ["NO_DECODING", "DecodingSettings", "decoding_settings"]

NO_DECODING = NONE
"""Of ``workload.decoding``: a token a step."""


class DecodingSettings(ConfigModel):
    """How often drafts are right, and what the host does; every strategy has these keys."""

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


def decoding_settings(text: str) -> tuple[str, DecodingSettings]:
    """The strategy that ``text`` asks for.

    Parameters
    ----------
    text
        ``NAME:KEY=VALUE,...`` of ``workload.decoding``.

    Returns
    -------
    tuple
        Name of its module, and its settings, checked.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    """
    name, found = settings_of_text(
        "decoding", text, lambda name: load_module("decoding", name).STRATEGY.Settings
    )
    return name, cast(DecodingSettings, found)
