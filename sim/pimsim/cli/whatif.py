"""``pimsim run --whatif``: what a tenth more of each resource gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Group

    from pimsim.explore.whatif import WhatIf

__all__ = ["whatif_table"]


def whatif_table(found: Sequence[WhatIf]) -> Group:
    """The resources that help most first.

    Parameters
    ----------
    found
        Of ``what_if``.
    """
    from rich.console import Group
    from rich.text import Text

    from pimsim.explore.whatif import STEP
    from pimsim.result.cells import add_rows, new_table

    def order(each: WhatIf) -> float:
        return -(each.estimated if each.simulated is None else each.simulated)

    table = new_table(
        f"what if there were {STEP:.0%} more", "resource", "key", "from", "to", "by stacks",
        "by a fast run",
    )  # fmt: skip
    ranked = sorted(found, key=order)
    for each in ranked:
        simulated = each.error or ("" if each.simulated is None else f"{each.simulated:+.1%}")
        cells = (each.resource.key, each.before, each.after, f"{each.estimated:+.1%}", simulated)
        add_rows(table, (each.resource.words, *cells))
    said = "no resource of this machine is known"
    if ranked:
        best = ranked[0]
        gain = best.estimated if best.simulated is None else best.simulated
        said = f"Next: {best.resource.words} ({best.resource.key}), {gain:+.1%} tokens a second."
    return Group(table, Text(said))
