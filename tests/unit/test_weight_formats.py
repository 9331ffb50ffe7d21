"""``quantization_config``: the bytes that a checkpoint holds, by hand, or one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from pimsim.capture.export import export_trace
from pimsim.capture.loading import LoadedModel, load_model
from pimsim.capture.weight_formats import weight_format
from pimsim.config.errors import InputError
from pimsim.workload.stored_weights import WeightFormat
from pimsim.workload.trace import OperandRole, OperatorTrace

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
    "tie_word_embeddings": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MOE = LLAMA | {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False}


def loaded(folder: Path, config: dict[str, Any], quantisation: Any = None) -> LoadedModel:
    path = folder / "m.json"
    more = {} if quantisation is None else {"quantization_config": quantisation}
    path.write_text(json.dumps(config | more))
    return load_model(str(path), weights=False)


def traced(folder: Path, config: dict[str, Any], quantisation: Any = None) -> OperatorTrace:
    return export_trace(loaded(folder, config, quantisation)).trace


def weights(trace: OperatorTrace, operator: str) -> dict[str, tuple[str, dict[str, int]]]:
    """Type and bytes of an operator's weights by the end of their names, in decode."""
    phase = trace.phases["decode"]
    for operators in phase.blocks.values():
        for each in operators:
            if each.name == operator:
                return {
                    o.name.rpartition(".")[2]: (o.dtype, dict(o.bytes))
                    for o in each.operands if o.role is OperandRole.WEIGHT
                }  # fmt: skip
    raise AssertionError(operator)


def test_awq_packs_weights_and_zero_points_beside_scales(tmp_path: Path) -> None:
    trace = traced(tmp_path, LLAMA, AWQ)
    # 64 inputs x 64 outputs: half a byte each; two groups of 32 inputs, so 128 scales of 2 bytes
    assert weights(trace, "q") == {
        "weight": ("int4", {"1": 2048}), "scales": ("f16", {"1": 256}),
        "zero points": ("uint4", {"1": 64}),
    }  # fmt: skip
    # 96 inputs x 64 outputs: three groups
    assert weights(trace, "fc2") == {
        "weight": ("int4", {"1": 3072}), "scales": ("f16", {"1": 384}),
        "zero points": ("uint4", {"1": 96}),
    }  # fmt: skip
    assert weights(trace, "lm_head") == {"weight": ("bf16", {"1": 12800})}
    prefill = trace.phases["prefill"].blocks["decoder"]
    assert [o.bytes for o in next(x for x in prefill if x.name == "q").operands][:1] == [
        {"1": 2048}
    ]


def test_parameter_bytes_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    plain, packed = traced(tmp_path, LLAMA), traced(tmp_path, LLAMA, AWQ)
    # a block: q, proj 64 x 64, k, v 64 x 32, gate, up 64 x 96, fc2 96 x 64
    elements = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96
    saved = 2 * elements - (elements // 2 + elements // 32 * 2 + elements // 32 // 2)
    assert plain.facts.parameter_bytes - packed.facts.parameter_bytes == 2 * saved
    assert plain.facts.parameters == packed.facts.parameters


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"weight": 2048, "scales": 256}),
        ({"sym": False}, {"weight": 2048, "scales": 256, "zero points": 64}),
        ({"desc_act": True}, {"weight": 2048, "scales": 256, "group of each input": 256}),
        ({"bits": 8}, {"weight": 4096, "scales": 256}),
        ({"bits": 3}, {"weight": 1536, "scales": 256}),
        ({"group_size": -1}, {"weight": 2048, "scales": 128}),
        ({"group_size": 48}, {"weight": 2048, "scales": 256}),
    ],
)
def test_gptq(tmp_path: Path, change: dict[str, Any], expected: dict[str, int]) -> None:
    found = weights(traced(tmp_path, LLAMA, GPTQ | change), "q")
    assert {name: size["1"] for name, (_, size) in found.items()} == expected


def test_the_group_of_each_input_is_stored_and_not_of_each_output(tmp_path: Path) -> None:
    """96 inputs and 64 outputs: an int32 for each of the 96."""
    trace = traced(tmp_path, LLAMA, GPTQ | {"desc_act": True})
    assert weights(trace, "fc2")["group of each input"] == ("int32", {"1": 384})


def test_bytes_are_rounded_up() -> None:
    """7 x 3 elements of 3 bits are 63 bits; a scale and a zero point an output are 9 bits."""
    found = WeightFormat("int3", 3, 32, zero_bits=3).pieces(7, 3)
    assert found == {"": ("int3", 8), ".scales": ("f16", 6), ".zero points": ("uint3", 2)}


