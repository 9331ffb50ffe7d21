"""Damaged and hostile graphs: one line each, before anything large is computed."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from onnx import helper, numpy_helper
from test_onnx_import import genai_model

from pimsim.cli import main
from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.folding import MOST_ELEMENTS, fold
from pimsim.workload.onnx_import.importing import import_onnx
from pimsim.workload.onnx_import.inputs import InputSizes, Sample
from pimsim.workload.onnx_import.reading import count_elements, read_graph
from pimsim.workload.onnx_import.shapes import ShapeRules


def node_of(model: Any, kind: str) -> Any:
    return next(each for each in model.graph.node if each.op_type == kind)


def set_attribute(node: Any, name: str, value: int) -> None:
    kept = [each for each in node.attribute if each.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def with_bits(model: Any, **attributes: int) -> None:
    """The output layer in blocks of 4 bits: 120 x 64, two blocks of 32."""
    node = node_of(model, "MatMul")
    import numpy as np

    node.op_type, node.domain = "MatMulNBits", "com.microsoft"
    source = node.input[0]
    del node.input[:]
    node.input.extend([source, "q4", "q4s"])
    model.graph.initializer.extend([
        numpy_helper.from_array(np.zeros((64, 2, 16), np.uint8), "q4"),
        numpy_helper.from_array(np.ones((64, 2), np.float16), "q4s"),
    ])  # fmt: skip
    for name, value in ({"N": 64, "K": 64, "bits": 4, "block_size": 32} | attributes).items():
        if value is not None:
            set_attribute(node, name, value)


def grow(model: Any, dims: list[int]) -> None:
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    del tensor.dims[:]
    tensor.dims.extend(dims)


def retype(model: Any, kind: int) -> None:
    model.graph.initializer[1].data_type = kind


def input_type(model: Any, kind: int) -> None:
    model.graph.input[0].type.tensor_type.elem_type = kind


def drop_outputs(model: Any) -> None:
    del model.graph.node[-1].output[:]


def lone_factor(model: Any, domain: str) -> None:
    node = next(each for each in model.graph.node if each.op_type == "MatMul")
    node.domain = domain
    del node.input[1:]


def drop_opset(model: Any) -> None:
    del model.opset_import[:]
    model.opset_import.extend([helper.make_opsetid("com.microsoft", 1)])


CASES: dict[str, tuple[Callable[[Any], None], str]] = {
    "dims of 2^40": (lambda m: grow(m, [2**40, 64]), "dimension of 1,099,511,627,776"),
    "negative dims": (lambda m: grow(m, [-1, 64]), "dimension of -1"),
    "many elements": (lambda m: grow(m, [2**31, 2**31]), "2^44 elements are allowed"),
    "5,000 dims": (lambda m: grow(m, [1] * 5000), "5,000 dimensions; 16 are allowed"),
    "dtype 0": (lambda m: retype(m, 0), "element type 0"),
    "dtype 99": (lambda m: retype(m, 99), "element type 99"),
    "input dtype 99": (lambda m: input_type(m, 99), "'input_ids' has the element type 99"),
    "one factor": (lambda m: lone_factor(m, ""), "(MatMul) has 1 inputs; 2 to 2 are allowed"),
    "one factor of ai.onnx": (
        lambda m: lone_factor(m, "ai.onnx"), "(MatMul) has 1 inputs; 2 to 2 are allowed",
    ),
    "no opset": (drop_opset, "names no version of ai.onnx"),
    "no outputs": (drop_outputs, "it has no outputs"),
    "no N": (lambda m: with_bits(m, N=None), "attribute N is missing"),
    "N of 2^40": (lambda m: with_bits(m, N=2**40), "attribute N is 1099511627776"),
    "other K": (lambda m: with_bits(m, K=65), "features, K is 65"),
    "other N": (lambda m: with_bits(m, N=65), "need 2,080 bytes"),
    "3 bits": (lambda m: with_bits(m, bits=3), "bits is 3; 2, 4, 8 are allowed"),
    "block 0": (lambda m: with_bits(m, block_size=0), "block_size is 0"),
    "num_heads -1": (
        lambda m: set_attribute(node_of(m, "GroupQueryAttention"), "num_heads", -1),
        "num_heads is -1",
    ),
    "kv heads 2^62": (
        lambda m: set_attribute(node_of(m, "GroupQueryAttention"), "kv_num_heads", 2**62),
        f"kv_num_heads is {2**62}",
    ),
    "3 key heads": (
        lambda m: set_attribute(node_of(m, "GroupQueryAttention"), "kv_num_heads", 3),
        "4 query heads cannot share 3 key heads",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_makes_no_sense_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    spoil, expected = CASES[case]
    model = genai_model()
    spoil(model)
    path = tmp_path / "bad.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError) as caught:
        import_onnx(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def whole(name: str, *values: int) -> Any:
    import numpy as np

    return numpy_helper.from_array(np.array(values, np.int64), name)


def hostile() -> list[Any]:
    """Nodes that ask for gigabytes: 6 GB of Expand, of ConstantOfShape, Tile, Range and OneHot."""
    return [
        helper.make_node("Expand", ["one", "huge"], ["e1"]),
        helper.make_node("ConstantOfShape", ["huge"], ["e2"]),
        helper.make_node("Tile", ["one", "wide"], ["e3"]),
        helper.make_node("Range", ["zero", "far", "step"], ["e4"]),
        helper.make_node("OneHot", ["one", "far", "pair"], ["e5"]),
        helper.make_node("Add", ["column", "row"], ["e6"]),
        helper.make_node("Pad", ["one", "pads"], ["e7"]),
    ]  # fmt: skip


def test_a_file_cannot_have_gigabytes_computed(tmp_path: Path) -> None:
    import numpy as np

    model = genai_model(hostile())
    model.graph.initializer.extend([
        whole("one", 1), whole("huge", 3_000, 1_000, 1_000), whole("wide", 3_000_000_000),
        numpy_helper.from_array(np.array(0, np.int64), "zero"),
        numpy_helper.from_array(np.array(2**40, np.int64), "far"),
        numpy_helper.from_array(np.array(1, np.int64), "step"), whole("pair", 0, 1),
        numpy_helper.from_array(np.zeros((4096, 1), np.int64), "column"),
        numpy_helper.from_array(np.zeros((1, 4096), np.int64), "row"), whole("pads", 0, 2**33),
    ])  # fmt: skip
    path = tmp_path / "hostile.onnx"
    path.write_bytes(model.SerializeToString())
    assert import_onnx(path).unknown == ()
    rules, values = looked_at(path)
    held = [count_elements(v.constant.shape) for v in values.values() if v.constant is not None]
    assert max(held) == MOST_ELEMENTS  # the column that is in the file
    assert {f"e{at}" for at in range(1, 8)} <= set(values)
    assert all(values[f"e{at}"].constant is None for at in range(1, 8))
    # what the seven nodes are given, in their order; nothing is made
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(genai_model().SerializeToString())
    given = 4 + 3 + 2 + 3 + 4 + 2 * MOST_ELEMENTS + 3
    assert rules.numbers == looked_at(plain)[0].numbers + given


def looked_at(path: Path, **limit: int) -> tuple[ShapeRules, dict[str, Any]]:
    """The rules after one size, and what they found."""
    loaded = read_graph(path)
    rules = ShapeRules(loaded, **limit)
    return rules, rules.values(InputSizes.of(loaded).bound(Sample(2, 5, 3)))


def chain(tmp_path: Path, length: int) -> Path:
    """Sums of 4,096 numbers, one after the other."""
    import numpy as np

    name, nodes = "first", []
    for at in range(length):
        nodes.append(helper.make_node("Add", [name, "first"], [f"s{at}"]))
        name = f"s{at}"
    model = genai_model(nodes)
    model.graph.initializer.append(
        numpy_helper.from_array(np.arange(MOST_ELEMENTS, dtype=np.int64), "first")
    )
    path = tmp_path / "chain.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_numbers_that_are_looked_at_are_counted_and_bounded(tmp_path: Path) -> None:
    def rules(length: int, **limit: int) -> ShapeRules:
        return looked_at(chain(tmp_path, length), **limit)[0]

    none = rules(0).numbers
    assert rules(10).numbers == none + 10 * 3 * MOST_ELEMENTS  # two given, one made
    assert rules(10, most_numbers=none + 30 * MOST_ELEMENTS).numbers
    with pytest.raises(InputError, match="its shapes takes more than") as caught:
        rules(10, most_numbers=none + 30 * MOST_ELEMENTS - 1)
    assert "\n" not in str(caught.value)


def test_functions_that_call_others_twice_are_counted_before_they_are_inlined(
    tmp_path: Path,
) -> None:
    """2^40 nodes from 40 functions; and one that calls itself."""
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]

    def function(name: str, calls: str, domain: str) -> Any:
        nodes = [
            helper.make_node(calls, ["x"], ["a"], domain=domain),
            helper.make_node(calls, ["a"], ["y"], domain=domain),
        ]
        return helper.make_function("mine", name, ["x"], ["y"], nodes, opset)

    def written(functions: list[Any], first: str) -> Path:
        model = genai_model([helper.make_node(first, ["attn0"], ["t0"], domain="mine")])
        model.functions.extend(functions)
        model.opset_import.append(helper.make_opsetid("mine", 1))
        path = tmp_path / "functions.onnx"
        path.write_bytes(model.SerializeToString())
        return path

    doubling = [function("f0", "Identity", "")]
    doubling += [function(f"f{at}", f"f{at - 1}", "mine") for at in range(1, 40)]
    with pytest.raises(InputError, match=r"1,099,511,62\d,\d{3} nodes with its local functions"):
        import_onnx(written(doubling, "f39"))
    with pytest.raises(InputError, match="'own' calls itself"):
        import_onnx(written([function("own", "own", "mine")], "own"))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(InputError, match="a pipe"):
        import_onnx(tmp_path / "pipe.onnx")


@pytest.mark.parametrize(
    ("kind", "attributes", "inputs", "expected"),
    [
        ("Range", {}, [0, MOST_ELEMENTS, 1], MOST_ELEMENTS),
        ("Range", {}, [0, MOST_ELEMENTS + 1, 1], None),
        ("Range", {}, [0, 5, 0], None),
        ("Expand", {}, [[7], [2, 3]], 6),
        ("Expand", {}, [[7], [2**20, 3]], None),
        ("Expand", {}, [[7, 7], [3]], None),
        ("Div", {}, [[7], [0]], 1),
        ("Gather", {"axis": 0}, [[7], [9]], None),
        ("Slice", {}, [[1, 2, 3], [1], [3]], 2),
        ("Reshape", {}, [[1, 2, 3], [2]], None),
        ("Unknown", {}, [[1]], None),
    ],
)
def test_folding_is_bounded(
    kind: str, attributes: dict[str, Any], inputs: list[Any], expected: int | None
) -> None:
    import numpy as np

    made = fold(kind, attributes, [np.asarray(each) for each in inputs], 1)
    assert [each.size for each in made] == ([] if expected is None else [expected])


def damaged_bytes(count: int) -> Iterator[bytes]:
    """A whole file with bytes changed at random, or cut off."""
    draw = random.Random(7)
    whole_file = genai_model().SerializeToString()
    for _ in range(count):
        data = bytearray(whole_file)
        for _ in range(draw.choice([1, 2, 8])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        yield bytes(data[: draw.randrange(len(data))] if draw.random() < 0.1 else data)


def test_a_graph_that_is_damaged_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    """Never anything but an ``InputError``."""
    path = tmp_path / "damaged.onnx"
    for data in damaged_bytes(150):
        path.write_bytes(data)
        try:
            import_onnx(path)
        except InputError as error:
            assert "\n" not in str(error)


def test_the_command_writes_a_trace_or_says_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``pimsim import-onnx`` of damaged files: exit 0 and a trace, or exit 2, one line and none."""
    path, out = tmp_path / "damaged.onnx", tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["pimsim", "import-onnx", str(path), "--out", str(out)])
    codes = []
    for data in (*damaged_bytes(60), *(m.SerializeToString() for m in damaged_models(60))):
        path.write_bytes(data)
        with pytest.raises(SystemExit) as ended:
            main.main()
        said, problem = capsys.readouterr()
        codes.append(ended.value.code)
        assert ended.value.code in (0, 2)
        assert out.is_file() == (ended.value.code == 0)
        if ended.value.code == 2:
            [line] = problem.splitlines()
            assert line.startswith(f"error: {path}") and said == ""
        out.unlink(missing_ok=True)
    assert codes.count(0) > 10 and codes.count(2) > 10


