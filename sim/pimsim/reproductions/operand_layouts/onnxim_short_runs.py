"""ONNXim asks for a run of a row in as many requests as its bytes fill (GemmWS.cc).

They begin at the aligned address of its first element, and so miss the last one of most runs that
begin inside a request.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pimsim.mapping.operands import RowMajorOperands
from pimsim.mapping.tile_layouts import RowMajor

__all__ = ["Operands", "ShortRuns"]


class ShortRuns(RowMajor):
    """Rows of matrices whose runs may lack their last burst."""

    def run_bursts(self, start: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """As many as ``size`` bytes fill, wherever they begin."""
        return np.full_like(start, self.bursts(size))


class Operands(RowMajorOperands):
    """Matrices in rows with short runs."""

    layout = ShortRuns
