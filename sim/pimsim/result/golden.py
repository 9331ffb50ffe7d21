"""Golden cycle counts: exact integers that move only when somebody means them to, with a reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from pimsim.config.base import ConfigModel
from pimsim.config.documents import read_document
from pimsim.config.emit import emit_yaml
from pimsim.config.files import write_whole
from pimsim.config.paths import given_path
from pimsim.config.resources import looks_like_path
from pimsim.result.types import Result

__all__ = [
    "Difference",
    "GoldenCase",
    "GoldenFile",
    "differences",
    "read_golden",
    "source_of",
    "stage_cycles",
    "updated",
    "write_golden",
]


class GoldenCase(ConfigModel):
    """One run and the cycles that it must take (NPU clock)."""

    name: str
    run: str
    """A preset's name, or a YAML path relative to the golden file."""
    set: list[str] = Field(default_factory=list)
    """Overrides, as ``--set`` takes them."""
    cycles: int | None = Field(default=None, ge=0)
    """Whole run. None: not recorded yet."""
    stages: dict[str, int] = Field(default_factory=dict)
    """By name, added over all stages of that name."""
    reason: str = ""
    """Why the numbers are what they are: what moved them last."""


class GoldenFile(ConfigModel):
    """All cases of a file."""

    cases: list[GoldenCase] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> GoldenFile:
        names = Counter(case.name for case in self.cases)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise ValueError(f"cases: the name {twice[0]!r} is used twice")
        return self


@dataclass(frozen=True)
class Difference:
    """A number that is not the golden one. None: there is no such number on that side."""

    what: str
    """``total``, or a stage's name."""
    expected: int | None
    found: int | None

    @property
    def percent(self) -> float | None:
        """Change in per cent of the golden number; None where there is nothing to relate to."""
        if not self.expected or self.found is None:
            return None
        return 100 * (self.found / self.expected - 1)


def read_golden(path: Path) -> GoldenFile:
    """Read a golden file.

    Parameters
    ----------
    path
        Of the file.

    Raises
    ------
    InputError
        With file, line and key.
    """
    return read_document(GoldenFile, path)


def source_of(case: GoldenCase, path: Path) -> str:
    """What to load for a case of a golden file.

    Parameters
    ----------
    case
        One of the file's.
    path
        Of the file, which relative paths count from.
    """
    if not looks_like_path(case.run):
        return case.run
    return str(path.parent / given_path(case.run))


def stage_cycles(result: Result) -> dict[str, int]:
    """Cycles by stage name, in order of first appearance.

    Parameters
    ----------
    result
        Of a run.
    """
    cycles: dict[str, int] = {}
    for stage in result.stages:
        cycles[stage.name] = cycles.get(stage.name, 0) + stage.cycles
    return cycles


def differences(case: GoldenCase, result: Result) -> list[Difference]:
    """Every number of ``case`` that ``result`` does not have, the total first.

    Parameters
    ----------
    case
        What was approved.
    result
        What came out.
    """
    found = stage_cycles(result)
    pairs: dict[str, tuple[int | None, int | None]] = {"total": (case.cycles, result.cycles)}
    for name in [*case.stages, *(name for name in found if name not in case.stages)]:
        pairs[name] = (case.stages.get(name), found.get(name))
    return [Difference(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]


def updated(case: GoldenCase, result: Result, reason: str) -> GoldenCase:
    """A case with the numbers of a result; one that did not move keeps its reason.

    Parameters
    ----------
    case
        What was approved.
    result
        What came out.
    reason
        Why it moved.
    """
    if not differences(case, result):
        return case
    return case.model_copy(
        update={"cycles": result.cycles, "stages": stage_cycles(result), "reason": reason}
    )


def write_golden(golden: GoldenFile, path: Path) -> None:
    """Write to a temporary file beside ``path`` and rename it; leading comments are kept.

    Parameters
    ----------
    golden
        All cases.
    path
        Of the file.
    """
    text = "".join([*_heading(path), "cases:\n", *map(_case_text, golden.cases)])
    write_whole(path, text.encode())


def _heading(path: Path) -> Iterator[str]:
    """Comment lines at the top of the file that is there."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.startswith("#"):
            return
        yield line


def _case_text(case: GoldenCase) -> str:
    """A case as an item of a YAML list, one key a line."""
    values: Mapping[str, object] = case.model_dump(exclude={"stages"})
    lines = emit_yaml(values).splitlines()
    stages = ", ".join(
        f"{name if name.isidentifier() else json.dumps(name)}: {cycles}"
        for name, cycles in case.stages.items()
    )
    lines.insert(-1, f"stages: {{{stages}}}")
    return "".join(f"{'    ' if at else '  - '}{line}\n" for at, line in enumerate(lines))
