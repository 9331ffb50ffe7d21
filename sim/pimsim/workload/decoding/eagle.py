"""EAGLE: a block on the model's hidden states guesses a tree, of which the best nodes are verified.

EAGLE-2 (Li et al. 2024, arXiv 2406.16858) and EAGLE-3 (arXiv 2503.01840); SafeAILab/EAGLE
@cb7e084 (``ea_model.py``: total_token 60, depth 7, top_k 10). The block runs ``depth`` times, each
with the ``top_k`` best nodes of a depth; ``nodes`` of all that were guessed are verified, the root
among them. EAGLE-2 fuses a hidden state and an embedding (2 d to d) and uses the model's output
layer; EAGLE-3 fuses three hidden states (3 d to d) and has an output layer of its own of fewer
words (``vocab``).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from pimsim.config.decoding import DecodingSettings
from pimsim.config.errors import InputError
from pimsim.workload.decoding import DecodingStrategy, Drafter
from pimsim.workload.draft_blocks import one_block_drafter
from pimsim.workload.extra_operators import kept_branch, output_layer, with_operators_behind
from pimsim.workload.step import Mask
from pimsim.workload.trace import OperatorTrace

__all__ = ["STRATEGY", "Eagle", "EagleSettings"]


class EagleSettings(DecodingSettings):
    """The tree, and what the block has of its own."""

    nodes: int = Field(default=60, ge=2, le=4096)
    """Tokens of the tree that are verified, the known one included."""
    depth: int = Field(default=7, ge=1, le=64)
    """Passes of the block."""
    top_k: int = Field(default=10, ge=1, le=256)
    """Nodes of a pass."""
    fused: int = Field(default=2, ge=2, le=8)
    """Vectors of the model that the block's input is made of: 2 of EAGLE and EAGLE-2, 3 of
    EAGLE-3."""
    vocab: int | None = Field(default=None, ge=2, le=2**28)
    """Words of an output layer of the block's own (32,000 of EAGLE-3); null: the model's."""

    @model_validator(mode="after")
    def _enough_nodes(self) -> EagleSettings:
        """Raises ``ValueError`` for more nodes than are guessed, or fewer than a branch has."""
        guessed = self.top_k * (1 + (self.depth - 1) * self.top_k) + 1
        if not self.depth < self.nodes <= guessed:
            raise ValueError(
                f"nodes is {self.nodes}; {self.depth} passes of top_k {self.top_k} make trees of "
                f"{self.depth + 1} to {guessed} nodes, the root included"
            )
        return self


class Eagle(DecodingStrategy):
    """See the module."""

    Settings = EagleSettings
    mask: ClassVar[Mask] = Mask.TREE
    settings: EagleSettings

    @property
    def name(self) -> str:
        """See ``DecodingStrategy``."""
        return "eagle"

    @property
    def rows(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.nodes

    @property
    def depth(self) -> int:
        """See ``DecodingStrategy``."""
        return self.settings.depth

    def model(self, trace: OperatorTrace, requests: int) -> OperatorTrace:
        """With the copy of the branch that is kept; see ``DecodingStrategy``."""
        logits = output_layer(trace)[1].name
        kept = kept_branch(trace, "eagle_keep", requests, self.made, (logits,))
        return with_operators_behind(trace, [kept])

    def drafter(self, trace: OperatorTrace) -> Drafter:
        """The block. Raises ``InputError`` for more words than the model's."""
        vocab = self.settings.vocab
        if vocab is not None and vocab > trace.facts.vocab:
            raise InputError(
                f"workload.decoding: eagle: vocab is {vocab:,}; model {trace.model} has "
                f"{trace.facts.vocab:,} words, and the block guesses some of them"
            )
        found, own = one_block_drafter(
            trace, f"{trace.model}-eagle", fused=self.settings.fused, vocab=vocab
        )
        return Drafter(found, self.settings.top_k, self.settings.depth, own, Mask.TREE)


STRATEGY = Eagle
