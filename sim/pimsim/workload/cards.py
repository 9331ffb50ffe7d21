"""Model cards: the architecture of a decoder LLM, in one YAML file of ``models/`` each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError

__all__ = ["ELEMENT_BYTES", "ModelCard", "Parallelism", "load_card", "parallelism"]

ELEMENT_BYTES = (1, 2, 4)
"""Widths of weights, activations and KV elements, in bytes."""

_MAX_SIZE = 10_000_000
_MAX_DEGREE = 1024

Size = Annotated[int, Field(ge=1, le=_MAX_SIZE)]
"""A count of layers, heads, features or tokens."""

Degree = Annotated[int, Field(ge=1, le=_MAX_DEGREE)]
"""A number of devices."""


def _element_bytes(value: int) -> int:
    if value not in ELEMENT_BYTES:
        raise ValueError(f"{value} bytes an element; allowed: {', '.join(map(str, ELEMENT_BYTES))}")
    return value


# Not a Literal: that would take ``true`` for 1.
ElementBytes = Annotated[int, AfterValidator(_element_bytes)]
"""A width of ``ELEMENT_BYTES``."""


class ModelCard(ConfigModel):
    """A decoder-only transformer; sizes are those of the whole model, not of a device."""

    name: str = Field(min_length=1)
    source: str = Field(min_length=1)
    """Where each number was read."""
    layers: Size
    """Decoder blocks."""
    hidden: Size
    """Features of the residual stream."""
    heads: Size
    """Query heads."""
    kv_heads: Size
    """Key and value heads: ``heads`` for multi-head attention, fewer for grouped queries."""
    head_dim: Size
    """Features of one head."""
    ffn_hidden: Size
    """Features inside the feed-forward network."""
    ffn_gated: bool
    """The first FFN matrix makes a gate as well, twice the columns (GLU variants)."""
    activation: Literal["gelu", "silu", "relu"]
    norm: Literal["layernorm", "rmsnorm"]
    bias: bool
    """Projections and FFN matrices carry a bias."""
    rope: bool
    """Rotary position embedding; without it, a learned table of ``max_context`` rows."""
    vocab: Size
    """Rows of the embedding table."""
    tied_embeddings: bool
    """The output layer is the embedding table, so that one pipeline stage holds it once."""
    max_context: Size
    """Most tokens of prompt and output together."""
    dtype_bytes: ElementBytes
    """Bytes of a weight or an activation element."""
    kv_dtype_bytes: ElementBytes
    """Bytes of an element of the KV cache."""
    tp: Degree = 1
    """Devices that share each layer, unless the run says otherwise."""
    pp: Degree = 1
    """Pipeline stages, unless the run says otherwise."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) is no multiple of kv_heads ({self.kv_heads})")
        if self.rope and self.head_dim % 2:
            raise ValueError(f"rope turns pairs, so head_dim ({self.head_dim}) must be even")
        problem = _misfit(self, self.tp, self.pp)
        if problem:
            raise ValueError(problem)
        return self

    @property
    def qkv_features(self) -> int:
        """Columns of the fused query, key and value projection."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def attention_features(self) -> int:
        """Features that the heads hand to the output projection."""
        return self.heads * self.head_dim

    @property
    def norm_parameters(self) -> int:
        """Parameters of one norm: a gain, and a shift where it is a LayerNorm."""
        return self.hidden * (2 if self.norm == "layernorm" else 1)


@dataclass(frozen=True, slots=True)
class Parallelism:
    """How a model is shared between devices, checked against its card."""

    tp: int
    """Devices that share each layer."""
    pp: int
    """Pipeline stages, each holding ``layers / pp`` blocks."""


def parallelism(card: ModelCard, tp: int | None = None, pp: int | None = None) -> Parallelism:
    """``tp`` and ``pp``, the card's where ``None``.

    Raises ``InputError`` where heads, KV heads or FFN features do not divide by ``tp``, or layers
    by ``pp``; it names the degrees that are possible.
    """
    tp = card.tp if tp is None else tp
    pp = card.pp if pp is None else pp
    problem = _misfit(card, tp, pp)
    if problem:
        raise InputError(f"model {card.name}: {problem}")
    return Parallelism(tp=tp, pp=pp)


def _misfit(card: ModelCard, tp: int, pp: int) -> str:
    """Why these degrees do not suit the card; empty if they do."""
    shared = {"heads": card.heads, "kv_heads": card.kv_heads, "ffn_hidden": card.ffn_hidden}
    for name, size in shared.items():
        if not 1 <= tp <= size or size % tp:
            possible = [
                degree
                for degree in range(1, min(_MAX_DEGREE, *shared.values()) + 1)
                if all(size % degree == 0 for size in shared.values())
            ]
            allowed = ", ".join(map(str, possible))
            return f"{name} ({size}) cannot be shared by tp {tp}; tp may be {allowed}"
    if not 1 <= pp <= card.layers or card.layers % pp:
        stages = range(1, min(_MAX_DEGREE, card.layers) + 1)
        allowed = ", ".join(str(degree) for degree in stages if card.layers % degree == 0)
        return f"layers ({card.layers}) cannot be cut into pp {pp} stages; pp may be {allowed}"
    return ""


def load_card(name_or_path: str | Path) -> ModelCard:
    """The card of that name in ``models/``, or of a YAML file.

    Raises ``InputError`` naming file, line and key of what is wrong.
    """
    from pimsim.config.loader import load_document

    return load_document(ModelCard, "model", str(name_or_path)).config
