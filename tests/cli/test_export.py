"""``pimsim export`` as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

RunCli = Callable[..., subprocess.CompletedProcess[str]]

CONFIG = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
}  # fmt: skip


def test_a_config_alone_gives_a_trace_that_can_be_run(run_cli: RunCli, tmp_path: Path) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps(CONFIG))
    done = run_cli("export", "tiny", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["facts"]["architecture"] == "LlamaForCausalLM"
    assert report["unplaced"] == []
    trace = json.loads((tmp_path / "tiny.json").read_text())
    assert (trace["format"], trace["version"]) == ("pimsim-operator-trace", 1)


def test_what_cannot_be_exported_writes_nothing(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "bert"}')
    assert "no config.json" in refused("export", tmp_path)
    before = sorted(tmp_path.rglob("*"))
    refused("export", tmp_path / "m")
    assert "known:" in refused("export", "gpt-5")
    assert sorted(tmp_path.rglob("*")) == before
