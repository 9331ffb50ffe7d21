"""The option that says what parts of machines cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pimsim.config.prices import Prices

__all__ = ["PricesOption", "prices_of"]

PricesOption = Annotated[
    str | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="Your prices (YAML: currency, memory_gb, logic_mm2, device, hours, kwh): what "
        "machines cost, and tokens for it. No result depends on them.",
    ),
]


def prices_of(path: str | None) -> Prices | None:
    """The prices of ``--prices``.

    Parameters
    ----------
    path
        As it was given; None: there are none.

    Raises
    ------
    InputError
        With file, line and key.
    """
    if path is None:
        return None
    from pimsim.config.prices import load_prices

    return load_prices(path)
