"""Small pieces of reading an ONNX graph, on graphs of a few nodes that are made up."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper

from pimsim.config.errors import InputError
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.onnx_import.assemble import _Maker
from pimsim.workload.onnx_import.attention import _attend, _sizes
from pimsim.workload.onnx_import.blocks import _one_combine, _Roles
from pimsim.workload.onnx_import.experts import _weights
from pimsim.workload.onnx_import.folding import _squeeze
from pimsim.workload.onnx_import.formats import DTYPES, FormatPiece, Stored
from pimsim.workload.onnx_import.glue import GlueRoles
from pimsim.workload.onnx_import.parts import GraphPart
from pimsim.workload.onnx_import.reading import read_graph
from pimsim.workload.onnx_import.recognise import Recogniser
from pimsim.workload.onnx_import.shapes import ShapeRules
from pimsim.workload.onnx_import.spelt import behind_repeats
from pimsim.workload.trace import OperandRole


def node(kind: str, *sources: str) -> SimpleNamespace:
    return SimpleNamespace(op_type=kind, input=list(sources))


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (("past", "new"), ["keys", "new"]),
        (("new", "past"), ["keys", "new"]),
        (("past", "past.1"), ["keys"]),
        (("new", "newer"), ["keys"]),
        (("new",), ["keys"]),
        (("past", "new", "newer"), ["keys"]),
    ],
)
def test_a_cache_is_put_in_front_of_one_value(given: tuple[str, ...], seen: list[str]) -> None:
    graph: Any = SimpleNamespace(maker={"keys": node("Concat", *given)}, scalar=lambda _: None)
    found = behind_repeats(graph, "keys", lambda name: name.startswith("past"))
    assert list(found) == seen


@pytest.mark.parametrize("kind", ["Slice", "Unsqueeze", "Expand", "Reshape", "Tan"])
def test_rows_of_positions_are_a_view_of_a_stored_table(kind: str) -> None:
    table, other = SimpleNamespace(rank=2), SimpleNamespace(rank=1)
    maker = {"rows": node("Unsqueeze", "part"), "part": node(kind, "wpe")}
    graph = SimpleNamespace(maker=maker, stored={"wpe": table}.get)
    reader: Any = SimpleNamespace(graph=graph)
    found = Recogniser._position_rows(reader, "rows")
    assert found is (None if kind == "Tan" else table)
    graph.stored = {"wpe": other}.get
    assert Recogniser._position_rows(reader, "rows") is None


@pytest.mark.parametrize(
    ("heads", "keys", "key_dim", "value_dim"),
    [(0, 0, 8, 8), (4, 0, 8, 8), (4, 2, 0, 8), (4, 2, 8, 0), (4, 3, 8, 8), (2, 4, 8, 8)],
)
def test_attention_of_no_heads_or_features_or_uneven_groups_is_refused(
    heads: int, keys: int, key_dim: int, value_dim: int
) -> None:
    graph = SimpleNamespace(loaded=SimpleNamespace(path="m.onnx"))
    reader: Any = SimpleNamespace(graph=graph)
    cache: Any = None
    with pytest.raises(InputError) as caught:
        _attend(
            reader, "o", [], heads, keys, key_dim, value_dim, None, None, cache, [], "attn"
        )  # fmt: skip
    assert str(caught.value) == (
        f"m.onnx: attention 'attn' with {heads} query heads, {keys} key heads, keys of {key_dim} "
        f"and values of {value_dim} features"
    )


@pytest.mark.parametrize(
    ("shapes", "given", "found"),
    [
        ([(1, 8, 5, 16), (1, 2, 9, 16), (1, 2, 9, 24)], {}, (8, 2, 16, 24)),
        ([(1, 5, 128), (1, 9, 32), (1, 9, 48)], {"q_num_heads": 8, "kv_num_heads": 2},
         (8, 2, 16, 24)),
    ],
)  # fmt: skip
def test_heads_of_an_attention_operator_lie_in_its_shapes_or_attributes(
    shapes: list[tuple[int, ...]], given: dict[str, int], found: tuple[int, ...]
) -> None:
    at = dict(zip("qkv", shapes, strict=True)) | {"o": shapes[0]}
    attributes = SimpleNamespace(where="m.onnx", attribute=lambda name, *_: given[name])
    graph = SimpleNamespace(shape=lambda name: at.get(name, ()), given=lambda _: attributes)
    asked = SimpleNamespace(op_type="Attention", input=["q", "k", "v"], output=["o"])
    reader: Any = SimpleNamespace(graph=graph)
    assert _sizes(reader, asked) == found


@pytest.mark.parametrize(("bits", "size"), [(4, 8), (8, 15), (16, 15)])
def test_a_cache_of_few_bits_takes_whole_bytes(bits: int, size: int) -> None:
    """Fifteen elements, which are counted as a byte each before."""
    append = next(
        each for each in card_trace(load_card("gpt3-7b")).phases["decode"].blocks["decoder"]
        if each.name == "kv_append"
    )  # fmt: skip
    operands = [each.model_copy(update={"bytes": {"T": 15}}) for each in append.operands]
    of_cache = [each.role is OperandRole.KV for each in operands]
    assert any(of_cache) and not all(of_cache)
    maker: Any = SimpleNamespace(cache=SimpleNamespace(bits=bits))
    found = _Maker._cached(maker, append.model_copy(update={"operands": tuple(operands)}))
    assert [each.bytes for each in found.operands] == [
        {"T": size if cached else 15} for cached in of_cache
    ]


def test_the_shared_expert_s_result_is_added_with_the_others() -> None:
    """experts + route -> a sum, and that with the shared expert's -> another: they are one."""
    experts, route, shared = (GraphPart("product", name, {}, {}) for name in ("e", "r", "s"))
    inner, outer = (GraphPart("combine", name, {}, {}) for name in ("inner", "outer"))
    inner.after = {experts: None, route: None}
    outer.after = {inner: None, shared: None}
    found = _one_combine([experts, route, inner, shared, outer])
    assert found == [experts, route, shared, outer]
    assert (list(outer.after), outer.facts["shared"]) == ([experts, route, shared], True)
    alone = GraphPart("combine", "alone", {}, {})
    alone.after = {experts: None, route: None}
    assert _one_combine([experts, route, alone]) == [experts, route, alone]
    assert list(alone.after) == [experts, route] and "shared" not in alone.facts


