"""Which resource would help most next: a tenth more of each, from a run's bounds and cycle stacks,
and as a fast run has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from pimsim.config.errors import InputError
from pimsim.config.loader import ResolvedAny
from pimsim.config.schema import quantity_at
from pimsim.result.bottleneck import compute_unit
from pimsim.result.types import Result

__all__ = ["RESOURCES", "STEP", "Resource", "WhatIf", "estimate", "more_of", "what_if"]

STEP = 0.1
"""More of a resource."""
_ARRAYS = ("computing", "array_part", "array_loading", "array_fill_drain", "core_imbalance")


@dataclass(frozen=True)
class Resource:
    """Something that a machine could have more of."""

    words: str
    key: str
    """Of the config."""
    causes: tuple[str, ...]
    """Of the stack of what computes: what more of it shortens."""
    pim_causes: tuple[str, ...] = ()
    """Of PIM's stack, while what computes waits for PIM."""
    bounds: tuple[str, ...] = ()
    """Units whose bound it lowers."""
    less: bool = False
    """A tenth more of it is a smaller value: a time."""


_PIM_AT_WORK = (
    "computing", "activation_window", "row_miss", "command_bus", "data_bus", "refresh", "readres",
    "gwrite", "commands", "turn", "channel_imbalance",
)  # fmt: skip
RESOURCES = (
    Resource("NPU clock", "npu.frequency", (*_ARRAYS, "vector"), bounds=("npu", "array")),
    Resource("vector lanes", "npu.vector.lanes", ("vector",)),
    Resource("DRAM clock, and PIM's", "memory.tCK", ("weights", "activations"), _PIM_AT_WORK,
             ("dram", "pim"), less=True),
    Resource("activations (tFAW)", "memory.timings.tFAW", (), ("activation_window",), less=True),
    Resource("GPU arithmetic", "xpu.peak_tflops", ("computing",), bounds=("xpu_compute",)),
    Resource("GPU memory", "xpu.memory_bandwidth_gb_per_s", ("memory",), bounds=("xpu_memory",)),
    Resource("host memory", "host.memory_bandwidth_gb_per_s", ("host",)),
    Resource("links", "link.bandwidth_gb_per_s", ("collective", "transfer"), bounds=("link",)),
    Resource("the link to PIM's memory", "pim_link.bandwidth_gb_per_s", ("pim_link",),
             bounds=("pim_link",)),
)  # fmt: skip
"""What is asked for, where a machine has it."""


@dataclass(frozen=True)
class WhatIf:
    """A tenth more of a resource."""

    resource: Resource
    before: str
    """Value of its key."""
    after: str
    estimated: float
    """How much faster the run could be, relative: by its stacks, no further than its bounds let it.
    Causes that more of it uncovers are not in it."""
    simulated: float | None = None
    """The same as a fast run has it, over a fast run of the config as it is; None: not asked, or it
    cannot be."""
    error: str = ""
    """Why it cannot be."""


def estimate(result: Result, resource: Resource, step: float) -> float:
    """How much faster a run could be with more of a resource, relative.

    The part of the time that the stacks say it takes shrinks with it; the time stays above the
    bounds of other units, and above its own, which shrink with it too.

    Parameters
    ----------
    result
        Of the run.
    resource
        That there is more of.
    step
        How much more, relative.
    """
    stack = result.cycle_stack.get(compute_unit(result), {})
    cycles = float(sum(stack.get(cause, 0) for cause in resource.causes))
    pim = result.cycle_stack.get("pim", {})
    at_work = sum(count for cause, count in pim.items() if cause not in ("npu", "xpu", "idle"))
    if at_work:
        own = sum(pim.get(cause, 0) for cause in resource.pim_causes)
        cycles += stack.get("pim", 0) * own / at_work
    left = result.cycles - cycles * (1 - 1 / (1 + step))
    for unit, bound in result.bound_cycles.items():
        left = max(left, bound / (1 + step) if unit in resource.bounds else bound)
    return result.cycles / left - 1 if left < result.cycles else 0.0


def more_of(resolved: ResolvedAny, resource: Resource, step: float) -> tuple[str, str] | None:
    """The value of a resource's key, and the value of as much more of it, as ``--set`` takes them;
    whole where it is whole. None where the machine has no such key.

    Parameters
    ----------
    resolved
        The config.
    resource
        That there is to be more of.
    step
        How much more, relative.
    """
    value: Any = resolved.config.model_dump(mode="json")
    path = tuple(resource.key.split("."))
    for part in path:
        value = value.get(part) if isinstance(value, Mapping) else None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    more = value / (1 + step) if resource.less else value * (1 + step)
    if isinstance(value, int):
        more = floor(more) if resource.less else ceil(more)
    quantity = quantity_at(type(resolved.config), path)
    if quantity is not None:
        return quantity.format(int(value)), quantity.format(int(more))
    return f"{value:g}", f"{more:.6g}"


def what_if(
    resolved: ResolvedAny, result: Result, again: Callable[[Sequence[str]], Result] | None = None,
    step: float = STEP,
) -> Iterator[WhatIf]:  # fmt: skip
    """More of each resource that the machine has.

    Parameters
    ----------
    resolved
        The config.
    result
        Of it.
    again
        Simulates the config with further settings, at fast fidelity; None: stacks and bounds alone.
    step
        How much more, relative.
    """
    base = again([]).tokens_per_s if again is not None else None
    for resource in RESOURCES:
        values = more_of(resolved, resource, step)
        if values is None or values[0] == values[1]:
            continue
        estimated = estimate(result, resource, step)
        if again is None or not base:
            yield WhatIf(resource, *values, estimated)
            continue
        try:
            rate = again([f"{resource.key}={values[1]}"]).tokens_per_s
        except InputError as error:
            yield WhatIf(resource, *values, estimated, error=str(error))
        else:
            yield WhatIf(resource, *values, estimated, rate / base - 1)
