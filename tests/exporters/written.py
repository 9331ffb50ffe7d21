"""Where onnxruntime-genai's builder writes another model than the folder holds.

Its graph is read as it is; what it must equal is the export of a config that says the same. Lines
are of onnxruntime-genai 0.18.0, ``onnxruntime_genai/models/builders``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BUILDER", "Written", "folder_as_written"]


@dataclass(frozen=True)
class Written:
    """Another model, and why."""

    changes: dict[str, Any]
    """Of ``config.json``."""
    why: str
    """With its place."""


BUILDER: dict[str, Written] = {
    # "llama" is OLMo with RMS norms that have gains
    "olmo": Written(
        {"model_type": "llama"},
        "RMS norms with gains of ones for norms without parameters (`olmo.py`, `make_layernorm`)",
    ),
    "mistral-window": Written(
        {"sliding_window": None},
        "the window is left out, as the config has no `layer_types` (`base.py`, `is_local`)",
    ),
    "smollm3": Written(
        {"no_rope_layers": [1, 1, 1, 1]},
        "blocks without rotary positions get them (`smollm.py`, `make_attention`)",
    ),
}
"""By architecture of ``decoders``."""


def folder_as_written(folder: Path, written: Written) -> Path:
    """A folder beside it with the config that says what the builder writes."""
    found = folder.with_name(f"{folder.name}-as-written")
    found.mkdir(exist_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (found / "config.json").write_text(json.dumps(config | written.changes))
    return found
