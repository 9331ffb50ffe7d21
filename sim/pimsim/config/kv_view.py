"""What views of the KV cache have in common, and how one is written in a config."""

from __future__ import annotations

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import load_module
from pimsim.config.settings_text import settings_of_text

__all__ = ["kv_view_settings"]


def kv_view_settings(text: str) -> tuple[str, ConfigModel]:
    """The view that ``text`` asks for.

    Parameters
    ----------
    text
        ``NAME:KEY=VALUE,...`` of ``workload.kv_view``.

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
        "kv_view", text, lambda name: load_module("kv_view", name).VIEW.Settings
    )
