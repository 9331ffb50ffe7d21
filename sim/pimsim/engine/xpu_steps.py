"""Steps on devices that share every layer: what is counted of their mean, whatever they do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import fsum

from pydantic import BaseModel

from pimsim.config.errors import InputError
from pimsim.config.run import ParallelConfig
from pimsim.config.system import SystemConfig, SystemWorkload
from pimsim.engine.xpu_block import BlockCost, KernelTime
from pimsim.hardware.energy.limits import PowerLimit, check_limits
from pimsim.hardware.energy.pim import cap_of
from pimsim.hardware.energy.system_static import processor_w, system_static
from pimsim.mapping.kernels import BlockKernels
from pimsim.workload.trace import OperatorTrace

__all__ = [
    "Accounts", "MeanStep", "all_blocks", "capacity_bytes", "mean_cost", "refuse_keys_of_runs",
    "room_warnings",
]  # fmt: skip

_PJ_PER_J = 1e12


@dataclass(frozen=True, slots=True)
class MeanStep:
    """The mean of several steps. Times in seconds, energies in joule of all devices; a step has all
    decoder blocks.
    """

    step_s: float
    tokens_per_s: float
    """Of a decode step those that come out, of a prefill those that are fed."""
    steps: int
    parts_s: Mapping[str, float]
    """What adds up to the step: ``attention``, ``softmax``, ``gemm``, ``communication``,
    ``elementwise``. Where work overlaps, attention counts in full."""
    gemm_s: Mapping[str, float]
    """``gemm`` by its products."""
    energy_j: Mapping[str, float]
    """Of a step: ``memory`` (of the devices), ``core`` (their caches and arithmetic), ``pim``,
    ``host``, ``link``, and ``static`` of all of them."""
    power_w: Mapping[str, float]
    """Mean power of one device, with its PIM stacks and its share of the host: the parts of
    ``energy_j``, and ``total``."""
    static_w: Mapping[str, float]
    """Of one device: ``cores``, ``sram``, ``memory``, ``link``, ``rest``, and where there are any
    ``pim`` and ``host``; ``total``."""
    tdp_w: float | None
    """The most that a device draws, stacks and host apart; None: not known."""
    bound_s: Mapping[str, float]
    """The least time of each unit for the step's work, everything perfect."""
    kernels: tuple[KernelTime, ...]
    """Of the last step's block, of each kind where there are several."""
    need_bytes: int
    """Weights of the blocks, and the KV cache of the last step, on all devices."""
    capacity_bytes: int
    warnings: tuple[str, ...]

    @property
    def bound(self) -> str:
        """The unit whose least time is the largest."""
        return max(self.bound_s, key=self.bound_s.__getitem__)

    @property
    def total_j(self) -> float:
        """Energy of a step."""
        return fsum(self.energy_j.values())

    @property
    def tokens_per_j(self) -> float:
        """Tokens of a step over its energy."""
        return self.tokens_per_s * self.step_s / self.total_j

    @property
    def dynamic_j(self) -> float:
        """Energy of a step without static power."""
        return fsum(joule for part, joule in self.energy_j.items() if part != "static")


@dataclass(frozen=True, slots=True)
class Accounts:
    """Time, energy and power of the mean step; see ``MeanStep``."""

    step_s: float
    energy_j: Mapping[str, float]
    power_w: Mapping[str, float]
    static_w: Mapping[str, float]

    @classmethod
    def of(cls, mean: BlockCost, config: SystemConfig) -> Accounts:
        """Raises ``InputError`` for power above a limit."""
        step_s = fsum(mean.parts_s.values())
        static_w = system_static(config)
        energy_j = {name: config.devices * pj / _PJ_PER_J for name, pj in mean.energy_pj.items()}
        energy_j["static"] = config.devices * static_w["total"] * step_s
        power_w = {name: joule / config.devices / step_s for name, joule in energy_j.items()}
        power_w["total"] = fsum(power_w.values())
        check_limits(_limits(config, power_w, static_w))
        return cls(step_s, energy_j, power_w, static_w)


def _limits(
    config: SystemConfig, power_w: Mapping[str, float], static_w: dict[str, float]
) -> list[PowerLimit]:
    """What the processor and the PIM stacks may draw."""
    xpu, stacks, design = config.xpu, config.stacks, config.pim
    limits = []
    if xpu.tdp_w is not None:
        own = fsum((power_w["memory"], power_w["core"], power_w["link"], processor_w(static_w)))
        limits.append(PowerLimit("xpu.tdp_w", f"a device ({xpu.name})", own, xpu.tdp_w))
    if config.attention == "pim" and stacks is not None and design is not None:
        limits += cap_of(design, power_w["pim"] / stacks.count, "pim.power_cap_w")
    return limits


