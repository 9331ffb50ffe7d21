"""GPUs in time: the kernels of a step one after the other, and what each costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from pimsim.config.system import SystemConfig
from pimsim.engine.clock import Clock
from pimsim.engine.machine import Progress
from pimsim.engine.records import OperatorRecord, StageRecord, StepRecord
from pimsim.engine.xpu_block import BlockCost
from pimsim.engine.xpu_device import XpuDevice
from pimsim.engine.xpu_kinds import CostsOfSteps
from pimsim.engine.xpu_products import KernelTime

__all__ = ["XpuMachine", "XpuOutcome", "XpuStepOutcome", "XpuWork", "run_xpu_devices"]

_PS_PER_S = 10**12
ATTENDING, FEEDING = "attention", "feed-forward"
"""Stages of a block: projections and attention, and what is behind them."""


@dataclass(frozen=True)
class XpuWork:
    """What a block, or work beside blocks, does."""

    start_ps: int
    end_ps: int
    layer: int
    """Number of the simulated block; of work beside them, behind the last."""
    cost: BlockCost

    @property
    def time_ps(self) -> int:
        """What it took."""
        return self.end_ps - self.start_ps


@dataclass
class XpuRecorder:
    """Collects records while steps run."""

    operators: list[OperatorRecord] = field(default_factory=list)
    stages: list[StageRecord] = field(default_factory=list)
    works: list[XpuWork] = field(default_factory=list)
    causes_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """Seconds by unit and what bounds its kernels."""


@dataclass(frozen=True)
class XpuStepOutcome:
    """What one step of a run did."""

    number: int
    device: XpuDevice
    record: StepRecord
    operators: Sequence[OperatorRecord]
    stages: Sequence[StageRecord]
    works: Sequence[XpuWork]

    @property
    def time_ps(self) -> int:
        """What it took."""
        return self.record.time_ps


@dataclass(frozen=True)
class XpuOutcome:
    """What a run left behind, for ``result`` to read."""

    devices: tuple[XpuDevice, ...]
    steps: tuple[XpuStepOutcome, ...]
    recorder: XpuRecorder
    clock: Clock
    """Of the cores; memory's cycles are the same here."""
    time_ps: int
    costs: CostsOfSteps

    @property
    def device(self) -> XpuDevice:
        """At the first step."""
        return self.devices[0]

    @property
    def config(self) -> SystemConfig:
        """Of the machine."""
        return self.device.config

    @property
    def parts_s(self) -> Mapping[str, float]:
        """What all simulated blocks and the work beside them take, by part; they add up."""
        total: dict[str, float] = {}
        for each in self.recorder.works:
            for part, time_s in each.cost.parts_s.items():
                total[part] = total.get(part, 0.0) + time_s
        return total


