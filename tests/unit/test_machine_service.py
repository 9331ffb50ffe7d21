"""A service whose steps are a machine's: what they take is what runs of them take, with energy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.services import ServiceRun, prepare

Write = Callable[..., Path]

SMALL = (
    "memory: {organization: {channels: 4}}, npu: {systolic: {rows: 32, cols: 16, arrays: 2}},"
    " workload: {model: %s, layers: 2}"
)


@pytest.fixture
def write(tmp_path: Path, tiny_card: Path) -> Write:
    def write(lines: str, machine: str = "neupims", more: str = "", rest: str = "") -> Path:
        (tmp_path / "requests.csv").write_text("arrival_us,prompt,output\n" + lines)
        path = tmp_path / "service.yaml"
        path.write_text(
            "requests: {file: ./requests.csv}\n"
            "scheduler: {name: vllm, max_num_seqs: 8, max_num_batched_tokens: 32}\n"
            f"machine: {{extends: {machine}, {SMALL % tiny_card}{more}}}\n{rest}"
        )
        return path

    return write


def _steps(path: Path, out: Path, *overrides: str) -> tuple[dict[str, Any], pandas.DataFrame]:
    found = pimsim.serve(path, overrides=overrides, out=out).to_dict()
    return found, pandas.read_parquet(out / "steps.parquet")


@pytest.mark.parametrize("machine", ["neupims", "npu-pim", "npu-only"])
def test_steps_of_one_request_are_those_of_runs(
    write: Write, tmp_path: Path, tiny_card: Path, machine: str
) -> None:
    path = write("0,40,3\n", machine)
    found, steps = _steps(path, tmp_path / "out")
    took = (steps["end_ps"] - steps["start_ps"]).tolist()
    assert steps["tokens"].tolist() == [32, 8, 1, 1]
    header = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens\n"
    joule = []
    for new, context, time_ps in zip([32, 8, 1, 1], [32, 40, 41, 42], took, strict=True):
        (tmp_path / "run.csv").write_text(f"{header}0,0,{context},9,0,{new}\n")
        run = pimsim.run(
            machine, model=tiny_card, requests=tmp_path / "run.csv", layers=2,
            overrides=[
                "memory.organization.channels=4",
                "npu.systolic={rows: 32, cols: 16, arrays: 2}",
            ],
        )  # fmt: skip
        assert run.iteration_s == pytest.approx(time_ps / 1e12, rel=1e-12)
        joule.append(run.token_j["total"] * run.tokens)
        assert found["idle_w"] == pytest.approx(run.idle_w * run.devices)
    assert found["energy_j"]["total"] == pytest.approx(sum(joule))
    assert found["fidelity"] == {"step_time": "simulated", "simulated": 4, "machine": "command"}


def test_static_power_counts_while_nothing_runs(write: Write, tmp_path: Path) -> None:
    early, late = "0,20,2\n", "0,20,2\n5000000,20,2\n"
    one, _ = _steps(write(early), tmp_path / "one")
    two, _ = _steps(write(late), tmp_path / "two")
    idle_s = two["time_s"] - 2 * one["time_s"]
    assert idle_s > 4.9
    for part in ("static", "dram", "npu", "total"):
        wanted = 2 * one["energy_j"][part]
        if part == "static":
            wanted = one["power_w"]["static"] * two["time_s"]
        if part == "total":
            wanted += two["idle_w"] * idle_s
        if part != "dram":
            assert two["energy_j"][part] == pytest.approx(wanted)
    assert two["power_w"]["total"] > two["power_w"]["static"] > 0
    assert min(two["power_over_time_w"]) == pytest.approx(two["idle_w"])
    ends = np.array(two["over_time"]["end_s"])
    power = np.array(two["power_over_time_w"])
    assert (power * np.diff(ends, prepend=0)).sum() == pytest.approx(two["energy_j"]["total"])
    assert two["token_j"] == pytest.approx(two["energy_j"]["total"] / 4)


def test_the_cache_is_what_the_machine_holds(write: Write) -> None:
    path = write("0,20,2\n")
    with ServiceRun(prepare(path)) as running:
        held = running.service.replicas[0].scheduler.cache.count + 1
    with ServiceRun(prepare(path, [f"cache.blocks={held}"])):
        pass
    with pytest.raises(InputError, match=f"cache.blocks is .* the machine holds {held:,} of 16"):
        ServiceRun(prepare(path, [f"cache.blocks={held + 1}"]))
    doubled = ["machine.memory.organization.rows=65536"]
    with ServiceRun(prepare(path, doubled)) as running:
        assert running.service.replicas[0].scheduler.cache.count > held


@pytest.mark.parametrize(
    ("overrides", "rest", "said"),
    [
        (["machine.workload.batch=3"], "", "unknown key 'machine.workload.batch'"),
        (["machine.fidelty=fast"], "", "did you mean 'fidelity'"),
        ([], "model: gpt3-7b\n", "model is machine.workload.model"),
        ([], "step_time: {linear: {step_us: 1, token_us: 1}}\n", "either step_time or machine"),
        ([], "replicas: {stages: 2}\n", "replicas.stages is 2; the machine's pipeline has 1"),
        (["machine.parallel.batches=1"], "", "machine.parallel.batches is of a run"),
        (["steps.max_error=0.1"], "", "steps.max_error is of interpolated steps"),
        (["machine=null"], "", "either step_time or machine"),
    ],
)
def test_what_cannot_be_is_one_line(
    write: Write, overrides: list[str], rest: str, said: str
) -> None:
    path = write("0,20,2\n", rest=rest)
    with pytest.raises(InputError, match=said) as error:
        ServiceRun(prepare(path, overrides))
    assert "\n" not in str(error.value)


def test_a_longer_request_than_the_context_is_refused(write: Write) -> None:
    path = write("0,20,100000\n")
    with pytest.raises(InputError, match="the context of model tiny is"):
        ServiceRun(prepare(path))


MANY = "".join(f"{at * 300},{20 + 13 * at % 60},{40 + 7 * at % 30}\n" for at in range(6))
FAST = ", fidelity: fast"


@pytest.fixture
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", "none")


@pytest.mark.parametrize("machine", ["npu-pim", "npu-only"])
def test_interpolated_steps_are_near_simulated_ones(
    write: Write, tmp_path: Path, machine: str, no_store: None
) -> None:
    path = write(MANY, machine, FAST)
    near, steps = _steps(path, tmp_path / "near")
    exact, _ = _steps(path, tmp_path / "exact", "steps.interpolated=false")
    said = near["fidelity"]
    assert said["step_time"] == "interpolated"
    assert said["steps"] == len(steps) > said["simulated"] > 4
    low, high = said["error_interval"]
    assert low <= said["error_mean"] <= high
    assert abs(said["error_mean"]) <= said["error_absolute"] <= said["error_worst"]
    off = near["time_s"] / exact["time_s"] - 1
    assert abs(off) < max(abs(low), abs(high)) + 0.01
    for part in ("total", "static", "dram"):
        assert near["energy_j"][part] == pytest.approx(exact["energy_j"][part], rel=0.05)
    assert near["energy_j"]["static"] >= near["power_w"]["static"] * near["time_s"] * 0.999
    ends = np.array(near["over_time"]["end_s"])
    power = np.array(near["power_over_time_w"])
    assert (power * np.diff(ends, prepend=0)).sum() == pytest.approx(near["energy_j"]["total"])


def test_what_is_known_before_changes_nothing(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", str(tmp_path / "kept"))
    path = write(MANY, "npu-only", FAST)
    first, steps = _steps(path, tmp_path / "first")
    again, same = _steps(path, tmp_path / "again")
    assert same.equals(steps)
    assert first["fidelity"].pop("simulated") > 0
    assert again["fidelity"].pop("simulated") == 0
    for key in ("fidelity", "latency_s", "energy_j", "over_time"):
        assert again[key] == first[key]
    (kept,) = (tmp_path / "kept").glob("steps-*.json")
    kept.write_text(kept.read_text().replace("1", "2", 1))
    assert _steps(path, tmp_path / "third")[0]["fidelity"]["simulated"] > 0
    other, _ = _steps(path, tmp_path / "other", "machine.npu.frequency=2GHz")
    assert other["fidelity"]["simulated"] > 0  # another machine's steps are no steps of this one


def test_max_error_has_more_steps_simulated(write: Write, tmp_path: Path, no_store: None) -> None:
    path = write(MANY, "npu-only", FAST)
    coarse, _ = _steps(path, tmp_path / "coarse")
    limit = coarse["fidelity"]["error_absolute"] / 3
    fine, steps = _steps(path, tmp_path / "fine", f"steps.max_error={limit:.6f}")
    assert fine["fidelity"]["fineness"] > coarse["fidelity"]["fineness"] == 0
    said = fine["fidelity"]
    kept = max(abs(each) for each in said["error_interval"]) <= limit
    assert kept != any("interpolated steps may be off" in each for each in fine["warnings"])
    assert fine["steps"]["count"] == len(steps)  # the rows are those of the last time alone


def test_the_sample_depends_on_the_seed_alone(write: Write, tmp_path: Path, no_store: None) -> None:
    path = write(MANY, "npu-only", FAST)
    found = [
        _steps(path, tmp_path / str(at), f"seed={seed}", "steps.samples=4")[0]["fidelity"]
        for at, seed in enumerate((1, 1, 2))
    ]
    assert found[0] == found[1]
    assert found[0]["sampled"] == 4
    assert found[0]["error_mean"] != found[2]["error_mean"]
