"""One run: a device, a model on it, the requests it serves, and how they are scheduled."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pimsim.config.asked_once import checked_once
from pimsim.config.base import ConfigModel
from pimsim.config.declared import (
    DeclaredSchedule,
    declared_schedule,
    schedules_with_parts,
    schedules_with_pim,
)
from pimsim.config.decoding import NO_DECODING
from pimsim.config.energy import EnergyConfig
from pimsim.config.memory import MemoryConfig
from pimsim.config.npu import NpuConfig
from pimsim.config.pim import PimConfig
from pimsim.config.pim_link import PimLinkConfig
from pimsim.config.pim_placement import check_pim_placement
from pimsim.config.plugins import ModuleName, load_module
from pimsim.config.settings_text import NONE, settings_of_text
from pimsim.config.units import Share

__all__ = [
    "EXACT", "AnyModelConfig", "LevelConfig", "LinkConfig", "MachineConfig", "ModelConfig",
    "OuterLinkConfig", "ParallelConfig", "RunConfig", "ScheduleConfig", "StepsConfig",
    "WorkloadConfig",
]  # fmt: skip

EQUAL_BLOCKS = 2
"""That ``workload.layers: auto`` simulates: the first starts on an idle memory, the second does
not. One more is simulated where tasks go out of order, as the last block has none behind it."""
DIFFERING_BLOCKS = 10
"""The same where blocks differ: the mean of eight or nine, and how much they vary."""


MOST_PARTS = 64
"""Sub-batches at most."""


class ScheduleConfig(ConfigModel):
    """Who works when."""

    policy: Annotated[str, ModuleName("policy")]
    """``serial``: one unit after the other, attention on the NPU. ``blocked``: attention on PIM,
    NPU and PIM never at once. ``interleaved``: two sub-batches, NPU and PIM at once
    (NeuPIMs section 6.2), where ``sub_batches`` is on; ``rotating``: the same with as many as
    ``sub_batches`` says. ``greedy``: no barriers, whatever is ready, PIM's work first. Or a
    plugin's."""
    sub_batches: bool | Annotated[int, Field(ge=2, le=MOST_PARTS)] = False
    """Parts of the batch, so that the NPU works on one while PIM attends to another: two halves
    (on), or so many; off: one batch. Of schedules that take so many."""
    split: Literal["per-channel", "balanced"] = "per-channel"
    """``per-channel``: half of each channel's request list to each sub-batch. ``balanced``: the
    partition with equal estimated PIM time on each channel."""
    channel_assignment: Literal["trace", "round-robin", "least-loaded"] = "trace"
    """Which channel holds a request's KV cache. ``trace``: the request file's ch_idx where it
    has one, else round-robin."""
    attention_placement: Literal["pim", "npu"] = "pim"
    """Where attention runs under a ``policy`` that uses PIM; ``npu`` leaves PIM to the experts."""
    attention_pim_tokens: int = Field(default=1, ge=1, le=1_000_000)
    """Most new tokens of a request whose attention runs on PIM, one token after the other; a
    request with more (a prompt, or a piece of it) attends on the NPU, in tiles."""
    product_placement: Literal["npu", "pim", "auto"] = "npu"
    """Where products of all tokens with the same weights run (QKV, projection, FFN, output layer):
    ``pim``, as IANUS has it, or ``auto``, wherever the estimated time is less; of a PIM design with
    a controller of its own that does ``gemv``."""
    expert_placement: Literal["npu", "pim", "by-tokens"] = "by-tokens"
    """Where the experts of a MoE run. ``by-tokens``: where ``policy`` uses PIM, those with few
    tokens there, the others on the NPU, the limit from the time of both (docs/moe.md)."""
    expert_objective: Literal["time", "energy", "edp"] = "time"
    """What ``by-tokens`` makes least: the time of both units, the energy of a device, or their
    product; all by the same estimates."""
    kv_append: bool = True
    """The new keys and values of a step are written to the cache."""
    request_order: Literal["batch", "channel"] = "batch"
    """In which order the requests of a (sub-)batch are walked: as they stand in the batch, or
    channel by channel."""

    @field_validator("sub_batches", mode="before")
    @classmethod
    def _is_a_number_of_parts(cls, value: object) -> object:
        """One line for both kinds of value. Raises ``ValueError``."""
        counts = isinstance(value, int) and 2 <= value <= MOST_PARTS
        if not counts and not isinstance(value, bool):
            raise ValueError(
                f"found {value!r}; allowed: true (two halves), false, or 2 to {MOST_PARTS} parts"
            )
        return value

    @property
    def parts(self) -> int:
        """(Sub-)batches that are asked for."""
        return 1 + self.sub_batches if isinstance(self.sub_batches, bool) else self.sub_batches

    @property
    def declared(self) -> DeclaredSchedule:
        """What the schedule declares of itself, whatever it is called."""
        return declared_schedule(self.policy)


