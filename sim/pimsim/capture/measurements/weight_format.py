"""Weights in fewer bits: error of the matrices, and perplexity.

Matrices of the blocks are rounded to the nearest number of the format, or their smallest weights
left out; no calibration (AWQ, GPTQ, SparseGPT) and no training repairs what is lost, so that a
published method loses less. Weights that come in few bits already (SmolLM2's file: Q4_1, groups of
32) lose less in a format that is no finer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import hypot
from typing import Any, ClassVar

import torch

from pimsim.capture.formats_asked import FormatSettings, format_texts
from pimsim.capture.likelihood import perplexity
from pimsim.capture.measurements import Measured, MeasuredRow, Measurement, Subject, smallest_within
from pimsim.capture.narrow import narrowed_weights
from pimsim.capture.placing import layer_of
from pimsim.config.errors import InputError
from pimsim.workload.formats import load_format
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["MEASUREMENT", "WeightFormatSettings", "WeightFormats"]

_ELEMENT_BITS = 16
"""Of the weights that a format is held against."""


class WeightFormatSettings(FormatSettings):
    """Which formats."""

    formats: str = "int8/int4/int4:group=32/int3/fp8/mxfp4/nvfp4/semi_structured"
    """As ``workload.weight_format`` has them, further keys of one behind a plus sign."""


class WeightFormats(Measurement):
    """See the module."""

    Settings = WeightFormatSettings
    settings: WeightFormatSettings
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "bits": ("bits a weight", "{:.2f}"), "error": ("relative error", "{:.4f}"),
        "perplexity": ("perplexity", "{:.2f}"), "rise": ("rise, %", "{:+.2f}"),
    }  # fmt: skip

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        asked = self.settings
        formats = {
            text: load_format(text).weights(_ELEMENT_BITS)
            for text in format_texts(asked.formats, "weight_format")
        }
        for text, fmt in formats.items():
            if not fmt.dtype and fmt.kept == 1:
                raise InputError(f"formats: {text!r} keeps every weight as it is")
        name = subject.text_of(asked.text)
        ids = torch.tensor([subject.piece(name, asked.tokens)])
        matrices = _matrices(subject.loaded.model)
        subject.report("perplexity of the weights as they are")
        before = perplexity(subject.loaded, ids)
        rows = []
        for text, fmt in formats.items():
            subject.report(text)
            with _held(matrices, fmt) as error:
                after = perplexity(subject.loaded, ids)
            figures = {
                "bits": _bits(matrices, fmt), "error": error, "perplexity": after,
                "rise": 100 * (after / before - 1),
            }  # fmt: skip
            rows.append(MeasuredRow(text, figures, {"weight_format": text}))
        chosen = smallest_within(rows, "bits", "rise", asked.rise)
        return Measured(
            tuple(rows), f"{asked.tokens} tokens of {subject.texts[name][0]}, {before:.2f} before",
            chosen, f"fewest bits of those whose perplexity rises by at most {asked.rise:g} %",
        )  # fmt: skip


def _matrices(model: Any) -> list[Any]:
    """Of the products of the blocks."""
    found = [
        module for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and layer_of(name)[0] is not None
    ]  # fmt: skip
    if not found:
        raise InputError(f"{type(model).__name__} has no matrices in its blocks")
    return found


def _bits(matrices: list[Any], fmt: WeightFormat) -> float:
    held = sum(
        size for each in matrices for _, size in fmt.pieces(*reversed(each.weight.shape)).values()
    )
    numbers: int = sum(each.weight.numel() for each in matrices)
    return 8 * held / numbers


@contextmanager
def _held(matrices: list[Any], fmt: WeightFormat) -> Iterator[float]:
    """The model with its matrices in a format; yields their error."""
    kept: list[Any] = []
    wrong: list[float] = []
    whole: list[float] = []
    for each in matrices:
        exact = each.weight.data
        found = narrowed_weights(exact, fmt)
        wrong.append(float((found - exact).norm()))
        whole.append(float(exact.norm()))
        kept.append(exact)
        each.weight.data = found
    try:
        yield hypot(*wrong) / hypot(*whole)
    finally:
        for each, exact in zip(matrices, kept, strict=True):
            each.weight.data = exact


MEASUREMENT = WeightFormats
