"""The suite of measured GPU kernels: which lines become which rows, and ours by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.hardware.xpu.experts import Experts, experts_s
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.hardware.xpu.tiling import Product
from pimsim.validate import gpu_kernels as gpu_kernels_suite
from pimsim.validate.gpu import decoding_ms, rows
from pimsim.validate.gpu_kernels import xpu_of
from pimsim.validate.gpu_loads import balanced_loads, device_loads, drawn_loads
from pimsim.validate.judge import judge, verdict_of
from pimsim.validate.types import References
from pimsim.workload.cards import load_card
from pimsim.workload.decode import card_pass
from pimsim.workload.draws import RandomStream
from pimsim.workload.operators import OperatorKind
from pimsim.workload.requests import Request
from pimsim.workload.step import Step

ATTENTION = (
    "device,version,phase,batch_size,isl,step,num_heads,num_key_value_heads,head_dim,latency_us\n"
)
GEMM = "m,n,k,device,version,latency_us\n"
EXPERTS = (
    "device,version,num_tokens,hidden_size,inter_size,topk,num_experts,moe_ep_size,distribution,"
    "latency_us\n"
)
CHUNKS = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n"
DENSE = "layer,tokens,time_us\n"
STATIC = "model,system,backend,mode,isl,osl,batch,tp,db,ttft_ms,tpot_ms,gen_ms,mem_gb\n"
PROFILE = "rtx4090_llama31_8b_profile"


def references(
    folder: Path, attention: str = "", gemm: str = "", chunks: str = "", dense: str = "",
    experts: str = "", static: str = "",
) -> References:  # fmt: skip
    (folder / "gpu" / PROFILE).mkdir(parents=True)
    for name, text in {
        "attention_bf16.csv": ATTENTION + attention,
        "gemm_bf16.csv": GEMM + gemm,
        "moe_bf16.csv": EXPERTS + experts,
        "aiconfigurator_static.csv": STATIC + static,
        f"{PROFILE}/attention.csv": CHUNKS + chunks,
        f"{PROFILE}/dense.csv": DENSE + dense,
    }.items():
        (folder / "gpu" / name).write_text(text)
    return References(folder, folder)


def test_rows_calibrate_or_test(tmp_path: Path) -> None:
    found = references(
        tmp_path,
        "a100_sxm,1,generation,1,1,1023,8,8,128,10.9\n"
        "a100_sxm,1,generation,1,1,1024,8,8,128,10.9\n"
        "h200_sxm,1,context,1,2048,0,8,8,128,90\n"
        "h200_sxm,1,context,1,2049,0,8,8,128,90\n",
        gemm="512,4096,4096,b200_sxm,1,9\n128,4096,4096,b200_sxm,1,9\n",
        experts="h100_sxm,0.24.0,128,2048,768,8,128,1,balanced,9\n"
        "h100_sxm,0.24.0,129,2048,768,8,128,1,balanced,9\n",
        chunks="0,0,1,16,9.3\n16,0,0,0,9.5\n16,112,0,0,9.5\n16,112,1,16,9.7\n",
        dense="act_fn,2,3\nqkv_proj,2048,500\ndown_proj,2,120\n",
    )
    groups = [row.group for row in rows(found)]
    assert groups == [
        "gpu.gemm_b200_calibration", "gpu.gemm_b200",
        "gpu.gemm_rtx4090_calibration", "gpu.gemm_rtx4090",
        "gpu.generation_a100_calibration", "gpu.generation_a100",
        "gpu.context_h200_calibration", "gpu.context_h200",
        "gpu.generation_rtx4090_calibration", "gpu.context_rtx4090_calibration",
        "gpu.context_rtx4090", "gpu.experts_h100_calibration", "gpu.experts_h100",
    ]  # fmt: skip
    verdicts = {each.group: verdict_of(each) for each in judge(rows(found))}
    assert verdicts["gpu.gemm_b200_calibration"] == "reported"
    assert verdicts["gpu.gemm_b200"] in ("ok", "FAILED")


def test_ours_is_the_model_of_that_device(tmp_path: Path) -> None:
    found = references(
        tmp_path,
        gemm="128,4096,2048,b200_sxm,1,9\n",
        experts="h200_sxm,0.24.0,4,2048,768,2,8,2,balanced,9\n",
    )
    product, experts = rows(found)
    b200, h200 = xpu_of("b200"), xpu_of("h200")
    work = Product(128, 4096, 2048)
    assert product.ours == pytest.approx(1e6 * gpu_kernels(b200).product(work, b200).time_s)
    # the four experts of the first device get one token each: 0 4, 1 5, 2 6, 3 7
    share = Experts(4, [1, 1, 1, 1], 2, 2048, 768)
    assert experts.ours == pytest.approx(1e6 * experts_s(share, h200))


def test_decoding_has_its_output_layer(tmp_path: Path) -> None:
    line = "meta-llama/Meta-Llama-3.1-8B,h100_sxm,vllm,{},64,4,2,1,{},,6,5,4\n"
    text = line.format("static_gen", "SILICON") + line.format("static_gen", "SOL")
    found = references(tmp_path, static=text + line.format("static_ctx", "SILICON"))
    [row] = rows(found)
    assert (row.group, row.case, row.reference) == (
        "gpu.decoding", "dgx-h100/llama-3-8b/tp1/64+4/2", 6.0,
    )  # fmt: skip
    assert row.ours == decoding_ms("dgx-h100", "llama-3-8b", 2, 64, 4, 1)
    h100 = xpu_of("h100")
    head = gpu_kernels(h100).product(Product(2, 128256, 4096), h100)
    assert row.ours > 1e3 * head.time_s


def test_balanced_loads_by_hand() -> None:
    """Eight experts, two each: token i takes i and i + 4; one token alone 0 and 4."""
    assert balanced_loads(5, 8, 2).tolist() == [2, 1, 1, 1, 2, 1, 1, 1]
    assert balanced_loads(1, 8, 2).tolist() == [1, 0, 0, 0, 1, 0, 0, 0]
    # two of four places: tokens at 0 and 2
    assert balanced_loads(2, 8, 2).tolist() == [1, 0, 1, 0, 1, 0, 1, 0]


@pytest.mark.parametrize("tokens", [1, 3, 16, 1000])
@pytest.mark.parametrize("alpha", [1.01, 1.2])
def test_drawn_loads_add_up(tokens: int, alpha: float) -> None:
    for turns in (1, 8):
        loads = drawn_loads(tokens, 128, 8, alpha, turns, RandomStream(3))
        assert loads.sum() == tokens * 8
        assert (loads.min() >= 0, loads.max() <= tokens) == (True, True)


def test_the_rest_goes_to_the_devices_in_turns() -> None:
    """One token draws nothing that rounds to one: all eight are dealt."""
    alone = drawn_loads(1, 128, 8, 1.01, 1, RandomStream(0))
    spread = drawn_loads(1, 128, 8, 1.01, 8, RandomStream(0))
    assert alone.reshape(8, 16).sum(axis=1).tolist() == [8, 0, 0, 0, 0, 0, 0, 0]
    assert spread.reshape(8, 16).sum(axis=1).tolist() == [1] * 8
    assert [each.sum() for each in device_loads("power_law_1.01", 1, 128, 8, 8, "0.14.0")] == [
        8
    ] * 5
    assert [each.sum() for each in device_loads("power_law_1.01", 1, 128, 8, 8, "0.24.0")] == [
        1
    ] * 5


def test_without_the_folder_there_are_no_rows(tmp_path: Path) -> None:
    assert list(rows(References(tmp_path, None))) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a100,1,context,1,64,0,8,8,128,5", r"csv:2: device: unknown 'a100'; did you mean"),
        ("a100_sxm,1,contxt,1,64,0,8,8,128,5", r"csv:2: phase: unknown 'contxt'; did you mean"),
        ("a100_sxm,1,context,1,x,0,8,8,128,5", r"csv:2: isl: a whole number is expected"),
        ("a100_sxm,1,context,1,64,0,8,8,128,fast", r"csv:2: latency_us: a number is expected"),
        ("a100_sxm,1,context,1,64,0,8,8,128,5us", r"csv:2: latency_us: a number is expected"),
        ("a100_sxm,1,context,1,64,0,8,8,128", r"csv:2: 10 fields are expected"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(rows(references(tmp_path, f"{line}\n")))


@pytest.mark.parametrize("name", ["even", "power_law_x", "power_law_1"])
def test_a_distribution_that_is_none(tmp_path: Path, name: str) -> None:
    text = f"h100_sxm,0.24.0,128,2048,768,8,128,1,{name},9\n"
    with pytest.raises(InputError, match="distribution: found"):
        list(rows(references(tmp_path, experts=text)))


def test_products_of_the_measured_profile_are_its_models() -> None:
    """Llama 3.1 8B's on one device, as the card has them."""
    request = Request(0, 0.0, 9, 1, 0)
    block = card_pass(load_card("llama-3-8b"), Step.decode([request]), tp=1, layers=1).blocks[0]
    sizes = {o.name: (o.n, o.k) for o in block.operators if o.kind is OperatorKind.GEMM}
    assert {
        "qkv_proj": sizes["qkv"], "o_proj": sizes["proj"], "gate_up_proj": sizes["fc1"],
        "down_proj": sizes["fc2"],
    } == gpu_kernels_suite._LLAMA_PRODUCTS  # fmt: skip
    score = next(o for o in block.operators if o.kind is OperatorKind.ATTENTION_SCORE)
    assert (score.heads, score.kv_heads, score.head_dim) == gpu_kernels_suite._LLAMA_HEADS
