"""Random tiny decoders, exported and held to the law.

``python -m tests.exporters.random_decoders OUT [COUNT [SEED]]``: 100 of them unless COUNT says
otherwise; a line each that differs, exit 1 where one does.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

from tests.exporters.decoders import save_decoder

__all__ = ["random_pairs"]

KINDS = (
    "llama", "qwen2", "qwen3", "gemma", "gemma2", "phi", "nemotron", "hunyuan_v1_dense", "granite",
    "gpt_oss",
)  # fmt: skip
PRECISIONS = ("fp32", "fp16", "bf16", "int4", "int4-16", "int8", "int4-webgpu")


def random_pairs(out: Path, count: int = 6, seed: int = 15) -> list[tuple[str, str]]:
    """Random tiny decoders in every respect that these architectures allow, as folders."""
    draw = random.Random(seed)
    pairs = []
    for number in range(count):
        kind = draw.choice(KINDS)
        keys = draw.choice([1, 2, 4])
        values: dict[str, Any] = {
            "num_key_value_heads": keys, "num_attention_heads": keys * draw.choice([1, 2, 4]),
            "head_dim": draw.choice([32, 64]), "hidden_size": 32 * draw.choice([3, 4, 6]),
            "intermediate_size": 32 * draw.choice([5, 8]), "vocab_size": 16 * draw.choice([19, 20]),
            "num_hidden_layers": draw.choice([1, 2, 3]),
            "tie_word_embeddings": draw.random() < 0.5,
        }  # fmt: skip
        if kind == "llama":
            values |= {"attention_bias": draw.random() < 0.5, "mlp_bias": draw.random() < 0.5}
        if kind == "gemma2":
            values |= {"sliding_window": draw.choice([16, 64]), "num_hidden_layers": 3}
        if kind == "gpt_oss":
            experts = draw.choice([2, 4, 8])
            values |= {
                "num_local_experts": experts, "sliding_window": draw.choice([16, 64]),
                "num_experts_per_tok": draw.randrange(1, experts + 1), "num_hidden_layers": 2,
                "tie_word_embeddings": False,
            }  # fmt: skip
        if kind == "granite":
            values |= {"embedding_multiplier": draw.choice([1.0, 12.0])}
        if kind in ("phi", "qwen2"):  # their heads have a share of the width each
            values["hidden_size"] = values["num_attention_heads"] * values.pop("head_dim")
        name = f"random-{number}"
        save_decoder(out / name, kind, values)
        pairs.append((name, draw.choice(PRECISIONS)))
    return pairs


def main() -> None:
    """See above."""
    from tests.exporters.pairs import build_pairs, compare

    out = Path(sys.argv[1])
    count, seed = (int(each) for each in [*sys.argv[2:4], *["100", "1"][len(sys.argv[2:4]) :]])
    pairs = random_pairs(out, count, seed)
    problems = build_pairs(out, pairs)
    equal = written = 0
    for (name, precision), problem in problems.items():
        if problem:
            print(f"{name} {precision}: not written: {problem}")
            continue
        written += 1
        graph = out / f"{name}_{precision}" / "model.onnx"
        found = compare(graph, out / name, precision)
        equal += not found
        if found:
            print(f"{name} {precision}: {found[:3]}")
    print(f"{equal} of {written} equal")
    sys.exit(equal < written)


if __name__ == "__main__":
    main()
