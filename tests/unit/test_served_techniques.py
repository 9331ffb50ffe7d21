"""Services with techniques: steps take what runs with them take, the cache holds what they leave
room for, and what does not fit a service is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.service import SpeculationConfig
from pimsim.services import ServiceRun, prepare
from pimsim.serving.guesses import equal_acceptance, guesses
from pimsim.workload.decoding.prompt_lookup import PromptLookup

Write = Callable[..., Path]
NPU = (
    "memory: {organization: {channels: 4}}, npu: {systolic: {rows: 32, cols: 16, arrays: 2}}, "
    "workload: {model: %s, layers: 2}"
)
NPU_OF_A_RUN = [
    "memory.organization.channels=4", "npu.systolic={rows: 32, cols: 16, arrays: 2}",
    "workload.layers=2",
]  # fmt: skip
GPU = "devices: 1, workload: {model: %s}"
MLA = """\
mla: {q_lora: 0, kv_lora: 64, nope_dim: 64, rope_dim: 32, v_dim: 64}
"""


@pytest.fixture(autouse=True)
def no_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", "none")


@pytest.fixture
def write(tmp_path: Path, tiny_card: Path) -> Write:
    def write(machine: str, lines: str = "0,40,3\n", model: Path = tiny_card) -> Path:
        (tmp_path / "requests.csv").write_text("arrival_us,prompt,output\n" + lines)
        path = tmp_path / "service.yaml"
        keys = (GPU if machine.startswith("dgx") else NPU) % model
        path.write_text(
            "requests: {file: ./requests.csv}\n"
            "scheduler: {name: vllm, max_num_seqs: 8, max_num_batched_tokens: 32}\n"
            f"machine: {{extends: {machine}, {keys}}}\nsteps: {{interpolated: false}}\n"
        )
        return path

    return write


@pytest.fixture
def latent(tmp_path: Path, tiny_card: Path) -> Path:
    path = tmp_path / "latent.yaml"
    text = tiny_card.read_text().replace("rope: false", "rope: true").replace(
        "bias: true", "bias: false"
    )  # fmt: skip
    path.write_text(text + MLA)
    return path


@pytest.mark.parametrize(
    ("machine", "keys"),
    [
        ("npu-only", ["weight_format=int8"]),
        ("npu-only", ["kv_format=int4", "weight_format=int4"]),
        ("npu-only", ["kv_view=lambda_mask:window=20,sinks=4"]),
        ("npu-pim", ["kv_view=lambda_mask:window=20,sinks=4,rotation=queries"]),
        ("npu-pim", ["weight_format=int8"]),
        ("dgx-h100", ["kv_format=fp8", "weight_format=nvfp4"]),
        ("dgx-h100", ["kv_view=streaming_llm:window=20"]),
    ],
)
def test_steps_with_techniques_are_those_of_runs(
    write: Write, tmp_path: Path, tiny_card: Path, machine: str, keys: list[str]
) -> None:
    ours = [f"machine.workload.{each}" for each in keys]
    found = pimsim.serve(write(machine), overrides=ours, out=tmp_path / "out").to_dict()
    steps = pandas.read_parquet(tmp_path / "out" / "steps.parquet")
    took = (steps["end_ps"] - steps["start_ps"]).tolist()
    own = ["devices=1"] if machine == "dgx-h100" else NPU_OF_A_RUN
    header = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens\n"
    plain: list[float] = []
    for new, context, time_ps in zip([32, 8, 1, 1], [32, 40, 41, 42], took, strict=True):
        (tmp_path / "run.csv").write_text(f"{header}0,0,{context},9,0,{new}\n")
        overrides = [*own, *(f"workload.{each}" for each in keys)]
        run = pimsim.run(
            machine, model=tiny_card, requests=tmp_path / "run.csv", overrides=overrides
        )
        assert run.iteration_s == pytest.approx(time_ps / 1e12, rel=1e-9)
        without = pimsim.run(machine, model=tiny_card, requests=tmp_path / "run.csv", overrides=own)
        plain.append(without.iteration_s * 1e12)
    assert took != pytest.approx(plain, rel=1e-6)
    assert found["requests"]["finished"] == 1


def blocks(path: Path, *overrides: str) -> int:
    with ServiceRun(prepare(path, list(overrides))) as service:
        return service._blocks


@pytest.mark.parametrize("machine", ["npu-only", "dgx-h100"])
def test_narrow_caches_hold_more_and_narrow_weights_leave_room(write: Write, machine: str) -> None:
    path, most = write(machine), "machine.workload."
    whole = blocks(path)
    ratio = blocks(path, f"{most}kv_format=int8") / whole
    assert ratio == pytest.approx(2 * 128 / (128 + 2), rel=1e-3)
    ratio = blocks(path, f"{most}kv_format=int4") / whole
    assert ratio == pytest.approx(2 * 128 / (64 + 2), rel=1e-3)
    assert blocks(path, f"{most}weight_format=int4") > whole


@pytest.mark.parametrize("machine", ["npu-only", "dgx-h100"])
def test_latents_are_served(write: Write, latent: Path, tmp_path: Path, machine: str) -> None:
    path = write(machine, model=latent)
    found = pimsim.serve(path, out=tmp_path / "out").to_dict()
    assert found["requests"]["finished"] == 1
    steps = pandas.read_parquet(tmp_path / "out" / "steps.parquet")
    took = (steps["end_ps"] - steps["start_ps"]).tolist()
    own = ["devices=1"] if machine == "dgx-h100" else NPU_OF_A_RUN
    run = pimsim.run(
        machine, model=latent, requests="equal:40+2", overrides=own,
    )  # fmt: skip
    assert run.iteration_s == pytest.approx(took[-1] / 1e12, rel=1e-9)
    multi = blocks(write(machine))
    assert blocks(write(machine, model=latent)) > 4 * multi  # 96 elements a token for 2 x 512


@pytest.mark.parametrize(
    ("machine", "key", "expected"),
    [
        ("npu-only", "kv_view=snapkv:budget=8", "blocks of a service's cache hold whole requests"),
        ("npu-only", "kv_view=quest:budget=16", "prompts beside single tokens"),
        ("npu-only", "kv_view=lambda_mask:window=99", "the longest context has 43"),
        ("npu-only", "kv_view=lamda_mask", "did you mean 'lambda_mask'"),
        ("dgx-h100", "kv_format=kivi", "allowed: residual=0"),
        ("npu-pim", "kv_format=int8", r"machine\.workload\.kv_format: 'int8' beside attention on"),
        ("npu-only", "weight_format=kivi", r"machine\.workload\.weight_format: 'kivi'"),
    ],
)
def test_what_a_service_cannot_have_is_refused(
    write: Write, machine: str, key: str, expected: str
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        pimsim.serve(write(machine), overrides=[f"machine.workload.{key}"])
    assert "\n" not in str(caught.value)


# guesses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 4, 10])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 1.0])
def test_acceptance_makes_as_many_tokens(depth: int, share: float) -> None:
    made = 1 + depth * share
    found = equal_acceptance(made, depth)
    assert 0 <= found <= 1
    assert sum(found**at for at in range(depth + 1)) == pytest.approx(made, rel=1e-9)


def test_a_strategy_is_its_drafts_and_acceptance(tmp_path: Path) -> None:
    lines = "".join(f"{1000 * at},20,200\n" for at in range(8))
    (tmp_path / "requests.csv").write_text("arrival_us,prompt,output\n" + lines)
    path = tmp_path / "service.yaml"
    path.write_text(
        "requests: {file: ./requests.csv}\nscheduler: {name: vllm, max_num_seqs: 8}\n"
        "cache: {blocks: 500}\nstep_time: {linear: {step_us: 900, token_us: 1}}\n"
    )
    strategy = "prompt_lookup:drafts=4,tokens=1.9"
    asked = f"speculation={{strategy: '{strategy}'}}"
    found = pimsim.serve(path, overrides=[asked], out=tmp_path / "out")
    rate = equal_acceptance(1.9, 4)
    same = pimsim.serve(path, overrides=[f"speculation={{drafts: 4, accept: {rate!r}}}"])
    assert found.to_dict()["requests"] == same.to_dict()["requests"]
    assert found.table()["accepted"].tolist() == same.table()["accepted"].tolist()
    verified = found.table()["verifications"].sum()
    assert 1 + found.table()["accepted"].sum() / verified == pytest.approx(1.9, rel=0.05)
    again = pimsim.serve(tmp_path / "out" / "config.yaml")
    assert again.table()["accepted"].tolist() == found.table()["accepted"].tolist()


def test_drafts_that_are_not_in_a_row_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(PromptLookup):
        rows = 9

    strategy = Wide(PromptLookup.Settings(drafts=2, tokens=2))
    monkeypatch.setattr("pimsim.serving.guesses.load_strategy", lambda _: strategy)
    with pytest.raises(InputError, match="adds operators or trees"):
        guesses(SpeculationConfig(strategy="prompt_lookup:drafts=2,tokens=2"), 0)


def test_steps_that_verify_drafts_are_simulated(write: Write) -> None:
    path = write("dgx-h100")
    keys = ["steps.interpolated=null", "speculation={strategy: 'prompt_lookup:drafts=2,tokens=2'}"]
    assert not prepare(path, keys).config.interpolated
    assert prepare(path, keys[:1]).config.interpolated
    assert prepare(path, [keys[1], "steps.interpolated=true"]).config.interpolated


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"strategy": "mtp:acceptance=0.8"}, "drafts on the device"),
        ({"strategy": "medusa:tokens=2"}, "adds operators or trees"),
        ({"strategy": "llada:length=64,block=16,tokens=4"}, "blocks of masks"),
        ({"strategy": "constrained"}, "has 0 drafts|adds operators"),
        ({"strategy": "prompt_lookup:tokens=2,host_us=9"}, "between steps"),
        ({"strategy": "prompt_lookup:drafts=99,tokens=2"}, "99 drafts; allowed: 1 to 64"),
    ],
)
def test_rounds_that_are_no_steps_are_refused(values: dict[str, str], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        guesses(SpeculationConfig(**values), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "drafts is missing"), ({"drafts": 2}, "accept is missing"),
        ({"strategy": "prompt_lookup:tokens=2", "drafts": 2}, "strategy says drafts, too"),
        ({"strategy": "prompt_lokup"}, "did you mean 'prompt_lookup'"),
    ],
)  # fmt: skip
def test_speculation_is_said_in_one_way(values: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        SpeculationConfig(**values)  # type: ignore[arg-type]
