"""Sizes that a graph's operators say by attributes and packed tensors, by hand: products in few
bits, tables, mixtures of experts, and attention with all that goes into it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from onnx import TensorProto, helper, numpy_helper
from test_onnx_import import (
    CARD,
    DIM,
    FFN,
    HEADS,
    HIDDEN,
    KEYS,
    LAYERS,
    VOCAB,
    genai_model,
    saved,
    weight,
)

from pimsim.workload.agreement import disagreements
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard
from pimsim.workload.decode import card_pass
from pimsim.workload.instantiate import instantiate
from pimsim.workload.onnx_import.importing import import_onnx
from pimsim.workload.requests import Request
from pimsim.workload.step import Step
from pimsim.workload.trace import OperandRole, OperatorTrace, SymbolicOperator

MS = "com.microsoft"
HALF, BYTE = np.float16, np.uint8
PARAMETERS = card_trace(CARD).facts.parameters


def array(name: str, dtype: Any, *shape: int) -> Any:
    return numpy_helper.from_array(np.ones(shape, dtype=dtype), name)


def maker_of(model: Any, name: str) -> Any:
    return next(each for each in model.graph.node if name in each.output)


def replaced(model: Any, out: str, *nodes: Any, weights: list[Any]) -> None:
    """Other nodes in the place of the one that makes ``out``."""
    old = maker_of(model, out)
    at = list(model.graph.node).index(old)
    model.graph.node.remove(old)
    for number, node in enumerate(nodes):
        model.graph.node.insert(at + number, node)
    known = {each.name for each in model.graph.initializer}
    model.graph.initializer.extend([each for each in weights if each.name not in known])
    used = {name for each in model.graph.node for name in each.input}
    for each in [each for each in model.graph.initializer if each.name not in used]:
        model.graph.initializer.remove(each)


def imported(tmp_path: Path, model: Any) -> OperatorTrace:
    found = import_onnx(saved(tmp_path, model))
    assert found.unknown == ()
    return found.trace


def operator(trace: OperatorTrace, name: str, block: str = "decoder") -> SymbolicOperator:
    return next(o for o in trace.phases["decode"].blocks[block] if o.name == name)


def stored(found: SymbolicOperator) -> list[tuple[str, dict[str, int]]]:
    """Type and bytes of each of an operator's weights."""
    return [(o.dtype, dict(o.bytes)) for o in found.operands if o.role is OperandRole.WEIGHT]


