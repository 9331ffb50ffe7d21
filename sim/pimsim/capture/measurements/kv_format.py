"""Keys and values in fewer bits: their error, and perplexity.

Numbers are rounded as the cache holds them, keys behind their rotary embedding; the last
``residual`` tokens of each query are as the model has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from pimsim.capture.formats_asked import FormatSettings, format_texts
from pimsim.capture.likelihood import perplexity
from pimsim.capture.measurements import Measured, MeasuredRow, Measurement, Subject, smallest_within
from pimsim.capture.narrow import narrowed_cache, relative_error
from pimsim.capture.own_attention import Attend, attending, causal, softmaxed
from pimsim.workload.formats import load_format
from pimsim.workload.stored_cache import CacheFormat

__all__ = ["MEASUREMENT", "KvFormatSettings", "KvFormats"]


class KvFormatSettings(FormatSettings):
    """Which formats."""

    formats: str = "int8/fp8/int4/mxfp4/int3/kivi:bits=4/kivi"
    """As ``workload.kv_format`` has them, further keys of one behind a plus sign."""


class KvFormats(Measurement):
    """See the module."""

    Settings = KvFormatSettings
    settings: KvFormatSettings
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "bits": ("bits an element", "{:.2f}"), "keys": ("error of keys", "{:.4f}"),
        "values": ("error of values", "{:.4f}"), "perplexity": ("perplexity", "{:.2f}"),
        "rise": ("rise, %", "{:+.2f}"),
    }  # fmt: skip

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        asked = self.settings
        formats = {
            text: load_format(text).cache() for text in format_texts(asked.formats, "kv_format")
        }
        name = subject.text_of(asked.text)
        ids = torch.tensor([subject.piece(name, asked.tokens)])
        subject.report("perplexity of the cache as it is")
        before = perplexity(subject.loaded, ids)
        rows = []
        for text, fmt in formats.items():
            subject.report(text)
            errors: dict[str, list[float]] = {"keys": [], "values": []}
            dims: list[int] = []
            with attending(subject.loaded.model, _attend(fmt, errors, dims)):
                after = perplexity(subject.loaded, ids)
            figures = {
                "bits": 8 * fmt.head_bytes(dims[0]) / dims[0], "perplexity": after,
                "rise": 100 * (after / before - 1),
                **{key: sum(each) / len(each) for key, each in errors.items()},
            }  # fmt: skip
            rows.append(MeasuredRow(text, figures, {"kv_format": text}))
        chosen = smallest_within(rows, "bits", "rise", asked.rise)
        return Measured(
            tuple(rows), f"{asked.tokens} tokens of {subject.texts[name][0]}, {before:.2f} before",
            chosen, f"fewest bits of those whose perplexity rises by at most {asked.rise:g} %",
        )  # fmt: skip


def _attend(fmt: CacheFormat, errors: dict[str, list[float]], dims: list[int]) -> Attend:
    def attend(_: int, query: Any, key: Any, value: Any, scale: float) -> Any:
        keys = narrowed_cache(key, fmt, keys=True)
        values = narrowed_cache(value, fmt, keys=False)
        errors["keys"].append(relative_error(keys, key))
        errors["values"].append(relative_error(values, value))
        dims.append(key.shape[-1])
        scores = (query @ keys.transpose(2, 3)) * scale
        if not fmt.residual:
            return softmaxed(scores, causal(key.shape[2])).to(value.dtype) @ values
        at = torch.arange(key.shape[2])
        last = at.unsqueeze(1) - at.unsqueeze(0) < fmt.residual
        scores = torch.where(last, (query @ key.transpose(2, 3)) * scale, scores)
        weights = softmaxed(scores, causal(key.shape[2])).to(value.dtype)
        return (weights * last) @ value + (weights * ~last) @ values

    return attend


MEASUREMENT = KvFormats
