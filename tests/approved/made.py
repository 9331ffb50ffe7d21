"""Files of cases that are no text."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

UNIT = Path(__file__).resolve().parents[1] / "unit"


def unit(name: str) -> ModuleType:
    """A module of the unit tests, whose graphs are used here too."""
    spec = importlib.util.spec_from_file_location(f"approved_{name}", UNIT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    if str(UNIT) not in sys.path:
        sys.path.insert(0, str(UNIT))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def genai_graph(path: Path) -> None:
    """A decoder's graph with fused attention and a window."""
    path.write_bytes(unit("test_onnx_import").genai_model(window=48).SerializeToString())


def odd_graph(path: Path) -> None:
    """One with a node that nobody knows."""
    from onnx import helper

    odd = helper.make_node("Tan", ["attn0"], ["t0"], name="odd")
    path.write_bytes(unit("test_onnx_import").genai_model([odd]).SerializeToString())


def routed_answer(path: Path) -> None:
    """A server's answer about 40 tokens of Mixtral."""
    import numpy as np

    from pimsim.workload.moe import UniformRouting

    routing = UniformRouting(8, 2)
    experts = np.stack([routing.assignments(block, 40) for block in range(32)], axis=1)
    path.write_text(json.dumps({"choices": [{"routed_experts": experts.tolist()}]}))
