"""Configs as people have them: another's architecture, text models inside, sizes by block, GGUF."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
gguf = pytest.importorskip("gguf")

from pimsim.capture.export import export_trace  # noqa: E402
from pimsim.capture.gguf_config import config_of  # noqa: E402
from pimsim.capture.hf_config import decoder_config, longest_context  # noqa: E402
from pimsim.capture.loading import _defaults, load_model  # noqa: E402
from pimsim.capture.missing_features import GGUF_TYPES, MODEL_TYPES, Missing  # noqa: E402
from pimsim.capture.unlike_blocks import MOST_LAYERS, MOST_SIZE, _deci  # noqa: E402
from pimsim.config.errors import InputError  # noqa: E402
from pimsim.workload.agreement import disagreements  # noqa: E402
from pimsim.workload.degrees import trace_degrees  # noqa: E402
from pimsim.workload.pipeline import Room  # noqa: E402
from pimsim.workload.requests import Request  # noqa: E402
from pimsim.workload.step import Step  # noqa: E402
from pimsim.workload.trace import OperatorTrace  # noqa: E402

TEXT: dict[str, Any] = {
    "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
    "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 4096, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
LATENT = {key: value for key, value in TEXT.items() if key != "head_dim"} | {
    "moe_intermediate_size": 128, "n_shared_experts": 1, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "first_k_dense_replace": 1, "kv_lora_rank": 64, "q_lora_rank": 96,
    "qk_rope_head_dim": 16, "v_head_dim": 32, "qk_nope_head_dim": 32, "n_group": 1,
    "topk_group": 1, "num_key_value_heads": 8,
}  # fmt: skip
MROPE = {"rope_scaling": {"type": "mrope", "mrope_section": [8, 4, 4]}}


def traced(folder: Path, config: dict[str, Any], name: str = "m") -> OperatorTrace:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(config))
    return export_trace(load_model(str(path))).trace


@pytest.mark.parametrize(
    ("config", "plain"),
    [
        (LATENT | {"model_type": "kimi_k2"}, LATENT | {"model_type": "deepseek_v3"}),
        (
            {
                "model_type": "qwen3_vl", "vision_config": {"depth": 2},
                "text_config": TEXT | MROPE | {"model_type": "qwen3_vl_text"},
            },
            TEXT | {"model_type": "qwen3"},
        ),
        (TEXT | MROPE | {"model_type": "qwen2_5_vl"}, TEXT | {"model_type": "qwen2"}),
        (
            {"model_type": "internvl_chat", "llm_config": TEXT | {"model_type": "qwen2"}},
            TEXT | {"model_type": "qwen2"},
        ),
        (
            {"model_type": "llava", "text_config": TEXT | {"model_type": "mistral"}},
            TEXT | {"model_type": "mistral"},
        ),
    ],
)  # fmt: skip
def test_a_type_that_is_anothers_gives_its_trace(
    config: dict[str, Any], plain: dict[str, Any], tmp_path: Path
) -> None:
    found, expected = traced(tmp_path, config), traced(tmp_path, plain)
    assert found.facts == expected.facts
    assert found.phases == expected.phases


def attention_of(trace: OperatorTrace) -> list[tuple[int, int]]:
    phase = trace.phases["decode"]
    scores = {
        kind: next((o.heads, o.kv_heads) for o in block if o.kind == "attention_score")
        for kind, block in phase.blocks.items()
        if any(o.kind == "attention_score" for o in block)
    }
    return [scores[kind] for kind in phase.sequence()]


def test_openelm_is_read_block_by_block(tmp_path: Path) -> None:
    config = {
        "model_type": "openelm", "vocab_size": 1000, "model_dim": 256, "head_dim": 32,
        "num_transformer_layers": 3, "num_query_heads": [4, 4, 8], "num_kv_heads": [1, 1, 2],
        "ffn_multipliers": [0.5, 1.0, 4.0], "ffn_dim_divisor": 64, "max_context_length": 2048,
        "share_input_output_layers": True,
    }  # fmt: skip
    trace = traced(tmp_path, config)
    assert attention_of(trace) == [(4, 1), (4, 1), (8, 2)]
    # a table, and by block: q and o, k and v, three products of the FFN, two norms, two of heads
    blocks = [
        2 * 256 * 32 * q + 2 * 256 * 32 * k + 3 * 256 * f + 2 * 256 + 2 * 32
        for q, k, f in ((4, 1, 128), (4, 1, 256), (8, 2, 1024))
    ]
    assert trace.facts.parameters == 1000 * 256 + 256 + sum(blocks)
    assert trace.facts.kv_bytes_per_token == 2 * 2 * 32 * (1 + 1 + 2)
    assert trace.facts.max_context == 2048
    requests = [Request(0, 0.0, 10, 1, 0)]
    assert trace_degrees(trace, Step.decode(requests), 4, 1, Room(2**30)).tp == 4
    with pytest.raises(InputError, match="tp 8"):
        trace_degrees(trace, Step.decode(requests), 8, 1, Room(2**30))


def test_nemotrons_blocks(tmp_path: Path) -> None:
    def block(group: int | None, factor: float | None) -> dict[str, Any]:
        return {
            "attention": {"n_heads_in_group": group, "no_op": group is None},
            "ffn": {"ffn_mult": factor, "no_op": factor is None},
        }

    config = TEXT | {"model_type": "nemotron-nas", "num_key_value_heads": None}
    config |= {"intermediate_size": None, "block_configs": [block(4, 2.0), block(8, 1.0)]}
    trace = traced(tmp_path, config)
    assert attention_of(trace) == [(8, 2), (8, 1)]
    fc1 = [
        next(o.n for o in trace.phases["decode"].blocks[kind] if o.group == "fc1")
        for kind in trace.phases["decode"].sequence()
    ]
    # 2/3 of the factor's width, up to a multiple of 256: 341.3 and 170.7
    assert fc1[0] in (512, 1024) and fc1[1] in (256, 512)
    assert fc1[0] == 2 * fc1[1]
    for odd, words in ((block(None, 1.0), "no attention"), (block(4, None), "no feed-forward")):
        with pytest.raises(InputError, match=rf"block_configs\[1\]: a block with {words}"):
            traced(tmp_path, config | {"block_configs": [block(4, 2.0), odd]})


def test_key_heads_as_a_list_are_those_of_blocks(tmp_path: Path) -> None:
    own = TEXT | {"model_type": "llama", "num_key_value_heads": [4, 1]}
    assert attention_of(traced(tmp_path, own)) == [(8, 4), (8, 1)]
    alike = TEXT | {"model_type": "llama", "num_key_value_heads": [2, 2]}
    plain = TEXT | {"model_type": "llama"}
    assert traced(tmp_path, alike).phases == traced(tmp_path, plain).phases
    deci = TEXT | {"model_type": "deci", "num_key_value_heads_per_layer": [4, 1]}
    assert attention_of(traced(tmp_path, deci)) == [(8, 4), (8, 1)]


MISSING = {
    "qwen3_next": ({}, "gated delta"),
    "falcon_h1": ({}, "Mamba"),
    "granitemoehybrid": ({"layer_types": ["mamba", "attention"]}, "Mamba"),
    "nemotron_h": ({"hybrid_override_pattern": "M-*"}, "Mamba"),
    "gemma4_text": ({}, "heads of another width"),
    "gemma3n_text": ({"num_kv_shared_layers": 1}, "KV caches that blocks share"),
    "deepseek_v32": ({"index_topk": 2048}, "indexer"),
    "llama4_text": ({}, "chunked attention"),
    "mllama_text_model": ({"cross_attention_layers": [1]}, "cross-attention"),
    "minimax": ({}, "lightning attention"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "short convolutions"),
    "t5": ({"is_encoder_decoder": True}, "an encoder"),
}


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("llama4", "llama4_text", "llama4_text has chunked attention"),
        ("gemma4", "gemma4_text", "gemma4_text has heads of another width in blocks with full"),
        ("gemma3n", "gemma3n_text", "gemma3n_text has KV caches that blocks share"),
        ("qwen3_5", "qwen3_5_text", "qwen3_5_text has gated delta blocks"),
    ],
)
def test_a_text_model_inside_another_is_refused_by_its_feature(
    kind: str, text: str, words: str
) -> None:
    section = TEXT | {"model_type": text} | ({"num_kv_shared_layers": 15} if "3n" in text else {})
    with pytest.raises(InputError) as caught:
        decoder_config("c.json", {"model_type": kind, "text_config": section, "vision_config": {}})
    assert f"c.json: {words}" in str(caught.value)
    assert str(caught.value).endswith("; not supported") and "\n" not in str(caught.value)


def test_features_have_one_name_each_however_they_are_found() -> None:
    """Types of configs and of GGUF files name features of the one table, and none that is read."""
    assert set(MODEL_TYPES.values()) | set(GGUF_TYPES.values()) <= set(Missing)
    for name, feature in GGUF_TYPES.items():
        with pytest.raises(InputError) as caught:
            config_of("m.gguf", {"general.architecture": name}, {})
        assert str(caught.value) == f"m.gguf: {name} has {feature}; not supported"
    for name, feature in MODEL_TYPES.items():
        for kind in (name, f"{name}_text"):
            with pytest.raises(InputError) as caught:
                decoder_config("c.json", TEXT | {"model_type": kind})
            assert str(caught.value) == f"c.json: {kind} has {feature}; not supported"
    # the same decoder under both names has the same feature
    for config, gguf in (("falcon_h1", "falcon-h1"), ("granitemoehybrid", "granitehybrid"),
                         ("qwen3_next", "qwen3next"), ("qwen3_5_moe", "qwen35moe"),
                         ("kimi_linear", "kimi-linear"), ("glm_moe_dsa", "glm-dsa")):  # fmt: skip
        assert MODEL_TYPES[config] is GGUF_TYPES[gguf]
    for name in set(MODEL_TYPES) & set(GGUF_TYPES):
        assert MODEL_TYPES[name] is GGUF_TYPES[name]


@pytest.mark.parametrize("kind", MISSING)
def test_what_is_not_simulated_is_refused_by_its_name(kind: str) -> None:
    more, words = MISSING[kind]
    with pytest.raises(InputError) as caught:
        decoder_config("c.json", TEXT | more | {"model_type": kind})
    assert words in str(caught.value)
    assert str(caught.value).endswith("; not supported")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"hidden_size": "x"}, "hidden_size is 'x'; a whole number of 1 to 100,000,000"),
        ({"hidden_size": 1.5}, "hidden_size is 1.5"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"hidden_size": [1]}, "hidden_size is a list"),
        ({"hidden_size": math.nan}, "hidden_size is no finite number"),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": 2**70}, "hidden_size is 1180591620717411303424"),
        ({"hidden_size": 3, "head_dim": None, "num_attention_heads": 4}, "no multiple of"),
        ({"num_key_value_heads": 5}, "8 is no multiple of num_key_value_heads 5"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"num_hidden_layers": 10**9}, "1 to 10,000"),
        ({"max_position_embeddings": 0}, "max_position_embeddings is 0"),
        ({"tie_word_embeddings": 0}, "tie_word_embeddings is 0; true or false"),
        ({"num_local_experts": 2, "num_experts_per_tok": 3}, "num_experts_per_tok 3 of 2"),
        ({"num_key_value_heads": [2]}, "one for each of 2 blocks"),
        ({"num_key_value_heads": [2, 0]}, "one for each of 2 blocks"),
        ({"num_key_value_heads": [2, 3]}, "block 1: 8 heads are no multiple of 3"),
        ({"model_type": 7}, "model_type is 7"),
        ({"text_config": 7}, "text_config is int, an object is expected"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        decoder_config("c.json", {"model_type": "llama"} | TEXT | change)
    assert expected in str(caught.value)


class Config:
    """Attributes, as a config of transformers has them."""

    model_type = "llama"

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"max_position_embeddings": 4096, "n_positions": 1024}, 1024),
        ({"max_position_embeddings": 4096, "model_max_length": 8192}, 8192),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4}}, 16384),
        (
            {
                "max_position_embeddings": 4096,
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0},
            },
            8192,
        ),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 4}}, 4096),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"rope_type": "llama3", "factor": 8.0},
            },
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_parameters": {"rope_type": "longrope", "factor": 32.0},
            },
            4096,
        ),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 131072,
                "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0}},
            },
            131072,
        ),
        ({}, 2048),
    ],
)
def test_the_longest_context_is_a_servers(values: dict[str, Any], expected: int) -> None:
    found, note = longest_context(Config(**values))
    assert found == expected
    assert (note is None) == bool(values)


def written(path: Path, arch: str, values: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """A file of llama.cpp's own writer."""
    import numpy as np

    writer = gguf.GGUFWriter(path, arch)
    for key, value in values.items():
        name = f"{arch}.{key}"
        if isinstance(value, list):
            writer.add_array(name, value)
        else:
            writer.add_uint32(name, value)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


