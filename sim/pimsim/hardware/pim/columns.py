"""What one dot product can read: no more than a column access of a bank gives."""

from __future__ import annotations

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimConfig

__all__ = ["check_column"]


def check_column(pim: PimConfig, memory: MemoryConfig, element_bytes: int) -> None:
    """Raise where a COMP of ``pim`` would read more than a RD of ``memory`` does.

    A bank's column decoder gives one burst's worth of the open row at a time, to the pins or to the
    multipliers beside it.

    Parameters
    ----------
    pim
        Its ``elements_per_comp`` is checked.
    memory
        Its burst is the bound.
    element_bytes
        Of what is multiplied.

    Raises
    ------
    InputError
        With the most elements that a column access gives.
    """
    most = memory.organization.burst_bytes
    found = pim.elements_per_comp * element_bytes
    if found > most:
        raise InputError(
            f"pim {pim.name}: elements_per_comp is {pim.elements_per_comp} of {element_bytes} B: "
            f"{found} B a bank and dot product; a column access of memory {memory.name} gives "
            f"{most} B: at most {most // element_bytes}"
        )
