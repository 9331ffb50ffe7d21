"""From a run's config, a model and its steps to devices: placement, mapping, degrees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from pimsim.config.errors import InputError
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import own_design
from pimsim.config.run import RunConfig
from pimsim.engine.device import Device
from pimsim.engine.rows_needed import DegreesError, check_rows
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.energy.static import device_static, standby_w
from pimsim.hardware.pim.operations import OperationRuns
from pimsim.hardware.pim.programs import AttentionShape
from pimsim.mapping.addresses import (
    AddressPlan,
    BlockKv,
    LayoutError,
    WeightRegion,
    plan_addresses,
    visible_tokens,
)
from pimsim.mapping.attention_split import linear_layout
from pimsim.mapping.block import BlockMapper
from pimsim.mapping.design_experts import expert_operation
from pimsim.mapping.expert_costs import ExpertCosts
from pimsim.mapping.experts import ExpertEnergies, ExpertPlacement, place_by_tokens
from pimsim.mapping.pim_products import PimProducts
from pimsim.mapping.placement import (
    assign_channels,
    estimate_attention_cycles,
    split_sub_batches,
)
from pimsim.mapping.regions import weight_regions
from pimsim.workload.batch import DeviceWork, SparseOptions, device_work
from pimsim.workload.cards import ModelCard
from pimsim.workload.degrees import larger_degrees
from pimsim.workload.moe import Routing
from pimsim.workload.operators import Block, ForwardPass, Operator, OperatorKind
from pimsim.workload.outside import Outside
from pimsim.workload.pipeline import Room
from pimsim.workload.run_steps import step_at_end, step_held
from pimsim.workload.sparsity import Sparsity
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace

__all__ = ["build_device", "build_devices"]


def build_device(
    config: RunConfig, model: ModelCard | OperatorTrace, step: Step,
    routing: Routing | None = None, sparsity: Sparsity | None = None,
    capacity_bytes: int | None = None, brief: bool = False,
) -> Device:  # fmt: skip
    """``build_devices`` of a single step.

    Parameters
    ----------
    config
        Of the run.
    model
        A card, or a trace of its operators.
    step
        What each request feeds.
    routing
        Where the tokens of a mixture of experts go; None: uniform, by the run's seed.
    sparsity
        Which features of the feed-forward networks work; None: all.
    capacity_bytes
        Of a device's memory, which must hold all; None: that of the config.
    brief
        See ``Device.brief``.

    Returns
    -------
    Device
        At that step.

    Raises
    ------
    InputError
        As ``build_devices`` does.
    """
    (device,) = build_devices(config, model, (step,), routing, sparsity, capacity_bytes, brief)
    return device


def build_devices(
    config: RunConfig, model: ModelCard | OperatorTrace, steps: Sequence[Step],
    routing: Routing | None = None, sparsity: Sparsity | None = None,
    capacity_bytes: int | None = None, brief: bool = False,
) -> tuple[Device, ...]:  # fmt: skip
    """Place the requests of all steps and map the model for a run: the device at each step.

    Weights, requests and the rows of their caches lie where they lie in all steps; there is room
    for the contexts of the last. Where the run leaves ``tp`` open, it is the model's, or the next
    larger one whose devices hold the layout of PIM.

    Parameters
    ----------
    config
        Of the run.
    model
        A card, or a trace of its operators.
    steps
        One after the other, of the same requests.
    routing
        Where the tokens of a mixture of experts go; None: uniform, by the run's seed.
    sparsity
        Which features of the feed-forward networks work; the arrays skip a tile of weights, as many
        rows as they have, when none of it does. None: all work.
    capacity_bytes
        Of a device's memory, which must hold all; None: that of the config.
    brief
        See ``Device.brief``.

    Returns
    -------
    tuple
        One device a step, which share mapper and placement.

    Raises
    ------
    InputError
        Where the model or its KV cache does not fit, a request names a channel that is not there,
        or a design cannot do the work.
    """
    parallel = config.parallel
    try:
        return _build(config, model, steps, routing, sparsity, capacity_bytes, brief)
    except DegreesError as short:
        if parallel.tp is not None or config.workload.beyond_banks:
            raise short.advised("raise parallel.tp or parallel.ep") from None
        refused = short
        for tp in larger_degrees(model, short.degrees, parallel.ep):
            wider = parallel.model_copy(update={"tp": tp})
            try:
                devices = _build(
                    config.model_copy(update={"parallel": wider}), model, steps, routing, sparsity,
                    capacity_bytes, brief,
                )  # fmt: skip
            except DegreesError as also:
                refused = also
                continue
            return tuple(replace(each, narrow_tp=short.degrees.tp) for each in devices)
        raise refused.advised("no larger parallel.tp holds it, raise parallel.ep") from None


def _build(
    config: RunConfig, model: ModelCard | OperatorTrace, steps: Sequence[Step],
    routing: Routing | None, sparsity: Sparsity | None, capacity_bytes: int | None,
    brief: bool,
) -> tuple[Device, ...]:  # fmt: skip
    """The device at each step, at the degrees that ``config`` asks for."""
    schedule = config.schedule
    on_pim = schedule.declared.uses_pim and config.pim is not None
    named, apart = config.memory, config.pim_memory if on_pim else None
    if on_pim and apart is None:  # PIM commands are known to one controller only
        config = config.model_copy(update={"memory": device_memory(config.memory)})
    org = config.memory.organization
    placement = schedule.expert_placement if on_pim else "npu"
    design = own_design(config.pim, named if apart is None else apart) if on_pim else None
    if apart is not None or (design is not None and "gemv" not in design.operations):
        placement = "npu"
    at_end, most = step_at_end(steps), step_held(steps)
    own, of_pim = (
        None if memory is None else memory.organization.capacity_bytes
        for memory in (config.memory, apart)
    )
    room = Room(own or 0, of_pim)
    if capacity_bytes is not None:
        room = Room(capacity_bytes, None if apart is None else capacity_bytes)
    held = device_work(
        model, at_end, config.parallel, config.workload.layers, room, routing, config.seed,
        append_kv=schedule.kv_append,
        overlapped=schedule.parts > 1, sparsity=sparsity,
        in_order=schedule.declared.in_order,
        sparse=SparseOptions(
            config.workload.sparsity_order == "popularity", config.npu.systolic.rows,
            config.workload.sparsity_predictor,
        ),
        holding=most,
    )  # fmt: skip
    batch = held.forward(range(len(at_end.entries)))
    attends = on_pim and schedule.attention_placement == "pim"
    kv = tuple(_block_kv(block, config, batch, attends) for block in batch.blocks)
    attends = any(each.shape is not None for each in kv)
    cost = _costs(kv, batch.contexts, config) if attends else list(batch.contexts)
    channel = assign_channels(at_end.requests, org.channels, schedule.channel_assignment, cost)
    works = [held if step == at_end else held.at(step) for step in steps]
    outside = [work.outside(config.workload.outside) for work in works]
    wholes = [work.forward(range(len(work.step.entries))) for work in works]
    if apart is not None:
        _check_latents(apart, wholes)
    try:
        addresses = _addresses(
            config, held, batch, wholes, outside, kv, channel, placement, most.new_tokens
        )
    except LayoutError as error:
        raise DegreesError(str(error), held.degrees) from None
    if any(each.shape is not None for each in kv) and not config.workload.beyond_banks:
        # before experts are placed, which takes long
        check_rows(addresses, batch, held, org.rows)
    products, runs = None, None if design is None else OperationRuns(design)
    if runs is not None and schedule.product_placement != "npu":
        products = PimProducts(
            runs, ExpertCosts(config.npu, config.memory, None),
            schedule.product_placement == "pim",
        )  # fmt: skip
    expert_runs = runs if placement != "npu" else None
    mapper = BlockMapper(
        npu=config.npu, memory=config.memory, pim=config.pim, link=config.link, addresses=addresses,
        element_bytes=batch.dtype_bytes, kv_element_bytes=batch.kv_dtype_bytes,
        products=products, design_runs=runs, expert_runs=expert_runs, joins_tiles=brief,
        pim_link=None if apart is None else config.pim_link,
    )  # fmt: skip
    costs = None
    if config.pim is not None and (placement == "by-tokens" or expert_runs is not None):
        costs = ExpertCosts(config.npu, config.memory, config.pim, runs=expert_runs)
    number = {request.id: at for at, request in enumerate(at_end.requests)}
    devices = []
    for work, whole, beside in zip(works, wholes, outside, strict=True):
        of_batch = [number[request.id] for request in work.step.requests]
        entries = _sub_batches(config, [channel[i] for i in of_batch], [cost[i] for i in of_batch])
        members = tuple(tuple(of_batch[at] for at in part) for part in entries)
        passes = tuple(work.forward(part) for part in entries)
        load = [
            0 if not attends else max(_by_channel(part, channel, cost, org.channels))
            for part in members
        ]
        place = partial(_placements, config, placement, costs, load)
        devices.append(
            Device(
                config, work, whole, passes, members, entries, tuple(channel), kv, mapper,
                tuple(place(passes, part) for part in range(len(members))), place,
                beside, named_memory=named, brief=brief,
            )
        )  # fmt: skip
    one_memory = apart is None and any(each.uses_pim for each in devices)
    if one_memory and not config.workload.beyond_banks:
        check_rows(addresses, batch, held, org.rows)
    return tuple(devices)


def _sub_batches(
    config: RunConfig, channel: Sequence[int], cost: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """Numbers of the entries of each (sub-)batch; ``channel`` and ``cost`` by entry."""
    schedule = config.schedule
    parts = [tuple(range(len(channel)))]
    if schedule.parts > 1:
        split = split_sub_batches(channel, cost, schedule.split, schedule.parts)
        parts = [tuple(part) for part in split if part]
    if schedule.request_order == "channel":
        parts = [tuple(sorted(part, key=lambda at: (channel[at], at))) for part in parts]
    return tuple(parts)


def _block_kv(block: Block, config: RunConfig, whole: ForwardPass, on_pim: bool) -> BlockKv:
    """How a block keeps its cache: rows of the PIM layout where attention is on PIM, else pages
    that the NPU reads."""
    score = next((o for o in block.operators if o.kind is OperatorKind.ATTENTION_SCORE), None)
    value = next((o for o in block.operators if o.kind is OperatorKind.ATTENTION_VALUE), None)
    if score is None or value is None:
        return BlockKv(None)
    window = None if score.page else score.window or None
    in_design = on_pim and config.pim is not None and config.pim.controller is not None
    if not on_pim or in_design:
        of = config.memory_of_pim if in_design else config.memory
        burst_bytes = of.organization.burst_bytes
        linear = linear_layout(score, value, whole.step, burst_bytes)
        return BlockKv(None, window, linear, in_design)
    assert config.pim is not None
    shape = AttentionShape.of(
        score.heads, score.kv_heads, score.head_dim, config.memory, config.pim,
        whole.kv_dtype_bytes, value.head_dim,
    )  # fmt: skip
    return BlockKv(shape, window)


def _costs(kv: Sequence[BlockKv], contexts: Sequence[int], config: RunConfig) -> list[int]:
    """Estimated PIM cycles of each request's attention, the mean over kinds of cache."""
    assert config.pim is not None
    total = np.zeros(len(contexts), np.int64)
    kinds = dict.fromkeys(each for each in kv if each.shape is not None)
    counts = [sum(1 for each in kv if each == kind) for kind in kinds]
    for kind, count in zip(kinds, counts, strict=True):
        assert kind.shape is not None
        kept = np.array([visible_tokens(each, kind.window) for each in contexts], np.int64)
        total += count * estimate_attention_cycles(kept, kind.shape, config.memory, config.pim)
    mean: list[int] = (total // max(sum(counts), 1)).tolist()
    return mean


def _by_channel(
    members: Sequence[int], channel: Sequence[int], cost: Sequence[int], channels: int
) -> list[int]:
    load = [0] * channels
    for i in members:
        load[channel[i]] += cost[i]
    return load


def _placements(
    config: RunConfig,
    policy: str,
    costs: ExpertCosts | None,
    attention_cycles: Sequence[int],
    passes: Sequence[ForwardPass],
    part: int,
) -> tuple[ExpertPlacement | None, ...]:
    """Where the experts of each block of a (sub-)batch run.

    ``attention_cycles``: by (sub-)batch, what attention takes on the fullest channel; with several
    of them the next one's is beside this one's experts, and the NPU's other products too.
    """
    placements: list[ExpertPlacement | None] = []
    for block in passes[part].blocks:
        experts = [o for o in block.operators if o.kind is OperatorKind.EXPERT_GEMM]
        if not experts:
            placements.append(None)
            continue
        tokens = dict(zip(experts[0].experts, experts[0].expert_tokens, strict=True))
        if policy != "by-tokens" or costs is None or not tokens:
            limit = 0 if policy == "npu" else max(tokens.values(), default=0)
            if limit and costs is not None and costs.runs is not None:
                _check_experts(costs.runs, experts, tuple(tokens.values()))
            placements.append(ExpertPlacement(limit, tokens))
            continue
        both = len(passes) > 1
        beside = attention_cycles[(part + 1) % len(passes)] if both else 0
        at_once = config.schedule.declared.at_once
        placements.append(
            place_by_tokens(
                tokens,
                partial(costs.on_npu, block),
                partial(costs.on_pim, block, at_once),
                costs.beside(block, not beside) if both else 0,
                beside * config.memory.tCK * config.npu.frequency // 10**12,
                costs.stream_share(block) if at_once else None,
                _expert_energies(config, costs, block),
            )
        )
    return tuple(placements)


def _check_experts(runs: OperationRuns, experts: Sequence[Operator], tokens: Sequence[int]) -> None:
    """Raises ``InputError``, in the design's words, where it cannot do all experts."""
    for operator in experts:
        try:
            runs.of(expert_operation(operator, tokens))
        except InputError as error:
            what = f"{operator.name} ({operator.n} x {operator.k}, up to {max(tokens)} tokens)"
            raise InputError(f"schedule.expert_placement 'pim': {what}: {error}") from None


def _expert_energies(config: RunConfig, costs: ExpertCosts, block: Block) -> ExpertEnergies | None:
    """What an objective other than time goes by: static power and active DRAM all the time."""
    objective, energy = config.schedule.expert_objective, config.energy
    if objective == "time":
        return None
    static = device_static(config.npu, config.memory, config.pim, config.link, energy)
    always_w = static.total + standby_w(config.memory, energy)[1]
    return costs.energies(block, energy, always_w, objective == "edp")


def _addresses(
    config: RunConfig, work: DeviceWork, batch: ForwardPass, wholes: Sequence[ForwardPass],
    outside: Sequence[Sequence[Outside]], kv: Sequence[BlockKv], channel: Sequence[int],
    placement: str, new_tokens: Sequence[int],
) -> AddressPlan:  # fmt: skip
    """Of all that the steps need; ``batch``: at their end; ``new_tokens``: most of each request in
    a step."""
    shared = config.pim is not None and config.pim.controller is None
    in_banks = config.pim if placement != "npu" and shared else None
    held = work.held_experts

    def regions(blocks: Iterable[Block]) -> dict[str, WeightRegion]:
        """Of blocks with the same weights, which not every step asks for all of."""
        found: dict[str, WeightRegion] = {}
        for block in blocks:
            found |= weight_regions(block, held, config.memory, in_banks)
        return found

    weights = [regions(same) for same in zip(*(w.blocks for w in wholes), strict=True)]
    beside = [
        regions(each.block for each in same) for same in zip(*outside, strict=True)
    ]  # fmt: skip
    activations = 0
    for blocks in (*(w.blocks for w in wholes), *([e.block for e in each] for each in outside)):
        for block in {id(block): block for block in blocks}.values():
            activations = max(
                activations, max(o.input_bytes + o.output_bytes for o in block.operators)
            )
    rows = config.pim.operand_rows if config.pim is not None and shared else 0
    names = [request.id for request in batch.requests]
    if not any(each.in_design for each in kv) or config.pim_memory is None:
        return plan_addresses(
            config.memory, weights, 2 * activations, kv, batch.contexts, channel, rows,
            beside, names, new_tokens,
        )  # fmt: skip
    nothing = [BlockKv(None)] * len(kv)
    plan = plan_addresses(
        config.memory, weights, 2 * activations, nothing, (), (), rows, beside, (), ()
    )
    of_pim = plan_addresses(
        device_memory(config.pim_memory), [{}] * len(kv), 0, kv, batch.contexts, channel, 0, (),
        names, new_tokens,
    )  # fmt: skip
    return replace(
        plan, cache=of_pim.cache, cache_kind=of_pim.cache_kind, requests=of_pim.requests,
        cache_apart=True,
    )  # fmt: skip


def _check_latents(pim_memory: MemoryConfig, passes: Sequence[ForwardPass]) -> None:
    """Raises ``InputError`` where products on the NPU read the cache, which is behind the link."""
    for block in {id(block): block for forward in passes for block in forward.blocks}.values():
        for operator in block.operators:
            if operator.kind is OperatorKind.GEMM and operator.kv_read_bytes:
                raise InputError(
                    f"pim_memory {pim_memory.name!r} holds the KV cache, and {operator.name} "
                    "reads it on the NPU (latents that are expanded again); allowed with it: null"
                )
