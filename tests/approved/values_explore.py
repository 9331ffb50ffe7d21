"""What sweeps, searches and studies of rates decide before and behind their runs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import log
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cases import values
from facts import facts
from pydantic import ValidationError


def _tried(work: Any) -> Any:
    try:
        return work()
    except ValidationError as error:
        return f"refused: {'; '.join(each['msg'] for each in error.errors())}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


@values("explore/points")
def _points() -> Iterator[str]:
    from pimsim.explore.spec import RangeSpec, SampleSpec, SweepSpec, expand, mixed_keys, overrides

    ranges: tuple[dict[str, Any], ...] = (
        {"low": 1, "high": 9}, {"low": 1, "high": 8, "integer": True}, {"low": 4, "high": 4},
        {"low": 0.5, "high": 64.0, "log": True, "unit": "GHz"}, {"choices": ["a", 2, True, None]},
        {"low": 1, "high": 1000, "integer": True, "log": True}, {"low": -1.5, "high": 1e6},
        {"choices": [1, 2.5, 8]}, {"low": 3, "high": 3, "integer": True},
        {"low": 1}, {"high": 1}, {"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True},
        {"low": 1, "high": 2, "choices": [1]}, {"low": 1.5, "high": 2, "integer": True},
        {"low": 1, "high": 2.5, "integer": True},
        {"low": 1, "high": 2, "integer": True, "unit": "B"},
        {"low": -(2.0**53) - 2, "high": 2}, {"low": 0, "high": 2.0**53 + 2}, {},
        {"low": -(2.0**53), "high": 2.0**53}, {"choices": []},
    )  # fmt: skip
    for given in ranges:
        one = _tried(lambda given=given: RangeSpec(**given))
        if isinstance(one, str):
            yield f"{given}: {one}"
            continue
        told = [one.at(share) for share in (0.0, 1 / 3, 0.5, 0.999, 1.0)]
        yield f"{given}: {told}, numbers {one.numbers}"
    sweeps: tuple[dict[str, Any], ...] = (
        {"grid": {"a": [1, 2], "b.c": ["x", "y", "z"]}},
        {"zip": {"a": [1, 2, 3], "b": [4, 5, 6]}, "grid": {"c": [True, False]}, "set": {"d": 9}},
        {"grid": {"a": [1, 2, 3]}, "set": {"d": 2}, "where": ["a <= d", "a != 1 or d > 5"]},
        {"points": [{"a": 1}, {"a": 2, "b": None}], "grid": {"c": [1, 2]}},
        {"grid": {"a": [1]}, "sample": {"count": 5, "seed": 3, "ranges": {
            "x": {"low": 0, "high": 1}, "y": {"choices": [1, 2, 3]}}}},
        {"sample": {"count": 4, "method": "random", "ranges": {"x": {"low": 0, "high": 100}}}},
        {"grid": {"a": [1, "x", True], "b": [2**63, 1], "c": [None, 1.5, 2]}},
        {"grid": {"a": []}}, {"zip": {"a": [1], "b": [1, 2]}}, {},
        {"grid": {"a": [1]}, "set": {"a": 2}},
        {"points": [{"a": 1}], "zip": {"a": [1]}}, {"grid": {"a": [1]}, "sample": {
            "count": 2, "ranges": {"a": {"low": 0, "high": 1}}}},
    )  # fmt: skip
    for given in sweeps:
        spec = _tried(lambda given=given: SweepSpec(**given))
        if isinstance(spec, str):
            yield f"{given}: {spec}"
            continue
        yield f"=== {given}: {spec.count} points, {spec.keys}, mixed {mixed_keys(spec)}"
        yield from (f"  {point}" for point in expand(spec, "here"))
    assert SampleSpec.model_fields["count"].is_required()
    told = overrides({"a": 1, "b": "./x.yaml"}, {"b": "y", "c": "../z.csv", "d": None}, Path("/f"))
    yield f"overrides {told}"


@values("explore/expressions")
def _expressions() -> Iterator[str]:
    from pimsim.explore.expressions import check_expression, holds

    names = {"a": 3, "b.c": 4.0, "flag": True, "word": "x"}
    for text in (
        "a < b.c", "a <= 3", "a < 3", "a > 3", "a >= 3", "a == 3.0", "a != 3", "1 < a < b.c",
        "1 < a < 3", "a + 1 == b.c", "b.c - a == 1", "a * 2 == 6", "b.c / 2 == 2", "7 // a == 2",
        "7 % a == 1", "a ** 2 == 9", "-a < 0", "not flag", "flag and a > 5", "flag or a > 5",
        "not (a > 5)", "true", "false", "word == 'x'", "word + 'y' == 'xy'", "word < 1",
        "a / 0 == 1", "a % 0 == 1", "aa < 1", "b.d < 1", "a if flag else 1", "f(a)", "a[0]",
        "a <", "", "a in b",
        "'x' * 3 == 'xxx'", "a is 3", "free.x > 1", "1" + " + 1" * 400 + " > 0", "x" * 3000,
    ):  # fmt: skip
        shown = text if len(text) < 70 else f"{text[:20]}... of {len(text)}"
        first = _tried(lambda text=text: holds(text, names, "where"))
        second = _tried(lambda text=text: check_expression(text, names, "where", ("free.",)))
        yield f"{shown}: {first} | {second}"


@values("explore/importance")
def _importance() -> Iterator[str]:
    """Objectives that are a sum of keys, that are not, and that are the same everywhere."""
    from pimsim.explore.importance import importance

    forms: dict[str, Any] = {
        "a line of x": lambda p: 3 * p["x"],
        "x and the name": lambda p: p["x"] + {"a": 0, "b": 9, "c": 2}[p["n"]],
        "a product": lambda p: p["x"] * p["y"],
        "a logarithm": lambda p: log(p["y"]),
        "a sixth power": lambda p: float(p["x"]) ** 6,
        "the same": lambda p: 7.0,
        "nearly the same": lambda p: 1e12 + 1e-3 * p["x"],
    }
    grid = [
        {"x": x, "y": y, "n": n}
        for x, y, n in product(range(1, 6), (1, 2, 4, 8), ("a", "b", "c"))
    ]  # fmt: skip
    for points in (grid, grid[::3], grid[::6], grid[::9], grid[::16], grid[:2], []):
        for name, form in forms.items():
            found = importance(points, [form(p) for p in points], {"x": float, "y": log})
            if found is None:
                yield f"{len(points)} {name}: None"
                continue
            told = {key: round(share, 9) + 0.0 for key, share in found.keys.items()}
            yield f"{len(points)} {name}: {found.points} {told} {round(found.together, 9) + 0.0}"


@values("explore/rates")
def _rates() -> Iterator[str]:
    """The way of a bisection, and what runs of a rate are judged as."""
    from pimsim.explore.rates import _judged, highest_rate, percent

    for start, limit, tolerance, least in product(
        (1.0, 7.3333), (0.3, 1.0, 6.1, 5e9, 0.0), (0.02, 0.5), (0.0, 0.4)
    ):
        way = highest_rate(start, tolerance, least)
        tried = [next(way)]
        while True:
            try:
                tried.append(way.send(tried[-1] <= limit))
            except StopIteration as done:
                yield f"{start} {limit} {tolerance} {least}: {tried} {done.value}"
                break
    for mean, half in ((0.5, None), (0.99, 0.02), (0.01, 0.03), (1.0, 0.0), (0.33333, 0.1)):
        yield f"{mean} {half}: {percent(mean, half)}"

    def run(share: float | None, grows: bool, at: int) -> dict[str, Any]:
        spread = {"p50": 0.1 * at, "p99": None if at == 2 else 0.3 * at}
        return {
            "share": share, "shares": {} if share is None else {"ttft": share, "e2e": 1.0},
            "grows": grows, "trend": at - 1.5, "carried_per_s": 10.0 + at,
            "requests_per_s": 9.0 + at, "tokens_per_s": 90.0 - at,
            "latency_s": {"ttft": spread, "tpot": spread, "e2e": spread},
            "requests": 100 * at, "of": 200 * at,
        }  # fmt: skip

    for shares, growing in (
        ((0.995,), 0), ((0.5,), 0), ((1.0, 0.98), 0), ((0.9, 0.8, 1.0), 1), ((0.9, None), 1),
        ((None, None), 2), ((1.0, 1.0, 1.0, 0.97), 2), ((1.0, 1.0, 1.0), 2), ((0.99, 0.99), 0),
    ):  # fmt: skip
        runs = [run(share, at < growing, at + 1) for at, share in enumerate(shares)]
        yield from facts(_judged(3.0, runs, 0.99), f"{shares} {growing}")


@values("explore/figures")
def _figures() -> Iterator[str]:
    from pimsim.explore.figures import COLUMNS, OPEN_COLUMNS, flat_figures, metrics_of, row_fidelity

    figures: dict[str, Any] = {
        "cycles": 100, "time_s": 1e-4, "tokens_per_s": 5e4, "tokens": 5, "model": "m",
        "layers_simulated": 1, "layers_model": 2, "iteration_s": 2e-4, "devices": 4,
        "tokens_per_j": 8.0, "utilisation": {"npu": 0.5, "pim": 0.25},
        "energy_j": {"dram": 1e-3, "total": 3e-3},
        "cycle_stack": {"npu": {"computing": 60, "idle": 40}, "pim": {"npu": 100}},
        "bound_cycles": {"array": 40, "dram_bus": 50},
        "fidelity": {"mode": "fast", "error_mean": 0.01, "error_ci95": 0.02},
        "area_mm2": {"npu": 7.0}, "warnings": ["one", "two"],
        "decoding": {"name": "d", "accepted": 1.5, "flops_share": {"npu": 0.75, "pim": 0.25}},
        "provenance": {"version": "0"},
    }  # fmt: skip
    flat = dict(flat_figures(figures))
    yield from facts(flat, "flat")
    yield from facts(metrics_of(figures), "metrics")
    yield f"columns {COLUMNS} {OPEN_COLUMNS}"
    for mode in ("fast", "command", None, float("nan")):
        row = flat | {"fidelity": mode}
        yield f"{mode}: {row_fidelity(row)!r}"


@values("parts/loads")
def _loads() -> Iterator[str]:
    """Loads of experts as they are dealt for measured rows."""
    from pimsim.validate.gpu_loads import balanced_loads, device_loads, drawn_loads
    from pimsim.workload.draws import RandomStream

    for tokens, experts, choices in (
        (1, 8, 2), (3, 8, 3), (4, 10, 3), (7, 7, 2), (100, 10, 3), (2, 5, 5), (50, 6, 4),
    ):  # fmt: skip
        loads = balanced_loads(tokens, experts, choices).tolist()
        yield f"balanced {tokens} {experts} {choices}: {loads}"
        for alpha, devices in product((0.8, 1.2), (1, 2) if experts % 2 == 0 else (1,)):
            drawn = drawn_loads(tokens, experts, choices, alpha, devices, RandomStream(3)).tolist()
            yield f"  drawn {alpha} {devices}: {drawn}, {sum(drawn)} of {tokens * choices}"
    for name, version in product(
        ("balanced", "power_law_1.2", "power_law_1", "power_law", "other_2"),
        ("0.14.1", "0.15.0", "1.2", "0.9.x"),
    ):
        found = _tried(lambda a=(name, 64, 8, 2, 4, version): device_loads(*a))
        told = found if isinstance(found, str) else [each.tolist() for each in found]
        yield f"{name} {version}: {told}"


@values("parts/pim-products")
def _pim_products() -> Iterator[str]:
    """Which products a design takes: always, or where it is the sooner one."""
    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_pim
    from pimsim.mapping.pim_products import PimProducts
    from pimsim.workload.operators import Operator, OperatorKind

    design = load_pim("aim").config
    row_ps = 2 * design.memory.timings["tRP"] * design.tCK

    def runs(cycles: int) -> Any:
        def of(asked: Any) -> Any:
            if asked.inputs > 5000:
                raise InputError("too long for it")
            return SimpleNamespace(cycles=cycles)

        return SimpleNamespace(design=design, of=of)

    def product_of(**more: Any) -> Any:
        given = {
            "m": 2, "n": 64, "k": 128, "flops": 1, "weight_bytes": 2 * 64 * 128, "input_bytes": 3,
            "output_bytes": 4,
        } | more  # fmt: skip
        return Operator("product", given.pop("kind", OperatorKind.GEMM), **given)

    operators = {
        "a product": product_of(), "no tokens": product_of(m=0),
        "of the cache": product_of(kv_read_bytes=5),
        "another kind": product_of(kind=OperatorKind.ACTIVATION),
        "too long": product_of(k=6000, weight_bytes=2 * 64 * 6000),
        "narrow": product_of(weight_bytes=64 * 128 // 2), "two": product_of(
            count=2, weight_bytes=4 * 64 * 128),
    }  # fmt: skip
    # the NPU takes 1000 cycles of 1 ns
    npu = SimpleNamespace(frequency=10**9)
    costs: Any = SimpleNamespace(npu=npu, product_cycles=lambda m, n, k, size: 1000)
    even = 1_000_000 // design.tCK - row_ps // design.tCK
    tries = [(True, 10**7), *((False, each) for each in (1, even - 1, even, even + 1, 10**7))]
    for always, cycles in tries:
        products = PimProducts(runs(cycles), costs, always)
        for name, operator in operators.items():
            at = f"{always} {cycles} {name}"
            yield f"{at}: {_tried(lambda a=(products, operator): a[0].takes(a[1]))}"
    task = PimProducts(runs(1), costs, True).task(operators["two"], 3)
    for each in ("name", "kind", "unit", "layer", "flops", "bytes", "operation", "sram_bytes"):
        yield from facts(getattr(task, each, None), each)


@values("workload/formats")
def _formats() -> Iterator[str]:
    """Formats with their own settings: what a weight, a matrix and a head take."""
    from pimsim.workload.formats import load_format

    for text in (
        "int8", "int4", "int4:group=32", "int3", "fp8", "mxfp4", "nvfp4", "semi_structured",
        "semi_structured:keeps=1:of=8", "semi_structured:keeps=4,of=8,bits=4,group=64",
        "semi_structured:keeps=1,of=8", "semi_structured:keeps=3,of=5,bits=8,group=0",
        "semi_structured:keeps=4,of=4", "unstructured", "unstructured:density=0.3", "kivi",
        "kivi:bits=4,group=64,residual=0", "int5",
    ):  # fmt: skip
        form = _tried(lambda text=text: load_format(text))
        if isinstance(form, str):
            yield f"{text}: {form}"
            continue
        for bits in (16, 32):
            weights = _tried(lambda a=(form, bits): a[0].weights(a[1]))
            if isinstance(weights, str):
                yield f"{text} of {bits}: {weights}"
                continue
            yield " ".join(facts(weights, f"{text} of {bits}"))
            yield f"  {weights.words}"
            for k, n in ((128, 64), (4096, 1000), (33, 7)):
                yield f"  {k} x {n}: {weights.pieces(k, n)}"
        cache = _tried(form.cache)
        if isinstance(cache, str):
            yield f"{text}: {cache}"
            continue
        yield " ".join(facts(cache, f"{text} cache"))
        yield f"  heads {[cache.head_bytes(dim) for dim in (1, 32, 33, 64, 80, 128)]}"
