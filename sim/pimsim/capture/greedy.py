"""Texts that a model makes by itself, the best token each time, and how many tokens of them rounds
of guesses would have made.

Greedy decoding with verified drafts makes the same text as without, so that the text is made once
and each way of guessing is held against it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from pydantic import Field

from pimsim.capture.export import cache_argument
from pimsim.capture.measurements import Subject
from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError

__all__ = ["GreedySettings", "continued", "made_texts", "tokens_per_round"]


class GreedySettings(ConfigModel):
    """Which texts are made."""

    texts: str = "docs/prose/code"
    """Prompts are of these texts of the standard library, where no file is given."""
    prompts: int = Field(default=2, ge=1, le=1000)
    """Of each text."""
    prompt: int = Field(default=128, ge=4, le=100_000)
    """Tokens of a prompt."""
    made: int = Field(default=64, ge=2, le=100_000)
    """Tokens that are made behind it."""


def made_texts(subject: Subject, asked: GreedySettings) -> dict[str, Any]:
    """The model's own continuations, by text.

    Parameters
    ----------
    subject
        Model and texts.
    asked
        Which, and how long.

    Returns
    -------
    dict
        Token ids, shape (prompts, prompt + made).

    Raises
    ------
    InputError
        For an unknown text, or one that is too short.
    """
    names = asked.texts.split("/") if len(subject.texts) > 1 else list(subject.texts)
    for name in names:
        subject.text_of(name)
    pieces = [
        subject.piece(name, asked.prompt, at / asked.prompts)
        for name in names for at in range(asked.prompts)
    ]  # fmt: skip
    subject.report(f"{len(pieces)} prompts of {asked.prompt} tokens, {asked.made} made behind each")
    ids = continued(subject.loaded.model, torch.tensor(pieces), asked.made)
    return dict(zip(names, ids.split(asked.prompts), strict=True))


def continued(model: Any, prompts: Any, tokens: int) -> Any:
    """Prompts with what the model makes behind them; an end of text does not end it.

    Parameters
    ----------
    model
        Of ``transformers``.
    prompts
        Token ids, shape (prompts, tokens).
    tokens
        That are made.

    Raises
    ------
    InputError
        For a text longer than the model's.
    """
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    whole = prompts.shape[1] + tokens
    if longest is not None and whole > longest:
        raise InputError(f"prompt and what is made are {whole} tokens; the model takes {longest}")
    named = cache_argument(model)
    cache, fed, parts = None, prompts, [prompts]
    with torch.no_grad():
        for _ in range(tokens):
            out = model(input_ids=fed, use_cache=True, **{named: cache})
            cache, fed = getattr(out, named), out.logits[:, -1:].argmax(-1)
            parts.append(fed)
    return torch.cat(parts, dim=1)


def tokens_per_round(
    text: Sequence[int], prompt: int, depth: int,
    right: Callable[[Sequence[int], Sequence[int]], int],
) -> list[int]:  # fmt: skip
    """Tokens that each round makes of a text, the model's own included.

    Parameters
    ----------
    text
        Token ids, the prompt's first.
    prompt
        Tokens that are given.
    depth
        Most guesses that can be right. Rounds that the end of the text would cut short are left
        out.
    right
        How many guesses are right, of what is known and what follows.
    """
    found, at = [], prompt
    while at + depth + 1 <= len(text):
        found.append(right(text[:at], text[at : at + depth]) + 1)
        at += found[-1]
    return found
