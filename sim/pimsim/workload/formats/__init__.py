"""Element formats: how numbers lie in memory that are multiplied in wider ones.

One module holds one format and is named after it; what it calls ``FORMAT`` is a subclass of
``ElementFormat``. A run asks for it by ``workload.weight_format`` or ``workload.kv_format``, as it
is a format of weights, of caches, or of both. A format changes the bytes of a trace's operands
while they are symbolic, so that traffic and capacity follow; arithmetic stays that of the model's
own elements, to which numbers are widened on their way to the multipliers.
"""

from __future__ import annotations

from typing import ClassVar

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.config.settings_text import load_of_text
from pimsim.workload.stored_cache import CacheFormat
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["ElementFormat", "load_format"]


class ElementFormat:
    """How elements are stored.

    Parameters
    ----------
    settings : ConfigModel
        As ``Settings`` has them.
    """

    Settings: ClassVar[type[ConfigModel]]

    def __init__(self, settings: ConfigModel) -> None:
        self.settings = settings

    def weights(self, element_bits: int) -> WeightFormat:
        """Matrices in this format.

        Parameters
        ----------
        element_bits
            Of the model's own weights.

        Raises
        ------
        InputError
            Where it is none of weights.
        """
        raise InputError("it is a format of KV caches (workload.kv_format)")

    def cache(self) -> CacheFormat:
        """Keys and values in this format.

        Raises
        ------
        InputError
            Where it is none of caches.
        """
        raise InputError("it is a format of weights (workload.weight_format)")


def load_format(text: str) -> ElementFormat:
    """The format that a config asks for.

    Parameters
    ----------
    text
        ``NAME:KEY=VALUE,...``.

    Raises
    ------
    ValueError
        For an unknown name or key, or a value that is not allowed.
    InputError
        Where a module has no format.
    """
    return load_of_text("format", text, ElementFormat)