def test_a_block_with_two_parts_of_one_role_is_refused() -> None:
    query, key, value = (GraphPart("product", name) for name in ("q", "k", "v"))
    attention = GraphPart("attention", "attention", {query: None, key: None, value: None})
    core: Any = SimpleNamespace(
        products={"query": query, "key": key, "value": value}, paths={"query": [], "key": []},
        norms=[], attention=attention,
    )  # fmt: skip
    acts = [GraphPart("act", name, facts={"experts": 0}) for name in ("first", "second")]
    parts = [query, key, value, attention]
    _Roles(core, [*parts, acts[0]], {}, "m.onnx").name()
    assert [part.name for part in (*parts, acts[0])] == ["q", "k", "v", "attention", "act"]
    with pytest.raises(InputError, match=r"two of its operators are its act \('first' and 'second"):
        _Roles(core, [*parts, *acts], {}, "m.onnx, block 3").name()


def test_element_types_are_as_large_as_their_names_say() -> None:
    """``FLOAT8E4M3FN`` has 8 bits, ``INT4`` 4; DOUBLE, FLOAT and BOOL say nothing."""
    plain = {"FLOAT": 32, "DOUBLE": 64, "BOOL": 8}
    from onnx import TensorProto

    known = {number: name for name, number in TensorProto.DataType.items()}
    checked = 0
    for code, own in DTYPES.items():
        if code in known:  # a newer onnx knows more
            digits = re.search(r"\d+", known[code])
            assert own.bits == (int(digits[0]) if digits else plain[known[code]]), known[code]
            checked += 1
    assert checked >= 17


@pytest.mark.parametrize(
    ("given", "more", "shape"),
    [
        ({}, (), (2, 3)), ({}, (None,), (2, 3)), ({"axes": [0]}, (), (2, 1, 3)),
        ({}, (np.array([2]),), (1, 2, 3)), ({}, (np.array([0, -2]),), (2, 3)),
    ],
)  # fmt: skip
def test_axes_are_squeezed_where_some_are_named_else_all_of_one(
    given: dict[str, Any], more: tuple[Any, ...], shape: tuple[int, ...]
) -> None:
    data = np.arange(6).reshape(1, 2, 1, 3)
    found = _squeeze(given, (data, *more), 1)
    assert found.shape == shape
    assert found.ravel().tolist() == list(range(6))


