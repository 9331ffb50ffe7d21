"""Grammar masks on the host: microseconds a token, by a kept library (llguidance).

A JSON text is read token by token, as if the model had made it; before each token the library fills
a mask of the vocabulary. The time is CPU time of one thread of this machine, for one request.
"""

from __future__ import annotations

import json
import keyword
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from pimsim.capture.measurements import Measured, MeasuredRow, Measurement, Subject
from pimsim.capture.text import load_tokenizer
from pimsim.config.base import ConfigModel
from pimsim.config.errors import InputError
from pimsim.config.extras import require_extra

__all__ = ["MEASUREMENT", "Constrained", "ConstrainedSettings"]

_SCHEMA = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"}, "length": {"type": "integer"},
            "kind": {"enum": ["hard", "soft"]},
        },
        "required": ["name", "length", "kind"], "additionalProperties": False,
    },
}  # fmt: skip
"""Of the text: what grammars ask for most, an object of named fields."""


class ConstrainedSettings(ConfigModel):
    """How much is read."""

    objects: int = Field(default=35, ge=1, le=10_000)
    """Of the JSON text, one for each keyword of Python, again from the first where there are
    more."""


class Constrained(Measurement):
    """See the module."""

    Settings = ConstrainedSettings
    settings: ConstrainedSettings
    EXTRA = "grammar"
    FIGURES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "mean_us": ("mean, us a token", "{:.1f}"), "p50_us": ("p50", "{:.1f}"),
        "p99_us": ("p99", "{:.1f}"), "allowed": ("part of the vocabulary allowed", "{:.4f}"),
        "tokens": ("tokens", "{:.0f}"),
    }  # fmt: skip

    def measure(self, subject: Subject) -> Measured:
        """See ``Measurement``."""
        require_extra(self.EXTRA)
        import numpy as np
        from llguidance import LLMatcher, LLTokenizer
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        tokenizer = load_tokenizer(subject.loaded)
        whole = getattr(tokenizer, "backend_tokenizer", tokenizer).to_str()
        known = LLTokenizer(whole)
        ids = subject.encode(_text(self.settings.objects))
        matcher = LLMatcher(known, LLMatcher.grammar_from_json_schema(json.dumps(_SCHEMA)))
        if matcher.is_error():
            raise InputError(f"llguidance: {matcher.get_error()}")
        mask = allocate_token_bitmask(1, known.vocab_size)
        times, allowed = [], 0
        for token in ids:
            begin = time.thread_time()
            fill_next_token_bitmask(matcher, mask)
            times.append(1e6 * (time.thread_time() - begin))
            allowed += int(np.bitwise_count(mask.view(np.uint32)).sum())
            if not matcher.consume_token(token):
                raise InputError(f"llguidance does not take token {token} of a text of the grammar")
        figures = {
            "mean_us": float(np.mean(times)), "p50_us": float(np.quantile(times, 0.5)),
            "p99_us": float(np.quantile(times, 0.99)),
            "allowed": allowed / len(ids) / known.vocab_size, "tokens": len(ids),
        }  # fmt: skip
        workload: dict[str, Any] = {
            "decoding": f"constrained:host_us={figures['mean_us']:.4g}",
            "outside": True,
        }
        row = MeasuredRow("llguidance, a JSON schema", figures, workload)
        what = (
            f"a JSON text of {self.settings.objects} objects, a vocabulary of {known.vocab_size:,}"
        )
        return Measured((row,), what, 0, "the mean is what the host does in a step")


def _text(objects: int) -> str:
    names = [*keyword.kwlist, *keyword.softkwlist]
    return json.dumps(
        [
            {
                "name": names[at % len(names)], "length": len(names[at % len(names)]),
                "kind": "soft" if at % len(names) >= len(keyword.kwlist) else "hard",
            }
            for at in range(objects)
        ]
    )  # fmt: skip


MEASUREMENT = Constrained
