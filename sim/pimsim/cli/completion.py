"""What a shell completes beside options: names of presets, by kind."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["presets_of"]


def presets_of(*kinds: str) -> Callable[[str], list[str]]:
    """Completes the name of a preset; of what is no beginning of one the shell completes files.

    Parameters
    ----------
    kinds
        Of ``pimsim.config.resources.KINDS``.
    """

    def found(incomplete: str) -> list[str]:
        from pimsim.config.resources import preset_names

        names = [name for kind in kinds for name in preset_names(kind)]
        return [name for name in names if name.startswith(incomplete)]

    return found