@pytest.mark.parametrize(
    ("elements", "experts", "taken"),
    [(5, 0, True), (4, 0, False), (5, 3, False), (15, 3, True), (None, 0, False)],
)
def test_a_bias_has_an_element_for_each_feature_of_each_expert(
    elements: int | None, experts: int, taken: bool
) -> None:
    reader: Any = SimpleNamespace()
    part = GraphPart("product", "fc", facts={"n": 5, "experts": experts})
    weight: Any = None if elements is None else SimpleNamespace(elements=elements)
    assert Recogniser._bias(reader, part, weight) is taken
    assert part.weights == ([weight] if taken else [])
    assert part.facts.get("bias", False) is taken


@pytest.mark.parametrize(
    ("kind", "inputs", "first", "second", "third"),
    [
        ("MoE", "x r w1 b1 w2 b2 w3 b3", "w1 b1", "w2 b2", "w3 b3"),
        ("MoE", "x r w1 - w2 b2", "w1", "w2 b2", ""),
        ("QMoE", "x r w1 s1 b1 w2 s2 b2 w3 s3 b3 z1 z2 z3", "w1 b1 z1", "w2 b2 z2", "w3 b3 z3"),
        ("QMoE", "x r w1 s1 - w2 s2 b2", "w1", "w2 b2", ""),
    ],
)
def test_weights_and_biases_of_experts_lie_in_their_inputs(
    kind: str, inputs: str, first: str, second: str, third: str
) -> None:
    names = ["" if each == "-" else each for each in inputs.split()]

    def stored(name: str) -> Stored:
        return Stored(name, (3, 4), 12, (FormatPiece("weight", name, 24),))

    given = SimpleNamespace(attribute=lambda _, default: default)
    graph: Any = SimpleNamespace(
        stored=stored, where=lambda _: "m.onnx", given=lambda _: given, attributes=lambda _: {}
    )
    asked = SimpleNamespace(op_type=kind, input=names)
    for number, expected in enumerate((first, second, third), 1):
        found = _weights(graph, asked, number)
        zero = [each for each in expected.split() if each[0] == "z"]
        assert [each.name for each in found] == [
            each for each in expected.split() if each[0] != "z"
        ]
        if kind == "QMoE" and found:
            held = [(each.what, each.dtype) for each in found[0].pieces[1:]]
            assert held == [("scales", f"s{number}"), *[("zero points", each) for each in zero]]
            assert (found[0].elements, found[0].pieces[0].dtype) == (48, "int4")


@pytest.mark.parametrize(
    ("kind", "other", "turned"),
    [
        ("RotaryEmbedding", "none", True), ("Mul", "angles", True), ("Add", "angles", False),
        ("Mul", "one row", False), ("Mul", "a table", False), ("Mul", "of tokens", False),
        ("Mul", "whole numbers", False),
    ],
)  # fmt: skip
def test_vectors_are_turned_by_numbers_of_each_position(
    kind: str, other: str, turned: bool
) -> None:
    shapes = {"angles": (1, 9, 8), "one row": (1, 1, 8), "a table": (9, 8), "of tokens": (9, 8),
              "whole numbers": (9, 8)}  # fmt: skip
    part = GraphPart("product", "q", {}, {})
    graph = SimpleNamespace(
        shape=lambda name: shapes.get(name, ()), floating=lambda name: name != "whole numbers",
        stored=lambda name: name if name == "a table" else None,
    )  # fmt: skip
    tokens = {"x": {part: None}, "of tokens": {part: None}}
    reader: Any = SimpleNamespace(
        graph=graph, flow=lambda name: SimpleNamespace(sources=tokens.get(name, {}))
    )
    roles = GlueRoles(reader)
    assert roles.turns({0: node("Add", "x", "x"), 1: node(kind, "x", other)}) is turned


def test_inputs_that_are_left_out_are_no_reason_not_to_compute(tmp_path: Path) -> None:
    """A slice of every other number, without axes."""
    given = {"data": [5, 6, 7, 8, 9], "starts": [1], "ends": [5], "steps": [2]}
    graph = helper.make_graph(
        [helper.make_node("Slice", ["data", "starts", "ends", "", "steps"], ["out"])], "g", [],
        [helper.make_tensor_value_info("out", TensorProto.INT64, [2])],
        [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in given.items()],
    )  # fmt: skip
    path = tmp_path / "slice.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    )
    found = ShapeRules(read_graph(path)).values({})["out"]
    assert found.constant is not None and found.constant.tolist() == [6, 8]
