"""``pimsim import-routing`` as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pimsim.workload.moe import UniformRouting

RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    """An answer about 40 tokens of Mixtral: 32 blocks, 2 of 8 experts."""
    routing = UniformRouting(8, 2)
    experts = np.stack([routing.assignments(block, 40) for block in range(32)], axis=1)
    path = tmp_path / "answer.json"
    path.write_text(json.dumps({"choices": [{"routed_experts": experts.tolist()}]}))
    return path


def test_an_answer_becomes_a_trace_that_a_run_takes(
    answer: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    out = tmp_path / "mine.routing.parquet"
    done = run_cli("import-routing", answer, "--model", "mixtral-8x7b", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    expected = "40 tokens of 1 sequences, 32 of 32 blocks with experts, 2 of 8 experts a token"
    assert expected in done.stdout
    assert "note: ids of 40 of 40 tokens are not known (-1)" in done.stdout
    cycles = []
    for routing in (answer, out):
        done = run_cli(
            "run", "--trace", "mixtral-8x7b", "--batch", "8", "--layers", "1",
            "--fidelity", "fast", "--routing", routing, "--json",
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        cycles.append(json.loads(done.stdout)["cycles"])
    assert cycles[0] == cycles[1]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("qwen3-30b-a3b", "32 blocks (shape 40 x 32 x 2); model qwen3-30b-a3b has 48 blocks"),
        ("llama-3-8b", "model llama-3-8b has no experts"),
        ("mixtral-8x7", "did you mean 'mixtral-8x7b'?"),
    ],
)
def test_another_model_is_one_line_and_writes_nothing(
    model: str, expected: str, answer: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    out = tmp_path / "none.parquet"
    assert expected in refused("import-routing", answer, "--model", model, "--out", out)
    assert not out.exists()
