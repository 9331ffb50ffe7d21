"""A step of a model card's batch, and what the model takes in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, parallelism
from pimsim.workload.instantiate import PhaseName, held_bytes, instantiate
from pimsim.workload.moe import Routing
from pimsim.workload.operators import Iteration
from pimsim.workload.requests import Request

__all__ = ["MemoryNeed", "decode_iteration", "fits_memory", "memory_need"]


def decode_iteration(
    card: ModelCard,
    requests: Sequence[Request],
    tp: int | None = None,
    pp: int | None = None,
    layers: int | None = None,
    append_kv: bool = True,
    routing: Routing | None = None,
    seed: int = 0,
    phase: PhaseName = "decode",
) -> Iteration:
    """The step of a batch on one of ``tp`` x ``pp`` devices.

    ``tp`` and ``pp`` are the card's where ``None``; the rest is as in ``instantiate``. Raises
    ``InputError`` for an empty batch, a context that the model cannot take, or degrees of
    parallelism that do not divide it.
    """
    degrees = parallelism(card, tp, pp)
    return instantiate(
        card_trace(card), requests, phase=phase, tp=degrees.tp, pp=degrees.pp, layers=layers,
        routing=routing, seed=seed, append_kv=append_kv,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class MemoryNeed:
    """Bytes that a model and its KV cache take on the fullest device."""

    weights_bytes: int
    kv_bytes: int

    @property
    def total_bytes(self) -> int:
        """Weights and KV cache together."""
        return self.weights_bytes + self.kv_bytes


def memory_need(
    card: ModelCard, requests: Sequence[Request], tp: int | None = None, pp: int | None = None
) -> MemoryNeed:
    """What a device must hold: its blocks with all experts, its share of the embeddings, the KV of
    the contexts (of a sliding window, as much as it sees).

    The fullest stage is counted: with ``pp`` of 1 the only one, which holds the input table and
    the output layer (one table where the embeddings are tied), learned positions and the last norm;
    else the first, which has no output layer. Vocabulary tables are cut by rows over the ``tp``
    devices, positions and norms are whole on each.
    """
    degrees = parallelism(card, tp, pp)
    blocks = held_bytes(card_trace(card), requests, degrees.tp, degrees.pp)
    is_whole = degrees.pp == 1
    tables = 2 if is_whole and not card.tied_embeddings else 1
    vocab = -(-card.vocab // degrees.tp)
    positions = 0 if card.rope else (card.positions or card.max_context)
    outside = (tables * vocab + positions) * card.hidden
    outside += card.norm_parameters if is_whole else 0
    return MemoryNeed(
        weights_bytes=blocks.weights + outside * card.dtype_bytes,
        kv_bytes=blocks.kv,
    )


def fits_memory(
    card: ModelCard,
    requests: Sequence[Request],
    tp: int | None,
    pp: int | None,
    capacity_bytes: int,
) -> MemoryNeed:
    """The need of the fullest device, known to fit; raises ``InputError`` where it does not."""
    need = memory_need(card, requests, tp, pp)
    if need.total_bytes > capacity_bytes:
        degrees = parallelism(card, tp, pp)
        raise InputError(
            f"model {card.name} (tp {degrees.tp}, pp {degrees.pp}, {len(requests)} requests) needs "
            f"{_gib(need.total_bytes)} GiB on each device (weights {_gib(need.weights_bytes)}, "
            f"KV {_gib(need.kv_bytes)}), memory has {_gib(capacity_bytes)} GiB"
        )
    return need


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.2f}"
