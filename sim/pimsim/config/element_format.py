"""How an element format is written in a config."""

from __future__ import annotations

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import load_module
from pimsim.config.settings_text import settings_of_text

__all__ = ["format_settings"]


def format_settings(text: str) -> tuple[str, ConfigModel]:
    """The format that ``text`` asks for.

    Parameters
    ----------
    text
        ``NAME:KEY=VALUE,...`` of ``workload.weight_format``.

    Returns
    -------
    tuple
        Name of its module, and its settings, checked.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    """
    return settings_of_text(
        "format", text, lambda name: load_module("format", name).FORMAT.Settings
    )
