"""How a PIM design lays attention out over its banks, as data (AttAcc's three placements)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.plugins import ModuleName

__all__ = [
    "AttentionCommands", "AttentionMapConfig", "GemvMapConfig", "InnerLevel", "LayoutField",
]  # fmt: skip

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
    stage_rules: list[Annotated[str, ModuleName("stage_rule")]] = Field(default_factory=list)
    """What the pipeline of heads does otherwise, each as the module of that name says."""

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
        if len(set(self.stage_rules)) < len(self.stage_rules):
            raise ValueError(f"stage_rules names a rule twice: {', '.join(self.stage_rules)}")
        if "column" not in self.column_order or self.column_order[-1:] != ["row"]:
            raise ValueError("column_order must hold column, and end with row")
        return self


class GemvMapConfig(ConfigModel):
    """Which command of the design does which step of a matrix-vector product in the banks."""

    load: str
    """A column's worth of the vector into the channel's buffer."""
    multiply: str
    """One column of the matrix in every unit that it reaches, times the buffer's."""
    read: str
    """The sums of the units that ``multiply`` reaches, to the host; they are zero after that."""