GGUF = {
    "block_count": 2, "embedding_length": 256, "feed_forward_length": 512,
    "attention.head_count": 8, "attention.head_count_kv": 2, "context_length": 4096,
    "attention.key_length": 32,
}  # fmt: skip
TENSORS = {"token_embd.weight": (1000, 256), "output.weight": (1000, 256)}


def test_a_gguf_gives_the_trace_of_its_config(tmp_path: Path) -> None:
    path = written(tmp_path / "m.gguf", "qwen3", GGUF, TENSORS)
    found = export_trace(load_model(str(path), weights=False)).trace
    expected = traced(tmp_path, TEXT | {"model_type": "qwen3"})
    assert found.phases == expected.phases
    assert found.facts == expected.facts
    assert not list(disagreements(found, expected))


def test_arrays_and_absent_key_lengths_of_a_gguf(tmp_path: Path) -> None:
    values = {key: value for key, value in GGUF.items() if key != "attention.key_length"}
    values |= {"attention.head_count_kv": [4, 1], "feed_forward_length": [512, 256]}
    path = written(tmp_path / "m.gguf", "llama", values, TENSORS)
    trace = export_trace(load_model(str(path))).trace
    assert attention_of(trace) == [(8, 4), (8, 1)]
    assert trace.facts.kv_bytes_per_token == 2 * 2 * 32 * (4 + 1)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"general.architecture": "qwen3next"}, "qwen3next has gated delta blocks"),
        ({"general.architecture": "falcon-h1"}, "Mamba"),
        ({"general.architecture": "lama"}, "did you mean 'llama'?"),
        ({"general.architecture": "llama"}, "llama.block_count is missing"),
        ({}, "general.architecture is missing"),
        (
            {"general.architecture": "deepseek2"}
            | {f"deepseek2.{key}": value for key, value in GGUF.items()},
            "deepseek2.rope.dimension_count is None",
        ),
    ],
)
def test_a_gguf_that_is_not_read_says_why(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        config_of("m.gguf", fields, {"token_embd.weight": [256, 1000]})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("said", "size"), [("bfloat16", 2), ("float16", 2), ("float32", 4), (None, 2)]
)
def test_weights_are_bfloat16_where_a_config_does_not_say(
    said: str | None, size: int, tmp_path: Path
) -> None:
    config = {key: value for key, value in TEXT.items() if key != "torch_dtype"}
    config |= {"model_type": "llama"} | ({} if said is None else {"torch_dtype": said})
    assert traced(tmp_path, config).facts.dtype_bytes == size


