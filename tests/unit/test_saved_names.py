"""Files of a saved config are found from wherever its folder is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import pimsim
from pimsim.services import prepare
from pimsim.simulate import resolve

HEADER = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens\n"


@pytest.fixture
def here(tmp_path: Path, tiny_card: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "tiny.yaml").write_text(tiny_card.read_text())
    (tmp_path / "r.csv").write_text(f"{HEADER}0,0,30,4,0\n")
    (tmp_path / "else" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "else" / "deep")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("out", ["out", "else/out", "link/out", "{here}/else/out"])
@pytest.mark.parametrize("machine", ["npu-only", "dgx-h100"])
def test_a_run_goes_again_from_its_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, out: str, machine: str
) -> None:
    place = out.format(here=here)
    asked = {"model": "./tiny.yaml", "requests": "r.csv", "layers": 2}
    small = ["devices=1"] if machine == "dgx-h100" else ["memory.organization.channels=4"]
    once = pimsim.run(machine, **asked, overrides=small, out=place)  # type: ignore[arg-type]
    for folder in (here, here / "else"):
        monkeypatch.chdir(folder)
        again = pimsim.run((here / place).resolve() / "config.yaml")
        assert again.cycles == once.cycles


def test_a_service_goes_again_from_its_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    (here / "s.csv").write_text("arrival_us,prompt,output\n0,20,3\n")
    (here / "service.yaml").write_text(
        "requests: {file: ./s.csv}\nscheduler: {name: vllm}\n"
        "machine: {extends: dgx-h100, devices: 1, workload: {model: ./tiny.yaml}}\n"
    )
    once = pimsim.serve("service.yaml", out="else/out").to_dict()
    monkeypatch.chdir("/")
    again = pimsim.serve(here / "else" / "out" / "config.yaml").to_dict()
    assert again["time_s"] == once["time_s"]


def test_names_of_presets_and_absolute_files_stay(here: Path) -> None:
    found = resolve("neupims", [f"workload.requests={here}/r.csv"])
    workload = yaml.safe_load(found.to_yaml(folder=here / "else"))["workload"]
    assert (workload["requests"], workload["model"]) == (
        f"{here}/r.csv",
        found.config.workload.model,
    )
    plain = resolve("neupims", ["workload.requests=r.csv"]).to_yaml()
    assert yaml.safe_load(plain)["workload"]["requests"] == "r.csv"
    assert yaml.safe_load(prepare("chat").to_yaml(folder=here))["requests"]["file"] is None
