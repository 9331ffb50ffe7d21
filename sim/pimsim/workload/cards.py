"""Model cards: the architecture of a decoder LLM, in one YAML file of ``models/`` each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.workload.stages import misfit as stages_misfit

__all__ = [
    "ELEMENT_BYTES", "MlaSection", "ModelCard", "MoeSection", "Parallelism", "WindowSection",
    "load_card", "load_hashed_card", "parallelism",
]  # fmt: skip

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


class MoeSection(ConfigModel):
    """Feed-forward networks of which each token takes a few (mixture of experts)."""

    experts: Size
    """Routed experts of a block."""
    experts_per_token: Size
    """Routed experts that each token takes (top k)."""
    expert_hidden: Size
    """Features inside one routed expert."""
    shared_hidden: int = Field(default=0, ge=0, le=_MAX_SIZE)
    """Features inside the expert that every token takes; 0: there is none."""
    shared_gate: bool = False
    """The shared expert's output is scaled by a learned gate of its own."""
    dense_layers: int = Field(default=0, ge=0, le=_MAX_SIZE)
    """First blocks with one dense network of ``ffn_hidden`` features."""
    scoring: Literal["softmax", "softmax-chosen", "sigmoid"] = "softmax"
    """What turns the router's outputs into scores; ``softmax-chosen``: of the chosen experts
    alone."""
    router_bias: bool = False
    """The router has a bias for each expert, in its product or in the choice of experts."""

    @model_validator(mode="after")
    def _fewer_than_all(self) -> MoeSection:
        if self.experts_per_token > self.experts:
            raise ValueError(
                f"experts_per_token ({self.experts_per_token}) exceeds experts ({self.experts})"
            )
        return self


class MlaSection(ConfigModel):
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1): the cache holds
    one latent and one rotary key of each token, for all heads."""

    q_lora: int = Field(ge=0, le=_MAX_SIZE)
    """Features of the compressed query; 0: queries are not compressed."""
    kv_lora: Size
    """Features of the latent."""
    nope_dim: Size
    """Features of a head's query and key without rotary position."""
    rope_dim: Size
    """Features of the rotary key that all heads share."""
    v_dim: Size
    """Features of a head's value."""


class WindowSection(ConfigModel):
    """Blocks whose queries see the last tokens alone."""

    size: Size
    """Tokens that a query sees, its own included."""
    full_every: int = Field(default=0, ge=0, le=_MAX_SIZE)
    """Blocks number ``full_every``, twice that, ... (from 1) see everything; 0: none does."""


class ModelCard(ConfigModel):
    """A decoder-only transformer; sizes are those of the whole model, not of a device."""

    name: str = Field(min_length=1)
    """What results and messages call the model."""
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
    """Function of the FFN, experts included."""
    norm: Literal["layernorm", "rmsnorm"]
    """Of the residual stream; ``layernorm`` has a shift beside its gain."""
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
    qkv_bias: bool = False
    """Queries, keys and values carry a bias though ``bias`` is off."""
    qk_norm: Literal["none", "head", "all"] = "none"
    """RMSNorm of queries and keys: of each head, or of all heads' features together."""
    post_norms: bool = False
    """A norm follows attention and the FFN too, before the residual."""
    attention_sinks: bool = False
    """A learned logit for each head takes part in the softmax."""
    embed_scale: bool = False
    """Embeddings are scaled."""
    positions: int | None = Field(default=None, ge=1, le=_MAX_SIZE)
    """Rows of the learned position table where they are not ``max_context``."""
    rope_dim: int | None = Field(default=None, ge=2, le=_MAX_SIZE)
    """Features of a head that are rotated; None: all."""
    window: WindowSection | None = None
    moe: MoeSection | None = None
    mla: MlaSection | None = None
    tp: Degree = 1
    """Devices that share each layer, unless the run says otherwise."""
    pp: Degree = 1
    """Pipeline stages, unless the run says otherwise."""

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) is no multiple of kv_heads ({self.kv_heads})")
        if self.moe is not None and self.moe.dense_layers > self.layers:
            raise ValueError(
                f"moe.dense_layers ({self.moe.dense_layers}) exceeds layers ({self.layers})"
            )
        if self.rope_dim is not None and not (self.rope and self.rope_dim <= self.head_dim):
            raise ValueError("rope_dim needs rope, and is no more than head_dim")
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

    def block_kind(self, layer: int) -> str:
        """What the block ``layer``, counted from 0, is: ``decoder`` in a model with one kind."""
        parts = []
        if self.moe is not None and self.moe.dense_layers:
            parts.append("dense" if layer < self.moe.dense_layers else "moe")
        if self.window is not None and self.window.full_every:
            full = (layer + 1) % self.window.full_every == 0
            parts.append("full" if full else "sliding")
        return "-".join(parts) or "decoder"

    def is_moe(self, layer: int) -> bool:
        """Whether the block has experts."""
        return self.moe is not None and layer >= self.moe.dense_layers

    def window_of(self, layer: int) -> int | None:
        """Tokens that the block's queries see; None: all."""
        if self.window is None:
            return None
        every = self.window.full_every
        return None if every and (layer + 1) % every == 0 else self.window.size

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
    """Pipeline stages, each of consecutive blocks (``workload.stages``)."""

    def words(self, requests: int, batches: int | None = None) -> str:
        """The degrees and a batch of so many ``requests``, of which ``batches`` are under way at
        once (None: one a stage), for a message."""
        under_way = self.pp if batches is None else batches
        batch = f"{requests} requests" + (f" in each of {under_way} batches" * (under_way > 1))
        return f"tp {self.tp}, pp {self.pp}, {batch}"

    @property
    def of_stage(self) -> str:
        """Which devices a message speaks of."""
        return " of the fullest stage" if self.pp > 1 else ""


