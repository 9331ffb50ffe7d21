"""Folds that stream their weights: cut into chunks, so that a fold can start on its first rows."""

from __future__ import annotations

import numpy as np

from pimsim.hardware.npu.operands import ArrayTraffic
from pimsim.hardware.npu.plan import MAX_STEPS, GemmPlan, ceil_div, make_plan

__all__ = ["plan_streamed_weights"]


def plan_streamed_weights(
    *,
    folds: int,
    folds_per_block: int,
    block_width: int,
    width: int,
    streamed: int,
    chunk: int,
    arrays: int,
    distance: int,
    lead_cycles: int,
    loading_cycles: int,
    tail_cycles: int,
    dtype_bytes: int,
    macs: int,
    traffic: ArrayTraffic,
) -> GemmPlan:
    """A plan whose folds stream ``streamed`` vectors of weights at one a cycle.

    B is ``width`` x ``streamed``, cut along its width into blocks of ``block_width``, one block
    to a fold, ``folds_per_block`` consecutive folds on the same block. Folds are dealt over the
    arrays in waves; weights stream wave by wave, in a wave vector by vector, and a block that an
    earlier wave has brought stays on chip. A step is ``chunk`` vectors of one wave (a larger
    chunk where the plan would be longer than ``MAX_STEPS``).

    ``distance`` separates the starts of two waves, ``loading_cycles`` of it pass with the next
    wave's blocks on their way into the arrays and nothing streaming; ``tail_cycles`` pass from
    the last vector's entry to the last result.

    Parameters
    ----------
    folds
        Of the product.
    folds_per_block
        Consecutive ones on the same block of B.
    block_width
        Width of a block.
    width
        Of B.
    streamed
        Vectors of weights that a fold takes.
    chunk
        Vectors of a step, at least.
    arrays
        That take a fold each.
    distance
        Cycles from the start of a wave to the next one's.
    lead_cycles
        Before the first vector.
    loading_cycles
        Of ``distance``, those with nothing streaming.
    tail_cycles
        From the last vector's entry to the last result.
    dtype_bytes
        Of an element of B.
    macs
        Of the product.
    traffic
        Elements that the folds read and write.
    """
    waves = ceil_div(folds, arrays)
    chunk = max(chunk, ceil_div(streamed, max(1, MAX_STEPS // waves)))
    chunks = ceil_div(streamed, chunk)

    ends = np.minimum(np.arange(1, waves + 1, dtype=np.int64) * arrays, folds)
    blocks_seen = -(-ends // folds_per_block)
    seen = np.minimum(blocks_seen * block_width, width)
    new = np.diff(seen, prepend=0)

    vectors = np.minimum(np.arange(1, chunks + 1, dtype=np.int64) * chunk, streamed)
    elements = (seen - new)[:, None] * streamed + new[:, None] * vectors[None, :]

    cycles = np.diff(vectors, prepend=0)
    last_chunk = int(cycles[-1])
    cycles[-1] = distance - (streamed - last_chunk)
    return make_plan(
        folds=folds,
        interval_cycles=np.tile(cycles, waves),
        weight_bytes_needed=np.asarray(elements.ravel() * dtype_bytes, dtype=np.int64),
        lead_cycles=lead_cycles,
        drain_cycles=last_chunk + tail_cycles,
        macs=macs,
        streamed_cycles=waves * streamed,
        loading_cycles=lead_cycles + (waves - 1) * loading_cycles,
        traffic=traffic,
    )
