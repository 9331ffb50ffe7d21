"""A model and a batch on one device: degrees of parallelism, routing, and the steps they make.

Experts over devices (``ep``): of the ``tp`` devices that share a layer, groups of ``tp / ep`` hold
the same experts, cut between them; each group works on the tokens that go to its own. All devices
wait for the one with the most in every layer, so that the group simulated is, layer by layer, the
one that gets the most tokens. Their sums are added up by the all-reduce that follows anyway
(as vLLM does without data-parallel attention), so no tokens are sent around.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pimsim.config.content import digest
from pimsim.config.decoding import NO_DECODING
from pimsim.config.errors import InputError
from pimsim.config.reading import read_bytes
from pimsim.config.resources import find_source, preset_names
from pimsim.config.run import (
    DIFFERING_BLOCKS,
    EQUAL_BLOCKS,
    AnyModelConfig,
    ModelConfig,
    ParallelConfig,
    RunConfig,
    WorkloadConfig,
)
from pimsim.config.system import SystemConfig, SystemWorkload
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, Parallelism, load_card, load_hashed_card, parallelism
from pimsim.workload.decode import fits_memory
from pimsim.workload.decoding import load_strategy
from pimsim.workload.degrees import trace_degrees, trace_memory_needs
from pimsim.workload.instantiate import instantiate
from pimsim.workload.moe import DROPPED, Routing, UniformRouting
from pimsim.workload.operators import ForwardPass
from pimsim.workload.outside import Outside, outside_work, table_bytes_read
from pimsim.workload.pipeline import MemoryNeed, Room
from pimsim.workload.requests import RequestTrace, load_requests
from pimsim.workload.routing.shape import MoeShape
from pimsim.workload.routing.spec import GENERATORS, load_routing
from pimsim.workload.sparsity import Sparsity, load_sparsity
from pimsim.workload.sparsity.device import DeviceSparsity
from pimsim.workload.stages import cut_blocks
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace, load_trace
from pimsim.workload.transforms.sparse_ffn import sparse_ffn

__all__ = [
    "DeviceRouting", "DeviceWork", "Inputs", "SparseOptions", "device_work", "input_hashes",
    "load_inputs", "load_model", "load_run_routing", "load_run_sparsity", "model_hashes",
    "moe_shape",
]  # fmt: skip

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DeviceRouting:
    """What one device sees of a step's routing: its experts, the tokens of a sub-batch."""

    batch: Routing
    tokens: int
    """Of the whole step."""
    members: tuple[int, ...]
    """Which of them are routed here."""
    experts: int
    groups: int
    """Groups of devices with experts of their own."""

    def whole(self, layer: int) -> Ints:
        """The step's assignments, of all experts."""
        return self.batch.assignments(layer, self.tokens)

    def group_tokens(self, layer: int) -> Ints:
        """Pairs of a token and an expert by group, of the whole step; shape (groups,)."""
        found = self.whole(layer)
        held = self.experts // self.groups
        return np.bincount(found[found != DROPPED] // held, minlength=self.groups)

    def assignments(self, layer: int, tokens: int) -> Ints:
        """Experts of the members' tokens on the fullest group, numbered from its first one."""
        assert tokens == len(self.members)
        found = self.whole(layer)[list(self.members)]
        if self.groups == 1:
            return found
        held = self.experts // self.groups
        group = int(np.argmax(self.group_tokens(layer)))
        is_own = (found != DROPPED) & (found // held == group)
        return np.where(is_own, found - group * held, DROPPED)


@dataclass(frozen=True)
class DeviceWork:
    """What a device does in a step."""

    trace: OperatorTrace
    step: Step
    degrees: Parallelism
    ep: int
    layers: int | None
    routing: Routing | None
    """Of the batch; None: the model has no experts."""
    append_kv: bool
    batches: int = 1
    """Under way at once, in the stages of the pipeline."""
    needs: tuple[MemoryNeed, ...] = ()
    """What a device of each pipeline stage holds."""
    sparsity: DeviceSparsity | None = None
    """Of the feed-forward networks; None: all features work."""
    spread: bool = False
    """Simulated blocks are spread over all of their kind, not the first ones."""
    _passes: dict[tuple[int, ...], ForwardPass] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def differ(self) -> bool:
        """Blocks of a kind differ: in the experts that are hit, or in the features that work."""
        return self.routing is not None or self.sparsity is not None

    @property
    def held_experts(self) -> int:
        """Experts whose weights the device has, or a part of each."""
        return self.trace.facts.experts // self.ep

    def routed(self, members: Sequence[int]) -> DeviceRouting | None:
        """The routing of the tokens of some entries, as the device sees it."""
        if self.routing is None:
            return None
        return DeviceRouting(
            self.routing, self.step.tokens, self.step.token_numbers(members),
            self.trace.facts.experts, self.ep,
        )  # fmt: skip

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kind of each of the model's blocks."""
        return tuple(self.trace.phases["decode"].sequence())

    @property
    def stages(self) -> tuple[range, ...]:
        """Numbers of the blocks of each pipeline stage."""
        return cut_blocks(self.trace.facts.layers, self.degrees.pp)

    def outside(self, with_tables: bool) -> tuple[Outside, ...]:
        """What runs once for the whole step beside the blocks, by pipeline stage.

        ``with_tables``: embedding and output layer too, not transfers between stages alone.
        """
        return outside_work(self.trace, self.step, self.degrees.tp, self.degrees.pp, with_tables)

    @property
    def table_bytes_read(self) -> int:
        """Weights that embedding and output layer read for the step, on one device of each."""
        return table_bytes_read(self.trace, self.step, self.degrees.tp)

    def at(self, step: Step) -> DeviceWork:
        """The work of another step of the same requests."""
        sparsity = self.sparsity
        if sparsity is not None:
            sparsity = replace(sparsity, tokens=step.tokens)
        return replace(self, step=step, sparsity=sparsity, _passes={})

    def forward(self, members: Sequence[int]) -> ForwardPass:
        """The pass of some entries of the step."""
        key = tuple(members)
        if key not in self._passes:
            found = instantiate(
                self.trace, self.step.part(key), tp=self.degrees.tp, pp=self.degrees.pp,
                layers=self.layers, routing=self.routed(key), append_kv=self.append_kv, ep=self.ep,
                spread=self.spread,
            )  # fmt: skip
            self._passes[key] = self._sparse(found, key)
        return self._passes[key]

    def _sparse(self, forward: ForwardPass, members: tuple[int, ...]) -> ForwardPass:
        sparsity = self.sparsity
        if sparsity is None:
            return forward
        tokens = self.step.token_numbers(members)
        return sparse_ffn(
            union=lambda layer: sparsity.union(layer, tokens), granularity=sparsity.granularity,
            predictor=sparsity.predictor,
        )(forward)  # fmt: skip


def device_work(
    model: ModelCard | OperatorTrace, step: Step, parallel: ParallelConfig,
    layers: int | Literal["auto"] | None, room: Room, routing: Routing | None, seed: int,
    append_kv: bool, overlapped: bool, sparsity: Sparsity | None = None,
    sparse: SparseOptions | None = None, holding: Step | None = None, in_order: bool = True,
) -> DeviceWork:  # fmt: skip
    """The work of one device.

    Parameters
    ----------
    model
        Card or trace.
    step
        What each request is asked.
    parallel
        Degrees of parallelism; None in it: those of the card, or the fewest devices.
    layers
        Blocks to simulate; more are where the model has more kinds. ``auto``: two, of a model whose
        blocks differ as many as show how much. None: all of the fullest stage.
    room
        Of a device.
    routing
        Of a mixture of experts; None: uniform.
    seed
        Of uniform routing.
    append_kv
        Whether new keys and values are written.
    overlapped
        A block's end runs beside the next one's attention (sub-batches).
    sparsity
        Of the feed-forward networks; None: all features work.
    sparse
        How it is used.
    holding
        Contexts and new tokens that the cache must hold; None: those of ``step``.
    in_order
        Else blocks run into one another, so that the last one, which has none behind it, shows no
        steady state: ``auto`` takes one more.

    Raises
    ------
    InputError
        Where the model does not fit the devices of each pipeline stage, or what is asked does not
        suit it.
    """
    held = step if holding is None else holding
    if isinstance(model, ModelCard):
        degrees = parallelism(model, parallel.tp, parallel.pp)
        batches = _batches(parallel, degrees)
        needs = fits_memory(model, held, degrees.tp, degrees.pp, room, batches)
        trace = card_trace(model)
    else:
        trace = model
        degrees = trace_degrees(trace, held, parallel.tp, parallel.pp, room, parallel.batches)
        batches = _batches(parallel, degrees)
        needs = trace_memory_needs(trace, held, degrees.tp, degrees.pp, batches)
    experts, ep = trace.facts.experts, parallel.ep
    if ep > 1 and not experts:
        raise InputError(
            f"parallel.ep is {ep}; model {trace.model} has no experts, so it must be 1"
        )
    if degrees.tp % ep or experts % ep:
        raise InputError(
            f"parallel.ep is {ep}; it must divide tp ({degrees.tp}) and the {experts} experts of "
            f"model {trace.model}"
        )
    if experts and routing is None:
        routing = UniformRouting(experts, trace.facts.experts_per_token, seed)
    if not experts and routing is not None:
        raise InputError(f"workload.routing: model {trace.model} has no experts to route to")
    differ = bool(experts) or sparsity is not None
    spread = layers == "auto" and differ
    if layers == "auto":
        layers = (DIFFERING_BLOCKS if differ else EQUAL_BLOCKS) + (not in_order)
        layers = min(layers, max(map(len, cut_blocks(trace.facts.layers, degrees.pp))))
    if layers is not None:
        layers = max(layers, _least_blocks(trace, overlapped))
    used = None
    if sparsity is not None and sparse is not None:
        used = DeviceSparsity(
            sparsity, step.tokens, degrees.tp, sparse.sorted, sparse.granularity,
            sparse.predictor,
        )  # fmt: skip
    return DeviceWork(
        trace,
        step,
        degrees,
        ep,
        layers,
        routing if experts else None,
        append_kv,
        batches,
        needs,
        used,
        spread,
    )


def _batches(parallel: ParallelConfig, degrees: Parallelism) -> int:
    """Batches under way: as asked for, else one a stage. Raises ``InputError``."""
    if parallel.batches is None:
        return degrees.pp
    if parallel.batches > degrees.pp:
        raise InputError(
            f"parallel.batches is {parallel.batches}; pp is {degrees.pp}, and a stage works on one "
            "batch at a time, so no more can be under way"
        )
    return parallel.batches


class SparseOptions(NamedTuple):
    """How hardware and model make use of sparsity."""

    sorted: bool
    granularity: int
    predictor: str


def load_run_sparsity(config: RunConfig, model: ModelCard | OperatorTrace) -> Sparsity | None:
    """Which features work, as ``config`` says; None where all do.

    Parameters
    ----------
    config
        Its ``workload.sparsity`` and seed.
    model
        Card or trace.

    Raises
    ------
    InputError
        For an unknown name, or masks that do not suit the model.
    """
    spec = config.workload.sparsity
    if spec == "none":
        return None
    trace = card_trace(model) if isinstance(model, ModelCard) else model
    blocks = trace.phases["decode"].blocks
    widths = {o.k for block in blocks.values() for o in block if o.group == "fc2"}
    if len(widths) != 1:
        raise InputError(
            f"workload.sparsity is {spec!r}; model {trace.model} has no dense feed-forward network"
        )
    return load_sparsity(spec, layers=trace.facts.layers, ffn=widths.pop(), seed=config.seed)


def _least_blocks(trace: OperatorTrace, overlapped: bool) -> int:
    """Blocks that show each kind of block; of several kinds one more where a block shows its
    steady state only beside the next one (``overlapped``)."""
    kinds = list(trace.phases["decode"].sequence())
    least = len(set(kinds))
    return min(least + 1, len(kinds)) if overlapped and least > 1 else least


def load_model(workload: AnyModelConfig) -> ModelCard | OperatorTrace:
    """What ``workload`` runs: its trace, or its card.

    Parameters
    ----------
    workload
        Its ``trace``, else its ``model``.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    if workload.trace is None:
        return load_card(workload.model)
    return load_trace(find_source("operators", workload.trace))


def load_run_routing(
    config: RunConfig | SystemConfig, model: ModelCard | OperatorTrace
) -> Routing | None:
    """Where tokens go, as ``config`` says.

    Parameters
    ----------
    config
        Its ``workload.routing`` and seed.
    model
        Card or trace.

    Returns
    -------
    Routing | None
        None for a model without experts.

    Raises
    ------
    InputError
        For an unknown name, or a routing that does not suit the model.
    """
    spec = config.workload.routing
    shape = MoeShape.of(card_trace(model) if isinstance(model, ModelCard) else model)
    if not shape.experts:
        if spec != "uniform":
            raise InputError(f"workload.routing is {spec!r}; the model has no experts to route to")
        return None
    return load_routing(
        spec, shape, seed=config.seed, capacity_factor=config.workload.capacity_factor
    )


def moe_shape(model: str) -> MoeShape:
    """The experts of a card (its name or file) or of an operator trace.

    Parameters
    ----------
    model
        Name or path.

    Raises
    ------
    InputError
        Where it cannot be read.
    """
    is_trace = model.endswith(".json") or (
        model not in preset_names("model") and model in preset_names("operators")
    )
    if is_trace:
        return MoeShape.of(load_trace(find_source("operators", model)))
    return MoeShape.of(card_trace(load_card(model)))


class Inputs(NamedTuple):
    """What a run reads before it begins; requests and card are read once, so that what is hashed is
    what is used."""

    requests: RequestTrace
    card: ModelCard | None
    """None: the model is an operator trace."""
    hashes: dict[str, str]
    """See ``input_hashes``."""


def input_hashes(workload: WorkloadConfig | SystemWorkload) -> dict[str, str]:
    """Hash of what each key names, by key.

    Parameters
    ----------
    workload
        Of a run or a system.

    Raises
    ------
    InputError
        Where one cannot be read.
    """
    return load_inputs(workload).hashes


def load_inputs(workload: WorkloadConfig | SystemWorkload) -> Inputs:
    """Requests and card of ``workload``, and hashes of all that it names.

    Parameters
    ----------
    workload
        Of a run or a system.

    Raises
    ------
    InputError
        Where something cannot be read.
    """
    requests = load_requests(workload.requests, workload.batch)
    card, found = _hashed_model(workload)
    if workload.decoding != NO_DECODING:
        for key, (kind, name) in load_strategy(workload.decoding).inputs().items():
            found[f"decoding.{key}"] = _file_sha256(kind, name)
    return Inputs(requests, card, {"requests": requests.sha256, **found})


def model_hashes(workload: AnyModelConfig) -> dict[str, str]:
    """Hash of what each key of a machine's model names, by key.

    Parameters
    ----------
    workload
        Of the machine.

    Raises
    ------
    InputError
        Where one cannot be read.
    """
    return _hashed_model(workload)[1]


def _hashed_model(workload: AnyModelConfig) -> tuple[ModelCard | None, dict[str, str]]:
    card, found = None, {}
    if workload.trace is None:
        card, found["model"] = load_hashed_card(workload.model)
    else:
        found["trace"] = _file_sha256("operators", workload.trace)
    if workload.routing.partition(":")[0] not in {g.partition(":")[0] for g in GENERATORS}:
        found["routing"] = _file_sha256("routing", workload.routing)
    sparsity = workload.sparsity if isinstance(workload, ModelConfig) else "none"
    if sparsity != "none" and not sparsity.startswith("law:"):
        found["sparsity"] = _file_sha256("sparsity", sparsity)
    return card, found


def _file_sha256(kind: str, name: str) -> str:
    return hashlib.sha256(read_bytes(find_source(kind, name))).hexdigest()


def traces_sha256(inputs: Mapping[str, str]) -> str:
    """Of all traces that a run reads, by ``input_hashes``: the requests' own where that is all."""
    traces = {key: found for key, found in inputs.items() if key != "model"}
    return inputs["requests"] if len(traces) == 1 else digest(traces)
