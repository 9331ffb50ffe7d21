"""A study of techniques: each on many machines, at many batches and contexts, in one store.

It is a study of designs with a group for each machine, whose designs are the machine with each
technique and whose baseline is the machine without one.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.resources import data_dir
from pimsim.explore.designs import (
    Design,
    DesignGroup,
    DesignStudy,
    LeftOut,
    StudiedModel,
    chosen_of,
    placed_values,
)
from pimsim.explore.spec import Scalar, placed

__all__ = [
    "PLAIN", "StudiedTechnique", "TechniqueStudy", "as_designs", "read_techniques",
    "shipped_techniques",
]  # fmt: skip

PLAIN = "none"
"""Name of a machine without a technique."""


class StudiedTechnique(ConfigModel):
    """A technique of a study."""

    name: str
    """In tables."""
    set: dict[str, Scalar] = Field(min_length=1)
    """Values by config key."""


class TechniqueStudy(ConfigModel):
    """Every technique on every machine, at every model, batch and context."""

    models: list[StudiedModel] = Field(min_length=1)
    batches: list[int] = Field(min_length=1)
    contexts: dict[str, int] = Field(min_length=1)
    """Tokens by the name that a context has in tables."""
    machines: list[Design] = Field(min_length=1)
    techniques: list[StudiedTechnique] = Field(min_length=1)
    left_out: list[LeftOut] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names_are_their_own(self) -> TechniqueStudy:
        names = [each.name for each in self.techniques]
        for kind, of in (("techniques", names), ("machines", [m.name for m in self.machines])):
            twice = next((name for name in of if of.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"two {kind} have the name {twice!r}")
        if PLAIN in names:
            raise ValueError(f"a technique is called {PLAIN!r}, as machines without one are")
        return self


def shipped_techniques() -> Path:
    """The study that ``docs/technique-study.md`` shows."""
    return data_dir("configs") / "study" / "techniques.yaml"


def read_techniques(path: Path) -> TechniqueStudy:
    """Read and check a study.

    Parameters
    ----------
    path
        Of its YAML.

    Returns
    -------
    TechniqueStudy
        Relative files in it counted from its folder.

    Raises
    ------
    InputError
        With file, line and key.
    """
    study = read_document(TechniqueStudy, path)
    folder = path.resolve().parent

    return study.model_copy(
        update={
            "models": [
                each.model_copy(update={"card": placed(each.card, folder)}) for each in study.models
            ],
            "machines": [each.placed_in(folder) for each in study.machines],
            "techniques": [
                each.model_copy(update={"set": placed_values(each.set, folder)})
                for each in study.techniques
            ],
        }
    )


def as_designs(
    study: TechniqueStudy, machines: tuple[str, ...] = (), techniques: tuple[str, ...] = ()
) -> DesignStudy:
    """The study of designs that it is.

    Parameters
    ----------
    study
        Of ``read_techniques``.
    machines
        Names of those that are taken; empty: all.
    techniques
        The same of techniques.

    Raises
    ------
    InputError
        Where a name is not in the study.
    """
    known = [each.name for each in study.machines]
    wanted = chosen_of("--machines", machines, known)
    names = chosen_of("--techniques", techniques, [each.name for each in study.techniques])
    taken = [each for each in study.techniques if each.name in names]
    groups = []
    for at, machine in enumerate(study.machines):
        if machine.name not in wanted:
            continue
        common = {**machine.set, "workload.outside": True}
        designs = [Design(name=PLAIN, base=machine.base, does=machine.does, set=common)]
        designs += [
            Design(name=each.name, base=machine.base, does=machine.does, set={**common, **each.set})
            for each in taken
        ]
        groups.append(
            DesignGroup(
                name=f"machine-{at}", title=machine.name, baseline=PLAIN, about=machine.does,
                designs=designs,
            )
        )  # fmt: skip
    return DesignStudy(
        models=study.models, batches=study.batches, contexts=study.contexts, groups=groups,
        left_out=study.left_out,
    )  # fmt: skip
