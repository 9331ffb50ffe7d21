"""The lambda mask of LM-Infinite (arXiv 2308.16137): first tokens at a fixed distance.

A query beyond the window sees a first token as if it were ``window`` tokens back, which is what
caching keys unrotated is for.
"""

from __future__ import annotations

from pimsim.capture.windowed import FarPositions, WindowedMeasurement

__all__ = ["MEASUREMENT", "LambdaMask"]


class LambdaMask(WindowedMeasurement):
    """See the module."""

    VIEW = "lambda_mask"
    FAR = FarPositions(query=lambda window, sinks: window, keys=lambda places: places * 0)


MEASUREMENT = LambdaMask
