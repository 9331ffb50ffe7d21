"""Shipped data is found by kind and name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.resources import (
    KINDS,
    data_dir,
    display_path,
    find_source,
    preset_names,
    preset_path,
)

PRESETS = [(kind, name) for kind in KINDS for name in preset_names(kind)]


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("hardware", "npu-only"),
        ("hardware", "npu-pim"),
        ("hardware", "neupims"),
        ("hardware", "neupims-artifact-main"),
        ("hardware", "neupims-artifact-npu-pim"),
        ("hardware", "neupims-artifact-npu-only"),
        ("memory", "hbm2-neupims"),
        ("memory", "hbm2-neupims-artifact"),
        ("pim", "neupims"),
        ("pim", "newton"),
        ("pim", "neupims-artifact"),
        ("pim", "newton-artifact"),
        ("energy", "default"),
        ("xpu", "attacc-a100a"),
        ("xpu", "attacc-h100"),
        ("xpu", "a100"),
        ("xpu", "h100"),
        ("xpu", "h200"),
        ("xpu", "b200"),
        ("xpu", "rtx4090"),
        ("system", "dgx-a100a"),
        ("system", "dgx-h100"),
        ("system", "dgx-attacc-h100"),
        ("system", "dgx-a100a-cpu"),
        ("system", "dgx-attacc-bank"),
        ("system", "dgx-attacc-bank-npc"),
        ("system", "dgx-attacc-bg"),
        ("system", "dgx-attacc-buffer"),
        ("model", "gpt3-7b"),
        ("model", "gpt3-13b"),
        ("model", "gpt3-30b"),
        ("model", "gpt3-175b"),
        ("model", "llama-65b"),
        ("trace", "sharegpt-256"),
    ],
)
def test_the_names_that_others_build_on_are_there(kind: str, name: str) -> None:
    assert (kind, name) in PRESETS


@pytest.mark.parametrize(("kind", "name"), PRESETS)
def test_a_presets_file_is_named_after_it(kind: str, name: str) -> None:
    path = preset_path(kind, name)
    assert path.is_file()
    assert path.name == name + KINDS[kind][1]
    assert display_path(path) == f"{KINDS[kind][0]}/{path.name}"


def test_an_unknown_name_gets_its_near_miss_and_the_list() -> None:
    with pytest.raises(InputError, match="unknown model 'gpt3-7B'; did you mean 'gpt3-7b'") as e:
        preset_path("model", "gpt3-7B")
    assert all(name in str(e.value) for name in preset_names("model"))


def test_an_unknown_kind_gets_its_near_miss() -> None:
    with pytest.raises(InputError, match="'memori'; did you mean 'memory'"):
        preset_names("memori")
    with pytest.raises(InputError, match="no data folder 'data'"):
        data_dir("data")


@pytest.mark.parametrize("folder", ["configs", "models", "traces", "analysis"])
def test_every_data_folder_ships(folder: str) -> None:
    assert any(data_dir(folder).iterdir())


def test_names_and_paths_are_told_apart(tmp_path: Path) -> None:
    assert find_source("model", "gpt3-7b") == preset_path("model", "gpt3-7b")
    assert find_source("model", "./gpt3-7b", tmp_path) == tmp_path / "gpt3-7b"
    assert find_source("model", "x.yaml", tmp_path) == tmp_path / "x.yaml"
    assert find_source("model", str(tmp_path / "x.yaml"), tmp_path / "y") == tmp_path / "x.yaml"
