"""Configs of published architectures, as export traces them without weights."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cases import HERE, values
from values_presets import alike
from values_workload import trace_lines

FEW = ("llama", "gemma3", "gpt-oss", "deepseek-v3")


def _architectures() -> tuple[dict[str, Any], dict[str, Any]]:
    path = HERE.parent / "exporters" / "decoders.py"
    spec = importlib.util.spec_from_file_location("approved_decoders", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SIZES, module.ARCHITECTURES


@values("capture/exports", "torch", "transformers")
def _exports() -> Iterator[str]:
    from pimsim.capture.export import export_trace
    from pimsim.capture.loading import load_model

    sizes, architectures = _architectures()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in FEW:
            kind, changes = architectures[name]
            path = Path(folder) / f"{name}.json"
            path.write_text(json.dumps(sizes | changes | {"model_type": kind}))
            made = export_trace(load_model(str(path)))
            found[name] = [*trace_lines(made.trace), f"unplaced: {len(made.unplaced)}"]
    yield from alike(found)
