"""onnxruntime-genai's model builder, many graphs in one process (importing torch takes longer)."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["PRECISIONS", "Precision", "build"]


@dataclass(frozen=True)
class Precision:
    """What is asked of the builder."""

    precision: str
    provider: str
    options: dict[str, str] = field(default_factory=dict)


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision("fp32", "cpu"),
    "fp16": Precision("fp16", "cuda"),
    "bf16": Precision("bf16", "cuda"),
    "int4": Precision("int4", "cpu"),
    "int4-cuda": Precision("int4", "cuda"),
    "int4-16": Precision("int4", "cpu", {"block_size": "16"}),
    "int4-128": Precision("int4", "cpu", {"block_size": "128"}),
    "int4-asymmetric": Precision("int4", "cpu", {"is_symmetric": "false"}),
    "int4-qdq": Precision("int4", "cpu", {"use_qdq": "true"}),
    "int4-embed": Precision("int4", "cpu", {"op_types_to_quantize": "MatMul/Gather"}),
    "int4-mixed": Precision("int4", "cpu", {"algo_config": "k_quant_mixed"}),
    "int8": Precision("int8", "cpu"),
    "int4-dml": Precision("int4", "dml"),
    "int4-webgpu": Precision("int4", "webgpu"),
    "fp32-unpacked": Precision("fp32", "cpu", {"fuse_qkv": "false"}),
    "int4-gate-up": Precision("int4", "cpu", {"fuse_mlp_gate_up": "true"}),
    "fp16-kv-int8": Precision("fp16", "cuda", {"kv_cache_quant_scheme": "int8_per_tensor"}),
    "fp16-kv-fp8": Precision("fp16", "cuda", {"kv_cache_quant_scheme": "fp8_per_tensor"}),
    "fp32-kv-int4": Precision("fp32", "cpu", {"kv_cache_quant_scheme": "int4_per_tensor"}),
    "fp16-pruned": Precision("fp16", "cuda", {"prune_lm_head": "true"}),
    "fp16-paged": Precision("fp16", "cuda", {"use_paged_attention": "true"}),
}
"""Precisions and options that change what the graph holds."""


def build(model: Path, out: Path, precision: Precision) -> str:
    """Write ``out/model.onnx``; answers what the builder says where it cannot."""
    from onnxruntime_genai.models import builder

    options = dict(precision.options)
    if "kv_cache_quant_scheme" in options:
        layers = json.loads((model / "config.json").read_text())["num_hidden_layers"]
        out.mkdir(parents=True, exist_ok=True)
        options["kv_cache_scale_file"] = str(out / "scales.json")
        scales = {"k_scales": [0.1] * layers, "v_scales": [0.1] * layers}
        (out / "scales.json").write_text(json.dumps({"scales": scales}))
    chosen = [f"{key}={value}" for key, value in options.items()]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            arguments = (str(model), str(model), str(out), precision.precision,
                         precision.provider, str(out / "cache"))  # fmt: skip
            extra = builder.parse_extra_options(*arguments, chosen)
            builder.create_model(*arguments, **extra)
    except Exception as error:  # the builder's own ways to say that it cannot
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def main() -> None:
    """``python -m tests.exporters.genai OUT MODEL:PRECISION ...``: one line of JSON a pair."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TQDM_DISABLE": "1"}
    from tests.exporters.decoders import ARCHITECTURES, save_decoder

    out = Path(sys.argv[1])
    for pair in sys.argv[2:]:
        name, _, precision = pair.partition(":")
        folder = out / name
        if not folder.is_dir():
            save_decoder(folder, *ARCHITECTURES[name])
        graph = out / f"{name}_{precision}"
        done = (graph / "model.onnx").is_file()
        problem = "" if done else build(folder, graph, PRECISIONS[precision])
        print(json.dumps({"model": name, "precision": precision, "problem": problem}), flush=True)


if __name__ == "__main__":
    main()
