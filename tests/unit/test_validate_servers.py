"""The suite of measured servers: which lines become which rows, and ours by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.loader import load_system
from pimsim.result.xpu_step_cost import XpuStepCosts
from pimsim.serving.step_times.anchors import Anchor
from pimsim.validate import gpu_power, gpu_serving
from pimsim.validate.gpu_serving import Point, points, rows, served_ms
from pimsim.validate.types import ReferenceLine, References, lines_of

COLUMNS = (
    "backend,backend_version,model_path,system,precision,mode,isl,osl,gemm_quant_mode,"
    "moe_quant_mode,batch_size,tp_size,pp_size,attention_dp_size,moe_tp_size,moe_ep_size,"
    "silicon_ttft_ms,silicon_tpot_ms\n"
)
LLAMA, QWEN = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-235B-A22B-FP8"


def line(
    model: str = LLAMA, tp: int = 1, dp: str = "", moe: str = "1.0,1.0", pp: int = 1,
    precision: str = "", engine: str = "vllm", device: str = "h100_sxm", users: int = 4,
) -> str:  # fmt: skip
    return (
        f"{engine},1,{model},{device},{precision},agg,64,8,,,{users}.0,{tp}.0,{pp}.0,{dp},{moe},"
        "10.5,5.25\n"
    )


def _lines(*texts: str) -> list[ReferenceLine]:
    return list(lines_of(COLUMNS + "".join(texts), Path("serving.csv")))


def test_rows_that_can_be_served_are() -> None:
    found = list(points(_lines(
        line(), line(tp=4, moe="4.0,1.0", precision="fp8"), line(QWEN, 4, "", "1.0,4.0"),
        line(QWEN, 4, "1.0", "2.0,2.0", precision="fp8", engine="sglang", device="h200_sxm"),
    )))  # fmt: skip
    assert [(one.model, one.precision, one.tp, one.ep) for one in found] == [
        ("llama-3.1-8b", "bf16", 1, 1), ("llama-3.1-8b", "fp8", 4, 1),
        ("qwen3-235b-a22b", "bf16", 4, 4), ("qwen3-235b-a22b", "fp8", 4, 2),
    ]  # fmt: skip
    assert found[0] == Point(
        "vllm", "h100", "llama-3.1-8b", "bf16", 1, 1, 64, 8, 4, 5.25, 10.5
    )  # fmt: skip
    assert found[3].case == "sglang/h200/qwen3-235b-a22b/fp8/tp4/ep2/64+8/4"


@pytest.mark.parametrize(
    "text",
    [
        line(tp=8, moe="2.0,2.0"), line(QWEN, 8, "", "2.0,2.0"), line(pp=2),
        line(QWEN, 4, "4.0", "1.0,4.0"), line(precision="fp4"), line("openai/gpt-oss-120b"),
    ],
)  # fmt: skip
def test_rows_that_cannot_are_left_out(text: str) -> None:
    assert list(points(_lines(text))) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (line("meta-llama/Llama-3.1-9B"), "model_path: unknown"),
        (line(engine="vlm"), "backend: unknown 'vlm'; did you mean 'vllm'"),
        (line(device="h100"), "system: unknown"), (line(precision="int8"), "precision: unknown"),
    ],
)  # fmt: skip
def test_what_nobody_knows_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        list(points(_lines(text)))


def test_a_lone_user_waits_for_his_steps_alone() -> None:
    point = next(points(_lines(line(users=1))))
    costs = XpuStepCosts(
        load_system(
            "dgx-h100",
            ["devices=1", "nccl=h100", "workload.outside=true", "workload.model=llama-3.1-8b"],
        ).config
    )
    tpot_ms, ttft_ms = served_ms(point)
    decode_ms = costs.cost(Anchor(1, 68).step(1)).time_ps / 1e9
    prompt_ms = costs.cost(Anchor(0, 0, 64).step(1)).time_ps / 1e9
    assert tpot_ms == pytest.approx(decode_ms, rel=0.01)
    assert ttft_ms == pytest.approx(prompt_ms, rel=0.01)


@pytest.mark.parametrize(("engine", "share"), [("vllm", 0.9), ("sglang", 0.88), ("trtllm", 1.0)])
def test_the_cache_is_what_the_engine_takes(engine: str, share: float) -> None:
    server = gpu_serving._Server(next(points(_lines(line(engine=engine)))))
    config = load_system("dgx-h100", ["devices=1"]).config
    weights = 8.03e9 * 2
    free = share * config.xpu.memory_capacity - weights
    if engine == "trtllm":
        free *= 0.9
    assert server.blocks == pytest.approx(free / (16 * 32 * 2 * 8 * 128 * 2), rel=0.01)


def test_groups_are_of_ten_rows_of_a_model_on_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Served:
        def __init__(self, point: Point) -> None:
            self.server = point.server

        def served(self, point: Point) -> tuple[float, float]:
            assert point.server == self.server
            return point.tpot_ms * 1.1, 7.0

    monkeypatch.setattr(gpu_serving, "_Server", Served)
    (tmp_path / "gpu").mkdir()
    lines = [line(users=users, tp=tp) for users in range(1, 6) for tp in (1, 2)]
    few = [line(precision="fp8")]
    (tmp_path / "gpu" / "serving.csv").write_text(COLUMNS + "".join(lines + few))
    found = list(rows(References(tmp_path, tmp_path)))
    groups = [row.group for row in found if row.metric == "tpot_ms"]
    assert groups.count("servers.bf16_llama-3.1-8b_h100_vllm") == 10
    assert groups.count("servers.bf16_vllm") == 10
    assert len(groups) == 20
    assert sum(row.group == "servers.ttft" and row.ours == 7 for row in found) == 11
    assert list(rows(References(tmp_path, None))) == []


def test_a_server_of_many_rows_is_sampled_from_end_to_end() -> None:
    own = [next(points(_lines(line(users=users)))) for users in range(1, 41)]
    found = gpu_serving._spread(own)
    assert len(found) == 12
    assert found == sorted(set(found))
    assert found[0] == own[0]
    assert found[-1].users >= 37
    assert gpu_serving._spread(own[:5]) == own[:5]


def test_power_is_told_in_points_of_the_tdp(tmp_path: Path) -> None:
    (tmp_path / "gpu").mkdir()
    (tmp_path / "gpu" / "splitwise_measured.csv").write_text(
        "model,hardware,tensor_parallel,prompt_size,batch_size,token_size,prompt_ms,token_ms,"
        "avg_power,peak_power,n\n"
        "llama2-70b,a100-80gb,8,512,2,128,1,1,0.5,0.9,5\n"
        "llama2-70b,a100-80gb,8,512,2,128,1,1,0,0,5\n"
        "llama2-70b,h100-80gb,8,512,2,128,1,1,0,0,5\n"
        "bloom-176b,a100-80gb,8,512,2,128,1,1,0.5,0.9,5\n"
    )
    found = list(gpu_power.rows(References(tmp_path, tmp_path)))
    assert [row.group for row in found] == [
        "servers.power_a100_decode_tp8", "servers.power_a100_prefill_tp8",
    ]  # fmt: skip
    run = pimsim.run(
        "dgx-a100", model="llama-3.1-70b", requests="equal:512+64", batch=2,
        overrides=["nccl=a100"],
    )  # fmt: skip
    # without the tables beside the blocks
    watt = run.token_j["total"] * run.tokens / run.iteration_s / run.devices
    assert found[0].ours == pytest.approx(1 + watt / 400 - 0.5, abs=0.01)
    assert found[1].ours - 1 + 0.9 > watt / 400
    assert list(gpu_power.rows(References(tmp_path, None))) == []
