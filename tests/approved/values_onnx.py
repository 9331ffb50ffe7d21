"""Graphs of ONNX that are changed in one node each: what they are read as, or why they are not."""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cases import values
from made import unit

CHANGES: dict[str, Callable[[Any, Any], None]] = {
    "left out": lambda graph, node: graph.node.remove(node),
    "is a Tan": lambda graph, node: setattr(node, "op_type", "Tan"),
    "inputs turned round": lambda graph, node: _turned(node),
    "without its last input": lambda graph, node: node.input.pop(),
    "without attributes": lambda graph, node: node.ClearField("attribute"),
    "attributes one higher": lambda graph, node: _higher(node),
}


def _turned(node: Any) -> None:
    names = list(node.input)[::-1]
    del node.input[:]
    node.input.extend(names)


def _higher(node: Any) -> None:
    for each in node.attribute:
        if each.type == each.INT:
            each.i += 1


def _summary(trace: Any) -> str:
    """Blocks and operators of a decode pass, with what they hold and move."""
    phase = trace.phases["decode"]
    facts = trace.facts
    told = [
        f"{facts.parameters} parameters, {facts.parameter_bytes} bytes, {facts.layers} layers, "
        f"{facts.heads} heads of {facts.kv_heads}, {facts.experts} experts"
    ]
    for name, operators in phase.blocks.items():
        kinds = Counter(f"{each.kind}{f' {each.function}' if each.function else ''}"
                        for each in operators)  # fmt: skip
        sizes = sum(
            operand.bytes.get("1", 0) + 7 * sum(operand.bytes.values())
            for each in operators
            for operand in each.operands
        )
        told.append(f"{name} {dict(kinds)} {sizes}")
    return "; ".join(told)


def _graphs() -> Iterator[tuple[str, Any, int]]:
    """Name, model, and how many of its nodes are changed (those of its first block)."""
    one, other = unit("test_onnx_import"), unit("test_onnx_graph_sizes")
    yield "fused attention", one.genai_model(window=48), 15
    yield "experts", other.with_experts("MoE", 2, 1), 15
    yield "experts in 4 bits", other.with_experts("QMoE", 2, 0, "relu"), 15


@values("onnx/changed-nodes", "onnx")
def _changed() -> Iterator[str]:
    import onnx

    from pimsim.config.errors import InputError
    from pimsim.workload.onnx_import.importing import import_onnx

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g.onnx"

        def read(model: Any) -> str:
            path.write_bytes(model.SerializeToString())
            try:
                return _summary(import_onnx(path).trace)
            except InputError as error:
                said = str(error).replace(folder, "")
                return re.sub(r"\b2147483\d\d\d\b", "<most>", f"refused: {said}")  # onnx's own

        for name, model, most in _graphs():
            as_is = read(model)
            yield f"=== {name}: {as_is}"
            for number in range(min(most, len(model.graph.node))):
                whole = model.graph.node[number]
                for label, change in CHANGES.items():
                    if "attributes" in label and not whole.attribute:
                        continue
                    if "inputs" in label and len(whole.input) < 2:
                        continue
                    copied = onnx.ModelProto()
                    copied.CopyFrom(model)
                    change(copied.graph, copied.graph.node[number])
                    found = read(copied)
                    said = "the same" if found == as_is else found
                    yield f"{number} {whole.op_type} {label}: {said}"
