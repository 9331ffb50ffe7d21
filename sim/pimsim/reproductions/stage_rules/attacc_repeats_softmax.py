"""AttAcc's trace generator before its commit c600051 repeats the softmax of an unpaired head.

Softmax and probabilities were sent in every step of its scores (indentation); the log that is
shipped with the simulator is from then.
"""

from __future__ import annotations

from pimsim.hardware.pim.attacc_plan import StageMaker

__all__ = ["Stages"]


class Stages(StageMaker):
    """A softmax in every step."""

    def softmax_follows(self, step: int, steps: int) -> bool:
        """Behind each."""
        del step, steps
        return True