class XpuMachine:
    """GPUs with a clock that goes on from step to step; one stands for all of a stage.

    Parameters
    ----------
    config
        The machine.
    contexts
        Of all steps of the run, the longest of each: attention on PIM is simulated at some.
    """

    def __init__(self, config: SystemConfig, contexts: Sequence[int]) -> None:
        self.config = config
        self.clock = Clock.of(config.xpu.frequency, Fraction(_PS_PER_S, config.xpu.frequency))
        self.recorder = XpuRecorder()
        self.costs = CostsOfSteps(config, contexts)
        self.now_ps = 0
        """Time since the machine was switched on, ps."""

    def run(
        self, device: XpuDevice, on_stage: Callable[[Progress], None] | None = None
    ) -> StepRecord:
        """Run a step from now on, to its last kernel; ``on_stage`` hears of each block.

        Raises
        ------
        InputError
            For operators that no kernel does, and attention that its unit cannot do.
        """
        recorder, begin = self.recorder, self.now_ps
        stages, operators = len(recorder.stages), len(recorder.operators)
        whole = device.whole
        for layer, cost in enumerate(self.costs.blocks(device)):
            if on_stage is not None:
                on_stage(Progress(whole.blocks[layer].kind, layer + 1, whole.layers))
            self._add(layer, cost, [(ATTENDING, 0.0, cost.attention_s),
                                    (FEEDING, cost.attention_s, cost.time_s)])  # fmt: skip
        for number, outside in enumerate(device.outside):
            cost = self.costs.beside(outside.block, device)
            label = outside.label(whole.pp)
            self._add(whole.layers + number, cost, [(label, 0.0, cost.time_s)])
        return StepRecord(
            begin, self.now_ps, (stages, len(recorder.stages)),
            (operators, len(recorder.operators)),
        )  # fmt: skip

    def _add(self, layer: int, cost: BlockCost, stages: Sequence[tuple[str, float, float]]) -> None:
        """A block's kernels, now; ``stages``: their names, begins and ends, seconds from now."""
        begin, recorder = self.now_ps, self.recorder
        now = begin
        for name, start_s, end_s in stages:
            first = len(recorder.operators)
            last = end_s == stages[-1][2]
            own = [row for row in cost.kernels if start_s <= row.start_s
                   and (row.start_s < end_s or last)]  # fmt: skip
            end_ps = begin + round(end_s * _PS_PER_S)
            for row in own:
                recorder.operators.append(_record(row, name, layer, begin, end_ps))
                key = row.unit, row.bound
                recorder.causes_s[key] = recorder.causes_s.get(key, 0.0) + row.time_s
            mine = recorder.operators[first:]
            took: Counter[str] = Counter()
            least: Counter[str] = Counter()
            for each in mine:
                took[each.unit] += each.end_ps - each.start_ps
                least[each.unit] += each.bound_ps
            period = self.clock.npu_ps
            recorder.stages.append(
                StageRecord(
                    name, now, end_ps, int(min(took["xpu"], end_ps - now) // period),
                    int(min(took["pim"], end_ps - now) // period),
                    max(least.values(), default=0), (first, len(recorder.operators)),
                )
            )  # fmt: skip
            now = end_ps
        recorder.works.append(XpuWork(begin, now, layer, cost))
        self.now_ps = now


def _record(row: KernelTime, stage: str, layer: int, begin_ps: int, most_ps: int) -> OperatorRecord:
    """A kernel in whole picoseconds, which end with its stage at the latest."""
    start = begin_ps + round(row.start_s * _PS_PER_S)
    end = min(begin_ps + round((row.start_s + row.time_s) * _PS_PER_S), most_ps)
    return OperatorRecord(
        name=row.name, kind=str(row.kind), unit=row.unit, layer=layer, stage=stage,
        start_ps=start, end_ps=end, flops=2 * row.macs, bytes=row.moved_bytes,
        # both ends are rounded: by less than this picosecond
        bound_ps=max(int(row.least_s * _PS_PER_S) - 1, 0),
    )  # fmt: skip


def run_xpu_devices(
    devices: Sequence[XpuDevice], on_stage: Callable[[Progress], None] | None = None
) -> XpuOutcome:
    """Run the steps one after the other.

    Parameters
    ----------
    devices
        The device at each step, all of one run.
    on_stage
        Hears of each block, before it is simulated.

    Returns
    -------
    XpuOutcome
        Records of all steps, on one clock.

    Raises
    ------
    InputError
        As ``XpuMachine.run`` does.
    """
    machine = XpuMachine(devices[0].config, devices[0].contexts)
    steps, recorder = [], machine.recorder
    for number, device in enumerate(devices):
        works = len(recorder.works)
        record = machine.run(device, on_stage)
        steps.append(
            XpuStepOutcome(
                number, device, record, recorder.operators[slice(*record.operators)],
                recorder.stages[slice(*record.stages)], recorder.works[works:],
            )
        )  # fmt: skip
    return XpuOutcome(
        tuple(devices), tuple(steps), recorder, machine.clock, machine.now_ps, machine.costs
    )
