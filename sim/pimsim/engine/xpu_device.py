"""GPUs with a model and a batch on them, ready to run its steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pimsim.config.system import SystemConfig
from pimsim.mapping.addresses import BlockKv
from pimsim.mapping.experts import ExpertPlacement
from pimsim.mapping.kernels import ExpertShape
from pimsim.workload.batch import DeviceWork, device_work
from pimsim.workload.cards import ModelCard
from pimsim.workload.moe import Routing
from pimsim.workload.operators import Block, ForwardPass, OperatorKind
from pimsim.workload.outside import Outside
from pimsim.workload.pipeline import Room
from pimsim.workload.run_steps import step_at_end, step_held
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace

__all__ = [
    "XpuDevice", "beside_bytes", "build_xpu_devices", "capacity_bytes", "memory_words",
    "needed_bytes",
]  # fmt: skip

_ANY_SIZE = 2**62
"""Bytes. A model that is too large for GPUs runs all the same, with a warning."""


@dataclass(frozen=True)
class XpuDevice:
    """What one GPU runs in a step: its blocks, and what is beside them."""

    config: SystemConfig
    work: DeviceWork
    """The model, and how it is shared."""
    whole: ForwardPass
    outside: tuple[Outside, ...]
    """What runs once beside the decoder blocks, by pipeline stage."""
    contexts: tuple[int, ...] = ()
    """Of all steps of the run, the longest of each."""
    longest: int = 0
    """Context that the run comes to."""
    card_context: int = 0
    """Most tokens that the model takes."""
    kv: tuple[BlockKv, ...] = ()
    """No block keeps its cache in rows of PIM's layout in the device's own memory."""
    channel: tuple[int, ...] = ()
    """Nor on one channel of it."""

    @property
    def passes(self) -> tuple[ForwardPass, ...]:
        """The step is one batch."""
        return (self.whole,)

    @property
    def entries(self) -> tuple[tuple[int, ...], ...]:
        """Numbers of its entries."""
        return (tuple(range(len(self.whole.step.entries))),)

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """The same, of requests of the step."""
        return self.entries

    @property
    def experts(self) -> tuple[tuple[ExpertPlacement | None, ...], ...]:
        """All run on the device: none at or below 0 tokens does elsewhere."""
        return (tuple(_placed(block) for block in self.whole.blocks),)

    @property
    def layers(self) -> int:
        """Simulated blocks."""
        return self.whole.layers

    @property
    def shape(self) -> ExpertShape | None:
        """Of its mixture of experts; None: it has none."""
        facts = self.work.trace.facts
        if not facts.experts:
            return None
        return ExpertShape(self.work.held_experts, facts.experts_per_token)


def _placed(block: Block) -> ExpertPlacement | None:
    for each in block.operators:
        if each.kind is OperatorKind.EXPERT_GEMM:
            tokens = dict(zip(each.experts, each.expert_tokens, strict=True))
            return ExpertPlacement(threshold=0, tokens=tokens)
    return None


def build_xpu_devices(
    config: SystemConfig, model: ModelCard | OperatorTrace, steps: Sequence[Step],
    routing: Routing | None = None,
) -> tuple[XpuDevice, ...]:  # fmt: skip
    """The device at each step.

    Contexts longer than the model's ``max_context`` are taken: they are a matter of quality, not of
    time. So is a model that is too large: both are told in a warning.

    Parameters
    ----------
    config
        The machine, how it shares the model, and the workload.
    model
        What runs on it: a card, or a trace of its operators.
    steps
        Of the run, in order.
    routing
        Where the tokens of a mixture of experts go; None: uniform, by the run's seed.

    Returns
    -------
    tuple[XpuDevice, ...]
        One for each step.

    Raises
    ------
    InputError
        Where devices, stages or experts do not divide the model.
    """
    at_end, most = step_at_end(steps), step_held(steps)
    parallel = config.parallel.model_copy(update={"tp": config.tp, "pp": config.pp})
    held = device_work(
        _roomy(model, at_end), at_end, parallel, config.workload.layers, Room(_ANY_SIZE), routing,
        config.seed, append_kv=True, overlapped=False, holding=most,
    )  # fmt: skip
    contexts = tuple(max(step.contexts) for step in steps)
    found = []
    for step in steps:
        work = held.at(step)
        whole = work.forward(range(len(step.entries)))
        outside = work.outside(config.workload.outside)
        found.append(
            XpuDevice(config, work, whole, outside, contexts, max(contexts), _takes(model))
        )
    return tuple(found)


def _takes(model: ModelCard | OperatorTrace) -> int:
    """Tokens of prompt and output together."""
    return model.max_context if isinstance(model, ModelCard) else model.facts.max_context


def _roomy(model: ModelCard | OperatorTrace, step: Step) -> ModelCard | OperatorTrace:
    """The model with as much context as the step needs."""
    most = max(step.contexts)
    if isinstance(model, ModelCard):
        if most <= model.max_context:
            return model
        positions = model.positions or model.max_context
        return model.model_copy(update={"max_context": most, "positions": positions})
    if most <= model.facts.max_context:
        return model
    return model.model_copy(update={"facts": model.facts.model_copy(update={"max_context": most})})


def memory_words(device: XpuDevice) -> str:
    """That weights and KV cache need more than there is.

    Parameters
    ----------
    device
        Of any step; sizes are of the step that holds most.

    Returns
    -------
    str
        Both sizes in GiB, of all devices of the system; empty where they fit.
    """
    need, capacity = needed_bytes(device), capacity_bytes(device.config)
    if need <= capacity:
        return ""
    return (
        f"weights and KV cache need {need / 2**30:.0f} GiB, the system has "
        f"{capacity / 2**30:.0f} GiB"
    )


def needed_bytes(device: XpuDevice) -> int:
    """Bytes of weights and KV cache on all devices of the system, at the step that holds most.

    Parameters
    ----------
    device
        Of any step.
    """
    return device.config.tp * sum(each.total_bytes for each in device.work.needs)


def capacity_bytes(config: SystemConfig) -> int:
    """Bytes of all memories that may hold weights or KV cache.

    Parameters
    ----------
    config
        Of the server.
    """
    return config.devices * config.xpu.memory_capacity + beside_bytes(config)


def beside_bytes(config: SystemConfig) -> int:
    """Bytes of the host or the stacks that hold the KV cache of all devices; 0: these do.

    Parameters
    ----------
    config
        Of the server.
    """
    if config.attention == "host" and config.host is not None:
        return config.host.sockets * config.host.memory_capacity
    if config.attention == "pim" and config.stacks is not None and config.pim is not None:
        return config.devices * config.stacks.count * config.pim.organization.capacity_bytes
    return 0
