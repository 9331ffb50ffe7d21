"""The training script: reproducible, resumable, and of text that is on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from pimsim.capture import train as module  # noqa: E402
from pimsim.capture.train import Recipe, train  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pieces of the text, and small batches: seconds instead of minutes."""
    text = module.stdlib_text()
    assert len(text) > 1_000_000
    monkeypatch.setattr(module, "stdlib_text", lambda: text[:300_000])
    monkeypatch.setattr(module, "_BATCH", 2)


@pytest.mark.usefixtures("short")
def test_the_same_recipe_gives_the_same_checkpoint_and_both_kinds_learn(tmp_path: Path) -> None:
    quiet: Any = lambda _: None  # noqa: E731
    recipe = Recipe(kind="moe", steps=3, seed=1)
    first = train(recipe, tmp_path / "a", report=quiet)
    second = train(recipe, tmp_path / "b", save_at=(0,), report=quiet)
    assert first == second
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]
    untrained = (tmp_path / "b" / "step-0" / "model.safetensors").read_bytes()
    assert untrained != weights[1]
    assert not (tmp_path / "a" / "state.pt").exists()
    dense = train(Recipe(kind="relu", steps=2), tmp_path / "c", report=quiet)
    assert dense["held_out_loss"] > 0


def test_a_recipe_s_kind_is_its_activation_or_its_experts() -> None:
    for kind in ("relu", "silu"):
        made = module._model(Recipe(kind=kind)).config
        assert (made.model_type, made.hidden_act, made.intermediate_size) == ("llama", kind, 512)
    mixture = module._model(Recipe(kind="moe")).config
    assert (mixture.num_local_experts, mixture.num_experts_per_tok) == (16, 2)
    assert mixture.sliding_window is None


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="known: moe, relu, silu"):
        train(Recipe(kind="gelu"), tmp_path)


@pytest.mark.parametrize("per_token", [1, 2, 4])
def test_the_loss_of_balance_is_1_of_even_experts_and_most_of_the_same_ones(per_token: int) -> None:
    """Switch, section 2.2: experts times the sum of shares times probabilities."""
    nearly_even = torch.stack([torch.roll(torch.arange(8.0), at) for at in range(8)]) * 1e-5
    assert float(module._balance(nearly_even, 8, per_token)) == pytest.approx(1, abs=1e-4)
    same = torch.full((5, 8), -50.0)
    same[:, :per_token] = 50.0
    assert float(module._balance(same, 8, per_token)) == pytest.approx(8 / per_token)
