"""What configs differ in, what a line of settings says, delays, quantities; requests that are drawn
and traces that say the same."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cases import values
from facts import facts, number_text
from values_workload import card


def _tried(work: Any) -> Any:
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@values("config/differences")
def _differences() -> Iterator[str]:
    from pimsim.config.differences import differences, labels_of, short_names, shown
    from pimsim.config.loader import load_run

    pairs: tuple[tuple[tuple[str, list[str]], ...], ...] = (
        (("neupims", []), ("neupims", ["schedule.sub_batches=false", "npu.frequency=2GHz"])),
        (("neupims", []), ("npu-pim", [])), (("npu-only", []), ("npu-pim", []), ("neupims", [])),
        (("npu-only", []), ("npu-only", [])), (("npu-only", []), ("ianus", [])),
        (("npu-only", ["seed=1"]), ("npu-only", ["seed=2"]),
         ("npu-only", ["seed=1", "parallel.tp=2"])),
        (("npu-only", ["memory=hbm3-6400"]), ("npu-only", ["memory=ddr5-4800"])),
    )  # fmt: skip
    for given in pairs:
        configs = [load_run(name, sets) for name, sets in given]
        found = differences(configs)
        yield f"=== {given}: {labels_of([name for name, _ in given], found)}"
        for each in found:
            yield f"{each.key}: {' | '.join(each.values)}"
    for keys in (["a.b", "c.b", "c.d"], ["a"], [], ["x.y", "x.y"]):
        yield f"short {keys}: {short_names(keys)}"
    for value in (None, True, False, 1, 2.5, "x", [1, "a"], {"a": None}):
        yield f"shown {value!r}: {shown(value)}"


@values("config/settings")
def _settings() -> Iterator[str]:
    """Of formats, views and strategies, right and wrong."""
    from pimsim.config.settings_text import settings_of_text

    for kind, text in (
        ("format", "int4"), ("format", "int4:group=64"), ("format", "int4:"), ("format", "none"),
        ("format", "int4:group"), ("format", "int4:group=1,group=2"), ("format", "int4:grup=3"),
        ("format", "int4:group=x"), ("format", "int4:=3"), ("format", "int44"), ("format", ""),
        ("format", "int4:group=[1]"), ("format", " kivi : bits = 4 , group = 8 "),
        ("format", "none:a=1"), ("format", "kivi:bits=3"), ("format", "int4:group=-1"),
        ("kv_view", "streaming_llm:window=60"), ("kv_view", "lambda_mask:rotation=queries"),
        ("kv_view", "lambda_mask:rotation=both"),
        ("decoding", "prompt_lookup:drafts=3,acceptance=0.5"),
        ("decoding", "prompt_lookup:drafts=3"), ("decoding", "medusa:acceptance=1.5"),
    ):  # fmt: skip
        found = _tried(lambda a=(kind, text): settings_of_text(*a))
        if isinstance(found, str):
            yield f"{kind} {text!r}: {found}"
            continue
        yield f"{kind} {text!r}: {found[0]}"
        yield from facts(found[1], "  settings")


@values("config/delays")
def _delays() -> Iterator[str]:
    from pimsim.config.delay import evaluate_delay

    names = {"tRP": 7, "CL": 10, "nBL": 2, "zero": 0}
    for text in (
        "tRP", "tRP + CL", "tRP - CL", "CL - tRP", "2 * tRP + 1", "tRP * CL", "-tRP",
        "max(tRP, CL)", "min(tRP, CL, nBL)", "max(CL - tRP, 0) + nBL", "(tRP + 1) * 2", "CL / 2",
        "CL // 4", "tRPP",
        "tRP +", "", "7", "1.5", "abs(tRP)", "tRP if CL else 0", "max()", "max(tRP)", "CL // zero",
        "9999999999 * 9999999999", "'a'", "-(tRP - CL)", "CL - tRP - nBL - 1", "True",
    ):  # fmt: skip
        yield f"{text!r}: {_tried(lambda text=text: evaluate_delay(text, names, 'here'))}"


@values("workload/generated")
def _generated() -> Iterator[str]:
    """Lengths that are drawn, with their probabilities."""
    from pimsim.workload.generate import (
        DATASETS,
        LengthDistribution,
        draw_requests,
        generate_trace,
        length_probabilities,
        seen_output_probabilities,
    )

    for mean, cv, longest in ((3.0, 0.5, 9), (80.0, 1.0, 500), (1.0, 0.1, 4), (40.0, 3.0, 60)):
        given = LengthDistribution(mean, cv, longest)
        for name, of in (("all", length_probabilities), ("seen", seen_output_probabilities)):
            found = _tried(lambda a=(of, given): a[0](a[1]))
            if isinstance(found, str):
                yield f"{name} {mean} {cv} {longest}: {found}"
                continue
            whole = sum((n + 1) * p for n, p in enumerate(found))
            told = [number_text(each) for each in found[:5]]
            yield f"{name} {mean} {cv} {longest}: {len(found)} mean {number_text(whole)}, {told}"
    for name in sorted(DATASETS):
        yield from facts(DATASETS[name], name)
        drawn = draw_requests(name, 6, 3)
        yield f"{[(r.prompt_tokens, r.output_tokens, r.generated_tokens) for r in drawn]}"
        yield f"the start {draw_requests(name, 3, 3) == drawn[:3]}"
    for bad in (("sharegpt", 0, 0), ("sharegp", 1, 0), ("alpaca", 1, -1), ("alpaca", 1, 2**64)):
        yield f"{bad}: {_tried(lambda bad=bad: draw_requests(*bad))}"
    with tempfile.TemporaryDirectory() as folder:
        path = generate_trace(sorted(DATASETS)[0], 3, 9, Path(folder) / "made.csv")
        yield path.read_text()


@values("workload/agreement")
def _agreement() -> Iterator[str]:
    """Traces of cards against those of cards that differ a little."""
    from pimsim.workload.agreement import disagreements
    from pimsim.workload.card_trace import card_trace

    base = card("gqa")
    changes: tuple[dict[str, Any], ...] = (
        {}, {"ffn_hidden": 1008}, {"kv_heads": 3}, {"bias": True}, {"norm": "layernorm"},
        {"activation": "gelu"}, {"layers": 3}, {"qk_norm": None}, {"tied_embeddings": True},
        {"ffn_gated": False}, {"vocab": 1004}, {"kv_dtype_bytes": 1}, {"rope": False},
    )  # fmt: skip
    for change in changes:
        other = base.model_copy(update=change)
        found = _tried(lambda o=other: list(disagreements(card_trace(base), card_trace(o))))
        if isinstance(found, str):
            yield f"{change}: {found}"
            continue
        yield f"=== {change}: {len(found)}"
        yield from (str(each) for each in found[:12])
    moe = card("moe")
    assert moe.moe is not None
    for change in (
        {"experts": 4},
        {"experts_per_token": 1},
        {"shared_hidden": 0},
        {"dense_layers": 2},
    ):
        other = moe.model_copy(update={"moe": moe.moe.model_copy(update=change)})
        found = list(disagreements(card_trace(moe), card_trace(other)))
        yield f"=== {change}: {len(found)}"
        yield from (str(each) for each in found[:12])
