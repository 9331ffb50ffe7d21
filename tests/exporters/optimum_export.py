"""Optimum's exporter, run by ``tests.exporters.pairs`` in an environment of its own.

``OPT/bin/python tests/exporters/optimum_export.py OUT`` writes folders ``OUT/NAME-optimum`` and
graphs ``OUT/NAME-optimum_cache`` and ``_plain``, and ``OUT/optimum.json`` with a row of each. It
imports nothing of pimsim: its transformers is older.
"""

from __future__ import annotations

import importlib.metadata
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


def export(out: Path) -> list[dict[str, str]]:
    """Write folders and graphs; a row each."""
    import torch
    from optimum.exporters.onnx import onnx_export_from_model
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    numbers = [importlib.metadata.version(name) for name in ("optimum-onnx", "transformers")]
    made_with = f"{numbers[0]} (with transformers {numbers[1]})"
    rows = []
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
        name = kind.replace("_", "-")
        model.save_pretrained(out / f"{name}-optimum")
        for task, short, precision in (
            ("text-generation-with-past", "cache", "f32 with a cache"),
            ("text-generation", "plain", "f32"),
        ):
            problem, graph = "", out / f"{name}-optimum_{short}"
            try:
                if not (graph / "model.onnx").is_file():
                    onnx_export_from_model(
                        model, graph, task=task, do_validation=False, library_name="transformers"
                    )
            except Exception as error:  # the exporter's own ways to say that it cannot
                problem = f"{type(error).__name__}: {error}".splitlines()[0][:160]
            rows.append({"model": name, "exporter": "optimum", "precision": precision,
                         "problem": problem, "with": made_with})  # fmt: skip
            print(name, precision, problem or "written", flush=True)
    return rows


def main() -> None:
    """See above."""
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    (out / "optimum.json").write_text(json.dumps(export(out), indent=1))


if __name__ == "__main__":
    main()
