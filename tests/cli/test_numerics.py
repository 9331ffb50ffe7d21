"""``pimsim numerics`` as a user types it, on a small random model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two blocks with a tokenizer of bytes."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_a_small_model_passes_with_every_datapath(run_cli: RunCli, model: Path) -> None:
    done = run_cli("numerics", model, "--tokens", "48", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert report["passed"]
    by_name = {row["datapath"]: row for row in report["whole_model"]}
    assert by_name["fp32"]["kl_mean"] < by_name["bf16-out"]["kl_mean"]
    assert by_name["exp-64"]["kl_mean"] < by_name["exp-8"]["kl_mean"] < by_name["exp-2"]["kl_mean"]
    assert by_name["bf16-128"]["kl_mean"] < by_name["bf16-16"]["kl_mean"]
    assert max(row["relative_rms"] for row in report["banks"]) < 1e-6
    exact = [row for row in report["operators"] if row["datapath"] == "fp32"]
    assert 0 < max(row["relative_rms"] for row in exact) < 1e-6


def test_what_cannot_be_measured_is_refused(
    refused: Callable[..., str], model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from pimsim.cli.edge import exit_code

    def refused_here(*words: str | Path) -> str:
        """In this process, which has PyTorch loaded."""
        monkeypatch.setattr("sys.argv", ["pimsim", *map(str, words)])
        assert exit_code() == 2
        printed = capsys.readouterr()
        (line,) = printed.err.splitlines()
        assert printed.out == "" and line.startswith("error: ")
        return line

    assert "did you mean 'bf16-16'?" in refused("numerics", model, "--datapath", "bf16-61")
    assert "no weights" in refused_here("numerics", "llama-3-8b")
    assert "no config.json" in refused_here("numerics", tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("too few")
    assert "tokens" in refused_here("numerics", model, "--text", short)


def test_a_graphs_products_are_summed_up_by_their_datapath(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pimsim.cli.edge import exit_code
    from pimsim.reference.graph_products import ProductError

    products = [
        ProductError("a", "f16", 4, 32, True, 1e-3), ProductError("b", "f16", 4, 32, True, 3e-3),
        ProductError("c", "f16", 4, 32, False, 2e-3), ProductError("d", "f32", 8, 128, False, 1e-6),
    ]  # fmt: skip
    monkeypatch.setattr("pimsim.reference.graph_products.product_errors", lambda _: products)
    monkeypatch.setattr("sys.argv", ["pimsim", "numerics", "m.onnx"])
    assert exit_code() == 0
    assert capsys.readouterr().out.splitlines() == [
        "3 products, 4 bits in blocks of 32, computed as f16: worst relative RMS 3.00e-03",
        "1 products, 8 bits in blocks of 128, computed as f32: worst relative RMS 1.00e-06",
        "the worst is b; against float64 on the numbers in the file",
    ]
    products.append(ProductError("e", "f32", 8, 128, False, 2e-5))
    assert exit_code() == 1
    assert "over its limit: e: relative RMS 2.00e-05" in capsys.readouterr().out


def test_no_model_is_said_before_docstrings_are_gathered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the standard library take ten seconds."""
    from pimsim.cli.edge import exit_code

    def gather() -> str:
        raise AssertionError

    monkeypatch.setattr("pimsim.capture.train.held_out_text", gather)
    out = str(tmp_path / "s.parquet")
    for command in (("numerics",), ("sparsity", "measure", "--out", out)):
        monkeypatch.setattr("sys.argv", ["pimsim", *command, __file__])
        assert exit_code() == 2
        assert "no model: a folder, a .gguf or a config.json" in capsys.readouterr().err


def test_nan_in_the_weights_is_told(
    refused: Callable[..., str], model: Path, tmp_path: Path
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    loaded = transformers.LlamaForCausalLM.from_pretrained(broken)
    with torch.no_grad():
        loaded.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    loaded.save_pretrained(broken)
    assert "NaN" in refused("numerics", broken, "--tokens", "32", "--datapath", "fp32")
