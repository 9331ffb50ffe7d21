"""Graphs of two exporters, and what is no decoder's graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.workload.agreement import disagreements
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard
from pimsim.workload.onnx_import.importing import import_onnx
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import dump_trace, load_trace

onnx = pytest.importorskip("onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

F, I = TensorProto.FLOAT16, TensorProto.INT64  # noqa: E741
HIDDEN, HEADS, KEYS, DIM, FFN, VOCAB, LAYERS = 64, 4, 2, 16, 96, 120, 2

CARD = ModelCard.model_validate(
    {
        "name": "tiny", "source": "made up", "layers": LAYERS, "hidden": HIDDEN, "heads": HEADS,
        "kv_heads": KEYS, "head_dim": DIM, "ffn_hidden": FFN, "ffn_gated": True,
        "activation": "silu", "norm": "rmsnorm", "bias": False, "rope": True, "vocab": VOCAB,
        "tied_embeddings": False, "max_context": 512, "dtype_bytes": 2, "kv_dtype_bytes": 2,
    }
)  # fmt: skip


def weight(name: str, *shape: int) -> Any:
    return numpy_helper.from_array(np.zeros(shape, dtype=np.float16), name)


def genai_model(extra: list[Any] | None = None, window: int = -1) -> Any:
    """As onnxruntime-genai's model builder writes it: fused norms, attention and rotary positions,
    a KV cache among inputs and outputs."""
    nodes, weights = [], [weight("embed", VOCAB, HIDDEN)]
    inputs = [
        helper.make_tensor_value_info("input_ids", I, ["batch", "seq"]),
        helper.make_tensor_value_info("attention_mask", I, ["batch", "total"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", F, None)]
    nodes.append(helper.make_node("Gather", ["embed", "input_ids"], ["x0"], name="/embed"))
    x = "x0"

    def product(name: str, source: str, n: int, k: int, layer: int) -> str:
        weights.append(weight(f"model.layers.{layer}.{name}.weight", k, n))
        out = f"{name}{layer}"
        nodes.append(
            helper.make_node(
                "MatMul", [source, f"model.layers.{layer}.{name}.weight"], [out],
                name=f"/model/layers.{layer}/{name}/MatMul",
            )
        )  # fmt: skip
        return out

    def norm(name: str, source: str, skip: str | None) -> tuple[str, str]:
        weights.append(weight(f"{name}.weight", HIDDEN))
        if skip is None:
            nodes.append(
                helper.make_node(
                    "SimplifiedLayerNormalization", [source, f"{name}.weight"], [f"{name}.out"],
                    name=f"/{name}",
                )
            )  # fmt: skip
            return f"{name}.out", source
        nodes.append(
            helper.make_node(
                "SkipSimplifiedLayerNormalization", [source, skip, f"{name}.weight"],
                [f"{name}.out", "", "", f"{name}.sum"], domain="com.microsoft", name=f"/{name}",
            )
        )  # fmt: skip
        return f"{name}.out", f"{name}.sum"

    added: str | None = None
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        h, x = norm(f"{prefix}.input_layernorm", x, added)
        q = product("q_proj", h, HEADS * DIM, HIDDEN, layer)
        k = product("k_proj", h, KEYS * DIM, HIDDEN, layer)
        v = product("v_proj", h, KEYS * DIM, HIDDEN, layer)
        for kind in ("key", "value"):
            shape = ["batch", KEYS, "past", DIM]
            inputs.append(
                helper.make_tensor_value_info(f"past_key_values.{layer}.{kind}", F, shape)
            )
            outputs.append(helper.make_tensor_value_info(f"present.{layer}.{kind}", F, None))
        nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [q, k, v, f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"],
                [f"attn{layer}", f"present.{layer}.key", f"present.{layer}.value"],
                domain="com.microsoft", num_heads=HEADS, kv_num_heads=KEYS, do_rotary=1,
                local_window_size=window, name=f"/{prefix}/attn/GroupQueryAttention",
            )
        )  # fmt: skip
        o = product("o_proj", f"attn{layer}", HIDDEN, HEADS * DIM, layer)
        h, x = norm(f"{prefix}.post_attention_layernorm", x, o)
        gate = product("gate_proj", h, FFN, HIDDEN, layer)
        up = product("up_proj", h, FFN, HIDDEN, layer)
        nodes.append(helper.make_node("Sigmoid", [gate], [f"s{layer}"], name=f"/{prefix}/act"))
        nodes.append(helper.make_node("Mul", [gate, f"s{layer}"], [f"a{layer}"]))
        nodes.append(helper.make_node("Mul", [f"a{layer}", up], [f"g{layer}"]))
        added = product("down_proj", f"g{layer}", HIDDEN, FFN, layer)
    h, _ = norm("model.norm", x, added)
    weights.append(weight("lm_head.weight", HIDDEN, VOCAB))
    nodes.append(helper.make_node("MatMul", [h, "lm_head.weight"], ["logits"], name="/lm_head"))
    nodes += extra or []
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, producer_name="onnxruntime-genai")


def saved(tmp_path: Path, model: Any) -> Path:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("window", [-1, 64])
def test_a_fused_graph_is_the_card(tmp_path: Path, window: int) -> None:
    found = import_onnx(saved(tmp_path, genai_model(window=window)))
    assert found.unknown == ()
    values = CARD.model_dump() | ({"window": {"size": window}} if window > 0 else {})
    card = ModelCard.model_validate(values)
    assert [str(each) for each in disagreements(card_trace(card), found.trace)] == []
    assert "onnxruntime-genai" in found.trace.source
    facts = found.trace.facts
    assert (facts.layers, facts.heads, facts.kv_heads) == (LAYERS, HEADS, KEYS)


@pytest.mark.parametrize(
    ("kind", "factor", "flops"), [("Mul", 12.0, {"T": HIDDEN}), ("Mul", 1.0, {}), ("Div", 1.0, {})]
)
def test_a_factor_of_one_behind_the_table_computes_nothing(
    tmp_path: Path, kind: str, factor: float, flops: dict[str, int]
) -> None:
    model = genai_model()
    table = model.graph.node[0]
    table.output[0] = "rows"
    scaled = helper.make_node(kind, ["rows", "factor"], ["x0"], name="/scale")
    model.graph.node.insert(1, scaled)
    model.graph.initializer.append(numpy_helper.from_array(np.array(factor, np.float16), "factor"))
    found = import_onnx(saved(tmp_path, model))
    assert found.unknown == ()
    [embed] = found.trace.phases["decode"].blocks["embed"]
    assert embed.flops == flops


def test_an_imported_trace_can_be_written_read_and_run(tmp_path: Path) -> None:
    found = import_onnx(saved(tmp_path, genai_model()))
    path = tmp_path / "tiny.json"
    path.write_text(dump_trace(found.trace))
    assert load_trace(path) == found.trace
    result = pimsim.run("npu-only", trace=path, batch=2)
    assert result.tokens_per_s > 0


def test_a_torch_export_is_what_watching_the_model_gives(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("onnxscript")
    import warnings

    from pimsim.capture.export import export_trace
    from pimsim.capture.loading import LoadedModel

    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KEYS, max_position_embeddings=256,
    )  # fmt: skip
    config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(config).eval()

    class Logits(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any) -> Any:
            return self.model(input_ids=input_ids, use_cache=False).logits

    path = tmp_path / "tiny.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ids = torch.randint(0, VOCAB, (2, 9))
        program = torch.onnx.export(
            Logits(), (ids,), dynamo=True, input_names=["input_ids"], verbose=False,
            dynamic_shapes={"input_ids": {0: "batch", 1: "seq"}},
        )  # fmt: skip
        program.save(str(path))
        watched = export_trace(LoadedModel("tiny", model, False, "test")).trace
    found = import_onnx(path)
    assert found.unknown == ()
    assert [str(each) for each in disagreements(watched, found.trace)] == []
    assert "decode is its work for one token" in found.trace.source


def test_operators_that_are_not_known_are_listed(tmp_path: Path) -> None:
    extra = [
        helper.make_node("Tan", ["attn0"], ["t0"], name="odd"),
        helper.make_node("Mystery", ["attn1"], ["t1"], domain="acme", name="odder"),
    ]
    found = import_onnx(saved(tmp_path, genai_model(extra)))
    assert {(each.name, each.op_type, each.domain) for each in found.unknown} == {
        ("odd", "Tan", "ai.onnx"), ("odder", "Mystery", "acme"),
    }  # fmt: skip


def external(location: str) -> Any:
    model = genai_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return model


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../b", "link"])
def test_external_data_cannot_leave_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="outside of the file's folder"):
        import_onnx(saved(tmp_path, external(location)))


def test_external_data_are_not_needed(tmp_path: Path) -> None:
    assert import_onnx(saved(tmp_path, external("weights.bin"))).unknown == ()


def cyclic() -> Any:
    model = genai_model()
    model.graph.node[1].input[0] = "logits"
    return model


def fixed() -> Any:
    model = genai_model()
    dim = model.graph.input[0].type.tensor_type.shape.dim[1]
    dim.ClearField("dim_param")
    dim.dim_value = 8
    return model


def nameless() -> Any:
    model = genai_model()
    model.graph.input[0].name = "pixels"
    model.graph.node[0].input[1] = "pixels"
    return model


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (cyclic, "the graph has a cycle or is not sorted"),
        (fixed, "its number of tokens is fixed (8)"),
        (nameless, "no decoder: none of its inputs"),
    ],
)
def test_what_is_no_decoders_graph_is_refused(tmp_path: Path, make: Any, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        import_onnx(saved(tmp_path, make()))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, genai_model())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="truncated"):
        import_onnx(path)
    path.write_text("not a model")
    with pytest.raises(InputError, match="no ONNX model"):
        import_onnx(path)
    with pytest.raises(InputError, match="no such file"):
        import_onnx(tmp_path / "none.onnx")


def test_kinds_of_operators(tmp_path: Path) -> None:
    trace = import_onnx(saved(tmp_path, genai_model())).trace
    kinds = {o.kind for o in trace.phases["decode"].blocks["decoder"]}
    assert {OperatorKind.KV_APPEND, OperatorKind.ROPE, OperatorKind.ATTENTION_VALUE} <= kinds
