"""AttAcc's published trace generator moves fewer operands than a head needs.

It spreads query writes and probability moves over the steps of the head before by a rounded-down
share and forgets the rest: fewer WRGB and MVGB than needed.
"""

from __future__ import annotations

from pimsim.hardware.pim.attacc_plan import StageMaker

__all__ = ["Stages"]


class Stages(StageMaker):
    """Shares without their remainder."""

    def share(self, total: int, steps: int) -> int:
        """Rounded down: what is left over after ``steps`` of them is never moved."""
        return total // steps
