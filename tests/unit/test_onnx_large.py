"""A graph with a 70B model's shapes and no weights at hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper

from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.onnx_import.importing import import_onnx

LAYERS, HIDDEN, HEADS, KEYS, DIM, FFN, VOCAB = 80, 8192, 64, 8, 128, 28672, 128256
F, BLOCK = TensorProto.FLOAT16, 32


def external(name: str, kind: int, *shape: int) -> Any:
    """An initializer whose data lie in a file that is not there."""
    tensor = TensorProto(name=name, data_type=kind, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "model.onnx.data"
    return tensor


def large_graph() -> Any:
    """As the builder writes Llama-3-70B in 4 bits: packed queries, keys and values, two products
    beside each other, sums inside of norms."""
    nodes: list[Any] = []
    weights = [external("embed", F, VOCAB, HIDDEN), external("cos", F, 8192, DIM // 2)]
    value = helper.make_tensor_value_info
    inputs = [value("input_ids", 7, ["batch", "seq"]), value("attention_mask", 7, ["batch", "all"])]

    def product(name: str, source: str, n: int, k: int) -> str:
        weights.append(external(f"{name}.q", TensorProto.UINT8, n, k // BLOCK, BLOCK // 2))
        weights.append(external(f"{name}.s", F, n, k // BLOCK))
        nodes.append(helper.make_node(
            "MatMulNBits", [source, f"{name}.q", f"{name}.s"], [name], domain="com.microsoft",
            N=n, K=k, bits=4, block_size=BLOCK,
        ))  # fmt: skip
        return name

    def norm(name: str, stream: str, added: str) -> str:
        weights.append(external(f"{name}.w", F, HIDDEN))
        nodes.append(helper.make_node(
            "SkipSimplifiedLayerNormalization", [stream, added, f"{name}.w"],
            [name, "", "", f"{name}.sum"], domain="com.microsoft",
        ))  # fmt: skip
        return name

    nodes.append(helper.make_node("Gather", ["embed", "input_ids"], ["x"]))
    weights.append(external("first.w", F, HIDDEN))
    nodes.append(helper.make_node("SimplifiedLayerNormalization", ["x", "first.w"], ["first"]))
    normed, stream = "first", "x"
    for at in range(LAYERS):
        qkv = product(f"{at}.qkv", normed, (HEADS + 2 * KEYS) * DIM, HIDDEN)
        pasts = [f"past_key_values.{at}.{kind}" for kind in ("key", "value")]
        inputs += [value(each, F, ["batch", KEYS, "past", DIM]) for each in pasts]
        nodes.append(helper.make_node(
            "GroupQueryAttention", [qkv, "", "", *pasts, "", "", "cos", "cos"],
            [f"{at}.a", f"{at}.pk", f"{at}.pv"], domain="com.microsoft", num_heads=HEADS,
            kv_num_heads=KEYS, do_rotary=1,
        ))  # fmt: skip
        proj = product(f"{at}.o", f"{at}.a", HIDDEN, HEADS * DIM)
        normed, stream = norm(f"{at}.ln2", stream, proj), f"{at}.ln2.sum"
        gate = product(f"{at}.gate", normed, FFN, HIDDEN)
        up = product(f"{at}.up", normed, FFN, HIDDEN)
        nodes.append(helper.make_node("Sigmoid", [gate], [f"{at}.s"]))
        nodes.append(helper.make_node("Mul", [gate, f"{at}.s"], [f"{at}.act"]))
        nodes.append(helper.make_node("Mul", [f"{at}.act", up], [f"{at}.gated"]))
        down = product(f"{at}.down", f"{at}.gated", HIDDEN, FFN)
        normed, stream = norm(f"{at}.next", stream, down), f"{at}.next.sum"
    product("logits", normed, VOCAB, HIDDEN)
    graph = helper.make_graph(nodes, "decoder", inputs, [value("logits", F, None)], weights)
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph alone in a folder."""
    path = tmp_path_factory.mktemp("large") / "llama.onnx"
    path.write_bytes(large_graph().SerializeToString())
    return path


def test_it_is_the_card(path: Path) -> None:
    facts = import_onnx(path).trace.facts
    card = card_trace(load_card("llama-3-70b")).facts
    assert facts.parameters == card.parameters
    assert (facts.layers, facts.heads, facts.kv_heads) == (LAYERS, HEADS, KEYS)
    assert facts.max_context == 8192
    # 4 bits and a scale of 16 a block of 32, but for table and gains
    table, gains = VOCAB * HIDDEN, (2 * LAYERS + 1) * HIDDEN
    packed = facts.parameters - table - gains
    assert facts.parameter_bytes == packed // 2 + packed // 16 + 2 * (table + gains)
    assert facts.kv_bytes_per_token == 2 * 2 * KEYS * DIM * LAYERS


def test_it_takes_no_memory(path: Path) -> None:
    """Peak of a process that reads it: 500 MB would be a hundredth of the weights."""
    code = (
        "import sys; from pathlib import Path\n"
        "from pimsim.workload.onnx_import.importing import import_onnx\n"
        "import_onnx(Path(sys.argv[1]))\n"
        # ru_maxrss of a child starts at its parent's
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(each.split()[1] for each in lines if each.startswith('VmHWM')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 500_000