class ParallelConfig(ConfigModel):
    """Devices that share the model. A sample of its blocks is simulated on one device; the ``tp``
    devices of a pipeline stage do the same, stages differ by their blocks."""

    tp: int | None = Field(default=None, ge=1, le=1024)
    """Tensor parallelism; None: the model card's, of a trace the least that holds it; more where
    the layout of PIM needs more."""
    pp: int | None = Field(default=None, ge=1, le=1024)
    """Pipeline stages, of consecutive blocks: as many in each, or some with one more; None: the
    model card's, of a trace one."""
    batches: int | None = Field(default=None, ge=1, le=1024)
    """Batches under way in the pipeline, each of ``workload.batch`` requests; every stage holds the
    KV cache of all. None: one a stage; with fewer, stages wait."""
    ep: int = Field(default=1, ge=1, le=1024)
    """Expert parallelism: of the ``tp`` devices, groups that hold experts of their own; ``tp /
    ep`` of them share each expert."""


EXACT = "exact"
"""Of ``link.timing``: bytes over bandwidth, as it is."""
_PAIR = re.compile(r"(\d{1,5})([->])(\d{1,5})")
_ONE_WAY = ">"


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class LinksConfig(ConfigModel):
    """Links of devices, all alike."""

    bandwidth_gb_per_s: float = Field(ge=0.001, le=1e6)
    """Of a device's link in one direction, GB/s (10^9 bytes)."""
    latency_ns: float = Field(ge=0, le=1e9)
    """Of each link that a message goes over; in a ring an all-reduce over p devices has 2 (p - 1)
    of them, an all-gather p - 1, a transfer one."""
    topology: Annotated[str, ModuleName("topology")] = "ring"
    """Which links there are: a ``ring``, to a ``switch`` that stores each message and sends it on,
    ``fully_connected``, or those of ``links`` (``given``)."""
    links: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] | None = None
    """Of topology ``given``: ``0-1`` for a link each way, ``0>1`` for one; numbers from the number
    of devices on are switches."""

    @property
    def link_pairs(self) -> tuple[tuple[int, int], ...]:
        """``links`` by the nodes that each leads from and to."""
        pairs: list[tuple[int, int]] = []
        for text in self.links or ():
            found = _PAIR.fullmatch(text)
            assert found is not None
            source, way, target = int(found[1]), found[2], int(found[3])
            pairs += [(source, target)] if way == _ONE_WAY else [(source, target), (target, source)]
        return tuple(pairs)

    @model_validator(mode="after")
    def _links_as_the_topology_has_them(self) -> Self:
        takes = load_module("topology", self.topology).TAKES_LINKS
        if takes and not self.links:
            raise ValueError(f"topology {self.topology!r} needs links, a list such as [0-1, 1-2]")
        if self.links is not None and not takes:
            raise ValueError(f"links are for topology 'given'; {self.topology!r} knows its own")
        for text in self.links or ():
            found = _PAIR.fullmatch(text)
            if found is None or found[1] == found[3]:
                raise ValueError(
                    f"links: found {text!r}; allowed: two nodes, 0-1 (a link each way) or 0>1"
                )
        return self


class LevelConfig(LinksConfig):
    """Links of devices that are a group, all alike."""

    collectives: Annotated[str, ModuleName("collective")] = "ring"
    """What devices send one another to sum and to gather: in a ``ring``, ``direct`` to each other
    one, by ``halving_doubling``, or as a module of that name does."""


class OuterLinkConfig(LevelConfig):
    """Links between groups of devices; devices of the same place in their groups share them."""

    group: int = Field(ge=2, le=1024)
    """Devices of a group, whose links among themselves are the keys of ``link``."""


class LinkConfig(LevelConfig):
    """Between devices: all-reduces of partial sums, all-gathers of logits, transfers from one
    pipeline stage to the next."""

    outer: OuterLinkConfig | None = None
    """Of two levels, the links between groups; collectives over more devices than a group has go
    level by level. null: one level."""
    congestion: Literal["aware", "unaware"] = "aware"
    """``aware``: messages share links and queue, and a node stores each before it sends it on.
    ``unaware``: each message is alone, and is passed on byte by byte."""
    timing: Annotated[str, ModuleName("link_timing", (EXACT,))] = EXACT
    """How bytes become time: ``exact``, or as a simulator of that name does it."""


