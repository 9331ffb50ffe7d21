"""From simulations to what the paper reports: speed-ups, the ablation, the waterfall."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pimsim.config.documents import Resolved
from pimsim.config.errors import InputError
from pimsim.config.run import RunConfig
from pimsim.mapping.gemm import bytes_per_kcycle
from pimsim.validate.neupims.runs import Case, Figures, RunStore, grid_case, step_config
from pimsim.validate.neupims.study import MODES, Published, Study, StudyPoint
from pimsim.workload.cards import load_card

__all__ = [
    "LADDER",
    "WaterfallStep",
    "crowding",
    "figures_at",
    "grid_cases",
    "mean_ratio",
    "ratio_at",
    "waterfall",
    "waterfall_cases",
    "waterfall_points",
    "weights_bound",
]

LADDER = ("npu-pim", "drb", "gmlbp", "sbi")
"""The order in which figure 13 adds the mechanisms."""


def grid_cases(study: Study, points: Sequence[StudyPoint]) -> Iterator[Case]:
    """Every machine in every mode at each point.

    Parameters
    ----------
    study
        The grid and its machines.
    points
        Model, requests and batch of each.
    """
    for point in points:
        for mode in MODES:
            for machine in study.machines:
                yield grid_case(study, machine.key, mode, point)


def figures_at(
    study: Study, store: RunStore, machine: str, mode: str, point: StudyPoint
) -> Figures:
    """What the store holds for a machine.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations.
    machine
        Its key, or ``neupims``: whichever that is at the batch.
    mode
        One of ``MODES``.
    point
        Model, requests and batch.
    """
    key = study.neupims(point.batch) if machine == "neupims" else machine
    return store[grid_case(study, key, mode, point)]


def ratio_at(
    study: Study, store: RunStore, of: str, over: str, mode: str, point: StudyPoint
) -> float | None:
    """Throughput of one machine over that of another; None where one cannot hold the model.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations.
    of
        Key of the machine above.
    over
        Key of the machine below.
    mode
        One of ``MODES``.
    point
        Model, requests and batch.
    """
    above = figures_at(study, store, of, mode, point).tokens_per_s
    below = figures_at(study, store, over, mode, point).tokens_per_s
    return above / below if above and below else None


def mean_ratio(
    study: Study, store: RunStore, published: Published, mode: str, points: Iterable[StudyPoint]
) -> float:
    """Arithmetic mean over ``points``, as an average of speed-ups is given in the paper.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations.
    published
        A ratio of the paper.
    mode
        One of ``MODES``.
    points
        Those without the ratio are left out.

    Returns
    -------
    float
        NaN where no point has it.
    """
    found = [
        ratio
        for point in points
        if (ratio := ratio_at(study, store, published.of, published.over, mode, point))
    ]
    return math.fsum(found) / len(found) if found else math.nan


@dataclass(frozen=True)
class WaterfallStep:
    """The ratio after one more of the artifact's departures."""

    name: str
    why: str
    ratio: float
    factor: float
    """What the step multiplied it by."""


def waterfall_points(study: Study) -> list[StudyPoint]:
    """Where the waterfall is drawn.

    Parameters
    ----------
    study
        The grid and its machines.
    """
    return [
        StudyPoint(str(model), str(requests), int(batch))
        for model, requests, batch in study.waterfall.points
    ]


def waterfall_cases(study: Study, points: Sequence[StudyPoint]) -> Iterator[Case]:
    """Each machine that the published ratios name, after 0, 1, ... all steps.

    Parameters
    ----------
    study
        The grid and its machines.
    points
        Model, requests and batch of each.
    """
    for point in points:
        for machine in ("npu-only", "npu-pim", study.neupims(point.batch)):
            for steps in range(len(study.waterfall.steps) + 1):
                yield step_config(study, machine, point, steps)


def waterfall(
    study: Study, store: RunStore, published: Published, point: StudyPoint
) -> tuple[float, list[WaterfallStep]]:
    """The ratio of our machines, and after each of the artifact's departures.

    Parameters
    ----------
    study
        The grid and its machines.
    store
        Of simulations.
    published
        A ratio of the paper.
    point
        Model, requests and batch.
    """

    def ratio(steps: int) -> float:
        of, over = (
            store[step_config(study, _machine(study, key, point), point, steps)].tokens_per_s
            for key in (published.of, published.over)
        )
        return of / over

    first = before = ratio(0)
    found = []
    for count, step in enumerate(study.waterfall.steps, 1):
        after = ratio(count)
        found.append(WaterfallStep(step.name, step.why, after, after / before))
        before = after
    return first, found


def _machine(study: Study, key: str, point: StudyPoint) -> str:
    return study.neupims(point.batch) if key == "neupims" else key


def crowding(study: Study, point: StudyPoint) -> str:
    """What a run of NeuPIMs would warn of: rows of the banks that all blocks need together, more
    than there are; empty if there is room, or not even for the weights and the cache (which the
    point's figures say).

    Parameters
    ----------
    study
        The grid and its machines.
    point
        Model, requests and batch.
    """
    from pimsim.result.build import capacity_notes
    from pimsim.simulate import device_of

    case = grid_case(study, "gmlbp", "clean", point)
    try:
        device, _ = device_of(Resolved(case.config))
    except InputError:
        return ""
    return next(capacity_notes(device), "")


def weights_bound(config: RunConfig) -> float:
    """Largest share of the arrays' multiplications that is possible while weights stream from DRAM
    once for each half of the batch: what the weights of 1000 cycles are used for, over
    what the arrays could do in them. Attention, which has no weights, is left out.

    Parameters
    ----------
    config
        Of a case of the grid, with a batch.

    Returns
    -------
    float
        May be above 1: then weights are no bound.
    """
    if config.workload.batch is None:
        raise ValueError("a case of the grid has a batch")
    arrays = config.npu.systolic
    macs = 1000 * arrays.arrays * arrays.rows * arrays.cols
    weights = (
        bytes_per_kcycle(config.npu, config.memory) / load_card(config.workload.model).dtype_bytes
    )
    return weights * (config.workload.batch // 2) / macs
