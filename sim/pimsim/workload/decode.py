"""A step of a model card's batch, and what the model takes in memory."""

from __future__ import annotations

from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, parallelism
from pimsim.workload.instantiate import instantiate
from pimsim.workload.moe import Routing
from pimsim.workload.operators import ForwardPass
from pimsim.workload.pipeline import (
    MemoryNeed,
    NoRoomError,
    Room,
    TableBytes,
    fullest,
    refusal,
    stage_needs,
)
from pimsim.workload.step import Step

__all__ = ["card_pass", "fits_memory", "memory_need", "memory_needs"]


def card_pass(
    card: ModelCard,
    step: Step,
    tp: int | None = None,
    pp: int | None = None,
    layers: int | None = None,
    append_kv: bool = True,
    routing: Routing | None = None,
    seed: int = 0,
) -> ForwardPass:
    """``step`` on one of ``tp`` x ``pp`` devices.

    Parameters
    ----------
    card
        Of the model.
    step
        What each request is asked.
    tp
        Devices that share each layer; None: the card's.
    pp
        Stages; None: the card's.
    layers
        Blocks to take; None: as many as the fullest stage has, at least one of each kind.
    append_kv
        Whether new keys and values are written.
    routing
        Of a mixture of experts; None: uniform.
    seed
        Of uniform routing.

    Raises
    ------
    InputError
        For a context that the model cannot take, or degrees of parallelism that do not divide it.
    """
    degrees = parallelism(card, tp, pp)
    return instantiate(
        card_trace(card), step, tp=degrees.tp, pp=degrees.pp, layers=layers, routing=routing,
        seed=seed, append_kv=append_kv,
    )  # fmt: skip


def memory_needs(
    card: ModelCard, step: Step, tp: int | None = None, pp: int | None = None,
    batches: int | None = None,
) -> tuple[MemoryNeed, ...]:  # fmt: skip
    """What a device of each pipeline stage must hold: its blocks with all experts, its share of the
    tables, the KV of the step's contexts (of a sliding window, what its new tokens see) of all
    batches like this one that are under way.

    The first stage holds the input table and learned positions, the last one the output layer and
    the last norm; tied embeddings are one table where both are the same stage. Vocabulary tables
    are cut by rows over the ``tp`` devices, positions and norms are whole on each.

    Parameters
    ----------
    card
        Of the model.
    step
        Whose contexts the cache holds.
    tp
        Devices that share each layer; None: the card's.
    pp
        Stages; None: the card's.
    batches
        Under way at once; None: one a stage.

    Returns
    -------
    tuple[MemoryNeed, ...]
        Bytes, by stage.
    """
    degrees = parallelism(card, tp, pp)
    table = -(-card.vocab // degrees.tp) * card.hidden * card.dtype_bytes
    positions = 0 if card.rope else (card.positions or card.max_context)
    tables = TableBytes(
        first=table + positions * card.hidden * card.dtype_bytes,
        last=table + card.norm_parameters * card.dtype_bytes,
        shared=table if card.tied_embeddings else 0,
    )
    return stage_needs(card_trace(card), step, degrees.tp, degrees.pp, tables, batches)


def memory_need(
    card: ModelCard, step: Step, tp: int | None = None, pp: int | None = None,
    batches: int | None = None,
) -> MemoryNeed:  # fmt: skip
    """Of ``memory_needs`` that of the fullest stage.

    Parameters
    ----------
    card
        Of the model.
    step
        Whose contexts the cache holds.
    tp
        Devices that share each layer; None: the card's.
    pp
        Stages; None: the card's.
    batches
        Like this one, under way at once; None: one a stage.
    """
    return fullest(memory_needs(card, step, tp, pp, batches))


def fits_memory(
    card: ModelCard,
    step: Step,
    tp: int | None,
    pp: int | None,
    room: Room,
    batches: int | None = None,
) -> tuple[MemoryNeed, ...]:
    """``memory_needs`` that fit.

    Parameters
    ----------
    card
        Of the model.
    step
        Whose contexts the cache holds.
    tp
        Devices that share each layer; None: the card's.
    pp
        Stages; None: the card's.
    room
        Of a device.
    batches
        Like this one, under way at once; None: one a stage.

    Raises
    ------
    InputError
        Where that of some stage does not fit.
    """
    needs = memory_needs(card, step, tp, pp, batches)
    if not all(map(room.holds, needs)):
        degrees = parallelism(card, tp, pp)
        raise NoRoomError(refusal(card_trace(card), step, degrees, needs, room, batches))
    return needs
