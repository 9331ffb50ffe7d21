"""Rows of a result's tables, and what a cycle stack may say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "CYCLE_CAUSES",
    "Decoding",
    "KvCacheUse",
    "OperatorResult",
    "RequestResult",
    "StageResult",
    "StepResult",
    "Strict",
]

CYCLE_CAUSES: dict[str, str] = {
    "computing": "computing",
    "array_part": "computing with a part of the array",
    "array_loading": "loading the array",
    "array_fill_drain": "filling or draining the array",
    "weights": "waiting for weights",
    "activations": "waiting for activations",
    "activation_window": "waiting for the activation window (tFAW)",
    "row_miss": "row misses",
    "command_bus": "waiting for the C/A bus",
    "data_bus": "waiting for the data bus",
    "refresh": "refresh",
    "readres": "reading PIM results (READRES)",
    "gwrite": "filling the PIM global buffer (GWRITE)",
    "commands": "other commands of PIM: rows, moves, refresh",
    "turn": "closing rows between turns of NPU and PIM",
    "channel_imbalance": "waiting for the fullest channel",
    "core_imbalance": "waiting for the fullest core",
    "vector": "waiting for the vector unit",
    "memory": "waiting for its memory",
    "exponentials": "waiting for exponentials",
    "pim": "waiting for PIM",
    "host": "waiting for the host",
    "npu": "waiting for the NPU",
    "xpu": "waiting for the GPU",
    "collective": "waiting for the other devices",
    "transfer": "moving data",
    "launch": "waiting for the next operator's start",
    "pim_link": "waiting for the link to PIM's memory",
    "idle": "idle: no work",
}
"""Names of causes in a cycle stack, in words. A stack may use names that are not listed."""


class Strict:
    """What is in ``result.json``: unknown keys, and numbers that are none, are refused."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True)
class StageResult(Strict):
    """One stage of the schedule; stages follow one another."""

    name: str
    cycles: int
    npu_busy_cycles: int
    """Systolic arrays at work, filling and draining included."""
    pim_busy_cycles: int
    bound_cycles: int = 0
    """Least cycles that the stage's work can take on this hardware; 0 where none was computed."""
    step: int = 0
    """Number of the step that it is a part of."""
    device: int = 0
    """Number of the device."""


@dataclass(frozen=True)
class OperatorResult(Strict):
    """One operator (of one sub-batch, of one layer)."""

    name: str
    kind: str
    unit: str
    layer: int
    """Number of the block in the model; what lies outside the blocks is behind the last."""
    cycles: int
    """From its start to its end, waits in between included."""
    stage: str = ""
    start_cycle: int = 0
    flops: int = 0
    bytes: int = 0
    """Bytes that it needs from DRAM, or that PIM reads in the banks."""
    bound_cycles: int = 0
    """Least cycles on this hardware (roofline); 0 where none was computed."""
    lead_cycles: int = 0
    """Cycles before its start in which its first loads were under way (prefetch)."""
    posted_bytes: int = 0
    """Of ``bytes``: writes that were still queued at its end, and what may have come before it in
    a burst that two operands share."""
    step: int = 0
    """Number of the step that it is a part of."""
    executed_flops: int = 0
    """What the arrays do for ``flops``, where that is more (tiles on the diagonal of causal
    attention are done in full); 0: as many."""
    device: int = 0
    """Number of the device."""
    part: int = 0
    """Number of the (sub-)batch; below 0: of all of them."""
    requests: str = ""
    """Request group that it works for, by id: ``0-47, 50``; empty: all requests of the
    (sub-)batch."""


@dataclass(frozen=True)
class StepResult(Strict):
    """One forward pass of a run."""

    requests: int
    tokens: int
    """That are fed."""
    logits: int
    """Rows of logits that are wanted."""
    made: int
    """Tokens that come out."""
    context_max: int
    """Tokens of the longest context, the new ones included."""
    cycles: int
    """Of the blocks that were simulated and all work beside blocks, NPU clock."""
    time_s: float
    """The same in seconds."""
    iteration_s: float
    """Of all blocks, as in ``Result``."""
    step: int = 0
    """Its number."""
    device: int = 0
    """Number of the device."""


@dataclass(frozen=True)
class RequestResult(Strict):
    """One request of a run."""

    id: int
    first_step: int
    """That it has a part in."""
    last_step: int
    context: int
    """Tokens at the end of its last step, the new ones included."""
    new_tokens: int
    """That are fed, over all steps."""
    made: int
    """Tokens that come out, over all steps."""
    part: int = 0
    """Number of its (sub-)batch, in its first step."""
    channel: int | None = None
    """Where its keys and values lie; None: not on one channel alone."""
    device: int = 0
    """Number of the device."""


@dataclass(frozen=True)
class KvCacheUse(Strict):
    """How full the KV cache of the simulated blocks is when the run ends, all channels together."""

    rows: int
    """Rows of every bank that keys and values take in PIM's layout; 0 where the NPU reads them in
    order."""
    keys_filled: float
    """Share of the rows of keys that their tokens fill; 1 where there are none, as next."""
    values_filled: float
    bursts: int = 0
    """Bursts that they take where the NPU reads them in order."""
    filled: float = 1.0
    """Share of all these rows, or bursts, that tokens fill; the rest is fragmentation."""


@dataclass(frozen=True)
class Decoding(Strict):
    """How a decoding strategy made the tokens of a run: rounds of drafts, of a pass of the model
    that verifies them, and of what the host does."""

    strategy: str
    """As ``workload.decoding`` has it."""
    rows: int
    """Tokens of a request that the model is fed in a round, each with a row of logits."""
    tokens_a_step: float
    """Tokens of a request that a round makes on average, the model's own included."""
    made: float
    """Tokens of all requests and rounds."""
    verify_s: float
    """The model's passes of all rounds and blocks, as ``iteration_s`` without a strategy."""
    draft_s: float
    """The drafter's passes of all rounds; 0: none drafts on the device."""
    host_s: float
    """What the host does in all rounds."""
    host_overlapped: bool
    """It does so beside the device."""
    added_bytes: int
    """Parameters beside the model's: heads, the drafter's own."""
    flops_share: Mapping[str, float]
    """Of the arithmetic of drafts and verification, by unit of an operator."""
    draft_model: str = ""
    """Name of the drafter; empty: none drafts on the device."""
