"""Graphs of the exporters that people use, made once a run, against the export of the same folder.

Without onnxruntime-genai these are skipped and the run's last lines say that it was not tested;
``PIMSIM_EXPORTERS=required`` (as ``.ci/run`` sets it) makes that a failure.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
pytest.importorskip("onnx")

from tests.exporters.decoders import ARCHITECTURES, save_decoder
from tests.exporters.pairs import (
    _DOCS,
    BEGIN,
    END,
    Pair,
    build_pairs,
    compare,
    outcome,
    versions,
)
from tests.exporters.random_decoders import random_pairs
from tests.exporters.written import BUILDER
from tests.gpu_blocks import block_kernels, decode_step

from pimsim.config.errors import InputError
from pimsim.workload.degrees import trace_memory_bytes
from pimsim.workload.onnx_import.importing import import_onnx
from pimsim.workload.requests import Request
from pimsim.workload.step import Step
from pimsim.workload.trace import OperandRole, OperatorTrace

pytestmark = pytest.mark.filterwarnings("default")

PAIRS: list[Pair] = [
    ("llama", "fp32"), ("llama", "int4"), ("llama", "int4-16"), ("llama", "int4-asymmetric"),
    ("llama", "int4-qdq"), ("llama", "fp16-kv-int8"), ("llama", "fp16-kv-fp8"),
    ("llama", "fp32-kv-int4"), ("llama", "fp16-paged"), ("llama", "fp16-pruned"),
    ("llama-bias", "int4-dml"), ("qwen2", "fp16"), ("qwen2", "int4"), ("qwen3", "bf16"),
    ("qwen3", "int4-128"), ("mistral", "int8"), ("phi", "fp32"), ("phi3", "int4"),
    ("gemma2", "fp16"), ("granite", "int4-webgpu"), ("nemotron", "int4-mixed"),
    ("hunyuan", "fp32-unpacked"), ("ernie", "int4-gate-up"), ("smollm3-rope", "int4-cuda"),
    ("gpt-oss", "fp16"), ("gpt-oss", "int4"), ("olmo", "int4"), ("mistral-window", "fp16"),
    ("smollm3", "int4-dml"),
]  # fmt: skip
"""What CI bears: each architecture and each precision at least once."""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graphs, and the folders that they were made from; one worker makes them for all."""
    needed = ("onnxruntime_genai", "torch", "transformers")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        say = f"exporters not tested: {', '.join(absent)} not installed (extra 'exporters')"
        if os.environ.get("PIMSIM_EXPORTERS") == "required":
            pytest.fail(say)
        pytest.skip(say)
    base = tmp_path_factory.getbasetemp()
    base = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    out = base / "exported"
    with (base / "exported.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = out / "problems.json"
        if not done.is_file():
            out.mkdir(exist_ok=True)
            problems = build_pairs(out, [*PAIRS, *random_pairs(out)])
            done.write_text(json.dumps({":".join(k): v for k, v in problems.items()}))
    problems = json.loads(done.read_text())
    assert not any(problems.values()), problems
    return out


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_a_graph_is_the_export_of_its_folder(exported: Path, name: str, precision: str) -> None:
    row = {"model": name, "exporter": "onnxruntime-genai", "precision": precision, "problem": ""}
    found = outcome(exported, row)
    assert found["state"] == "equal", found["reason"]


@pytest.mark.parametrize(("name", "precision"), [(n, p) for n, p in PAIRS if n in BUILDER])
def test_what_the_builder_writes_otherwise_is_read_from_the_graph(
    exported: Path, name: str, precision: str
) -> None:
    """The trace is that of the graph, which is not the folder's: see ``written``."""
    graph = exported / f"{name}_{precision}" / "model.onnx"
    assert compare(graph, exported / name, precision)
    assert BUILDER[name].why
    blocks = import_onnx(graph).trace.phases["decode"].blocks
    operators = [each for block in blocks.values() for each in block]
    if name == "mistral-window":
        assert {each.window for each in operators} == {None}
    if name == "olmo":
        norms = [each for each in operators if each.kind == "norm"]
        assert {each.function for each in norms} == {"rmsnorm"}
        assert {each.bytes_of(OperandRole.WEIGHT, write=False)["1"] for each in norms} == {128 * 4}
    if name == "smollm3":
        decoders = [b for kind, b in blocks.items() if kind not in ("embed", "head")]
        assert all(any(each.kind == "rope" for each in block) for block in decoders)


def test_random_decoders_are_the_export_of_their_folders(exported: Path) -> None:
    for graph in sorted(exported.glob("random-*_*/model.onnx")):
        name, precision = graph.parent.name.split("_")
        assert compare(graph, exported / name, precision) == [], graph


def read(exported: Path, pair: str) -> OperatorTrace:
    return import_onnx(exported / pair / "model.onnx").trace


@pytest.mark.parametrize(
    ("pair", "bits", "group", "scale_bytes", "zeros"),
    [
        ("llama_int4", 4, 32, 4, False), ("llama_int4-16", 4, 16, 4, False),
        ("llama_int4-asymmetric", 4, 32, 4, True), ("mistral_int8", 8, 32, 4, False),
        ("qwen3_int4-128", 4, 128, 4, False),
    ],
)  # fmt: skip
def test_bytes_are_those_of_the_format(
    exported: Path, pair: str, bits: int, group: int, scale_bytes: int, zeros: bool
) -> None:
    """N rows of ceil(K / g) blocks: elements, a scale, and where it is not symmetric a zero."""
    trace = read(exported, pair)
    products = 0
    for kind in ("decoder", "head"):
        for operator in trace.phases["decode"].blocks[kind]:
            if operator.kind != "gemm":
                continue
            products += 1
            blocks = -(-operator.k // group)
            row = blocks * group * bits // 8 + blocks * scale_bytes
            row += -(-blocks * bits // 8) if zeros else 0
            assert operator.bytes_of(OperandRole.WEIGHT, write=False) == {"1": operator.n * row}
    assert products == 8


def test_experts_in_4_bits_are_counted_by_expert(exported: Path) -> None:
    """128 features, 2 x 256 gate and up, blocks of 32, a bias of float32 each."""
    for pair, weight in (("gpt-oss_int4", 4 / 8 + 4 / 32), ("gpt-oss_fp16", 2)):
        trace = read(exported, pair)
        block = trace.phases["decode"].blocks[next(iter(trace.phases["decode"].blocks))]
        first = next(o for o in block if o.name == "expert_fc1")
        bias = 4 if pair.endswith("int4") else 2
        assert first.bytes_of(OperandRole.WEIGHT, write=False) == {
            "E": 512 * 128 * weight + 512 * bias
        }
        assert (trace.facts.experts, trace.facts.experts_per_token) == (4, 2)
        assert first.m == {"A": 1}


@pytest.mark.parametrize("pair", ["llama_int4", "llama_fp32-kv-int4", "gemma2_fp16"])
def test_a_server_of_gpus_moves_the_bytes_of_the_graph(exported: Path, pair: str) -> None:
    step = decode_step(read(exported, pair), batch=3, context=90, devices=1)
    of_kind = {block.kind: block.operators for block in step.blocks}
    for block in block_kernels(step, fused_gate=False):
        operators, attention = of_kind[block.kind], block.attention
        products = [product for _, product in (*block.projections, *block.ffn)]
        weights = sum(o.weight_bytes for o in operators if o.kind == "gemm")
        cached = sum(o.kv_read_bytes for o in operators)
        assert sum(each.stored_bytes for each in products) == weights
        assert attention.score.stored_bytes + attention.value.stored_bytes == cached


def test_parameters_do_not_depend_on_the_format(exported: Path) -> None:
    counts = {read(exported, f"llama_{p}").facts.parameters for p in ("fp32", "int4", "int4-qdq")}
    folder = exported / "llama"
    assert counts == {tensor_elements(folder / "model.safetensors")}


def tensor_elements(path: Path) -> int:
    """Numbers in a safetensors file, from its header."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    total = 0
    for name, each in header.items():
        if name != "__metadata__":
            size = 1
            for dim in each["shape"]:
                size *= dim
            total += size
    return total


@pytest.mark.parametrize("name", ["llama", "phi", "qwen2"])
def test_memory_at_any_degree_is_that_of_the_export(exported: Path, name: str) -> None:
    from pimsim.capture.export import export_trace
    from pimsim.capture.loading import load_model

    precision, size = {"llama": ("fp32", 4), "phi": ("fp32", 4), "qwen2": ("fp16", 2)}[name]
    graph = read(exported, f"{name}_{precision}")
    export = export_trace(load_model(str(exported / name), weights=False)).trace
    assert export.facts.dtype_bytes == 4
    requests = [Request(at, 0, 30 + at, 1, 0) for at in range(3)]
    for tp in (1, 2, 4):
        for pp in (1, 2):
            ours = trace_memory_bytes(graph, Step.decode(requests), tp, pp)
            theirs = trace_memory_bytes(export, Step.decode(requests), tp, pp)
            assert [4 * each for each in ours] == [size * each for each in theirs], (tp, pp)


def test_the_table_of_the_docs_was_made_with_these_exporters(exported: Path) -> None:
    text = _DOCS.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]
    rows = {tuple(line.split(" | ")[:2]): line for line in text.splitlines() if "|" in line}
    for name, precision in PAIRS:
        row = rows[f"| {name}", "onnxruntime-genai"]
        assert precision in row.split(" | ")[2].split(", "), (name, precision)
    for name in ("onnxruntime-genai", "torch", "transformers"):
        assert f"{name} {versions()[name]}" in text, f"{name}: make the table again"


def torch_graph(folder: Path, name: str, cache: bool, graph: Path, **changes: Any) -> None:
    """The graph that torch writes of a decoder, whose folder is made where it is not there."""
    pytest.importorskip("onnxscript")
    import torch
    import transformers
    from tests.exporters.torch_dynamo import export_decoder

    if not folder.is_dir():
        kind, values = ARCHITECTURES[name]
        save_decoder(folder, kind, values | changes)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )
    export_decoder(model, graph, cache=cache)


@pytest.mark.parametrize(
    ("name", "cache"), [("gemma2", False), ("gpt-oss", True), ("qwen2-moe", False)]
)
def test_a_graph_of_torch_is_the_export_of_its_folder(
    exported: Path, tmp_path: Path, name: str, cache: bool
) -> None:
    """Windows that differ by block; experts and sinks; experts and a shared one."""
    folder = exported / name if (exported / name).is_dir() else tmp_path / name
    torch_graph(folder, name, cache, tmp_path / "model.onnx")
    assert compare(tmp_path / "model.onnx", folder, "f32", longest=False) == []


def test_latent_attention_of_a_graph_is_refused_by_name(exported: Path, tmp_path: Path) -> None:
    torch_graph(
        tmp_path / "model", "deepseek-v3", False, tmp_path / "model.onnx", num_hidden_layers=1
    )
    with pytest.raises(InputError) as caught:
        import_onnx(tmp_path / "model.onnx")
    assert "block 0: latent attention (MLA): the " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("pair", ["llama_fp32", "phi_fp32"])
def test_dynamic_quantisation_is_read(
    exported: Path, tmp_path: Path, pair: str, per_channel: bool
) -> None:
    """onnxruntime's own quantiser: ``DynamicQuantizeLinear``, ``MatMulInteger``, scales."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    path = tmp_path / "model.onnx"
    quantization.quantize_dynamic(
        str(exported / pair / "model.onnx"), str(path), per_channel=per_channel,
        weight_type=quantization.QuantType.QInt8,
    )  # fmt: skip
    assert compare(path, exported / pair.split("_")[0], "int8 dynamic") == []
    products = [
        o for o in import_onnx(path).trace.phases["decode"].blocks["decoder"] if o.kind == "gemm"
    ]
    for operator in products:
        weight, *rest = [o for o in operator.operands if o.role is OperandRole.WEIGHT]
        assert (weight.dtype, weight.bytes) == ("int8", {"1": operator.n * operator.k})
        assert {o.name.rpartition(".")[2] for o in rest} >= {"scales"}


@pytest.mark.parametrize(
    ("pair", "dtype", "bits"),
    [
        ("llama_fp16-kv-int8", "int8", 8), ("llama_fp16-kv-fp8", "f8e4m3fn", 8),
        ("llama_fp32-kv-int4", "int4", 4), ("qwen3_bf16", "bf16", 16),
    ],
)  # fmt: skip
def test_the_cache_has_its_own_type(exported: Path, pair: str, dtype: str, bits: int) -> None:
    trace = read(exported, pair)
    heads, dim = trace.facts.kv_heads, 64 if pair.startswith("qwen3") else 32
    assert trace.facts.kv_bytes_per_token == trace.facts.layers * 2 * heads * dim * bits // 8
    for operator in trace.phases["decode"].blocks["decoder"]:
        kinds = {o.dtype for o in operator.operands if o.role is OperandRole.KV}
        assert kinds <= {dtype}


@pytest.mark.parametrize(
    ("pair", "count", "path"),
    [
        ("llama_int4", 11, "int8"), ("llama_int4-asymmetric", 11, "int8"),
        ("smollm3-rope_int4-cuda", 16, "f16"), ("nemotron_int4-mixed", 9, "int8"),
    ],
)  # fmt: skip
def test_onnxruntime_computes_with_the_numbers_that_we_read(
    exported: Path, pair: str, count: int, path: str
) -> None:
    pytest.importorskip("onnxruntime")
    from pimsim.reference.graph_products import product_errors
    from pimsim.reference.limits import load_limits, products_over_limit

    found = product_errors(exported / pair / "model.onnx")
    assert [each.datapath for each in found] == [path] * count
    assert products_over_limit(load_limits(), found) == []


@pytest.mark.parametrize("slip", ["order", "zero", "scale"])
def test_another_reading_of_the_format_would_show(exported: Path, slip: str) -> None:
    pytest.importorskip("onnxruntime")
    from pimsim.reference import graph_products
    from pimsim.reference.limits import load_limits, products_over_limit

    right = graph_products.packed_matrix

    def wrong(data: Any, scales: Any, zeros: Any, bits: int, block: int, depth: int) -> Any:
        if slip == "order":
            data = (data >> 4) | (data << 4)
        if slip == "scale":
            scales = scales.reshape(-1)[::-1].reshape(scales.shape)
        found = right(data, scales, zeros, bits, block, depth)
        return found + scales.reshape(-1)[0] if slip == "zero" else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_products, "packed_matrix", wrong)
        found = graph_products.product_errors(exported / "llama_int4" / "model.onnx")
    assert products_over_limit(load_limits(), found)
