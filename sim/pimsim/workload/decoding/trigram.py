"""Tri-gram tables that grow while text is made: ADED.

Adaptive draft-verification (ADED, arXiv 2407.12021). No model drafts: a table on the host says
which tokens followed each pair so far, a search of it makes a tree of drafts, and the model
verifies the tree in one pass. The more text has been seen, the more drafts are right: of ``tokens``
a step that the table comes to, ``1 + (tokens - 1) (1 - 2^(-seen / half))`` are made after ``seen``
tokens. The published account gives neither tree nor table, so that both are said by the run.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from pydantic import Field, field_validator

from pimsim.config.decoding import DecodingSettings
from pimsim.workload.decoding import DecodingStrategy
from pimsim.workload.extra_operators import kept_branch, output_layer, with_operators_behind
from pimsim.workload.speculation import DraftTree
from pimsim.workload.step import Mask
from pimsim.workload.trace import OperatorTrace

__all__ = ["STRATEGY", "Trigram", "TrigramSettings"]


class TrigramSettings(DecodingSettings):
    """The tree, and how the table learns."""

    tree: str
    """Nodes by depth from the root on, as ``1/8/8/4``."""
    half: float = Field(default=0.0, ge=0, le=1e9)
    """Tokens after which the table is half as good as it comes to be; 0: it is so at once."""
    seen: float = Field(default=0.0, ge=0, le=1e9)
    """Tokens of text that it has seen when the run begins."""

    @field_validator("tree")
    @classmethod
    def _is_a_tree(cls, value: str) -> str:
        DraftTree.of(value)
        return value


class Trigram(DecodingStrategy):
    """See the module."""

    Settings = TrigramSettings
    settings: TrigramSettings
    mask: ClassVar[Mask] = Mask.TREE

    @cached_property
    def _tree(self) -> DraftTree:
        return DraftTree.of(self.settings.tree)

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "trigram"

    @property
    def rows(self) -> int:
        """Nodes of the tree."""
        return self._tree.nodes

    @property
    def depth(self) -> int:
        """Of the tree."""
        return self._tree.depth

    @property
    def made(self) -> float:
        """See the module."""
        best, half = super().made, self.settings.half
        learnt = 1.0 if not half else 1 - 2 ** (-self.settings.seen / half)
        return 1 + (best - 1) * learnt

    def model(self, trace: OperatorTrace, requests: int) -> OperatorTrace:
        """With the branch that is taken, which is copied to its place."""
        after = (output_layer(trace)[1].name,)
        return with_operators_behind(
            trace, [kept_branch(trace, "branch", requests, self.made, after)]
        )


STRATEGY = Trigram
