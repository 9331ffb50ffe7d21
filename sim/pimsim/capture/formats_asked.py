"""What measurements of element formats share."""

from __future__ import annotations

from pydantic import Field

from pimsim.capture.measurements import Quality
from pimsim.config.errors import InputError
from pimsim.config.settings_text import settings_of_text

__all__ = ["FormatSettings", "format_texts"]


class FormatSettings(Quality):
    """How much is read, and what may be lost."""

    tokens: int = Field(default=512, ge=16, le=100_000)
    """That are read."""
    rise: float = Field(default=5.0, ge=0, le=1e6)
    """What perplexity may rise by in the row that a run is given, percent."""


def format_texts(text: str, key: str) -> list[str]:
    """Formats as a run's key takes them.

    Parameters
    ----------
    text
        ``int4:group=32+zeros=true/int8``.
    key
        Of ``workload``, for messages.

    Raises
    ------
    InputError
        For one that is none.
    """
    found = []
    for each in text.split("/"):
        asked = each.replace("+", ",")
        try:
            settings_of_text("format", asked)
        except ValueError as error:
            raise InputError(f"formats: {key}: {error}") from None
        found.append(asked)
    return found