def refuse_keys_of_runs(config: SystemConfig) -> None:
    """Mean steps read no workload, draw nothing and share every layer among all devices.

    Parameters
    ----------
    config
        Of the server.

    Raises
    ------
    InputError
        For a key that only a run reads, where it differs from its default. ``parallel.tp`` and one
        pipeline stage say what holds here, too.
    """
    one_stage = {"tp": None} if config.pp > 1 else {"tp": None, "pp": None}
    found = [
        *_changed("parallel", config.parallel.model_copy(update=one_stage), ParallelConfig()),
        *_changed("workload", config.workload, SystemWorkload()),
    ]
    for key in ("attention_contexts", "seed"):
        value = getattr(config, key)
        if value != SystemConfig.model_fields[key].default:
            found.append((key, value))
    for key, value in found:
        raise InputError(
            f"{key}: found {value!r}; only pimsim run reads it: a mean step alone (pimsim system) "
            "is of what its options say, on devices that share every layer"
        )


def _changed(section: str, ours: BaseModel, default: BaseModel) -> Iterator[tuple[str, object]]:
    for key, value in ours:
        if value != getattr(default, key):
            yield f"{section}.{key}", value


def all_blocks(costs: Sequence[tuple[BlockKernels, BlockCost]]) -> BlockCost:
    """What all blocks take together, of each kind as many as there are.

    Parameters
    ----------
    costs
        Of each kind of block: its kernels, which say how many blocks it stands for, and their cost.
    """

    def total(of: Callable[[BlockCost], dict[str, float]]) -> dict[str, float]:
        names = {name: None for _, cost in costs for name in of(cost)}
        return {
            name: fsum(kernels.count * of(cost).get(name, 0.0) for kernels, cost in costs)
            for name in names
        }

    rows = [
        replace(row, name=f"{kernels.kind}: {row.name}") if len(costs) > 1 else row
        for kernels, cost in costs
        for row in cost.kernels
    ]
    return BlockCost(
        parts_s=total(lambda cost: cost.parts_s),
        gemm_s=total(lambda cost: cost.gemm_s),
        energy_pj=total(lambda cost: cost.energy_pj),
        bound_s=total(lambda cost: cost.bound_s),
        kernels=tuple(rows),
    )


def mean_cost(steps: Sequence[BlockCost], weights: Sequence[float]) -> BlockCost:
    """The mean over steps; kernels are those of the last.

    Parameters
    ----------
    steps
        Cost of all blocks at each.
    weights
        Of each step, (steps,); they add up to 1.
    """

    def mean(of: Callable[[BlockCost], dict[str, float]]) -> dict[str, float]:
        names = {name: None for step in steps for name in of(step)}
        return {
            name: fsum(w * of(step).get(name, 0.0) for step, w in zip(steps, weights, strict=True))
            for name in names
        }

    return BlockCost(
        parts_s=mean(lambda step: step.parts_s),
        gemm_s=mean(lambda step: step.gemm_s),
        energy_pj=mean(lambda step: step.energy_pj),
        bound_s=mean(lambda step: step.bound_s),
        kernels=steps[-1].kernels,
    )


def capacity_bytes(config: SystemConfig) -> int:
    """Bytes of all memories that may hold weights or KV cache.

    Parameters
    ----------
    config
        Of the server.
    """
    capacity = config.devices * config.xpu.memory_capacity
    if config.attention == "host" and config.host is not None:
        capacity += config.host.sockets * config.host.memory_capacity
    elif config.attention == "pim" and config.stacks is not None and config.pim is not None:
        stack = config.pim.organization.capacity_bytes
        capacity += config.devices * config.stacks.count * stack
    return capacity


def room_warnings(trace: OperatorTrace, context: int, need: int, capacity: int) -> list[str]:
    """What a reader must know of contexts that the model or the memories are too small for.

    Parameters
    ----------
    trace
        Of the model.
    context
        Tokens of the longest request at the end.
    need
        Bytes of weights and caches, of all devices.
    capacity
        Bytes that there are.

    Returns
    -------
    list
        A sentence each; empty where all fits.
    """
    found, longest = [], trace.facts.max_context
    if context > longest:
        found.append(
            f"contexts reach {context} tokens; model {trace.model} takes {longest} (max_context)"
        )
    if need > capacity:
        found.append(
            f"weights and KV cache need {need / 2**30:.0f} GiB, the system has "
            f"{capacity / 2**30:.0f} GiB"
        )
    return found
