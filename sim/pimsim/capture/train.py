"""Small real models, trained in minutes on text that is on any machine with Python.

``python -m pimsim.capture.train --kind moe --out DIR`` trains a Mixtral of 4 blocks with 16
experts, 2 a token; ``--kind relu`` a dense Llama with ReLU instead of SiLU, ``--kind silu`` its
control. The text is the docstrings of Python's standard library, cut into a training and a
held-out part; the tokenizer is a BPE trained on it. The same arguments give the same checkpoint on
the same machine.

The load-balancing loss is that of each layer by itself (Switch Transformer, arXiv 2101.03961,
equation 4): transformers' own pools the counts over layers, where one layer's dead experts hide
behind another's.
"""

from __future__ import annotations

import argparse
import ast
import json
import sysconfig
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pimsim.config.files import write_whole

__all__ = ["Recipe", "held_out_text", "read_tokenizer", "stdlib_text", "train"]

_VOCAB = 2048
_WIDTH = 256
"""Tokens of a training sequence."""
_BATCH = 16


@dataclass(frozen=True)
class Recipe:
    """What a checkpoint depends on."""

    kind: str = "moe"
    steps: int = 400
    seed: int = 0
    balance: float = 0.02
    """Weight of the load-balancing loss."""
    rate: float = 2e-3
    """Peak learning rate; cosine to a tenth."""