def parallelism(card: ModelCard, tp: int | None = None, pp: int | None = None) -> Parallelism:
    """``tp`` and ``pp``, the card's where ``None``.

    Parameters
    ----------
    card
        Of the model.
    tp
        Devices that share each layer.
    pp
        Stages.

    Raises
    ------
    InputError
        Where heads, KV heads or FFN features do not divide by ``tp``, or there are fewer layers
        than ``pp``; it names the degrees that are possible.
    """
    tp = card.tp if tp is None else tp
    pp = card.pp if pp is None else pp
    problem = _misfit(card, tp, pp)
    if problem:
        raise InputError(f"model {card.name}: {problem}")
    return Parallelism(tp=tp, pp=pp)


def _misfit(card: ModelCard, tp: int, pp: int) -> str:
    """Why these degrees do not suit the card; empty if they do."""
    shared = _shared_sizes(card)
    for name, size in shared.items():
        if tp < 1 or not _shares(name, size, tp):
            allowed = ", ".join(map(str, tensor_degrees(card)))
            return f"{name} ({size}) cannot be shared by tp {tp}; tp may be {allowed}"
    return stages_misfit(card.layers, pp)


def tensor_degrees(card: ModelCard) -> tuple[int, ...]:
    """How many devices may share a layer, ascending."""
    shared = _shared_sizes(card)
    return tuple(
        degree
        for degree in range(1, min(_MAX_DEGREE, card.heads) + 1)
        if all(_shares(name, size, degree) for name, size in shared.items())
    )


def _shared_sizes(card: ModelCard) -> dict[str, int]:
    """What tensor parallelism cuts, by key of the card."""
    shared = {"heads": card.heads, "kv_heads": card.kv_heads}
    if card.mla is not None:
        del shared["kv_heads"]  # the latent is whole on every device
    if card.moe is None or card.moe.dense_layers:
        shared["ffn_hidden"] = card.ffn_hidden
    if card.moe is not None:
        shared["moe.expert_hidden"] = card.moe.expert_hidden
        if card.moe.shared_hidden:
            shared["moe.shared_hidden"] = card.moe.shared_hidden
    return shared


def _shares(name: str, size: int, tp: int) -> bool:
    """Whether ``tp`` devices can share ``size``: each has as many, or, of key heads, several
    devices hold the same one."""
    return size % tp == 0 or (name == "kv_heads" and tp % size == 0)


def load_card(name_or_path: str | Path) -> ModelCard:
    """The card of that name in ``models/``, or of a YAML file.

    Parameters
    ----------
    name_or_path
        Of the card.

    Raises
    ------
    InputError
        Naming file, line and key of what is wrong.
    """
    return load_hashed_card(name_or_path)[0]


def load_hashed_card(name_or_path: str | Path) -> tuple[ModelCard, str]:
    """``load_card``, and the hash of the card's values, wherever they stand.

    Parameters
    ----------
    name_or_path
        Of the card.

    Raises
    ------
    InputError
        Naming file, line and key of what is wrong.
    """
    from pimsim.config.documents import load_document

    found = load_document(ModelCard, "model", str(name_or_path))
    return found.config, found.sha256
