"""What a graph is taken apart into: operators of a decoder, and what flows between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pimsim.workload.onnx_import.formats import Stored

__all__ = ["HEAD", "START", "Flow", "GraphPart", "Unknown"]

START, HEAD = -1, -2
"""Numbers of what comes before and after the blocks."""


@dataclass(frozen=True)
class Unknown:
    """A node whose arithmetic belongs to no operator that is known."""

    name: str
    op_type: str
    domain: str


@dataclass(eq=False)
class GraphPart:
    """An operator of one block."""

    what: str
    """``product``, ``norm``, ``act``, ``rope``, ``residual``, ``attention``, ``append``, ``embed``,
    ``route``, ``experts`` (a fused mixture), ``combine``."""
    out: str
    """A value with as many rows as it has."""
    after: dict[GraphPart, None] = field(default_factory=dict)
    """Parts whose results it needs."""
    facts: dict[str, Any] = field(default_factory=dict)
    weights: list[Stored] = field(default_factory=list)
    layer: int = START
    name: str = ""
    group: str = ""
    module: str = ""
    """The node that it was found by."""


@dataclass
class Flow:
    """Where a value comes from: the parts before it, and the nodes since them."""

    sources: dict[GraphPart, None] = field(default_factory=dict)
    glue: dict[int, Any] = field(default_factory=dict)
    """Arithmetic that belongs to no part yet, by its place in the graph."""

    def __or__(self, other: Flow) -> Flow:
        if not other.sources and not other.glue:
            return self
        if not self.sources and not self.glue:
            return other
        return Flow(self.sources | other.sources, self.glue | other.glue)

    def only(self, what: str) -> GraphPart | None:
        """Its single source, where that is of one kind."""
        if len(self.sources) != 1:
            return None
        part = next(iter(self.sources))
        return part if part.what == what else None
