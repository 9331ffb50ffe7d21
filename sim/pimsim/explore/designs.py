"""A study of designs: the same models, batches and contexts on many machines, in one store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.errors import InputError, near_miss
from pimsim.config.files import make_folder, write_whole
from pimsim.config.loader import run_kind
from pimsim.config.resources import data_dir
from pimsim.explore.keys import point_id
from pimsim.explore.pool import worker_pool
from pimsim.explore.spec import Scalar, SweepSpec, common_values, overrides, placed
from pimsim.explore.store import Store
from pimsim.explore.sweep import Progress, run_sweep

__all__ = [
    "Design", "DesignGroup", "DesignStudy", "Found", "Place", "Selection", "chosen_of", "found_at",
    "placed_values", "places_of", "read_study", "run_study", "shipped_study",
]  # fmt: skip

_Name = TypeVar("_Name", str, int)


class StudiedModel(ConfigModel):
    """A model of a study."""

    name: str
    """In tables."""
    card: str
    """Model card: a name or a path."""
    parallel: dict[str, Scalar] = Field(default_factory=dict)
    """Values by config key of devices with an NPU; GPUs are as many as their preset has."""
    note: str = ""
    """What the card is not quite."""


class Design(ConfigModel):
    """A machine of a study."""

    name: str
    """In tables."""
    base: str
    """A run's preset or YAML path."""
    does: str
    """What is on PIM, in words."""
    set: dict[str, Scalar] = Field(default_factory=dict)
    """Values by config key."""

    def placed_in(self, folder: Path) -> Design:
        """The same with its files counted from ``folder``.

        Parameters
        ----------
        folder
            Of the study's YAML.
        """
        own = {"base": placed(self.base, folder), "set": placed_values(self.set, folder)}
        return self.model_copy(update=own)


def placed_values(values: Mapping[str, Scalar], folder: Path) -> dict[str, Scalar]:
    """Values by config key, with files counted from ``folder``.

    Parameters
    ----------
    values
        As a study has them.
    folder
        Of its YAML.
    """
    return {key: placed(value, folder) for key, value in values.items()}


class DesignGroup(ConfigModel):
    """Designs that are held against each other."""

    name: str
    title: str
    baseline: str
    """Name of the design that the others are compared with."""
    about: str = ""
    """What they share, and what not."""
    designs: list[Design] = Field(min_length=1)

    @model_validator(mode="after")
    def _has_its_baseline(self) -> DesignGroup:
        names = [each.name for each in self.designs]
        if self.baseline not in names:
            raise ValueError(
                f"baseline {self.baseline!r} is no design of it{near_miss(self.baseline, names)}; "
                f"there are: {', '.join(names)}"
            )
        if len(set(names)) < len(names):
            raise ValueError("two designs have the same name")
        return self


class LeftOut(ConfigModel):
    """What is not in a study."""

    name: str
    reason: str


class DesignStudy(ConfigModel):
    """Every model at every batch and context on every design."""

    models: list[StudiedModel] = Field(min_length=1)
    batches: list[int] = Field(min_length=1)
    contexts: dict[str, int] = Field(min_length=1)
    """Tokens by the name that a context has in tables."""
    groups: list[DesignGroup] = Field(min_length=1)
    left_out: list[LeftOut] = Field(default_factory=list)


@dataclass(frozen=True, order=True)
class Place:
    """Of a table: what a design is asked."""

    model: str
    context: str
    batch: int


@dataclass(frozen=True)
class Selection:
    """Parts of a study; an empty one is all of it."""

    models: Sequence[str] = ()
    batches: Sequence[int] = ()
    contexts: Sequence[str] = ()


@dataclass(frozen=True)
class Found:
    """What is known of a design at a place: figures, or why there are none; neither where it was
    not simulated."""

    figures: Mapping[str, Any] = field(default_factory=dict)
    """As the store keeps them."""
    error: str = ""


def shipped_study() -> Path:
    """The study that ``docs/designs.md`` shows."""
    return data_dir("configs") / "study" / "designs.yaml"


def read_study(path: Path) -> DesignStudy:
    """Read and check a study.

    Parameters
    ----------
    path
        Of its YAML.

    Returns
    -------
    DesignStudy
        Relative files in it counted from its folder.

    Raises
    ------
    InputError
        With file, line and key.
    """
    study = read_document(DesignStudy, path)
    folder = path.resolve().parent

    models = [each.model_copy(update={"card": placed(each.card, folder)}) for each in study.models]
    groups = [
        each.model_copy(update={"designs": [design.placed_in(folder) for design in each.designs]})
        for each in study.groups
    ]
    return study.model_copy(update={"models": models, "groups": groups})


