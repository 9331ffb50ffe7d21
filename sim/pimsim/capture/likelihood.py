"""How well a model foretells a text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pimsim.capture.loading import LoadedModel
from pimsim.config.errors import InputError

__all__ = ["perplexity"]


def perplexity(loaded: LoadedModel, ids: Any) -> float:
    """Of a text that is read in rows, each by itself.

    Parameters
    ----------
    loaded
        A model with weights.
    ids
        Token ids, shape (rows, tokens).

    Raises
    ------
    InputError
        For NaN in its activations.
    """
    total, count = 0.0, 0
    with torch.no_grad():
        for row in ids:
            logits = loaded.model(input_ids=row.unsqueeze(0), use_cache=False).logits[0, :-1]
            loss = torch.nn.functional.cross_entropy(logits.float(), row[1:], reduction="sum")
            total += float(loss)
            count += len(row) - 1
    if not np.isfinite(total):
        raise InputError(f"model {loaded.name}: NaN in its activations")
    return float(np.exp(total / count))
