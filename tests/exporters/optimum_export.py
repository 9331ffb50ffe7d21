"""Optimum's exporter, by a command, in an environment of its own: it needs older transformers.

    python -m venv OPT
    OPT/bin/pip install optimum-onnx 'transformers==4.55.4' torch
    OPT/bin/python tests/exporters/optimum_export.py OUT       # writes OUT/NAME_optimum/model.onnx
    python -m tests.exporters.optimum_export OUT --compare     # in the environment of pimsim

The first run makes folders and graphs, the second compares each graph's trace with the export of
its folder; it prints a line a pair, exits 1 where one differs, and leaves OUT/optimum.json, which
``python -m tests.exporters.pairs OUT`` takes into the table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

_SIZES = {
    "vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
}  # fmt: skip
_KINDS: dict[str, dict[str, object]] = {
    "llama": {}, "qwen2": {"tie_word_embeddings": True}, "qwen3": {"head_dim": 64},
    "mistral": {"sliding_window": None, "head_dim": 32}, "phi": {"num_key_value_heads": 4},
    "gemma": {"head_dim": 64}, "granite": {}, "opt": {"ffn_dim": 256, "word_embed_proj_dim": 128},
    "gpt2": {"n_embd": 128, "n_layer": 2, "n_head": 4, "n_positions": 1024, "n_inner": 256},
    "olmo": {}, "phi3": {"pad_token_id": 0, "sliding_window": None}, "gpt_neox": {},
}  # fmt: skip


def export(out: Path) -> None:
    """Write folders and graphs."""
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    for kind, changes in _KINDS.items():
        torch.manual_seed(0)
        own = dict(_SIZES) if kind != "gpt2" else {}
        if kind in ("opt", "gpt_neox"):
            del own["num_key_value_heads"]
        config = CONFIG_MAPPING[kind](**{**own, "vocab_size": 320, **changes})
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for each in model.parameters():
                if each.dim() == 1:
                    each.uniform_(0.5, 1.5)
        model.save_pretrained(out / f"{kind}-optimum")
        for task in ("text-generation-with-past", "text-generation"):
            folder = out / f"{kind}-optimum_{'cache' if task.endswith('past') else 'plain'}"
            try:
                onnx_export_from_model(
                    model, folder, task=task, do_validation=False, library_name="transformers"
                )
                print(folder, "written", flush=True)
            except Exception as error:  # the exporter's own ways to say that it cannot
                print(folder, f"{type(error).__name__}: {error}".splitlines()[0], flush=True)


def main() -> None:
    """See above."""
    out = Path(sys.argv[1])
    if "--compare" not in sys.argv:
        export(out)
        return
    from tests.exporters.pairs import compare

    rows = []
    for graph in sorted(out.glob("*-optimum_*/model.onnx")):
        folder = out / graph.parent.name.rpartition("_")[0]
        found = compare(graph, folder, "f32", longest=False)
        name, _, kind = graph.parent.name.partition("-optimum_")
        rows.append(
            {
                "model": name.replace("_", "-"), "exporter": "optimum",
                "precision": "f32 with a cache" if kind == "cache" else "f32",
                "state": "differs" if found else "equal", "reason": (found or [""])[0],
            }
        )  # fmt: skip
        print(graph.parent.name, found[:3] or "equal", flush=True)
    (out / "optimum.json").write_text(json.dumps(rows))
    sys.exit(any(row["reason"] for row in rows))


if __name__ == "__main__":
    main()
