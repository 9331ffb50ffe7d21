"""What configs share is read and checked once, and each says what it would say alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, ValidationError

from pimsim.config import asked_once, compose, documents
from pimsim.config.asked_once import Latest, checked_once, files_as_read, once_for_these, unchanged
from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.config.loader import load_any_run, load_memory, load_run
from pimsim.config.units import WRITTEN

OLD_S = 1_000_000_000


class Inner(ConfigModel):
    x: int | float | bool
    names: list[str] = Field(default_factory=list)


class Outer(ConfigModel):
    inner: Annotated[Inner | None, checked_once()] = None


def read(value: Any, context: Any = WRITTEN) -> Inner | None:
    return Outer.model_validate({"inner": value}, context=context).inner


def test_a_section_that_says_the_same_is_the_same_object_and_no_other_is() -> None:
    first = read({"x": 1, "names": ["a"]})
    assert read({"x": 1, "names": ["a"]}) is first
    for other in ({"x": 1.0, "names": ["a"]}, {"x": True, "names": ["a"]}, {"x": 1}):
        found = read(other)
        assert found is not None and found is not first
        assert type(found.x) is type(other["x"])
    assert read({"x": 1, "names": ["a"]}, context=None) is not first
    assert read(first) is first
    assert read(None) is None


def test_what_is_refused_is_refused_again_with_its_place() -> None:
    for _ in range(2):
        with pytest.raises(ValidationError) as error:
            read({"x": "one"})
        assert error.value.errors()[0]["loc"][:2] == ("inner", "x")


def test_a_check_of_the_same_objects_runs_once_and_of_others_again() -> None:
    runs: list[tuple[object, str]] = []

    @once_for_these
    def check(one: list[int], at: str = "") -> None:
        runs.append((tuple(one), at))
        if not one:
            raise ValueError("empty")

    kept, other = [1], [1]
    for given in (kept, kept, other, kept):
        check(given)
    check(kept, at="there")
    check(kept, at="there")
    assert len(runs) == 3
    for _ in range(2):
        with pytest.raises(ValueError, match="empty"):
            check([])
    assert len(runs) == 5


def test_the_latest_are_kept() -> None:
    known: Latest[int] = Latest(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.get("a") == 1
    known.put("c", 3)
    assert [known.get(key) for key in "abc"] == [1, None, 3]


def test_files_are_told_from_edited_ones_unless_they_are_new(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    assert files_as_read([path]) is None  # the next edit may have the same time and size
    assert files_as_read([tmp_path / "none"]) is None
    assert files_as_read([]) == ()


def test_an_old_file_is_unchanged_until_somebody_writes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    monkeypatch.setattr(asked_once, "_RACY_NS", -1)
    files = files_as_read([path])
    assert files is not None and unchanged(files)
    os.utime(path, (OLD_S, OLD_S))
    assert not unchanged(files)
    (tmp_path / "b").write_text("2")
    os.utime(tmp_path / "b", (OLD_S, OLD_S))
    files = files_as_read([path])
    os.replace(tmp_path / "b", path)  # of the same size and time
    assert files is not None and not unchanged(files)


def test_an_edited_file_is_read_again_and_so_is_one_that_it_extends(tmp_path: Path) -> None:
    base, run = tmp_path / "base.yaml", tmp_path / "run.yaml"
    run.write_text("extends: base.yaml\nseed: 1\n")
    for frequency in ("1GHz", "2GHz", "3GHz"):  # in a tick of the file system's clock, same size
        base.write_text(f"extends: neupims\nnpu: {{frequency: {frequency}}}\n")
        assert load_run(str(run)).config.npu.frequency == int(frequency[0]) * 10**9
    base.unlink()
    with pytest.raises(InputError, match="no such file"):
        load_run(str(run))


def test_a_relative_name_counts_from_where_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked_once, "_RACY_NS", -1)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.yaml").write_text(f"extends: neupims\nname: {folder}\n")
    for folder in ("one", "two", "one"):
        monkeypatch.chdir(tmp_path / folder)
        assert load_run("run.yaml").config.name == folder


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("neupims", ["memory.organization.channels=8", "npu.frequency=2GHz"]),
        ("neupims", ["memory=hbm3-6400", "schedule.policy=greedy"]),
        ("neupims", ["pim=newton", "seed=4"]),
        ("npu-only", []),
        ("dgx-attacc-bank", ["devices=4"]),
        ("dgx-h100", []),
    ],
)
def test_what_was_asked_before_changes_no_config_and_no_origin(
    name: str, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = load_any_run(name, overrides)
    again = load_any_run(name, overrides)
    monkeypatch.setattr(Latest, "get", lambda self, key: None)
    alone = load_any_run(name, overrides)
    assert again.config == alone.config
    assert again.origins == alone.origins
    assert (again.sha256, again.notes) == (alone.sha256, alone.notes)


def test_presets_are_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_memory("hbm2")
    monkeypatch.setattr(compose, "_load", None)
    monkeypatch.setattr(documents, "_checked", None)
    assert load_memory("hbm2") is first
