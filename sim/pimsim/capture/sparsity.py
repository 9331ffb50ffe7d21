"""PPL-p % sparsity of a real model (Sparsing Law, arXiv 2411.02335, section 3).

A feature's contribution to a token is the size of its activation times the norm of its row of the
last matrix. Those below a layer's threshold are left out; the threshold is the largest at which the
cumulative error of tail truncation (CETT: size of what is left out over the size of the FFN's
output, mean over tokens) stays under one value for all layers. PPL-p % is the sparsity at the
largest CETT at which perplexity rises by no more than p %. The threshold is found on one text and
its cost and ratios are reported on another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pimsim.capture.likelihood import perplexity
from pimsim.capture.loading import LoadedModel
from pimsim.capture.placing import layer_of
from pimsim.config.errors import InputError
from pimsim.workload.sparsity.file import SparsityTrace

__all__ = ["Measured", "measure_sparsity"]

_STEPS = 7
"""Halvings of the interval of CETT; of a layer's threshold twice as many."""
_LARGEST_CETT = 0.5
_LAST = ("down_proj", "fc2", "c_proj", "w2")


@dataclass(frozen=True)
class Measured:
    """What a threshold costs and gives, on the text that it was not chosen on."""

    percent: float
    """Allowed rise of perplexity."""
    cett: float
    ppl_dense: float
    ppl_sparse: float
    ratio: float
    """Share of active features, mean over layers and tokens."""
    layer_ratio: tuple[float, ...]

    @property
    def rise(self) -> float:
        """Of perplexity, in per cent."""
        return 100 * (self.ppl_sparse / self.ppl_dense - 1)


def measure_sparsity(
    loaded: LoadedModel, chosen_on: Any, reported_on: Any, percents: Sequence[float],
    mask_tokens: int, source: str, report: Callable[[str], None],
) -> tuple[SparsityTrace, list[Measured]]:  # fmt: skip
    """Measure at each threshold; masks are those of the first.

    Parameters
    ----------
    loaded
        A model with weights.
    chosen_on
        Token ids that thresholds are found on, shape (sequences, tokens).
    reported_on
        Token ids that are measured, shape (sequences, tokens).
    percents
        What perplexity may rise by, in percent.
    mask_tokens
        The trace has masks of so many tokens.
    source
        Of the trace.
    report
        Hears what is being done.

    Returns
    -------
    trace : SparsityTrace
        Masks of the first of ``percents``.
    measured : list[Measured]
        One for each of ``percents``.

    Raises
    ------
    InputError
        For a model without dense FFNs, or NaN in its activations.
    """
    lasts = _last_matrices(loaded)
    norms = [module.weight.norm(dim=0) for module in lasts]
    report("activations of the first text")
    inputs = _inputs(loaded, lasts, chosen_on)
    dense = perplexity(loaded, chosen_on)
    measured, trace = [], None
    for percent in percents:
        report(f"PPL-{percent:g} %: looking for the threshold")
        low, high = 0.0, _LARGEST_CETT
        for _ in range(_STEPS):
            middle = (low + high) / 2
            limits = _thresholds(inputs, norms, lasts, middle)
            with _cut(lasts, norms, limits, None):
                rise = perplexity(loaded, chosen_on) / dense - 1
            low, high = (middle, high) if rise <= percent / 100 else (low, middle)
        limits = _thresholds(inputs, norms, lasts, low)
        masks: list[list[Any]] = [[] for _ in lasts]
        with _cut(lasts, norms, limits, masks):
            sparse = perplexity(loaded, reported_on)
        found = [torch.cat(layer) for layer in masks]
        ratios = tuple(float(mask.float().mean()) for mask in found)
        measured.append(
            Measured(
                percent, low, perplexity(loaded, reported_on), sparse,
                float(np.mean(ratios)), ratios,
            )
        )  # fmt: skip
        if trace is None:
            tokens = reported_on.flatten()[:mask_tokens]
            active = np.stack([mask[:mask_tokens].numpy() for mask in found])
            trace = SparsityTrace(
                loaded.name, source, active.shape[2], tokens.numpy().astype(np.int64), active,
                asdict(measured[0]) | {"thresholds": limits},
            )  # fmt: skip
    assert trace is not None
    return trace, measured


def _last_matrices(loaded: LoadedModel) -> list[Any]:
    """The last matrix of each block's FFN, in order."""
    found = {}
    for name, module in loaded.model.named_modules():
        layer, inner = layer_of(name)
        if layer is None or "experts" in inner or not isinstance(module, torch.nn.Linear):
            continue
        if inner.rsplit(".", 1)[-1] in _LAST:
            found[layer] = module
    if not found:
        raise InputError(f"model {loaded.name}: it has no dense feed-forward networks")
    return [found[layer] for layer in sorted(found)]


def _inputs(loaded: LoadedModel, lasts: Sequence[Any], ids: Any) -> list[Any]:
    """What goes into each last matrix, shape (tokens, ffn)."""
    kept: list[list[Any]] = [[] for _ in lasts]
    handles = [
        module.register_forward_pre_hook(
            lambda _, args, into=into: into.append(args[0].reshape(-1, args[0].shape[-1]))
        )
        for module, into in zip(lasts, kept, strict=True)
    ]
    try:
        perplexity(loaded, ids)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(layer) for layer in kept]


def _thresholds(
    inputs: Sequence[Any], norms: Sequence[Any], lasts: Sequence[Any], cett: float
) -> list[float]:
    """The largest threshold of each layer whose truncation error stays under ``cett``."""
    limits: list[float] = []
    with torch.no_grad():
        for values, norm, module in zip(inputs, norms, lasts, strict=True):
            size = values.abs() * norm
            whole = (values @ module.weight.T).norm(dim=1).clamp_min(1e-12)
            # by rank: a few huge features would leave a search by value without resolution
            ranked = size.flatten().sort().values
            low, high = 0, len(ranked) - 1
            for _ in range(2 * _STEPS):
                middle = (low + high) // 2
                left_out = torch.where(size < ranked[middle], values, torch.zeros_like(values))
                error = float(((left_out @ module.weight.T).norm(dim=1) / whole).mean())
                low, high = (middle, high) if error <= cett else (low, middle)
            limits.append(float(ranked[low]))
    return limits


@contextmanager
def _cut(lasts: Sequence[Any], norms: Sequence[Any], limits: Sequence[float], masks: Any) -> Any:
    """Features below their layer's threshold are zero; ``masks`` collects which stay."""

    def hook(index: int) -> Any:
        def cut(module: Any, arguments: Any) -> Any:
            values = arguments[0]
            active = values.abs() * norms[index] >= limits[index]
            # an activation of exactly zero never works, whatever the threshold
            active &= values != 0
            if masks is not None:
                masks[index].append(active.reshape(-1, active.shape[-1]))
            return (values * active,)

        return cut

    handles = [module.register_forward_pre_hook(hook(at)) for at, module in enumerate(lasts)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
