"""How PIM instructions come from the device to the channels."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from pimsim.config.pim import PimConfig
from pimsim.config.plugins import load_module

__all__ = ["FrontEnd", "front_end"]


class FrontEnd:
    """Each channel gets its instructions as fast as it takes them: ``per-channel``.

    A module of kind ``front_end`` offers a subclass of it, ``FrontEnd``.
    """

    def release(self, programs: Sequence[NDArray[np.int64]]) -> None:
        """Put into ``P_READY`` of each instruction the cycle, from the start of its operation, at
        which it comes to its channel.

        ``programs``: (instructions, ``N_INSTRUCTION``) each, one a request, in the batch's order.
        """


def front_end(pim: PimConfig) -> FrontEnd:
    """The one that ``pim.front_end`` asks for.

    Parameters
    ----------
    pim
        Of the memory.

    Raises
    ------
    InputError
        With the near miss where there is no such front end.
    """
    return _made(pim.front_end)


@cache
def _made(name: str) -> FrontEnd:
    if name == "per-channel":
        return FrontEnd()
    made: FrontEnd = load_module("front_end", name).FrontEnd()
    return made
