"""``pimsim import-onnx`` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx")
RunCli = Callable[..., subprocess.CompletedProcess[str]]
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fused graph, and beside it one with a node that nobody knows."""
    from onnx import helper
    from test_onnx_import import genai_model

    folder = tmp_path_factory.mktemp("onnx")
    (folder / "good.onnx").write_bytes(genai_model().SerializeToString())
    odd = genai_model([helper.make_node("Tan", ["attn0"], ["t0"], name="odd")])
    (folder / "odd.onnx").write_bytes(odd.SerializeToString())
    return folder


def test_a_graph_becomes_a_trace_that_runs(run_cli: RunCli, model: Path, tmp_path: Path) -> None:
    done = run_cli("import-onnx", model / "good.onnx", "--model", "mine", "--json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["unknown"] == []
    done = run_cli("run", "npu-only", "--trace", report["trace"], "--batch", "2", "--json",
                   cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["model"] == "mine"


def test_unknown_nodes_stop_it_unless_they_may_be_left_out(
    run_cli: RunCli, refused: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    line = refused("import-onnx", model / "odd.onnx")
    assert "ai.onnx.Tan x 1" in line and "'odd'" in line
    assert list(tmp_path.iterdir()) == []
    done = run_cli("import-onnx", model / "odd.onnx", "--allow-unknown", cwd=tmp_path)
    assert "left out: ai.onnx.Tan x 1" in done.stdout


def test_a_graph_with_the_name_of_all_graphs_is_called_as_its_folder(
    run_cli: RunCli, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny-int4"
    folder.mkdir()
    (folder / "model.onnx").write_bytes((model / "good.onnx").read_bytes())
    done = run_cli("import-onnx", folder / "model.onnx", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    trace = json.loads((tmp_path / "tiny-int4.json").read_text())
    assert trace["model"] == "tiny-int4"


@pytest.mark.parametrize(
    "command",
    [("run", "npu-only", "--trace"), ("run", "dgx-a100a", "--trace"), ("export",)],
)
def test_a_graph_where_a_trace_is_expected_says_what_makes_one(
    refused: Callable[..., str], model: Path, command: tuple[str, ...]
) -> None:
    line = refused(*command, model / "good.onnx")
    assert f"`pimsim import-onnx {model / 'good.onnx'}` makes" in line
