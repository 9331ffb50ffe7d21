"""StreamingLLM (arXiv 2309.17453): positions are those within the cache, first tokens included."""

from __future__ import annotations

from pimsim.capture.windowed import FarPositions, WindowedMeasurement

__all__ = ["MEASUREMENT", "StreamingLlm"]


class StreamingLlm(WindowedMeasurement):
    """See the module."""

    VIEW = "streaming_llm"
    FAR = FarPositions(query=lambda window, sinks: window + sinks - 1, keys=lambda places: places)


MEASUREMENT = StreamingLlm