def stdlib_text() -> str:
    """Docstrings of the standard library, in order of path."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    parts = []
    skipped = {"test", "tests", "site-packages", "idlelib", "lib2to3", "__pycache__"}
    for path in sorted(folder.rglob("*.py")):
        if skipped & set(path.relative_to(folder).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, OSError):
            continue  # not a module of this Python
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node)
                if text and len(text) > 60:
                    parts.append(text)
    return "\n\n".join(parts)


def _parts() -> tuple[str, str]:
    """Training and held-out text: of every twenty pieces the last is held out."""
    pieces = stdlib_text().split("\n\n")
    held = [piece for at, piece in enumerate(pieces) if at % 20 == 19]
    kept = [piece for at, piece in enumerate(pieces) if at % 20 != 19]
    return "\n\n".join(kept), "\n\n".join(held)


def held_out_text() -> str:
    """Text that no checkpoint was trained on."""
    return _parts()[1]


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer of a checkpoint.

    Parameters
    ----------
    folder
        Of the checkpoint.

    Returns
    -------
    Any
        Of the package ``tokenizers``.
    """
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _make_tokenizer(text: str, path: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([text], trainer)
    write_whole(path, tokenizer.to_str().encode())
    return tokenizer


def _model(recipe: Recipe) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig

    common: dict[str, Any] = {
        "vocab_size": _VOCAB, "hidden_size": 128, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "tie_word_embeddings": True, "bos_token_id": None, "eos_token_id": None,
    }  # fmt: skip
    if recipe.kind == "moe":
        config: Any = MixtralConfig(
            **common, intermediate_size=128, num_local_experts=16, num_experts_per_tok=2,
            sliding_window=None,
        )  # fmt: skip
    else:
        config = LlamaConfig(**common, intermediate_size=512, hidden_act=recipe.kind)
    torch.manual_seed(recipe.seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _balance(logits: Any, experts: int, per_token: int) -> Any:
    """Switch's loss of one layer: experts times the sum of token share times mean probability."""
    import torch

    probabilities = torch.softmax(logits.float(), dim=-1)
    chosen = probabilities.topk(per_token, dim=-1).indices
    share = torch.nn.functional.one_hot(chosen, experts).float().sum(1).mean(0) / per_token
    return experts * (share * probabilities.mean(0)).sum()


def train(
    recipe: Recipe, out: Path, save_at: tuple[int, ...] = (), report: Any = print
) -> dict[str, Any]:
    """Train, and write config, safetensors, tokenizer and recipe.

    An interrupted training goes on from ``out/state.pt``.

    Parameters
    ----------
    recipe
        What the checkpoint depends on.
    out
        The folder that is written.
    save_at
        Steps with a checkpoint of their own, ``out/step-N``; 0 is untrained.
    report
        Hears how far it is.

    Returns
    -------
    dict[str, Any]
        The losses, and the tokens of the training text.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    import os

    os.environ.setdefault("TQDM_DISABLE", "1")
    import torch

    if recipe.kind not in ("moe", "relu", "silu"):
        raise ValueError(f"unknown kind {recipe.kind!r}; known: moe, relu, silu")
    out.mkdir(parents=True, exist_ok=True)
    training, held = _parts()
    tokenizer = _make_tokenizer(training, out / "tokenizer.json")
    ids = torch.tensor(tokenizer.encode(training).ids, dtype=torch.long)
    held_ids = torch.tensor(tokenizer.encode(held).ids, dtype=torch.long)
    model = _model(recipe)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.rate, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, recipe.steps))
    state = out / "state.pt"
    start = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        if saved["recipe"] == json.dumps(asdict(recipe)):
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            schedule.load_state_dict(saved["schedule"])
            start = int(saved["step"])
    moe = recipe.kind == "moe"
    loss_value = float("nan")
    for step in range(start, recipe.steps):
        if step in save_at and step >= start:
            _save(model, tokenizer, recipe, out / f"step-{step}", step)
        model.train()
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        at = torch.randint(0, len(ids) - _WIDTH - 1, (_BATCH,), generator=generator)
        batch = torch.stack([ids[i : i + _WIDTH + 1] for i in at.tolist()])
        result = model(input_ids=batch[:, :-1], output_router_logits=True) if moe else model(
            input_ids=batch[:, :-1]
        )  # fmt: skip
        logits = result.logits.reshape(-1, _VOCAB)
        loss = torch.nn.functional.cross_entropy(logits, batch[:, 1:].reshape(-1))
        total = loss
        if moe:
            each = [_balance(layer, 16, 2) for layer in result.router_logits]
            total = loss + recipe.balance * sum(each)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        loss_value = float(loss.detach())
        if (step + 1) % 50 == 0:
            report(f"step {step + 1} of {recipe.steps}: loss {loss_value:.3f}")
            partial = state.with_suffix(".part")
            torch.save(
                {
                    "recipe": json.dumps(asdict(recipe)), "step": step + 1,
                    "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(),
                },
                partial,
            )  # fmt: skip
            partial.replace(state)
    held_loss = _held_out_loss(model, held_ids)
    _save(model, tokenizer, recipe, out, recipe.steps)
    state.unlink(missing_ok=True)
    return {"loss": loss_value, "held_out_loss": held_loss, "tokens": len(ids)}


def _rate(step: int, steps: int) -> float:
    from math import cos, pi

    warm = min(1.0, (step + 1) / 20)
    return warm * (0.1 + 0.45 * (1 + cos(pi * min(step / max(steps, 1), 1.0))))


def _held_out_loss(model: Any, ids: Any) -> float:
    import torch

    model.eval()
    rows = [
        ids[i : i + _WIDTH + 1] for i in range(0, min(len(ids) - _WIDTH - 1, 16 * _WIDTH), _WIDTH)
    ]
    batch = torch.stack(rows)
    with torch.no_grad():
        logits = model(input_ids=batch[:, :-1]).logits
    return float(
        torch.nn.functional.cross_entropy(logits.reshape(-1, _VOCAB), batch[:, 1:].reshape(-1))
    )


def _save(model: Any, tokenizer: Any, recipe: Recipe, folder: Path, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder, safe_serialization=True)
    write_whole(folder / "tokenizer.json", tokenizer.to_str().encode())
    write_whole(folder / "recipe.json", json.dumps(asdict(recipe) | {"step": step}).encode())


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kind", choices=("moe", "relu", "silu"), default="moe")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--save-at", type=int, nargs="*", default=(0, 50, 100, 200))
    options = parser.parse_args()
    recipe = Recipe(kind=options.kind, steps=options.steps, seed=options.seed)
    print(train(recipe, options.out, tuple(options.save_at)))


if __name__ == "__main__":
    main()
