"""Parts alone: plans of products, tiles, vectors, GPU kernels, collectives, first rows of each
validation suite."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from typing import Any

from cases import values
from facts import facts, number_text


@values("parts/plans")
def _plans() -> Iterator[str]:
    from pimsim.config.loader import load_npu_of
    from pimsim.hardware.npu.gemm import plan_gemm, steady_cycles, utilisation

    base = load_npu_of("npu-only").systolic
    sizes = ((1, 8, 8), (7, 100, 65), (64, 64, 64), (200, 30, 129))
    dataflows = ("ws", "os", "is", "neupims_overlapped", "neupims_serial")
    for dataflow, preload, arrays in product(dataflows, ("hidden", "exposed"), (1, 3)):
        changed = {
            "dataflow": dataflow,
            "preload": preload,
            "arrays": arrays,
            "rows": 32,
            "cols": 16,
        }
        try:
            systolic = type(base).model_validate(base.model_dump() | changed)
        except ValueError as error:
            yield f"{dataflow} {preload}: {str(error).splitlines()[0]}"
            continue
        for m, n, k in sizes:
            plan = plan_gemm(m, n, k, systolic)
            yield (
                f"{dataflow} {preload} x{arrays} {m} {n} {k}: cycles {plan.cycles}, steady "
                f"{steady_cycles(m, n, k, systolic)}, folds {plan.folds}, steps {plan.steps}, lead "
                f"{plan.lead_cycles}, drain {plan.drain_cycles}, streamed {plan.streamed_cycles}, "
                f"loading {plan.loading_cycles}, use {number_text(utilisation(plan, systolic))}"
            )
            yield from facts(plan.traffic, "  traffic")
            yield from facts(plan.interval_cycles[:16], "  intervals")
            yield from facts(plan.weight_bytes_needed[:16], "  weights")


@values("parts/tiles")
def _tiles() -> Iterator[str]:
    from pimsim.config.loader import load_npu_of
    from pimsim.hardware.npu.search import tile_for_cores
    from pimsim.hardware.npu.tiling import tile_gemm, tile_sizes

    for dim in (1, 7, 64, 100, 1000):
        yield from facts(tile_sizes(dim), f"sizes of {dim}")
    scratchpad = load_npu_of("npu-only").scratchpad
    for capacity, policy, size in product(
        (4096, 65536), ("least-traffic", "halve-largest"), ((8, 300, 100), (130, 64, 257))
    ):
        small = scratchpad.model_copy(update={"capacity": capacity})
        yield f"=== {capacity} B, {policy}, {size}"
        yield from facts(tile_gemm(*size, 2, small, policy)[:60], "tiles")
    import inspect

    yield f"search takes {', '.join(inspect.signature(tile_for_cores).parameters)}"


@values("parts/vectors")
def _vectors() -> Iterator[str]:
    import numpy as np

    from pimsim.config.loader import load_npu_of
    from pimsim.hardware.npu import vector as module
    from pimsim.hardware.vector_units import lane_share, list_scheduled, shared_end

    config = load_npu_of("npu-only").vector
    changed = config.model_copy(
        update={
            "lanes": 16, "add_latency": 2, "mul_latency": 3, "exp_latency": 5, "gelu_latency": 7,
            "sqrt_latency": 11, "add_tree_latency": 13,
        }
    )  # fmt: skip
    kinds = sorted(module._LANE_OPS)
    for kind, width in product(kinds, (1, 15, 16, 17, 100, 1000)):
        cycles = [module.vector_cycles(kind, width, each) for each in (config, changed)]
        yield f"{kind} {width}: {cycles}, {module.vector_lane_ops(kind, width)} operations"
    for width, lanes in product((1, 2, 16, 17, 300, 5000), (1, 2, 16, 128)):
        yield f"tree {width} {lanes}: {module.add_tree_levels(width, lanes)}"
    ready = np.array([0, 0, 1, 5, 5, 5, 30], dtype=np.int64)
    lengths = np.array([4, 9, 2, 1, 1, 7, 3], dtype=np.int64)
    for units in (0, 1, 2, 3):
        yield from facts(module.schedule_in_order(ready, lengths, units), f"in order, {units}")
    starts = np.array([0, 3, 3, 10], dtype=np.int64)
    for each, vectors in ((5, 1), (5, 4), (7, 11), (1, 40)):
        yield from facts(list_scheduled(starts.copy(), each, vectors), f"listed {each} {vectors}")
    for lane, lanes, units in ((0, 1, 4), (0, 3, 4), (1, 3, 4), (2, 3, 4), (1, 2, 3), (3, 4, 2)):
        yield f"share {lane} {lanes} {units}: {lane_share(lane, lanes, units)}"
    from fractions import Fraction

    parts = [Fraction(1), Fraction(1, 3), Fraction(2, 3)]
    for work in (0, 1, 5, 100):
        yield f"shared end {work}: {shared_end([0, 4, 9], parts, work)}"


@values("parts/gpus")
def _gpus() -> Iterator[str]:
    from pimsim.config.loader import load_preset
    from pimsim.config.resources import preset_names
    from pimsim.hardware.xpu.experts import Experts, experts_s
    from pimsim.hardware.xpu.kernels import gpu_kernels
    from pimsim.hardware.xpu.tiling import Product, tiles, traffic

    for name in sorted(preset_names("xpu")):
        xpu = load_preset("xpu", name).config
        kernels = gpu_kernels(xpu)
        yield f"=== {name}"
        for m, n, k in ((1, 4096, 4096), (17, 5120, 1024), (512, 4096, 11008), (4096, 128, 4096)):
            work = Product(m=m, n=n, k=k)
            yield " ".join(facts(kernels.product(work, xpu), f"product {m} {n} {k}"))
            yield " ".join(facts(tiles(work, xpu), f"tiles {m} {n} {k}"))
            yield " ".join(facts(traffic(work, xpu), f"traffic {m} {n} {k}"))
        for tokens, loads in (
            (1, [1, 1, 0, 0]),
            (64, [16, 30, 2, 0, 80]),
            (3000, [900, 2100, 3000]),
        ):
            work = Experts(tokens, loads, 2, 2048, 768)
            try:
                yield f"experts {tokens} {loads} = {number_text(experts_s(work, xpu))} s"
            except Exception as error:
                yield f"experts {tokens}: {error}"


@values("parts/collectives")
def _collectives() -> Iterator[str]:
    from pimsim.config.loader import load_run
    from pimsim.hardware.fabric.plan import collective

    operations = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "send")
    for topology, algorithm, congestion, timing in product(
        ("ring", "switch", "fully_connected"), ("ring", "direct", "halving_doubling"),
        ("aware", "unaware"), ("exact", "astra_sim"),
    ):  # fmt: skip
        sets = [
            f"link.topology={topology}", f"link.collectives={algorithm}",
            f"link.congestion={congestion}", f"link.timing={timing}",
        ]  # fmt: skip
        link = load_run("npu-only", sets).config.link
        for devices in (1, 2, 3, 4, 8):
            row = []
            for operation in operations:
                try:
                    found = collective(operation, 100_003, devices, link)
                    row.append(f"{operation} {found.time_ps} {found.link_bytes}")
                except Exception as error:
                    row.append(f"{operation}: {error}")
            yield f"{topology} {algorithm} {congestion} {timing} {devices}: {'; '.join(row)}"


@values("parts/validation")
def _validation() -> Iterator[str]:
    from importlib import import_module

    from pimsim.config.resources import data_dir
    from pimsim.validate.judge import judge, status_of, verdict_of
    from pimsim.validate.types import References

    ours = References(data_dir("tests/data"), None)
    kept: list[Any] = []
    for name, function, most in (
        ("aim", "rows", 12), ("hbm_pim", "rows", 8), ("attacc", "rows", 6),
        ("attacc_system", "rows", 12), ("duplex", "rows", 12), ("fabric", "nccl_rows", 12),
        ("npu", "scalesim_rows", 25), ("npu", "onnxim_rows", 2), ("ramulator2", "rows", 3),
        ("dramsim3", "run_rows", 9), ("neupims_artifact", "order_rows", 6), ("papers", "rows", 1),
    ):  # fmt: skip
        rows = getattr(import_module(f"pimsim.validate.{name}"), function)(ours)
        found = list(islice(rows, most))
        kept += found
        for row in found:
            yield (
                f"{row.group} | {row.case} | {row.metric} | {number_text(float(row.reference))} | "
                f"{number_text(float(row.ours))} | {status_of(row)} | {row.known_wrong}"
            )
    for summary in judge(kept):
        yield " ".join(facts(summary, summary.group)) + f" verdict {verdict_of(summary)}"
