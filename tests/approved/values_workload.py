"""Models as operators, steps, degrees, routing, sparsity and draws."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import yaml
from cases import HERE, values
from facts import facts, number_text
from values_presets import alike


def card(name: str) -> Any:
    """A shipped card, or one of those in ``commands/runs.yaml``."""
    from pimsim.workload.cards import ModelCard, load_card

    files = yaml.safe_load((HERE / "commands" / "runs.yaml").read_text())["files"]
    if f"{name}.yaml" in files:
        return ModelCard.model_validate(yaml.safe_load(files[f"{name}.yaml"]))
    return load_card(name)


def trace_lines(trace: Any) -> list[str]:
    """As the file has it, without the versions of what made it."""
    from pimsim.workload.trace import dump_trace

    return [
        line
        for line in dump_trace(trace).splitlines()
        if not line.startswith(('"source"', '"version"'))
    ]


@values("workload/card-traces")
def _card_traces() -> Iterator[str]:
    from pimsim.workload.card_trace import card_trace

    names = ("tiny", "gqa", "moe", "mla", "gemma-3-270m")
    yield from alike({name: trace_lines(card_trace(card(name))) for name in names})


def _steps() -> dict[str, Any]:
    from pimsim.workload.requests import Request
    from pimsim.workload.step import Step, StepEntry

    asked = [Request(n, 0.0, size, 9, 1) for n, size in enumerate((40, 7, 256))]
    decode = Step.decode(asked)
    prefill = Step.prefill(Request(n, 0.0, size, 9, 0) for n, size in enumerate((33, 100)))
    mixed = Step((StepEntry(asked[0], 1, 41, 1), StepEntry(asked[2], 64, 200, 0, 0)))
    return {"decode": decode, "prefill": prefill, "mixed": mixed}


@values("workload/operators")
def _operators() -> Iterator[str]:
    from pimsim.workload.decode import card_pass

    for name, tp in (("tiny", 1), ("gqa", 2), ("moe", 2), ("mla", 2), ("gemma-3-270m", 1)):
        for label, step in _steps().items():
            found = card_pass(card(name), step, tp=tp, layers=2)
            yield f"=== {name}, tp {tp}, {label}: flops {found.flops}"
            for block in found.blocks[-1:]:
                for one in block.operators:
                    told = {
                        key: value for key, value in _slots(one).items()
                        if value not in (None, 0, (), "", False)
                    }  # fmt: skip
                    yield "; ".join(" ".join(facts(value, key)) for key, value in told.items())


def _slots(value: Any) -> dict[str, Any]:
    from dataclasses import fields

    return {each.name: getattr(value, each.name) for each in fields(value)}


@values("workload/steps")
def _step_numbers() -> Iterator[str]:
    from pimsim.config.loader import load_run
    from pimsim.workload.requests import Request
    from pimsim.workload.run_steps import prompt_pieces, run_steps

    for label, step in _steps().items():
        yield f"=== {label}"
        yield from facts([step.contexts, step.new_tokens, step.tokens, step.logits, step.made])
        for window in (None, 1, 16, 64, 1000):
            numbers = [(one.keys(window), one.pairs(window)) for one in step.entries]
            yield from facts(numbers, f"window {window}")
    asked = [
        Request(0, 0.0, 100, 9, 3),
        Request(1, 0.0, 33, 9, 0, None, 5),
        Request(2, 0.0, 8, 9, 1),
    ]
    for sets in (
        [], ["workload.steps=3"], ["workload.phase=prefill"],
        ["workload.phase=prefill", "workload.chunk=32"],
        ["workload.phase=prefill", "workload.chunk=33", "workload.steps=6"],
        ["workload.chunk=2", "workload.steps=4"],
    ):  # fmt: skip
        yield f"=== {sets}"
        for step in run_steps(asked, load_run("npu-only", sets).config.workload):
            yield from facts(
                [(e.request.id, e.new_tokens, e.context, e.logits) for e in step.entries], "step"
            )
    for tokens, chunk in ((10, 3), (9, 3), (1, 5), (5, 5)):
        pieces = list(prompt_pieces(Request(0, 0.0, tokens + 4, 9, 0), 4, tokens, chunk))
        yield from facts([_slots(each) for each in pieces], f"pieces of {tokens} by {chunk}")


def _tried(work: Any) -> Any:
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@values("workload/degrees")
def _degrees() -> Iterator[str]:
    from pimsim.config.resources import preset_names
    from pimsim.workload.card_trace import card_trace
    from pimsim.workload.decode import memory_needs
    from pimsim.workload.degrees import trace_degrees, trace_memory_needs
    from pimsim.workload.instantiate import sample_blocks
    from pimsim.workload.pipeline import Room

    step = _steps()["decode"]
    for name in ["tiny", "gqa", "moe", "mla", *sorted(preset_names("model"))]:
        one = card(name)
        trace = card_trace(one)
        yield f"=== {name}"
        for tp, pp, batches in ((1, 1, None), (2, 2, None), (4, 3, 2)):
            needs = _tried(lambda a=(one, step, tp, pp, batches): memory_needs(*a))
            yield from facts(needs, f"card, tp {tp}, pp {pp}, batches {batches}")
            needs = _tried(lambda a=(trace, step, tp, pp, batches): trace_memory_needs(*a))
            yield from facts(needs, f"trace, tp {tp}, pp {pp}, batches {batches}")
        for gib in (1, 16, 80):
            room = Room(gib * 2**30)
            found = _tried(lambda a=(trace, step, None, None, room): trace_degrees(*a))
            yield from facts(found, f"{gib} GiB")
    for kinds in (["a"] * 9, ["a", "b", "b", "a", "b", "b", "c"], list("abcdefgh")):
        for count in (None, 1, 2, 3, 5, 7):
            for spread in (False, True):
                chosen = _tried(lambda a=(kinds, count, spread): sample_blocks(*a))
                yield from facts(chosen, f"{''.join(kinds)}, {count}, {spread}")


@values("workload/routing")
def _routing() -> Iterator[str]:
    from pimsim.workload.moe import UniformRouting
    from pimsim.workload.routing.generators import TokenIdRouting, ZipfRouting
    from pimsim.workload.routing.replay import capacity, dropped

    for routing in (
        UniformRouting(8, 2), UniformRouting(8, 2, 5), ZipfRouting(8, 2, 1.0),
        ZipfRouting(6, 1, 0.5, 3),
        TokenIdRouting(8, 2), TokenIdRouting(8, 3, 1),
    ):  # fmt: skip
        for layer in (0, 3):
            found = _tried(lambda r=routing, n=layer: r.assignments(n, 7))
            yield from facts(found, f"{type(routing).__name__} {layer}")
    chosen = UniformRouting(8, 2).assignments(0, 30)
    for factor in (0.5, 1.0, 1.25, 3.0):
        limit = capacity(factor, 30, 2, 8)
        yield f"capacity {factor} = {limit}"
        yield from facts(dropped(chosen, limit, 8), f"dropped {factor}")


@values("workload/sparsity")
def _sparsity() -> Iterator[str]:
    from pimsim.config.resources import preset_path
    from pimsim.workload.sparsity import load_sparsity
    from pimsim.workload.sparsity.file import read_sparsity
    from pimsim.workload.sparsity.union import by_popularity, kept, neighbours, unions

    for spec in (
        "law:relu:tokens=1000", "law:silu:tokens=100:size=0.8", "law:relu:tokens=10:width-depth=50",
        "law:relu:tokens=10:width-depth=300", "law:relu", "law:tanh:tokens=3", "law:relu:token=3",
        "law:relu:tokens=-1", "nothing",
    ):  # fmt: skip
        found = _tried(lambda s=spec: load_sparsity(s, layers=3, ffn=64))
        yield f"=== {spec}: {found if isinstance(found, str) else type(found).__name__}"
        if found is not None and not isinstance(found, str):
            yield from facts(_slots(found), "  law")
    trace = read_sparsity(preset_path("sparsity", "tiny-relu"))
    yield from facts(unions(trace, draws=3), "unions")
    yield f"neighbours = {number_text(neighbours(trace))}"
    mask = np.array([n % 5 == 0 or n > 27 for n in range(37)])
    for granularity in (1, 4, 16, 64):
        yield from facts(kept(mask, granularity).astype(int), f"kept {granularity}")
    yield from facts(by_popularity(trace.active[0])[:40], "by popularity")


@values("workload/draws")
def _draws() -> Iterator[str]:
    from pimsim.workload.draws import RandomStream

    weights = np.array([0.5, 0.25, 0.125, 0.125])
    yield from facts(RandomStream(7, 1, 2).permutation(12), "permutation")
    yield from facts(RandomStream(7, 1, 3).weighted_subsets(5, weights, 2), "weighted subsets")
    yield from facts(RandomStream(8, 1, 3).weighted_subsets(5, weights, 3), "weighted subsets")
