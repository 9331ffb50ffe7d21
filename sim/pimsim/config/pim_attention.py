"""How a PIM design lays attention out over its banks, as data (AttAcc's three placements)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel

__all__ = ["AttentionCommands", "AttentionMapConfig", "InnerLevel", "LayoutField"]

InnerLevel = Literal["pseudo_channel", "rank", "bank_group", "bank"]
LayoutField = Literal["pseudo_channel", "rank", "bank_group", "bank", "column", "row"]


class AttentionCommands(ConfigModel):
    """Which command of the design does which step of attention."""

    mac: str
    """One column of K or V, multiplied in every unit that it reaches."""
    write_query: str
    """A column's worth of the query from the host into the GEMV buffers."""
    move_score: str
    """Results of one unit (or of units that share a path) to the softmax buffer."""
    move_probability: str
    """A column's worth of probabilities from the softmax buffer to a GEMV buffer."""
    softmax: str
    """The softmax of one head's scores."""
    barrier: str
    """Holds back all behind it until all before it is issued."""


class AttentionMapConfig(ConfigModel):
    """One head on one channel; heads go to channels in turn, two at a time in a pipeline.

    Scores are dot products over the head dimension, one token after the other; values are sums
    over tokens, one group of dimensions after the other.
    """

    token_levels: list[InnerLevel]
    """Levels whose nodes hold different tokens of K and V."""
    dim_levels: list[InnerLevel] = Field(default_factory=list)
    """Levels whose nodes hold different parts of the head dimension."""
    column_order: list[LayoutField]
    """Where the next column of a head lies, fastest first; ends with ``row``."""
    query_writes: list[InnerLevel] = Field(default_factory=list)
    """Levels whose nodes each take their own part of the query; it is broadcast to all others."""
    probability_moves: list[InnerLevel] = Field(default_factory=list)
    """Levels whose nodes each take their own probabilities, outermost loop first."""
    score_moves: list[InnerLevel] = Field(default_factory=list)
    """Levels whose nodes each send their own scores, outermost loop first."""
    value_moves: list[InnerLevel] = Field(default_factory=list)
    """Levels whose nodes each send their own outputs, outermost loop first."""
    score_batch: int = Field(ge=1, le=4096)
    """Scores of a unit that are sent at once; a step of the pipeline is so many tokens a unit."""
    reserved_context: int = Field(ge=1, le=2**24)
    """Tokens for which a head's K (and V) has room."""
    reserved_element_bytes: int = Field(ge=1, le=8)
    """Bytes of an element in that room."""
    opens_first_row: bool = True
    """The first MAC of a pair of heads is issued ahead, beside the query's writes, to open its
    row; it is issued once more with its step."""
    commands: AttentionCommands
    artifact_drops_remainder: bool = False
    """The published generator spreads query writes and probability moves over the steps of the
    head before by a rounded-down share and forgets the rest: fewer WRGB and MVGB than needed."""
    artifact_replays_first_head: bool = False
    """The published generator issues the values of a pair's first head twice (its index is
    ``i`` where ``i + 1`` is meant), so on the first head's channels and rows."""
    artifact_repeats_softmax: bool = False
    """Before its commit c600051 the published generator sent softmax and probabilities of an
    unpaired head in every step of its scores (indentation); its shipped log is from then."""

    @model_validator(mode="after")
    def _consistent(self) -> AttentionMapConfig:
        both = set(self.token_levels) & set(self.dim_levels)
        if both:
            raise ValueError(f"{sorted(both)[0]} is in token_levels and in dim_levels")
        spread = (set(self.token_levels) | set(self.dim_levels)) & set(self.column_order)
        if spread:
            raise ValueError(
                f"{sorted(spread)[0]} is in column_order, but a head is spread over it"
            )
        if sorted(set(self.column_order)) != sorted(self.column_order):
            raise ValueError(f"column_order names a field twice: {', '.join(self.column_order)}")
        if "column" not in self.column_order or self.column_order[-1:] != ["row"]:
            raise ValueError("column_order must hold column, and end with row")
        return self