def test_numbers_of_a_config_have_a_most(tmp_path: Path) -> None:
    """The most is taken for a number, one more is not."""
    most = {
        "num_hidden_layers": MOST_LAYERS, "hidden_size": MOST_SIZE, "num_attention_heads": 100_000,
        "intermediate_size": MOST_SIZE,
    }  # fmt: skip
    deci = TEXT | {"num_key_value_heads_per_layer": [1, 1]}
    for key, value in most.items():
        said = rf"{key} is {value + 1}; a whole number of 1 to {value:,} is expected"
        with pytest.raises(InputError, match=said):
            _deci("c", deci | {key: value + 1})
    for key in ("hidden_size", "num_attention_heads", "intermediate_size"):
        assert _deci("c", deci | {key: most[key]})


def test_sizes_that_a_file_leaves_to_its_class_are_said() -> None:
    """But for heads of keys that are as many as those of queries, as every class has them."""

    class Made:
        attribute_map: ClassVar[dict[str, str]] = {"hidden_size": "n_embd"}

        def to_dict(self) -> dict[str, Any]:
            return {
                "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
                "vocab_size": 100, "num_experts": None,
            }  # fmt: skip

    said = _defaults("made", {"n_embd": 64, "num_attention_heads": 4}, Made())
    assert [each.split()[0] for each in said] == ["hidden_size", "vocab_size"]
    said = _defaults("made", {"hidden_size": 64, "vocab_size": 100}, Made())
    assert [each.split()[0] for each in said] == ["num_attention_heads"]
