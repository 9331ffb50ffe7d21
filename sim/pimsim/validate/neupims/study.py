"""``configs/validate/neupims.yaml``: the grid, the machines, what was published, the quirks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pydantic import Field

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.resources import data_dir

__all__ = ["MODES", "Study", "StudyPoint", "load_study", "points_of"]

MODES = ("clean", "waiting", "quirks")
"""``clean``: our machines. ``waiting``: ours, but weights wait for their operator. ``quirks``: the
artifact's, with all that it does differently."""


class Grid(ConfigModel):
    """Models, request lengths and batches."""

    models: list[str]
    requests: Mapping[str, str]
    """The paper's name of a data set to our trace."""
    batches: list[int]
    sub_batches_from: int
    """NeuPIMs runs with sub-batches from this batch on, as the artifact's README says."""


class StudiedMachine(ConfigModel):
    """One machine: a preset and overrides, in each mode."""

    key: str
    name: str
    clean: list[str]
    quirks: list[str]

    def changes(self, study: Study, mode: str) -> tuple[str, ...]:
        """Preset and overrides in ``mode``."""
        if mode == "quirks":
            return tuple(self.quirks)
        return (*self.clean, *(study.waiting if mode == "waiting" else ()))


class Published(ConfigModel):
    """An average speed-up of the paper."""

    name: str
    of: str
    over: str
    value: float
    source: str


class Ablation(ConfigModel):
    """Figure 13."""

    model: str
    requests: str
    drb_average: float


class Utilised(ConfigModel):
    """Table 4."""

    model: str
    requests: str
    batch: int
    npu: Mapping[str, float]
    pim: Mapping[str, float]


class QuirkStep(ConfigModel):
    """Departures of the artifact that are added together."""

    name: str
    keys: list[str]
    why: str


class Waterfall(ConfigModel):
    """From our machines to the artifact's, step by step."""

    points: list[list[str | int]]
    steps: list[QuirkStep] = Field(min_length=1)


class Study(ConfigModel):
    """All of the file."""

    grid: Grid
    machines: list[StudiedMachine]
    waiting: list[str]
    """Overrides of mode ``waiting``."""
    published: list[Published]
    ablation: Ablation
    utilisation: Utilised
    waterfall: Waterfall

    def machine(self, key: str) -> StudiedMachine:
        """The machine ``key``."""
        return next(machine for machine in self.machines if machine.key == key)

    def neupims(self, batch: int) -> str:
        """Which machine the paper calls NeuPIMs at this batch."""
        return "sbi" if batch >= self.grid.sub_batches_from else "gmlbp"


@dataclass(frozen=True, order=True)
class StudyPoint:
    """One place of the grid."""

    model: str
    requests: str
    batch: int

    def __str__(self) -> str:
        return f"{self.model} {self.requests} {self.batch}"


@cache
def load_study() -> Study:
    """The shipped study. Raises ``InputError`` where the file is wrong."""
    return read_document(Study, data_dir("configs") / "validate" / "neupims.yaml")


def points_of(
    study: Study, models: Sequence[str] | None = None, batches: Sequence[int] | None = None
) -> Iterator[StudyPoint]:
    """The grid's points, or those of some models and batches.

    Parameters
    ----------
    study
        The grid and its machines.
    models
        None: all of the grid.
    batches
        None: all of the grid.
    """
    for model in models or study.grid.models:
        for requests in study.grid.requests:
            for batch in batches or study.grid.batches:
                yield StudyPoint(model, requests, batch)