def _check_technique(key: str, kind: str, text: str) -> None:
    """Raises ``ValueError`` for a module's name or settings that are wrong."""
    if text == NONE:
        return
    try:
        settings_of_text(kind, text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


class AnyModelConfig(ConfigModel):
    """What any machine runs, whoever asks for it."""

    model: str
    """A card's name (``models/``) or a YAML path."""
    trace: str | None = None
    """An operator trace's name (``traces/``) or a JSON path, which takes the card's place."""
    routing: str = "uniform"
    """Which experts tokens go to: ``uniform``, ``zipf:EXPONENT``, ``token-id``, or a routing
    trace's name or Parquet path; of models with experts."""
    capacity_factor: float | None = Field(default=None, gt=0, le=1000)
    """An expert takes this many times its even share of the batch's tokens and drops the rest;
    None: it takes all."""
    layers: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] | None = None
    """Decoder blocks simulated on the device; None: as many as the fullest pipeline stage has, the
    model's where ``pp`` is 1. ``auto``: 2; of a model whose blocks differ (experts, sparsity) 10,
    so that their spread is known; one more where the schedule takes tasks out of order."""
    outside: bool = False
    """Embedding, last norm and output layer are a part of the iteration, once, on the device of the
    first and of the last pipeline stage, with the collectives of tables that ``tp`` cuts."""
    kv_view: str = NONE
    """Which keys and values attention reads: ``none``, all that the model's own masks show, or a
    technique's part of them (``deepseek_sparse``, ``gemfilter``, ``lambda_mask``, ``quest``,
    ``snapkv``, ``streaming_llm``), as
    ``NAME:KEY=VALUE,KEY=VALUE`` (docs/techniques.md)."""
    weight_format: str = NONE
    """How the weights of the blocks lie in memory: ``none``, as the model has them, or in fewer
    bits (``int8``, ``int4``, ``int3``, ``fp8``, ``mxfp4``, ``nvfp4``, ``semi_structured``,
    ``unstructured``), as ``NAME:KEY=VALUE,KEY=VALUE`` (docs/techniques.md)."""
    kv_format: str = NONE
    """The same of the KV cache (``int8``, ``int4``, ``int3``, ``fp8``, ``mxfp4``, ``nvfp4``,
    ``kivi``)."""

    @model_validator(mode="after")
    def _views_and_formats(self) -> Self:
        _check_technique("kv_view", "kv_view", self.kv_view)
        for key in ("weight_format", "kv_format"):
            _check_technique(key, "format", getattr(self, key))
        return self


class ModelConfig(AnyModelConfig):
    """What a machine with an NPU runs, whoever asks for it."""

    sparsity: str = "none"
    """Which features of the feed-forward networks work: ``none`` (all do), ``law:relu`` or
    ``law:silu`` with ``tokens=`` (billions), ``size=``, ``width-depth=``, or a sparsity trace's
    name or Parquet path."""
    sparsity_order: Literal["as-trained", "popularity"] = "as-trained"
    """Order of the features in memory; by popularity those that work often share tiles."""
    sparsity_predictor: Literal["none", "oracle"] = "none"
    """``oracle``: what will work is known before the first product, whose columns are skipped
    too."""
    beyond_banks: bool = False
    """Simulate although the layout of PIM needs more rows for all blocks than a bank has: the
    figures are then those of a memory with more of them."""


class StepsConfig(ConfigModel):
    """Requests, and what they are asked in a run's steps."""

    phase: Literal["decode", "prefill"] = "decode"
    """What each request is asked: one new token, or its whole prompt; a column ``new_tokens`` of
    the request trace says it by request."""
    chunk: int | None = Field(default=None, ge=1, le=1_000_000)
    """At most so many new tokens of a request in a step, so that prompts take as many steps as
    they need; None: all at once."""
    steps: int | None = Field(default=None, ge=1, le=100_000)
    """Steps to run, one after the other on a machine that goes on, contexts growing; a request
    that has been fed what it is asked goes on with one token a step. None: as many as are needed
    to feed it."""
    requests: str
    """A request trace's name (``traces/``) or a CSV path, or ``equal:PROMPT+GENERATED``: requests
    of so many tokens of prompt and, unless 0, generated ones."""
    batch: int | None = Field(default=None, ge=1, le=1_000_000)
    """Take this many requests, in the trace's order; None: all of it, of equal ones one."""
    decoding: str = NO_DECODING
    """How tokens are made: ``none``, one a step; a strategy that guesses some and has the model
    verify them (``medusa``, ``draft_model``, ``eagle``, ``mtp``, ``prompt_lookup``, ``trigram``);
    blocks of masks (``llada``, ``learn2pd``); or a grammar (``constrained``), as
    ``NAME:KEY=VALUE,KEY=VALUE``; ``steps`` then counts rounds (docs/techniques.md)."""

    @model_validator(mode="after")
    def _strategy(self) -> Self:
        _check_technique("decoding", "decoding", self.decoding)
        return self

    @model_validator(mode="after")
    def _feeds_no_prompts(self) -> Self:
        if self.decoding == NO_DECODING:
            return self
        for key, value in (("phase", self.phase), ("chunk", self.chunk)):
            if value not in ("decode", None):
                raise ValueError(
                    f"{key} is {value!r} beside decoding {self.decoding!r}, which makes tokens: "
                    "it feeds no prompts"
                )
        return self


