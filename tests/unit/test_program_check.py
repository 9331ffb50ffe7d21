"""Operator traces that are valid JSON but no program: refused when they are read."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pimsim.config.errors import InputError
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.trace import OperatorTrace, dump_trace, load_trace

DENSE = json.loads(dump_trace(card_trace(load_card("llama-3-8b"))))
EXPERTS = json.loads(dump_trace(card_trace(load_card("mixtral-8x7b"))))


def operator(trace: dict[str, Any], name: str) -> dict[str, Any]:
    """The first operator of that name in decode."""
    blocks = trace["phases"]["decode"]["blocks"].values()
    found: dict[str, Any] = next(o for block in blocks for o in block if o["name"] == name)
    return found


def first(trace: dict[str, Any], kind: str) -> dict[str, Any]:
    blocks = trace["phases"]["decode"]["blocks"].values()
    found: dict[str, Any] = next(o for block in blocks for o in block if o["kind"] == kind)
    return found


def _weights(trace: dict[str, Any], kind: str, size: object) -> None:
    found = first(trace, kind)
    found["operands"] = [o for o in found["operands"] if o["role"] != "weight"]
    found["operands"].append({"name": "w", "role": "weight", "dtype": "bf16", "bytes": size})


Change = Callable[[dict[str, Any]], object]
CHANGES: dict[str, tuple[dict[str, Any], Change, str]] = {
    "a product of one row": (DENSE, lambda t: first(t, "gemm").update(m=1), "m is "),
    "of none": (DENSE, lambda t: first(t, "gemm").update(m=0), "m is 0"),
    "of pairs": (DENSE, lambda t: first(t, "gemm").update(m={"P": 1}), "counts P"),
    "without columns": (DENSE, lambda t: first(t, "gemm").update(n=0), "n is 0"),
    "without depth": (DENSE, lambda t: first(t, "gemm").update(k=0), "k is 0"),
    "without weights": (DENSE, lambda t: _weights(t, "gemm", 0), "weights of 0 bytes"),
    "weights by token": (DENSE, lambda t: _weights(t, "gemm", {"T": 1}), "a constant is"),
    "weights of a thousandth": (DENSE, lambda t: _weights(t, "gemm", 1000), "bits each"),
    "weights of a thousandfold": (DENSE, lambda t: _weights(t, "gemm", 2**50), "bits each"),
    "rows of a window elsewhere": (
        DENSE, lambda t: first(t, "norm").update(rows={"P@1": 1}), "counts P@1"),
    "rows of nothing": (DENSE, lambda t: first(t, "norm").update(rows=0), "rows is 0"),
    "rows of a constant": (DENSE, lambda t: first(t, "norm").update(rows=3), "rows is"),
    "no width": (DENSE, lambda t: first(t, "norm").update(width=0), "width is 0"),
    "a window that the form does not have": (
        DENSE, lambda t: first(t, "attention_score").update(window=7), "its window is 7"),
    "a form of another window": (
        DENSE, lambda t: first(t, "softmax").update(flops={"P@9": 1}), "its window is none"),
    "no heads": (DENSE, lambda t: first(t, "attention_score").update(heads=0), "heads is 0"),
    "uneven heads": (
        DENSE, lambda t: first(t, "attention_score").update(kv_heads=5), "cannot share"),
    "experts where none are": (
        DENSE, lambda t: first(t, "elementwise").update(rows={"A": 1}), "no experts"),
    "facts without experts": (
        EXPERTS, lambda t: t["facts"].update(experts=0, experts_per_token=0), "facts.experts is 0"),
    "more a token than there are": (
        EXPERTS, lambda t: t["facts"].update(experts_per_token=9), "of 8 experts"),
    "weights of experts as a constant": (
        EXPERTS, lambda t: _weights(t, "expert_gemm", 2**27), "one each expert"),
    "experts by token": (
        EXPERTS, lambda t: first(t, "expert_gemm").update(m={"T": 1}), "m is"),
    "uneven facts": (DENSE, lambda t: t["facts"].update(kv_heads=5), "facts.heads is 32"),
    "values without scores": (
        DENSE, lambda t: first(t, "attention_value").update(depends_on=[]), "does not depend on"),
    "attention outside": (
        DENSE, lambda t: t["phases"]["decode"]["blocks"]["embed"].append(
            first(t, "kv_append") | {"depends_on": []}), "before or after"),
    "a size beyond all": (DENSE, lambda t: first(t, "gemm").update(n=2**63), "268435456"),
    "a form beyond all": (DENSE, lambda t: first(t, "gemm").update(flops={"T": 2**63}), "2^50"),
    "two attentions": (
        DENSE, lambda t: first(t, "softmax").update(kind="attention_score"), "one of each"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_no_program_is_refused_when_it_is_read(name: str, tmp_path: Path) -> None:
    base, change, said = CHANGES[name]
    trace = copy.deepcopy(base)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(trace))
    assert load_trace(path) == OperatorTrace.model_validate_json(json.dumps(base))
    change(trace)
    path.write_text(json.dumps(trace))
    with pytest.raises(InputError) as error:
        load_trace(path)
    line = str(error.value)
    assert line.startswith(f"{path}: ")
    assert said in line
    assert "Value error" not in line
