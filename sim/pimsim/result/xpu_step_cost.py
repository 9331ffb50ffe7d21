"""What a single step takes on GPUs: its time, its energy, and what they hold.

A step goes the way of one of ``pimsim run``; its kernels are worked out in closed form. Blocks of
a mixture of experts that are not simulated take the mean of those that are.
"""

from __future__ import annotations

from functools import cached_property
from math import fsum

import numpy as np
from numpy.typing import NDArray

from pimsim.config.system import GpuMachineConfig, SystemConfig, SystemWorkload
from pimsim.engine.xpu_device import XpuDevice, beside_bytes, build_xpu_devices, capacity_bytes
from pimsim.engine.xpu_machine import XpuOutcome, run_xpu_devices
from pimsim.hardware.energy.system_static import system_static
from pimsim.result.pipeline import total_energy
from pimsim.result.step_cost import PARTS, by_part, copies_of_heads, one_token
from pimsim.result.types import Energy
from pimsim.result.xpu_accounts import stage_costs, stage_energy
from pimsim.result.xpu_pipeline import xpu_pipeline
from pimsim.serving.step_times import ON_CHANNELS, StepCost
from pimsim.workload.batch import load_model, load_run_routing
from pimsim.workload.cards import ModelCard
from pimsim.workload.operators import OperatorKind
from pimsim.workload.pipeline import fullest
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace

__all__ = ["XpuStepCosts", "xpu_run_of"]


class XpuStepCosts:
    """GPUs that are asked for steps, each by itself (``serving.step_times.ServedMachine``).

    Parameters
    ----------
    machine
        With the model that they run.
    model
        In place of the card or trace that ``machine`` names; None: that one.

    Raises
    ------
    InputError
        Where they cannot share the model.
    """

    parts = PARTS
    more = "machine.devices"
    fidelity = "kernel times"
    pim_tokens = 0
    """No request attends where its cache lies, on a channel of its own."""
    dealing = ON_CHANNELS
    channels = 1
    least_loaded = False
    sub_batches = 1

    def __init__(
        self, machine: GpuMachineConfig, model: ModelCard | OperatorTrace | None = None
    ) -> None:
        self.config = xpu_run_of(machine)
        self._model = load_model(self.config.workload) if model is None else model
        self._routing = load_run_routing(self.config, self._model)
        self._first = self._device(one_token(1))

    def cost(self, step: Step) -> StepCost:
        """Of ``step``.

        Returns
        -------
        StepCost
            Picoseconds of the slowest pipeline stage, and joule of all devices by ``parts``.
        """
        outcome = self.outcome(step)
        pipeline = xpu_pipeline(outcome, every=False)
        energy = total_energy(stage_energy(outcome, pipeline), self._first.whole.tp)
        return StepCost(pipeline.slowest.time_ps, by_part(energy))

    def priced_figures(self) -> dict[str, float]:
        """The area of GPUs is not known."""
        return {"devices": self.config.devices, "memory_bytes": capacity_bytes(self.config)}

    def outcome(self, step: Step) -> XpuOutcome:
        """What the engine leaves behind when it has run ``step`` alone."""
        return run_xpu_devices((self._device(step),))

    def _device(self, step: Step) -> XpuDevice:
        return build_xpu_devices(self.config, self._model, (step,), self._routing)[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """That devices hold the same keys and values, where they do."""
        return copies_of_heads(self._first.work.trace.facts.kv_heads, self.config.tp)

    @property
    def stages(self) -> int:
        """Of the pipeline."""
        return self.config.pp

    @property
    def max_context(self) -> int:
        """Tokens of the longest context that the model takes."""
        return self._first.card_context

    @property
    def model(self) -> str:
        """What the model is called."""
        return self._first.whole.model

    @cached_property
    def work(self) -> NDArray[np.int64]:
        """By context from 0 on: what a token's attention to it is worth, its keys; shape
        (``max_context`` + 1,)."""
        return np.arange(self.max_context + 1, dtype=np.int64)

    @cached_property
    def idle_w(self) -> NDArray[np.float64]:
        """Watt of all devices that nobody asks for anything, by ``parts``."""
        static = system_static(self.config)["total"]
        found = Energy.of(dram=0.0, pim=0.0, npu=0.0, sram=0.0, link=0.0, static=static)
        return by_part(found) * self.config.devices

    def tokens(self, size: int) -> int:
        """Tokens of KV cache that there is room for beside the weights, in blocks of ``size``: on
        the GPUs, or on their host or stacks, which hold the part of the weights that they work on.

        By the bytes of the pipeline stage that has most of both; what a serving engine keeps for
        activations and graphs is not counted.
        """
        capacity, beside = self.config.xpu.memory_capacity, beside_bytes(self.config)
        context = min(size, self.max_context)
        need = fullest(self._device(one_token(context)).work.needs)
        each = -(-need.kv_bytes * size // context)
        room = capacity - need.weights_bytes
        if beside:
            on_pim = self._weights_on_pim()
            fits = need.weights_bytes - on_pim <= capacity
            room = beside // self.config.devices - on_pim if fits else 0
        return max(room, 0) // max(each, 1) * size

    def _weights_on_pim(self) -> int:
        """Bytes of a device's weights that lie on its stacks, of the stage that has most there."""
        outcome = self.outcome(one_token(1))
        pipeline = xpu_pipeline(outcome)
        found = []
        for number in range(self.config.pp):
            (costs,) = stage_costs(outcome, pipeline, number)
            found.append(
                fsum(
                    times * row.moved_bytes
                    for cost, times in costs
                    for row in cost.kernels
                    if row.unit == "pim" and row.kind is OperatorKind.GEMM
                )
            )
        return round(max(found))


def xpu_run_of(machine: GpuMachineConfig) -> SystemConfig:
    """The run whose steps a service asks; one batch is under way.

    Parameters
    ----------
    machine
        Of the service.
    """
    values = dict(machine)
    values["workload"] = SystemWorkload.model_construct(**dict(machine.workload))
    values["parallel"] = machine.parallel.model_copy(update={"batches": 1})
    return SystemConfig.model_construct(**values)
