"""Whether the traced path computes what the model itself does, with its real weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pimsim.capture.attention import TraceCache, traced_attention
from pimsim.capture.export import cache_argument
from pimsim.capture.recorder import OperationRecorder
from pimsim.config.errors import InputError

__all__ = ["Agreement", "compare_with_model"]

_STEPS = 8
_LONGEST = 1024
"""Prompt tokens at most; a longer window is not reached."""


@dataclass(frozen=True)
class Agreement:
    """Logits of the traced path against the model's own, over a prompt and decode steps."""

    prompt_tokens: int
    steps: int
    largest_difference: float
    largest_logit: float
    same_top1: int
    """Positions with the same best token, of ``positions``."""
    positions: int

    @property
    def relative(self) -> float:
        """Largest difference over the largest logit."""
        return self.largest_difference / self.largest_logit if self.largest_logit else 0.0


def compare_with_model(model: Any, seed: int = 0) -> Agreement:
    """Run a random prompt and ``_STEPS`` decode steps both ways.

    The prompt is longer than a sliding window of up to 1000 tokens. MLA is absorbed in decode, so
    that its two forms are compared as well.

    Parameters
    ----------
    model
        Of ``transformers``, with weights.
    seed
        Of the prompt.

    Returns
    -------
    Agreement
        Tokens, largest differences of logits, and how many best tokens are the same.

    Raises
    ------
    InputError
        Where the model cannot be run, or its logits are no finite numbers.
    """
    config = model.config.get_text_config()
    window = int(getattr(config, "sliding_window", None) or 0)
    prompt = window + 24 if 0 < window < _LONGEST - 24 else 48
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, config.vocab_size, (1, prompt + _STEPS), generator=generator)
    try:
        own = _logits(model, ids, prompt, traced=False)
        ours = _logits(model, ids, prompt, traced=True)
    except InputError:
        raise
    except Exception as error:  # the model's own code; its weights may not fit its config
        said = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"{type(model).__name__} cannot be run ({type(error).__name__}: {said})"
        ) from error
    for logits in (own, ours):
        if not torch.isfinite(logits).all():
            raise InputError("the model's logits are no finite numbers: NaN in its activations")
    return Agreement(
        prompt, _STEPS, float((own - ours).abs().max()), float(own.abs().max()),
        int((own.argmax(-1) == ours.argmax(-1)).sum()), own.shape[0],
    )  # fmt: skip


def _logits(model: Any, ids: Any, prompt: int, traced: bool) -> Any:
    """Logits of the prompt's last position and of each step, shape (1 + steps, vocabulary)."""
    from transformers import DynamicCache

    recorder = OperationRecorder()
    argument = cache_argument(model)
    rows = []
    cache = TraceCache(recorder) if traced else DynamicCache()
    with torch.no_grad(), recorder.pause():
        for start, end in [(0, prompt), *((at, at + 1) for at in range(prompt, ids.shape[1]))]:
            call = {"input_ids": ids[:, start:end], "use_cache": True, argument: cache}
            if traced:
                with traced_attention(model, recorder, absorbed=start > 0):
                    out = model(**call)
            else:
                out = model(**call)
            rows.append(out.logits[0, -1].float())
    return torch.stack(rows)
