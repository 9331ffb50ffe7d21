"""Sweeps, searches, golden cycles, reports and figures of runs on GPUs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pimsim import load_config
from pimsim.config.errors import InputError
from pimsim.explore.search import run_search
from pimsim.explore.spec import read_sweep
from pimsim.explore.sweep import load_table, run_sweep
from pimsim.result import store
from pimsim.simulate import compare, run

SET = 'set: {workload.model: gpt3-7b, workload.requests: "equal:64+1", workload.batch: 2}\n'
OPTIONS = ("workload.model=gpt3-7b", "workload.requests=equal:64+1", "workload.batch=2")


def test_a_sweep_over_gpus_has_the_figures_of_runs(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(
        f"base: dgx-attacc-bank\n{SET}"
        "grid: {devices: [1, 5, 8], overlap: [none, projections]}\n"
    )  # fmt: skip
    done = run_sweep(path, tmp_path / "store", workers=1)
    assert (done.points, done.simulated, done.failed) == (6, 6, 2)
    table = load_table(tmp_path / "store")
    assert list(table["devices"]) == [1, 1, 5, 5, 8, 8]
    assert all("tp 5" in each for each in table["error"][2:4])
    for row in (0, 5):
        point = [f"{key}={table[key][row]}" for key in ("devices", "overlap")]
        alone = run("dgx-attacc-bank", overrides=[*OPTIONS, *point])
        assert table["tokens_per_s"][row] == alone.tokens_per_s
        assert table["energy_j.pim"][row] == alone.energy_j.pim
        assert table["fidelity"][row] == "command"
    again = run_sweep(path, tmp_path / "store", workers=1)
    assert again.simulated == 0


def test_gpus_have_one_fidelity(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    text = f"base: dgx-h100\n{SET}grid: {{devices: [1, 2]}}\n"
    path.write_text(text)
    assert read_sweep(path).fidelity == "fast"
    path.write_text(f"{text}fidelity: fast\n")
    with pytest.raises(InputError, match="unknown key 'fidelity'"):
        read_sweep(path)


def test_a_search_over_gpus_finds_the_better_machine(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(
        f"base: dgx-h100\n{SET}"
        "space: {xpu.memory_bandwidth_gb_per_s: {choices: [1000, 3352]}}\n"
        "objectives: [{metric: tokens_per_s, direction: maximize}]\n"
        "trials: 6\nsampler: random\nname: tiny\n"
    )
    found = run_search(path, tmp_path / "store", workers=1)
    best = max(found.trials, key=lambda each: each.values[0])
    assert best.point == {"xpu.memory_bandwidth_gb_per_s": 3352}


def test_gpus_beside_an_npu_and_figures_of_a_kept_run(tmp_path: Path) -> None:
    kept = run("dgx-attacc-bank", overrides=OPTIONS, out=tmp_path / "kept")
    again = store.load(tmp_path / "kept")
    assert again.tokens_per_s == kept.tokens_per_s
    assert kept.plot.roofline(tmp_path / "kept") is not None
    assert kept.plot.utilisation(load_config("dgx-attacc-bank", OPTIONS)) is not None
    table = compare([tmp_path / "kept", "dgx-h100"], overrides=OPTIONS)
    assert table["speedup"].iloc[0] == 1
    assert json.loads(table.to_json())["cycles"]
