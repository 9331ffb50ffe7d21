"""A service whose steps are those of GPUs: what they take is what runs of them take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.services import ServiceRun, prepare
from pimsim.workload.cards import load_card

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", "none")


@pytest.fixture
def write(tmp_path: Path, tiny_card: Path) -> Write:
    def write(lines: str = "0,40,3\n", machine: str = "extends: dgx-h100, devices: 1") -> Path:
        (tmp_path / "requests.csv").write_text("arrival_us,prompt,output\n" + lines)
        path = tmp_path / "service.yaml"
        path.write_text(
            "requests: {file: ./requests.csv}\n"
            "scheduler: {name: vllm, max_num_seqs: 8, max_num_batched_tokens: 32}\n"
            f"machine: {{{machine}, workload: {{model: {tiny_card}, outside: true}}}}\n"
        )
        return path

    return write


@pytest.mark.parametrize(
    "overrides", [["devices=2"], ["devices=4", "parallel.pp=2"], ["xpu=h200", "devices=1"]]
)
def test_steps_of_one_request_are_those_of_runs(
    write: Write, tmp_path: Path, tiny_card: Path, overrides: list[str]
) -> None:
    pp = 2 if "parallel.pp=2" in overrides else 1
    ours = [*(f"machine.{each}" for each in overrides), "steps.interpolated=false",
            f"replicas.stages={pp}"]  # fmt: skip
    found = pimsim.serve(write(), overrides=ours, out=tmp_path / "out").to_dict()
    steps = pandas.read_parquet(tmp_path / "out" / "steps.parquet")
    took = (steps["end_ps"] - steps["start_ps"]).tolist()
    assert steps["tokens"].tolist() == [32, 8, 1, 1]
    run = pimsim.run(
        "dgx-h100", model=tiny_card, requests="equal:40", phase="prefill", chunk=32, steps=4,
        overrides=[*overrides, "workload.outside=true"],
    )  # fmt: skip
    if pp == 1:
        assert run.iteration_s == pytest.approx(sum(took) / 1e12, rel=1e-9)
        tokens = sum(steps["tokens"])
        assert found["energy_j"]["total"] == pytest.approx(run.token_j["total"] * tokens)
    else:
        slowest_s = max(each.time_s for each in run.pipeline)
        assert slowest_s == pytest.approx(sum(took) / pp / 1e12, rel=1e-9)
    assert found["idle_w"] == pytest.approx(run.idle_w * run.devices)
    assert found["fidelity"] == {
        "step_time": "simulated", "simulated": 4, "machine": "kernel times",
    }  # fmt: skip


MANY = "".join(f"{at * 300},{20 + 13 * at % 60},{40 + 7 * at % 30}\n" for at in range(6))


def test_steps_are_interpolated_unless_asked_for(write: Write) -> None:
    near = pimsim.serve(write(MANY)).to_dict()
    exact = pimsim.serve(write(MANY), overrides=["steps.interpolated=false"]).to_dict()
    assert near["fidelity"]["step_time"] == "interpolated"
    assert exact["fidelity"]["step_time"] == "simulated"
    assert near["time_s"] == pytest.approx(exact["time_s"], rel=0.02)
    assert near["energy_j"]["total"] == pytest.approx(exact["energy_j"]["total"], rel=0.02)
    assert exact["power_w"]["static"] == pytest.approx(exact["idle_w"])


def test_the_cache_is_what_is_left_beside_the_weights(write: Write, tiny_card: Path) -> None:
    path = write(machine="extends: dgx-h100, devices: 2, xpu: {extends: h100, "
                         "memory_capacity: 64MiB}")  # fmt: skip
    with ServiceRun(prepare(path)) as running:
        blocks = running.service.replicas[0].scheduler.cache.count
    card = load_card(str(tiny_card))
    token = 2 * card.layers * card.kv_heads * card.head_dim * card.dtype_bytes // 2
    with ServiceRun(prepare(path, ["machine.xpu.memory_capacity=128MiB"])) as running:
        more = running.service.replicas[0].scheduler.cache.count
    assert more - blocks == pytest.approx(64 * 2**20 / (16 * token), abs=1)
    with pytest.raises(InputError, match=r"no room for a block of 16 .*machine\.devices"):
        ServiceRun(prepare(path, ["machine.xpu.memory_capacity=1MiB"]))


@pytest.mark.parametrize("preset", ["dgx-attacc-bank", "dgx-a100a-cpu"])
def test_requests_of_any_lengths_attend_where_the_cache_is(
    write: Write, tmp_path: Path, tiny_card: Path, preset: str
) -> None:
    path = write("0,40,3\n0,9,4\n", machine=f"extends: {preset}, devices: 1")
    found = pimsim.serve(path, overrides=["steps.interpolated=false"], out=tmp_path / "out")
    steps = pandas.read_parquet(tmp_path / "out" / "steps.parquet")
    assert (steps["tokens"] > 2).any() and (steps["tokens"] == 2).any()
    last = (steps["end_ps"] - steps["start_ps"]).tolist()[-1]
    run = pimsim.run(
        preset, model=tiny_card, requests="equal:9+3", batch=1,
        overrides=["devices=1", "workload.outside=true"],
    )  # fmt: skip
    assert last == pytest.approx(run.iteration_s * 1e12, rel=1e-9)
    where = "pim" if preset == "dgx-attacc-bank" else "host"
    assert found.to_dict()["energy_j"][where] > 0


def test_the_cache_has_the_room_of_who_holds_it(write: Write, tiny_card: Path) -> None:
    card = load_card(str(tiny_card))
    token = 2 * card.layers * card.kv_heads * card.head_dim * card.dtype_bytes

    def count(*overrides: str) -> int:
        path = write(machine="extends: dgx-attacc-bank, devices: 1")
        given = ["machine.stacks.count=1", *overrides]
        with ServiceRun(prepare(path, given)) as running:
            cache = running.service.replicas[0].scheduler.cache
            assert cache is not None
            return cache.count

    alone = count("machine.ffn_split=false")
    assert alone == pytest.approx(16 * 2**30 // token // 16, abs=1)  # one stands for none
    ffn = card.layers * 2 * card.hidden * card.ffn_hidden * card.dtype_bytes
    assert 0 < alone - count() < ffn // token // 16
    with pytest.raises(InputError, match="no room for a block"):
        count("machine.xpu.memory_capacity=1MiB")


@pytest.mark.parametrize(
    ("machine", "overrides", "said"),
    [
        ("extends: dgx-h1000", [], "dgx-h100"),
        ("extends: dgx-h100", ["machine.devices=3"], "cannot be shared by tp 3"),
        ("extends: dgx-h100", ["machine.fidelity=fast"], "unknown key 'machine.fidelity'"),
        ("extends: dgx-h100", ["machine.devcies=1"], "did you mean 'devices'"),
        ("extends: dgx-h100", ["machine.workload.batch=3"], "unknown key 'machine.workload.batch'"),
        ("extends: dgx-h100", ["machine.xpu.frequency=1"], "machine.xpu.frequency"),
        ("extends: dgx-h100, npu: {}", [], "npu"),
        ("extends: dgx-h100", ["machine={npu: {}}"], "npu"),
        ("extends: dgx-h100, devices: 1", ["replicas.stages=2"], "the machine's pipeline has 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    write: Write, machine: str, overrides: list[str], said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        ServiceRun(prepare(write(machine=machine), overrides))
    assert "\n" not in str(error.value)


def test_a_machine_is_a_file_beside_the_service_or_its_own_keys(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "box.yaml").write_text(
        "extends: dgx-h100\ndevices: 1\nworkload: {requests: 'equal:64+1', batch: 2}\n"
    )
    one, other = (
        prepare(write(machine=f"extends: {name}, devices: 1"))
        for name in ("dgx-h100", "./box.yaml")
    )
    assert one.config.machine is not None
    assert other.config.machine is not None
    assert other.config.machine.xpu == one.config.machine.xpu
    path = tmp_path / "more.yaml"
    path.write_text("extends: ./service.yaml\nmachine: {xpu: h200}\n")
    changed = prepare(path).config.machine
    assert changed is not None
    assert changed.xpu.name == "h200"
    assert changed.workload == one.config.machine.workload


POOLS = (
    "decode={count: 2, token_bytes: 1KiB, links: {bandwidth_gb_per_s: 1, latency_ns: 500}}",
    "steps.interpolated=false",
)


def test_one_request_through_two_pools_takes_its_prompt_its_bytes_and_its_steps(
    write: Write, tmp_path: Path
) -> None:
    alone, apart = (
        pimsim.serve(write("0,30,4\n"), overrides=more, out=tmp_path / str(len(more)))
        for more in (POOLS[1:], POOLS)
    )
    one, two = alone.requests[0], apart.requests[0]
    sent_ps = 30 * 1024 * 1000 + 500_000
    assert two["first_token_ps"] == one["first_token_ps"]
    assert two["kv_arrived_ps"] == two["first_token_ps"] + sent_ps
    assert two["finish_ps"] == one["finish_ps"] + sent_ps
    assert two["replica"] != two["prefill_replica"]
    # of one replica that feeds and two that decode, whether they work or not
    figures = apart.to_dict()
    assert figures["idle_w"] == pytest.approx(3 * alone.to_dict()["idle_w"])
    assert figures["energy_j"]["static"] == pytest.approx(figures["idle_w"] * figures["time_s"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("decode={step_time: {linear: {step_us: 1, token_us: 1}}}", "both pools have it"),
        ("decode={stages: 2}", "decode.stages is 2; the machine's pipeline has 1"),
    ],
)
def test_both_pools_have_the_machine(write: Write, override: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ServiceRun(prepare(write(), [override]))


def test_devices_that_hold_the_same_keys_are_said(
    write: Write, tmp_path: Path, tiny_card: Path
) -> None:
    card = tmp_path / "two.yaml"
    card.write_text(tiny_card.read_text().replace("kv_heads: 4", "kv_heads: 2"))
    held = []
    for devices in (2, 4):
        asked = [
            f"machine.workload.model={card}", f"machine.devices={devices}",
            "steps.interpolated=false", "machine.xpu.memory_capacity=64MiB",
        ]  # fmt: skip
        with ServiceRun(prepare(write(), asked)) as running:
            figures = running.result().to_dict()
        held.append(figures["kv"]["blocks"])
        assert (
            figures["warnings"]
            == [
                "4 devices share each layer, and the model has 2 key heads: the keys and values of "
                "each lie on 2 of them"
            ][: devices // 4]
        )
    # half of the weights, but no fewer keys and values, on each device
    assert held[0] < held[1] < 1.3 * held[0]