def test_parameter_bytes_of_experts_are_those_of_all_of_them(tmp_path: Path) -> None:
    plain, packed = traced(tmp_path, MOE), traced(tmp_path, MOE, AWQ)
    # a block: q, proj 64 x 64, k, v 64 x 32; of each of 4 experts gate, up 64 x 96, fc2 96 x 64
    elements = 2 * 64 * 64 + 2 * 64 * 32 + 4 * 3 * 64 * 96
    saved = 2 * elements - (elements // 2 + elements // 32 * 2 + elements // 32 // 2)
    assert plain.facts.parameter_bytes - packed.facts.parameter_bytes == 2 * saved


def test_the_output_layer_where_it_is_said(tmp_path: Path) -> None:
    trace = traced(tmp_path, LLAMA, GPTQ | {"lm_head": True})
    assert weights(trace, "lm_head")["weight"] == ("int4", {"1": 3200})
    less = traced(tmp_path, LLAMA, GPTQ).facts.parameter_bytes - trace.facts.parameter_bytes
    assert less == 2 * 6400 - 3200 - 400


def test_experts_but_not_their_router(tmp_path: Path) -> None:
    trace = traced(tmp_path, MOE, AWQ)
    assert weights(trace, "router") == {"weight": ("bf16", {"1": 512})}
    # gate and up, 64 x 192 an expert
    sizes = [size["E"] for _, size in weights(trace, "expert_fc1").values()]
    assert sizes == [6144, 768, 192]


def test_fp8_in_blocks_and_mxfp4_of_experts(tmp_path: Path) -> None:
    fp8 = {"quant_method": "fp8", "weight_block_size": [32, 64]}
    assert weights(traced(tmp_path, LLAMA, fp8), "gate") == {
        "weight": ("f8e4m3fn", {"1": 6144}), "scales": ("f32", {"1": 12}),
    }  # fmt: skip
    whole = weights(traced(tmp_path, LLAMA, {"quant_method": "fp8"}), "gate")
    assert whole["scales"] == ("f32", {"1": 4})
    trace = traced(tmp_path, MOE, {"quant_method": "mxfp4"})
    assert weights(trace, "q") == {"weight": ("bf16", {"1": 8192})}
    assert list(weights(trace, "expert_fc2").values()) == [
        ("f4e2m1", {"E": 3072}), ("f8e8m0", {"E": 192}),
    ]  # fmt: skip


def test_modules_that_are_kept(tmp_path: Path) -> None:
    kept = AWQ | {"modules_to_not_convert": ["self_attn", "model.layers.*.mlp.up_proj"]}
    trace = traced(tmp_path, LLAMA, kept)
    assert {name: next(iter(weights(trace, name).values()))[0] for name in ("q", "gate", "up")} == {
        "q": "bf16", "gate": "int4", "up": "bf16",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("awq", "quantization_config is 'awq', an object"),
        ({}, "quant_method is None; awq, gptq, fp8, mxfp4 are read"),
        ({"quant_method": "gtpq"}, "did you mean 'gptq'"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quant_method is 'bitsandbytes'"),
        (AWQ | {"bits": 5}, "quantization_config.bits is 5; 2, 3, 4, 8 are expected"),
        (AWQ | {"bits": True}, "bits is True"),
        ({"quant_method": "awq"}, "bits is None"),
        (AWQ | {"group_size": 0}, "group_size is 0"),
        (AWQ | {"group_size": 1.5}, "group_size is 1.5"),
        (AWQ | {"zero_point": 1}, "zero_point is 1; true or false"),
        (GPTQ | {"sym": "yes"}, "sym is 'yes'"),
        (GPTQ | {"dynamic": {"x": {"bits": 8}}}, "dynamic: bits that differ"),
        (AWQ | {"modules_to_not_convert": "lm_head"}, "a list of names"),
        (AWQ | {"modules_to_not_convert": ["model.layers.0.mlp"]}, "is of one block"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "two whole numbers"),
    ],
)
def test_wrong_values_are_named(section: Any, said: str) -> None:
    with pytest.raises(InputError) as refusal:
        weight_format("config.json", section)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_no_section_no_format() -> None:
    assert weight_format("config.json", None) is None


def test_sizes_that_a_class_makes_up_are_said(tmp_path: Path) -> None:
    assert loaded(tmp_path, LLAMA).notes == ()
    without = {key: value for key, value in LLAMA.items() if key != "intermediate_size"}
    assert loaded(tmp_path, without).notes == (
        "intermediate_size is not in the file; 11008, transformers' default of llama, is taken",
    )
    heads = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert loaded(tmp_path, heads).notes == ()  # as many as heads
    mistral = heads | {"model_type": "mistral", "num_attention_heads": 16}
    assert "num_key_value_heads is not in the file; 8," in loaded(tmp_path, mistral).notes[0]


def test_key_heads_that_do_not_divide_the_heads_are_refused(tmp_path: Path) -> None:
    config = LLAMA | {"hidden_size": 448, "num_attention_heads": 28, "num_key_value_heads": 5}
    with pytest.raises(InputError, match=r"num_attention_heads 28 is no multiple of .* 5"):
        loaded(tmp_path, config)
