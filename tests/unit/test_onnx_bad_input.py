"""Damaged and hostile graphs: one line each, before anything large is computed."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).resolve().parent))

from onnx import helper, numpy_helper
from test_onnx_import import genai_model

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.folding import MOST_ELEMENTS, fold
from pimsim.workload.onnx_import.importing import import_onnx


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
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert import_onnx(path).unknown == ()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert time.process_time() - start < 10


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


def test_a_graph_that_is_damaged_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    """Bytes of a whole file changed at random: never anything but an ``InputError``."""
    draw = random.Random(7)
    whole_file = genai_model().SerializeToString()
    path = tmp_path / "damaged.onnx"
    for _ in range(150):
        data = bytearray(whole_file)
        for _ in range(draw.choice([1, 2, 8])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(bytes(data))
        try:
            import_onnx(path)
        except InputError as error:
            assert "\n" not in str(error)


KINDS = (
    "MoE", "QMoE", "Softmax", "Gather", "Attention", "Split", "RotaryEmbedding", "MatMulNBits",
    "GatherBlockQuantized", "ReduceMean", "MatMulInteger", "PagedAttention",
)  # fmt: skip


def test_a_node_that_lost_its_inputs_or_attributes_is_read_or_refused(tmp_path: Path) -> None:
    draw = random.Random(7)
    path = tmp_path / "damaged.onnx"
    for _ in range(250):
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
        path.write_bytes(model.SerializeToString())
        try:
            import_onnx(path)
        except InputError as error:
            assert "\n" not in str(error)