def places_of(study: DesignStudy, selection: Selection | None = None) -> Iterator[Place]:
    """Places of a study's tables, in their order.

    Parameters
    ----------
    study
        Of ``read_study``.
    selection
        Parts of it; None: all.

    Raises
    ------
    InputError
        Where the selection names what the study does not have.
    """
    chosen = selection or Selection()
    models = chosen_of("--models", chosen.models, [each.name for each in study.models])
    contexts = chosen_of("--contexts", chosen.contexts, list(study.contexts))
    batches = chosen_of("--batches", chosen.batches, study.batches)
    for model in models:
        for context in contexts:
            for batch in batches:
                yield Place(model, context, batch)


def chosen_of(option: str, asked: Sequence[_Name], known: Sequence[_Name]) -> list[_Name]:
    """Those of ``known`` that are asked for, in its order; all where none is.

    Parameters
    ----------
    option
        What messages call it.
    asked
        Each one of ``known``.
    known
        Of a study.

    Raises
    ------
    InputError
        Where one is not in the study.
    """
    for each in asked:
        if each not in known:
            names = [str(name) for name in known]
            raise InputError(
                f"{option}: {str(each)!r} is not in the study{near_miss(str(each), names)}; "
                f"there are: {', '.join(names)}"
            )
    return [each for each in known if not asked or each in asked]


def _point(study: DesignStudy, design: Design, place: Place) -> dict[str, Scalar]:
    model = next(each for each in study.models if each.name == place.model)
    return {
        "workload.model": model.card,
        "workload.requests": f"equal:{study.contexts[place.context] + 1}",
        "workload.batch": place.batch,
        **(model.parallel if run_kind(design.base) == "hardware" else {}),
    }


def _spec(study: DesignStudy, design: Design, places: Sequence[Place]) -> SweepSpec:
    points = [_point(study, design, place) for place in places]
    return SweepSpec(name=design.name, base=design.base, set=design.set, points=points)


def run_study(
    study: DesignStudy, folder: Path, selection: Selection | None = None,
    workers: int | None = None, on_progress: Callable[[str, Progress], None] | None = None,
) -> Store:  # fmt: skip
    """Simulate what the store does not know yet of a study, one design after the other.

    Parameters
    ----------
    study
        Of ``read_study``.
    folder
        Of the store; an earlier one goes on.
    selection
        Parts of it that are simulated; None: all.
    workers
        Local processes; None: as many as there are cores.
    on_progress
        Hears of points that are done, with the design's name.

    Raises
    ------
    InputError
        For wrong input; a point that cannot be is kept with its error.
    """
    places = list(places_of(study, selection))
    sweeps = make_folder(folder / "sweeps")
    with worker_pool(workers, None) as pool:
        for group in study.groups:
            for at, design in enumerate(group.designs):
                content = _spec(study, design, places).model_dump(exclude_unset=True)
                path = sweeps / f"{group.name}-{at}.yaml"
                write_whole(path, yaml.safe_dump(content, sort_keys=False).encode())

                def tell(progress: Progress, name: str = design.name) -> None:
                    if on_progress is not None:
                        on_progress(name, progress)

                # all designs share a store: each takes the place of the one before, results stay
                run_sweep(path, folder / "store", on_progress=tell, replace=True, pool=pool)
    return Store(folder / "store")


def found_at(
    study: DesignStudy, store: Store, design: Design, places: Sequence[Place]
) -> dict[Place, Found]:
    """What a store knows of a design.

    Parameters
    ----------
    study
        Of ``read_study``.
    store
        Of ``run_study``.
    design
        One of the study's.
    places
        Of ``places_of``.
    """
    common = common_values(_spec(study, design, places[:1]), design.base)
    return {
        place: _found(
            store,
            point_id(design.base, overrides(common, _point(study, design, place), Path())),
        )
        for place in places
    }


def _found(store: Store, identity: str) -> Found:
    known = store.point(identity)
    if known is None:
        return Found()
    if "error" in known:
        return Found(error=str(known["error"]))
    return Found(store.result(str(known["result"])) or {})
