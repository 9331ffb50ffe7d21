"""What a single step takes on a machine: its time, its energy, and what the machine holds.

A step is mapped, run and scaled to the model's blocks as one of ``pimsim run`` is, on a machine
that starts with it; rows, series and laws of a result are not worked out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cached_property
from math import fsum

import numpy as np
from numpy.typing import NDArray

from pimsim.config.run import MachineConfig, RunConfig, WorkloadConfig
from pimsim.engine.device import Device
from pimsim.engine.device_building import build_device
from pimsim.engine.iteration import Outcome, run_devices
from pimsim.engine.rows_needed import blocks_counted
from pimsim.hardware.pim.designs import head_places
from pimsim.mapping.placement import estimate_attention_cycles
from pimsim.result.accounts import idle_memories_w, static_power
from pimsim.result.pipeline import pipeline_of, total_energy
from pimsim.result.silicon import priced_figures
from pimsim.result.types import Energy
from pimsim.serving.step_times import ON_CHANNELS, Dealing, StepCost
from pimsim.workload.batch import load_model, load_run_routing, load_run_sparsity
from pimsim.workload.cards import ModelCard
from pimsim.workload.operators import OperatorKind
from pimsim.workload.pipeline import Room, fullest
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry
from pimsim.workload.trace import OperatorTrace

__all__ = ["PARTS", "StepCosts", "by_part", "copies_of_heads", "one_token", "run_of"]

_NO_LIMIT = 2**40
"""Tokens, more than any machine holds."""
_ANY_BYTES = 2**60
"""More than any memory has."""
PARTS = tuple(item.name for item in fields(Energy) if item.name != "total")
"""What a step's energy is told by."""


def by_part(energy: Energy) -> NDArray[np.float64]:
    """Joule, or watt, in the order of ``PARTS``.

    Parameters
    ----------
    energy
        Of a step, or of a second.
    """
    return np.array([getattr(energy, part) for part in PARTS])


def run_of(machine: MachineConfig) -> RunConfig:
    """The run whose steps a service asks: requests stay on the channels that they are given, one
    batch is under way, and a step whose fullest channel has too few rows is timed as if it had
    them (``StepCosts.tokens`` says what the machine holds).

    Parameters
    ----------
    machine
        Of the service.
    """
    values = dict(machine)
    workload = {**dict(machine.workload), "beyond_banks": True, "requests": ""}
    values["workload"] = WorkloadConfig.model_construct(**workload)
    values["schedule"] = machine.schedule.model_copy(update={"channel_assignment": "trace"})
    values["parallel"] = machine.parallel.model_copy(update={"batches": 1})
    return RunConfig.model_construct(**values)