class WorkloadConfig(ModelConfig, StepsConfig):
    """What is run."""


class MachineConfig(ConfigModel):
    """A machine, the model on it, and how its units share the work."""

    name: str
    """What results and reports call it."""
    description: str = ""
    """One line for ``pimsim list``."""
    npu: Annotated[NpuConfig, checked_once()]
    memory: Annotated[MemoryConfig, checked_once()]
    pim: Annotated[PimConfig | None, checked_once()] = None
    pim_memory: Annotated[MemoryConfig | None, checked_once()] = None
    """The memory that PIM is in, of a device, where that is not ``memory``: stacks or cards of its
    own behind ``pim_link``. They hold the KV cache, the device's memory the weights. null: PIM is
    in the device's memory."""
    pim_link: PimLinkConfig | None = None
    """The link to ``pim_memory``: queries, results, new keys and values go over it."""
    schedule: ScheduleConfig
    parallel: ParallelConfig = ParallelConfig()
    link: LinkConfig
    workload: ModelConfig
    energy: Annotated[EnergyConfig, checked_once()]
    fidelity: Literal["command", "fast"] = "command"
    """``command``: every DRAM and PIM command is scheduled; ``fast``: rates that one channel's
    commands have shown, with the error that a sample of phases shows."""
    max_error: Share | None = Field(default=None, gt=0, lt=1)
    """Of ``fast``: phases that are off by more are simulated at ``command``; None: none are."""
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    """Seeds all that is drawn: the experts of tokens, the features that work, and the phases in
    which ``fast`` measures its error."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        declared = self.schedule.declared
        if declared.uses_pim and self.pim is None:
            raise ValueError(f"schedule.policy {self.schedule.policy!r} needs a pim section")
        check_pim_placement(self)
        if self.schedule.expert_placement == "pim" and not declared.uses_pim:
            raise ValueError(
                "schedule.expert_placement 'pim' needs a schedule.policy that uses PIM: "
                f"{schedules_with_pim()}"
            )
        if self.schedule.expert_objective != "time" and (
            self.schedule.expert_placement != "by-tokens" or not declared.uses_pim
        ):
            raise ValueError(
                f"schedule.expert_objective {self.schedule.expert_objective!r} is for "
                "expert_placement 'by-tokens' under a policy that uses PIM"
            )
        if self.schedule.attention_placement == "npu" and not declared.uses_pim:
            raise ValueError(
                f"schedule.attention_placement 'npu' is what schedule.policy "
                f"{self.schedule.policy!r} does anyway; it is for {schedules_with_pim()}"
            )
        on_npu = not declared.uses_pim or self.schedule.attention_placement == "npu"
        if self.npu.attention != "by-products" and not on_npu:
            raise ValueError(
                f"npu.attention {self.npu.attention!r} is of attention on the NPU: it needs "
                "schedule.policy 'serial' or attention_placement 'npu'"
            )
        if self.max_error is not None and self.fidelity == "command":
            raise ValueError("max_error is for fidelity 'fast'; 'command' has no error to limit")
        self._check_parts()
        return self

    @property
    def memory_of_pim(self) -> MemoryConfig:
        """The memory whose banks PIM is beside."""
        return self.memory if self.pim_memory is None else self.pim_memory

    def _check_parts(self) -> None:
        """Raises ``ValueError`` where a schedule does not take so many sub-batches."""
        declared = self.schedule.declared
        most, parts = declared.max_parts, self.schedule.parts
        if most is not None and parts > most:
            raise ValueError(
                f"schedule.sub_batches asks for {parts} sub-batches; schedule.policy "
                f"{self.schedule.policy!r} takes at most {most}, "
                f"{schedules_with_parts(parts)} so many"
            )


class RunConfig(MachineConfig):
    """Everything that one simulation depends on."""

    workload: WorkloadConfig