KINDS = (
    "MoE", "QMoE", "Softmax", "Gather", "Attention", "Split", "RotaryEmbedding", "MatMulNBits",
    "GatherBlockQuantized", "ReduceMean", "MatMulInteger", "PagedAttention",
)  # fmt: skip


def damaged_models(count: int) -> Iterator[Any]:
    """Graphs with one node, attribute or weight changed."""
    draw = random.Random(7)
    for _ in range(count):
        model = genai_model()
        if draw.random() < 0.3:
            with_bits(model)
        node = draw.choice(list(model.graph.node))
        what = draw.choice(["inputs", "one", "attributes", "number", "type", "dims", "swap"])
        if what == "inputs":
            del node.input[:]
        elif what == "one" and node.input:
            del node.input[draw.randrange(len(node.input))]
        elif what == "attributes":
            del node.attribute[:]
        elif what == "number" and node.attribute:
            name = draw.choice(list(node.attribute)).name
            set_attribute(node, name, draw.choice([-1, 0, 1, 3, 2**31, 2**62, -(2**63)]))
        elif what == "type":
            node.op_type = draw.choice(KINDS)
        elif what == "dims":
            tensor = draw.choice(list(model.graph.initializer))
            tensor.ClearField("raw_data")
            del tensor.dims[:]
            tensor.dims.extend([draw.choice([0, 1, 7, 2**20])] * draw.randrange(5))
        else:
            other = draw.choice(list(model.graph.initializer)).name
            if node.input:
                node.input[draw.randrange(len(node.input))] = other
        yield model


def test_a_node_that_lost_its_inputs_or_attributes_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "damaged.onnx"
    for model in damaged_models(250):
        path.write_bytes(model.SerializeToString())
        try:
            import_onnx(path)
        except InputError as error:
            assert "\n" not in str(error)