class StepCosts:
    """A machine that is asked for steps, each by itself (``serving.step_times.MachineSteps``).

    Parameters
    ----------
    machine
        With the model that it runs.
    model
        In place of the card or trace that ``machine`` names; None: that one.

    Raises
    ------
    InputError
        Where the machine does not hold the model.
    """

    parts = PARTS
    more = "machine.parallel.tp"

    def __init__(
        self, machine: MachineConfig, model: ModelCard | OperatorTrace | None = None
    ) -> None:
        self.config = run_of(machine)
        self._asked = machine
        self._model = load_model(self.config.workload) if model is None else model
        self._routing = load_run_routing(self.config, self._model)
        self._sparsity = load_run_sparsity(self.config, self._model)
        self._holds = False
        self._first = self._device(one_token(1))
        self._holds = True
        # the degrees that hold the model are those of every step
        degrees = self._first.work.degrees
        parallel = self.config.parallel.model_copy(update={"tp": degrees.tp, "pp": degrees.pp})
        self.config = self.config.model_copy(update={"parallel": parallel})

    def cost(self, step: Step) -> StepCost:
        """Of ``step``, whose requests name the channels of their caches.

        Returns
        -------
        StepCost
            Picoseconds of the slowest pipeline stage, and joule of all devices by ``parts``.
        """
        outcome = self.outcome(step)
        pipeline = pipeline_of(outcome)
        energy = total_energy(pipeline.stage_energy(outcome), self._first.whole.tp)
        return StepCost(pipeline.slowest.time_ps, by_part(energy))

    def priced_figures(self) -> dict[str, float]:
        """See ``silicon.priced_figures``."""
        parallel = self._first.whole
        return priced_figures(self.config, parallel.tp * parallel.pp)

    def outcome(self, step: Step) -> Outcome:
        """What the engine leaves behind when it has run ``step`` alone."""
        return run_devices((self._device(step),), over_time=False, sampled=False)

    def _device(self, step: Step) -> Device:
        """With ``step`` on it; one that more is asked of than it holds is timed as if there were
        room, as steps between which others are interpolated may be."""
        limit = _ANY_BYTES if self._holds else None
        return build_device(
            self.config, self._model, step, self._routing, self._sparsity, capacity_bytes=limit,
            brief=self.config.fidelity != "command",
        )  # fmt: skip

    @property
    def fidelity(self) -> str:
        """How a step is simulated."""
        return self.config.fidelity

    @property
    def notes(self) -> tuple[str, ...]:
        """That devices hold the same keys and values, where they do."""
        return copies_of_heads(self._first.work.trace.facts.kv_heads, self._first.whole.tp)

    @property
    def stages(self) -> int:
        """Of the pipeline."""
        return self._first.whole.pp

    @property
    def max_context(self) -> int:
        """Tokens of the longest context that the model takes."""
        return int(self._first.work.trace.facts.max_context)

    @property
    def model(self) -> str:
        """What the model is called."""
        return self._first.work.trace.model

    @property
    def on_pim(self) -> bool:
        """Whether requests' caches lie each on a channel, where PIM attends to them."""
        return any(kv.shape is not None for kv in self._first.kv)

    @property
    def pim_tokens(self) -> int:
        """New tokens of a request that attends on PIM, at most."""
        attends = any(kv.on_pim for kv in self._first.kv)
        return self.config.schedule.attention_pim_tokens if attends else 0

    @cached_property
    def dealing(self) -> Dealing:
        """Of a design with a controller of its own, which deals heads out by itself."""
        pim = self.config.pim
        if pim is None or not any(kv.in_design for kv in self._first.kv):
            return ON_CHANNELS
        scores = next(
            operator for block in self._first.whole.blocks for operator in block.operators
            if operator.kind is OperatorKind.ATTENTION_SCORE
        )  # fmt: skip
        whole = "attention" in pim.operations
        heads = scores.heads if whole else scores.kv_heads
        channels = self.config.memory_of_pim.organization.channels
        return Dealing(head_places(pim, channels), heads, longest_first=not whole)

    @property
    def channels(self) -> int:
        """Among which the caches of requests are dealt out."""
        return self.config.memory.organization.channels if self.on_pim else 1

    @property
    def least_loaded(self) -> bool:
        """Whether a new request goes to the channel with the least work; else to one after the
        other."""
        return self._asked.schedule.channel_assignment == "least-loaded"

    @property
    def sub_batches(self) -> int:
        """Parts of a step that the schedule makes at most."""
        return self.config.schedule.parts

    @cached_property
    def work(self) -> NDArray[np.int64]:
        """By context from 0 on: what a token's attention to it is worth on its channel; shape
        (``max_context`` + 1,). Cycles of PIM where it attends by the memory's own commands, else
        keys."""
        contexts = np.arange(self.max_context + 1, dtype=np.int64)
        kinds = [kv for kv in self._first.kv if kv.shape is not None]
        if not kinds or self.config.pim is None:
            return self._seen(contexts)
        total = np.zeros_like(contexts)
        for kind in kinds:
            assert kind.shape is not None
            kept = contexts if kind.window is None else np.minimum(contexts, kind.window)
            total += estimate_attention_cycles(
                np.maximum(kept, 1), kind.shape, self.config.memory, self.config.pim
            )
        total[0] = 0
        return total // len(kinds)

    def _seen(self, contexts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Keys that a token sees of contexts, the mean over the simulated blocks."""
        windows = [kv.window for kv in self._first.kv if kv.in_design]
        if not any(windows):
            return contexts
        kept = [contexts if each is None else np.minimum(contexts, each) for each in windows]
        return np.asarray(np.sum(kept, axis=0) // len(kept), np.int64)

    @cached_property
    def idle_w(self) -> NDArray[np.float64]:
        """Watt of all devices that nobody asks for anything, by ``parts``."""
        config, memory = self.config, self._first.memory
        static = static_power(config, memory).total
        dram = idle_memories_w(config, memory)
        devices = self._first.whole.tp * self._first.whole.pp
        found = Energy.of(dram=dram, pim=0.0, npu=0.0, sram=0.0, link=0.0, static=static)
        return by_part(found) * devices

    def tokens(self, size: int) -> int:
        """Tokens of KV cache that the machine holds beside the weights, in blocks of ``size``.

        Bytes of the fullest pipeline stage; in the layout of PIM also the rows of each channel,
        as one request on each would fill them.
        """
        apart = self.config.pim_memory
        room = Room(
            self.config.memory.organization.capacity_bytes,
            None if apart is None else apart.organization.capacity_bytes,
        )
        need = fullest(self._first.work.needs)
        each = self._kv_bytes(size)
        count = max(room.for_kv(need), 0) // max(each, 1)
        return min(int(count) * size, self._tokens_in_rows())

    def _kv_bytes(self, size: int) -> int:
        """Of a block, on the device that has most of it."""
        context = min(size, self.max_context)
        found = fullest(self._device(one_token(context)).work.needs).kv_bytes
        return -(-found * size // context)

    def _tokens_in_rows(self) -> int:
        """Tokens of a request on each channel that fill its rows, over all channels."""
        device = self._first
        if not self.on_pim:
            return _NO_LIMIT
        return min(
            self._tokens_beside(blocks) for blocks, _ in blocks_counted(device.whole, device.work)
        )

    def _tokens_beside(self, blocks: Sequence[float]) -> int:
        """The same where each simulated block stands for so many."""
        device = self._first
        free = self.config.memory.organization.rows - device.mapper.addresses.rows_beside(blocks)
        low, high = 0, _NO_LIMIT
        while low < high:
            middle = (low + high + 1) // 2
            rows = fsum(
                n * kv.sections.rows(middle if kv.window is None else min(middle, kv.window))
                for n, kv in zip(blocks, device.kv, strict=True)
                if kv.sections is not None
            )
            low, high = (middle, high) if rows <= free else (low, middle - 1)
        return low * self.channels


def copies_of_heads(kv_heads: int, tp: int) -> tuple[str, ...]:
    """That devices hold the same keys and values.

    Parameters
    ----------
    kv_heads
        Key heads of the model.
    tp
        Devices that share each layer.

    Returns
    -------
    tuple of str
        A line; none where each device has heads of its own.
    """
    if tp <= kv_heads:
        return ()
    return (
        f"{tp} devices share each layer, and the model has {kv_heads} key heads: the keys and "
        f"values of each lie on {tp // kv_heads} of them",
    )


def one_token(context: int) -> Step:
    """One new token of one request.

    Parameters
    ----------
    context
        Of the request, the new token included.
    """
    request = Request(0, 0.0, context, 1, 0, 0)
    return Step((StepEntry(request, 1, context),))