@pytest.mark.parametrize("tp", [1, 2])
def test_a_device_has_what_it_has_of_the_card(tmp_path: Path, tp: int) -> None:
    """Columns and rows are cut alike: half of each product's weights, and its partial sums."""
    trace = imported(tmp_path, genai_model())
    requests = [Request(at, 0.0, 10 + at, 4, 2) for at in range(3)]
    ours = instantiate(trace, Step.decode(requests), tp=tp).blocks[0]
    card = card_pass(CARD, Step.decode(requests), tp=tp).blocks[0]
    for one in ours.operators:
        other = card.operator(one.name)
        assert one.weight_bytes == other.weight_bytes, one.name
        assert (one.m, one.n, one.k, one.flops) == (other.m, other.n, other.k, other.flops)
        assert (one.kv_read_bytes, one.kv_write_bytes) == (
            other.kv_read_bytes, other.kv_write_bytes
        )  # fmt: skip
    assert {o.name for o in ours.operators} == {o.name for o in card.operators}
    down = ours.operator("fc2")
    assert (down.n, down.k, down.weight_bytes) == (HIDDEN, FFN // tp, 2 * HIDDEN * FFN // tp)


@pytest.mark.parametrize(
    ("bits", "zeros", "data", "zero"),
    [(4, True, 3 * 16, 2), (4, False, 3 * 16, 0), (2, True, 3 * 8, 1), (8, True, 3 * 32, 3)],
)
def test_products_in_few_bits(tmp_path: Path, bits: int, zeros: bool, data: int, zero: int) -> None:
    """64 outputs of 96 inputs, three blocks of 32 with a scale each; zero points of an output are
    packed into whole bytes; a bias of 64."""
    model = genai_model()
    for at in range(LAYERS):
        names = [f"packed_{each}{at}" for each in ("q", "s", "z", "b")]
        weights = [
            array(names[0], BYTE, HIDDEN, 3, bits * 4), array(names[1], HALF, HIDDEN * 3),
            array(names[2], BYTE, HIDDEN * zero), array(names[3], HALF, HIDDEN),
        ]  # fmt: skip
        node = helper.make_node(
            "MatMulNBits",
            [f"g{at}", names[0], names[1], names[2] if zeros else "", "", names[3]],
            [f"down_proj{at}"], domain=MS, N=HIDDEN, K=FFN, bits=bits, block_size=32,
        )  # fmt: skip
        replaced(model, f"down_proj{at}", node, weights=weights)
    trace = imported(tmp_path, model)
    down = operator(trace, "fc2")
    expected = [(f"int{bits}", {"1": HIDDEN * data}), ("f16", {"1": HIDDEN * 3 * 2})]
    expected += [("uint8", {"1": HIDDEN * zero})] if zeros else []
    assert stored(down) == [*expected, ("f16", {"1": HIDDEN * 2})]
    # partial sums of all devices have the bias added once
    assert [o.whole for o in down.operands if o.role is OperandRole.WEIGHT][-1] is True
    assert trace.facts.parameters == PARAMETERS + LAYERS * HIDDEN
    kept = HIDDEN * (data + 3 * 2 + (zero if zeros else 0) + 2)
    plain = 2 * (PARAMETERS - LAYERS * HIDDEN * FFN)
    assert trace.facts.parameter_bytes == plain + LAYERS * kept


def test_a_dequantised_weight_has_a_scale_and_half_a_byte_of_zero_point(tmp_path: Path) -> None:
    """96 x 64 elements of 4 bits; one scale of 16 bits; one zero point of 4, which takes a byte."""
    model = genai_model()
    for at in range(LAYERS):
        whole = helper.make_tensor(
            f"packed_q{at}", TensorProto.INT4, [FFN, HIDDEN], [1] * FFN * HIDDEN
        )
        zero = helper.make_tensor(f"packed_z{at}", TensorProto.INT4, [], [1])
        nodes = [
            helper.make_node(
                "DequantizeLinear", [f"packed_q{at}", f"packed_s{at}", f"packed_z{at}"], [f"w{at}"]
            ),
            helper.make_node("MatMul", [f"g{at}", f"w{at}"], [f"down_proj{at}"]),
        ]
        replaced(
            model, f"down_proj{at}", *nodes, weights=[whole, zero, array(f"packed_s{at}", HALF)]
        )  # fmt: skip
    model.opset_import[0].version = 21
    trace = imported(tmp_path, model)
    assert stored(operator(trace, "fc2")) == [
        ("int4", {"1": FFN * HIDDEN // 2}), ("f16", {"1": 2}), ("int4", {"1": 1}),
    ]  # fmt: skip
    assert trace.facts.parameters == PARAMETERS


def test_products_of_whole_numbers(tmp_path: Path) -> None:
    """As onnxruntime quantises dynamically, by channel: a byte a weight, a zero point and a scale
    of 32 bits an output."""
    model = genai_model()
    for at in range(LAYERS):
        rows, scaled = [f"x{at}.{name}" for name in ("q", "s", "z")], f"x{at}.scaled"
        nodes = [
            helper.make_node("Cast", [f"g{at}"], [f"f{at}"], to=TensorProto.FLOAT),
            helper.make_node("DynamicQuantizeLinear", [f"f{at}"], rows),
            helper.make_node(
                "MatMulInteger", [rows[0], f"packed_q{at}", rows[2], f"packed_z{at}"], [f"i{at}"]
            ),
            helper.make_node("Cast", [f"i{at}"], [f"c{at}"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [rows[1], f"packed_s{at}"], [scaled]),
            helper.make_node("Mul", [f"c{at}", scaled], [f"m{at}"]),
            helper.make_node("Cast", [f"m{at}"], [f"down_proj{at}"], to=TensorProto.FLOAT16),
        ]
        weights = [
            array(f"packed_q{at}", np.int8, FFN, HIDDEN), array(f"packed_z{at}", np.int8, HIDDEN),
            array(f"packed_s{at}", np.float32, HIDDEN),
        ]  # fmt: skip
        replaced(model, f"down_proj{at}", *nodes, weights=weights)
    trace = imported(tmp_path, model)
    assert stored(operator(trace, "fc2")) == [
        ("int8", {"1": FFN * HIDDEN}), ("int8", {"1": HIDDEN}), ("f32", {"1": 4 * HIDDEN}),
    ]  # fmt: skip
    assert trace.facts.parameters == PARAMETERS


@pytest.mark.parametrize("said", [{"bits": 4}, {}])
def test_a_table_in_4_bits(tmp_path: Path, said: dict[str, int]) -> None:
    """A row of 64: 32 bytes, two scales of 16 bits, a byte with two zero points. 4 bits are meant
    where the node does not say how many."""
    model = genai_model()
    node = helper.make_node(
        "GatherBlockQuantized", ["q", "input_ids", "s", "z"], ["x0"], domain=MS,
        block_size=32, gather_axis=0, quantize_axis=1, **said,
    )  # fmt: skip
    weights = [
        array("q", BYTE, VOCAB, HIDDEN // 2), array("s", HALF, VOCAB, 2), array("z", BYTE, VOCAB, 1)
    ]  # fmt: skip
    replaced(model, "x0", node, weights=weights)
    trace = imported(tmp_path, model)
    assert stored(operator(trace, "embed", "embed")) == [
        ("int4", {"T": 32}), ("f16", {"T": 4}), ("uint8", {"T": 1}),
    ]  # fmt: skip
    assert (trace.facts.vocab, trace.facts.parameters) == (VOCAB, PARAMETERS)


def test_a_table_that_is_the_output_layer_too_counts_once(tmp_path: Path) -> None:
    model = genai_model()
    nodes = [
        helper.make_node("Transpose", ["embed"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["model.norm.out", "turned"], ["logits"]),
    ]
    replaced(model, "logits", *nodes, weights=[])
    card = ModelCard.model_validate(CARD.model_dump() | {"tied_embeddings": True})
    trace = imported(tmp_path, model)
    assert trace.facts.parameters == card_trace(card).facts.parameters
    assert trace.facts.parameters == PARAMETERS - VOCAB * HIDDEN


EXPERTS, WIDTH = 4, 32


def with_experts(kind: str, chosen: int, normalised: int, activation: str = "swiglu") -> Any:
    """The network of each block as a mixture: swiglu of 2 x 32 features, a bias in both products;
    QMoE in 4 bits with blocks of 32, scales and zero points."""
    model = genai_model()
    graph = model.graph
    for at in range(LAYERS):
        source = maker_of(model, f"gate_proj{at}").input[0]
        gone = {f"gate_proj{at}", f"up_proj{at}", f"s{at}", f"a{at}", f"g{at}"}
        for node in [each for each in graph.node if set(each.output) & gone]:
            graph.node.remove(node)
        names = {"router": weight(f"r{at}", HIDDEN, EXPERTS)}
        for number, (out, depth) in enumerate(((2 * WIDTH, HIDDEN), (HIDDEN, WIDTH)), 1):
            if kind == "MoE":
                names[f"w{number}"] = array(f"w{number}.{at}", HALF, EXPERTS, depth, out)
            else:
                blocks = depth // 32
                names[f"w{number}"] = array(f"w{number}.{at}", BYTE, EXPERTS, out, depth // 2)
                names[f"s{number}"] = array(f"s{number}.{at}", HALF, EXPERTS, out, blocks)
                names[f"z{number}"] = array(f"z{number}.{at}", BYTE, EXPERTS, out, 1)
            names[f"b{number}"] = array(f"b{number}.{at}", HALF, EXPERTS, out)
        order = ["w1", "b1", "w2", "b2"] if kind == "MoE" else [
            "w1", "s1", "b1", "w2", "s2", "b2", "", "", "", "z1", "z2",
        ]  # fmt: skip
        nodes = [
            helper.make_node("MatMul", [source, f"r{at}"], [f"scores{at}"]),
            helper.make_node(
                kind, [source, f"scores{at}", *(names[n].name if n else "" for n in order)],
                [f"down_proj{at}"], domain=MS, k=chosen, activation_type=activation,
                normalize_routing_weights=normalised,
            ),
        ]  # fmt: skip
        replaced(model, f"down_proj{at}", *nodes, weights=list(names.values()))
    return model


@pytest.mark.parametrize(("chosen", "normalised", "width"), [(2, 1, 2), (3, 1, 3), (2, 0, 4)])
@pytest.mark.parametrize("kind", ["MoE", "QMoE"])
def test_a_mixture_of_experts(
    tmp_path: Path, kind: str, chosen: int, normalised: int, width: int
) -> None:
    """Weights that add up to 1 are a softmax over the chosen, others one over all experts."""
    trace = imported(tmp_path, with_experts(kind, chosen, normalised))
    assert (trace.facts.experts, trace.facts.experts_per_token) == (EXPERTS, chosen)
    label = next(iter(trace.phases["decode"].blocks))
    route = operator(trace, "route", label)
    assert (route.width, route.function) == (width, "")
    one, two = operator(trace, "expert_fc1", label), operator(trace, "expert_fc2", label)
    assert (one.n, one.k, two.n, two.k) == (2 * WIDTH, HIDDEN, HIDDEN, WIDTH)
    assert one.m == two.m == {"A": 1}
    if kind == "MoE":
        assert stored(one) == [("f16", {"E": 2 * 64 * 64}), ("f16", {"E": 2 * 64})]
        assert stored(two) == [("f16", {"E": 2 * 64 * 32}), ("f16", {"E": 2 * 64})]
    else:
        assert stored(one) == [
            ("int4", {"E": 64 * 32}), ("f16", {"E": 64 * 4}), ("uint8", {"E": 64}),
            ("f16", {"E": 128}),
        ]  # fmt: skip
        assert stored(two) == [
            ("int4", {"E": 64 * 16}), ("f16", {"E": 64 * 2}), ("uint8", {"E": 64}),
            ("f16", {"E": 128}),
        ]  # fmt: skip
    network = EXPERTS * (64 * 64 + 64 + 64 * 32 + 64) + HIDDEN * EXPERTS
    assert trace.facts.parameters == PARAMETERS + LAYERS * (network - 3 * HIDDEN * FFN)


@pytest.mark.parametrize(
    ("activation", "function"),
    [("relu", "relu"), ("gelu", "gelu"), ("silu", "silu"), ("swiglu", "silu")],
)
def test_the_function_of_experts_is_that_of_their_node(
    tmp_path: Path, activation: str, function: str
) -> None:
    trace = imported(tmp_path, with_experts("MoE", 2, 1, activation))
    label = next(iter(trace.phases["decode"].blocks))
    assert operator(trace, "expert_act", label).function == function


@pytest.mark.parametrize("chosen", [1, 3])
def test_experts_whose_weights_are_gathered(tmp_path: Path, chosen: int) -> None:
    """As torch writes them: weights of the chosen of 4 experts, products, their weighted sum; how
    many there are follows from the rows of a product."""
    model = genai_model()
    axes = {"axis2": [2], "axis3": [3], "axes": [2, 3], "chosen": [chosen]}
    model.graph.initializer.extend(
        [numpy_helper.from_array(np.array(each), name) for name, each in axes.items()]
    )
    for at in range(LAYERS):
        source = maker_of(model, f"gate_proj{at}").input[0]
        gone = {f"gate_proj{at}", f"up_proj{at}", f"s{at}", f"a{at}", f"g{at}"}
        for node in [each for each in model.graph.node if set(each.output) & gone]:
            model.graph.node.remove(node)
        steps = [
            ("MatMul", [source, f"r{at}"], ["scores"]),
            ("Softmax", ["scores"], ["shares"]),
            ("TopK", ["shares", "chosen"], ["best", "which"]),
            ("Gather", [f"w1.{at}", "which"], ["first"]),
            ("Unsqueeze", [source, "axes"], ["token"]),
            ("MatMul", ["token", "first"], ["inner"]),
            ("Relu", ["inner"], ["active"]),
            ("Gather", [f"w2.{at}", "which"], ["second"]),
            ("MatMul", ["active", "second"], ["each"]),
            ("Squeeze", ["each", "axis3"], ["rows"]),
            ("Unsqueeze", ["best", "axis3"], ["factors"]),
            ("Mul", ["rows", "factors"], ["weighted"]),
            ("ReduceSum", ["weighted", "axis2"], [f"down_proj{at}"]),
        ]
        made = {name for _, _, outs in steps for name in outs} - {f"down_proj{at}"}
        nodes = [
            helper.make_node(
                kind, *([f"{n}{at}" if n in made else n for n in names] for names in (ins, outs)),
                **({"keepdims": 0} if kind == "ReduceSum" else {}),
            )
            for kind, ins, outs in steps
        ]  # fmt: skip
        weights = [
            weight(f"r{at}", HIDDEN, EXPERTS), weight(f"w1.{at}", EXPERTS, HIDDEN, WIDTH),
            weight(f"w2.{at}", EXPERTS, WIDTH, HIDDEN),
        ]  # fmt: skip
        replaced(model, f"down_proj{at}", *nodes, weights=weights)
    trace = imported(tmp_path, model)
    assert (trace.facts.experts, trace.facts.experts_per_token) == (EXPERTS, chosen)
    label = next(iter(trace.phases["decode"].blocks))
    one, two = operator(trace, "expert_fc1", label), operator(trace, "expert_fc2", label)
    assert (one.n, one.k, two.n, two.k) == (WIDTH, HIDDEN, HIDDEN, WIDTH)
    assert stored(one) == stored(two) == [("f16", {"E": 2 * HIDDEN * WIDTH})]
    assert operator(trace, "route", label).width == EXPERTS
    act = operator(trace, "expert_act", label)
    assert (act.rows, act.width, act.function) == ({"A": 1}, WIDTH, "relu")


def attending(**attributes: Any) -> tuple[Any, list[Any]]:
    """The model, and the nodes of its attention, given these attributes."""
    model = genai_model()
    nodes = [each for each in model.graph.node if each.op_type == "GroupQueryAttention"]
    for node in nodes:
        node.attribute.extend([helper.make_attribute(n, v) for n, v in attributes.items()])
    return model, nodes


def test_what_goes_into_attention(tmp_path: Path) -> None:
    """A table of 512 positions and 4 angles turns 8 of 16 features and is no parameter; a sink a
    head; norms of each query and key head."""
    model, nodes = attending()
    for at, node in enumerate(nodes):
        node.input.extend(
            ["", "", "cos", "sin", "", "", f"sinks{at}", "", "", f"qn{at}", f"kn{at}"]
        )
        model.graph.initializer.extend(
            [weight(f"sinks{at}", HEADS), weight(f"qn{at}", DIM), weight(f"kn{at}", DIM)]
        )
    model.graph.initializer.extend([weight("cos", 512, 4), weight("sin", 512, 4)])
    trace = imported(tmp_path, model)
    rope = operator(trace, "rope")
    assert (rope.width, rope.head_dim, rope.rows) == (8, DIM, {"T": HEADS + KEYS})
    assert stored(operator(trace, "softmax")) == [("f16", {"1": 2 * HEADS})]
    for name, heads in (("q_norm", HEADS), ("k_norm", KEYS)):
        norm = operator(trace, name)
        assert (norm.rows, norm.width) == ({"T": heads}, DIM)
        assert stored(norm) == [("f16", {"1": 2 * DIM})]
    assert trace.facts.max_context == 512
    assert trace.facts.parameters == PARAMETERS + LAYERS * (HEADS + 2 * DIM)


def test_a_cache_of_4_bits(tmp_path: Path) -> None:
    """2 key heads of 16 features: 16 bytes of keys a token, and as many of values."""
    model, _ = attending(kv_cache_bit_width=4)
    for each in model.graph.input:
        if each.name.startswith("past"):
            each.type.tensor_type.elem_type = TensorProto.UINT8
            each.type.tensor_type.shape.dim[3].dim_value = DIM // 2
    trace = imported(tmp_path, model)
    read = [operator(trace, name).bytes_of(OperandRole.KV, write=False)
            for name in ("score", "value")]  # fmt: skip
    assert read == [{"K": 16}, {"K": 16}]
    assert operator(trace, "kv_append").bytes_of(OperandRole.KV, write=True) == {"T": 32}
    assert trace.facts.kv_bytes_per_token == LAYERS * 32


def test_attention_of_onnx_says_its_heads_by_attributes(tmp_path: Path) -> None:
    model, nodes = attending()
    for at in range(len(nodes)):
        node = helper.make_node(
            "Attention", [f"q_proj{at}", f"k_proj{at}", f"v_proj{at}"], [f"attn{at}"],
            q_num_heads=HEADS, kv_num_heads=KEYS, is_causal=1,
        )  # fmt: skip
        replaced(model, f"attn{at}", node, weights=[])
    for values in (model.graph.input, model.graph.output):
        for each in [e for e in values if e.name.startswith(("past", "present"))]:
            values.remove(each)
    model.opset_import[0].version = 23
    card = ModelCard.model_validate(CARD.model_dump() | {"rope": False, "max_context": 1_000_000})
    trace = imported(tmp_path, model)
    compared = disagreements(card_trace(card), trace)
    # a card without rope looks positions up; a graph without a cache has no decode of its own
    found = [each for each in compared if each.phase == "prefill" and each.block != "embed"]
    assert [str(each) for each in found] == []
    assert (trace.facts.heads, trace.facts.kv_heads) == (HEADS, KEYS)


@pytest.mark.parametrize(
    ("kind", "window"),
    [
        ("key > query - 7", 7), ("key >= query - 7", 8), ("query - 7 < key", 7),
        ("query - 7 <= key", 8), ("query - key < 7", 7), ("query - key <= 7", 8),
        ("key + 7 > query", 7), ("key + 7 >= query", 8), ("key <= query", None),
    ],
)  # fmt: skip
def test_windows_of_a_mask(tmp_path: Path, kind: str, window: int | None) -> None:
    """A query sees itself and those before it: of key > query - 7, seven."""
    model, nodes = attending()
    left, order, right = [each.strip() for each in _split(kind)]
    made: list[Any] = []
    sides = [_side(each, made) for each in (left, right)]
    names = {">": "Greater", ">=": "GreaterOrEqual", "<": "Less", "<=": "LessOrEqual"}
    made.append(helper.make_node(names[order], sides, ["mask"]))
    integer = TensorProto.INT64
    model.graph.input.extend([
        helper.make_tensor_value_info("key", integer, [1, "total"]),
        helper.make_tensor_value_info("query", integer, ["seq", 1]),
    ])  # fmt: skip
    for at, node in enumerate(made):
        model.graph.node.insert(at, node)
    model.graph.initializer.append(numpy_helper.from_array(np.array(7), "seven"))
    for at in range(len(nodes)):
        node = helper.make_node(
            "Attention", [f"q_proj{at}", f"k_proj{at}", f"v_proj{at}", "mask"], [f"attn{at}"],
            q_num_heads=HEADS, kv_num_heads=KEYS,
        )  # fmt: skip
        replaced(model, f"attn{at}", node, weights=[])
    for values in (model.graph.input, model.graph.output):
        for each in [e for e in values if e.name.startswith(("past", "present"))]:
            values.remove(each)
    model.opset_import[0].version = 23
    trace = imported(tmp_path, model)
    label = next(iter(trace.phases["prefill"].blocks))
    assert operator(trace, "score", label).window == window


def _split(kind: str) -> tuple[str, str, str]:
    order = next(each for each in (">=", "<=", ">", "<") if each in kind)
    left, _, right = kind.partition(order)
    return left, order, right


def _side(text: str, made: list[Any]) -> str:
    """The value of one side of a comparison, with the node that makes it."""
    words = text.split()
    names = ["seven" if each == "7" else each for each in (words[0], words[-1])]
    if len(words) == 1:
        return names[0]
    out = f"side{len(made)}"
    made.append(helper.make_node({"+": "Add", "-": "Sub"}[words[1]], names, [out]))
    return out
