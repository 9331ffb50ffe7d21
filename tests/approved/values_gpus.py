"""Kernels of GPUs alone: attention of prompts and of single tokens, experts, streams, hosts."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
from cases import values
from facts import facts, number_text


def _xpus() -> Iterator[tuple[str, Any]]:
    from pimsim.config.loader import load_preset
    from pimsim.config.resources import preset_names

    for name in sorted(preset_names("xpu")):
        yield name, load_preset("xpu", name).config


def _with(config: Any, section: str, **changes: Any) -> Any:
    """``config`` with keys of a kernel changed: its ``silicon.SECTION``."""
    silicon = config.silicon
    kernel = getattr(silicon, section).model_copy(update=changes)
    return config.model_copy(update={"silicon": silicon.model_copy(update={section: kernel})})


def _cost(cost: Any) -> str:
    numbers = (cost.time_s, cost.memory_pj, cost.core_pj, cost.energy_pj)
    return f"{' '.join(map(number_text, numbers))} {cost.bound}"


def _parts() -> dict[str, tuple[Any, ...]]:
    """By hand: requests, new tokens, context, keys, pairs."""
    from pimsim.hardware.xpu.flash import FlashPart

    causal = FlashPart(2, 100, 160, 160, 100 * 60 + 5050)
    return {
        "one token": (FlashPart(1, 1, 700, 700, 700),),
        "tokens of unequal contexts": (
            FlashPart(5, 1, 129, 129, 129), FlashPart(40, 1, 5000, 5000, 5000),
        ),
        "one request in many pieces": (FlashPart(1, 1, 70_001, 70_001, 70_001),),
        "a prompt": (causal,),
        "whole tiles": (FlashPart(3, 256, 256, 256, 128 * 257),),
        "beside a token": (causal, FlashPart(7, 1, 900, 900, 900)),
        "all to all": (FlashPart(1, 65, 300, 300, 65 * 300, causal=False),),
        "many": (FlashPart(300, 2048, 4096, 4096, 2048 * 3072 + 1024),),
    }  # fmt: skip


def _works() -> Iterator[tuple[str, Any]]:
    from pimsim.hardware.xpu.flash import FlashAttention

    shapes: dict[str, dict[str, Any]] = {
        "own keys": {"heads": 8, "kv_heads": 8, "key_dim": 128, "value_dim": 128},
        "groups": {"heads": 32, "kv_heads": 4, "key_dim": 128, "value_dim": 128},
        "one head of keys, window": {
            "heads": 6, "kv_heads": 1, "key_dim": 64, "value_dim": 96, "window": 200,
            "key_value_bytes": 320, "softmax_flops": 12345,
        },
        "packed keys, warm": {
            "heads": 16, "kv_heads": 2, "key_dim": 128, "value_dim": 128, "element_bytes": 1,
            "key_value_bytes": Fraction(273, 2), "warm": True,
        },
    }  # fmt: skip
    for (name, parts), (shape, keys) in product(_parts().items(), shapes.items()):
        yield f"{name}, {shape}", FlashAttention(parts, **keys)


@values("parts/gpu-attention")
def _attention() -> Iterator[str]:
    """Of every GPU, and of one with a small cache, with other choices of its kernels."""
    from pimsim.hardware.xpu.decode import decode_attention
    from pimsim.hardware.xpu.flash import flash, flash_blocks, flash_energy, flash_work
    from pimsim.hardware.xpu.kernels import gpu_kernels

    gpus = dict(_xpus())
    base = gpus["h100"]
    gpus["small cache"] = base.model_copy(
        update={"l2": 64 * 1024, "cores": 7, "l1_per_core": 48 * 1024}
    )
    gpus["shared cores"] = _with(
        base, "flash", blocks_per_core=2, packs_groups=False, longest_first=False
    )
    gpus["two a core"] = _with(base, "flash", blocks_per_core=2)
    gpus["whole keys"] = _with(
        base, "decode", splits_single=False, regroup_ns=500.0, query_rows=4
    ).model_copy(update={"exponential_tops": None})
    for (gpu, xpu), (name, work) in product(gpus.items(), _works()):
        many = name.startswith("many")
        if many and gpu not in ("a100", "h100", "small cache"):
            continue
        at = f"{gpu}: {name}"
        if gpu in ("h100", "small cache", "shared cores", "two a core"):
            yield f"{at}: macs {work.macs}, kv {work.kv_bytes} B"
            yield " ".join(facts(flash_work(work, xpu), "does"))
            yield f"energy {' '.join(map(number_text, flash_energy(work, xpu)))}"
            blocks = flash_blocks(work, xpu)
            yield f"tile {blocks.rows} {blocks.columns}, {blocks.parts}, {blocks.pairs} pairs"
            shown = slice(0, 12)
            yield f"  {blocks.tiles[shown]} {blocks.counts[shown]} {blocks.keys[shown]}"
        if xpu.silicon is None:
            yield f"{at}: {_cost(gpu_kernels(xpu).flash(work, xpu))}"
            continue
        yield f"{at}: {_cost(flash(work, xpu))}"
        if all(part.new_tokens == 1 for part in work.parts):
            yield f"  decoding {_cost(decode_attention(work, xpu))}"


@values("parts/gpu-kernels")
def _kernels() -> Iterator[str]:
    """Tiles, schedules, streams, products, experts, hosts."""
    from pimsim.config.loader import load_preset
    from pimsim.config.resources import preset_names
    from pimsim.hardware.xpu import roofline
    from pimsim.hardware.xpu.experts import Experts, expert_tile, experts_cost
    from pimsim.hardware.xpu.flash import FlashAttention, flash_tile, list_schedule, stream_s
    from pimsim.hardware.xpu.gemm import burst_rate, gemm, overlapped, saturating_cores
    from pimsim.hardware.xpu.tiling import Product, wave_utilisation

    gpus = dict(_xpus())
    base = gpus["h100"]
    some = _parts()["one token"]
    for l1, dim, value in product((1 << 18, 100_000, 40_000, 9_000, 3_000), (64, 256), (256, 1024)):
        work = FlashAttention(some, 4, 2, dim, dim, key_value_bytes=value)
        small = base.model_copy(update={"l1_per_core": l1})
        try:
            yield f"tile of {l1} B, {dim}, {value} B: {flash_tile(work, small)}"
        except Exception as error:
            yield f"tile of {l1} B, {dim}, {value} B: {error}"
    lengths = np.array([3.0, 1.0, 2.0, 5.0, 0.5, 4.0])
    for slots, repeats in product((1, 2, 3, 16), ((1, 1), (3, 2), (0, 4))):
        end = list_schedule(lengths, np.array(repeats), np.array([0, 2, 6]), slots)
        yield f"{slots} slots, {repeats}: ends {number_text(end)}"
    for moved, warm in product((0, 1000, base.l2, base.l2 + 1, 10**9), (False, True)):
        yield f"stream {moved} {warm}: {number_text(stream_s(moved, warm, 0.5, base))}"
    for times in ((), (0.0,), (0.0, 0.0), (1.0,), (1.0, 1.0), (3.0, 0.0, 4.0)):
        for exponent in (1, 2, 4, 300):
            if times:
                yield f"{times} by {exponent}: {number_text(overlapped(*times, exponent=exponent))}"
    for blocks, cores in ((1, 1), (1, 132), (132, 132), (133, 132), (1000, 132)):
        yield f"waves {blocks} {cores}: {number_text(wave_utilisation(blocks, cores))}"
    products = (
        Product(1, 4096, 4096), Product(9, 100, 333), Product(64, 8192, 1024, count=3),
        Product(512, 512, 65_536), Product(128, 128, 128, count=64, tiled=False),
        Product(33, 4096, 4096, element_bytes=1, b_bytes=1),
        Product(33, 4096, 4096, b_bytes=Fraction(17, 32)), Product(4096, 4096, 4096),
        Product(8, 8, 8), Product(7, 7, 7, element_bytes=4, b_bytes=4),
    )  # fmt: skip
    for name, xpu in gpus.items():
        yield f"=== {name}"
        for width in (Fraction(1, 2), 1, 2, 4):
            yield f"peak of {width} B: {number_text(roofline.peak_flops(xpu, width))}"
        for work in products:
            yield f"product {work.m} {work.n} {work.k} x{work.count}: macs {work.macs}, least "
            yield f"  {work.least_bytes} B, stored {work.stored_bytes} B"
            moved, memory_pj, core_pj = roofline.product_energy(work, xpu)
            yield f"  moves {moved}, {number_text(memory_pj)}, {number_text(core_pj)}"
            if xpu.silicon is not None:
                yield f"  {_cost(gemm(work, xpu))}"
        for moved, flops in ((0, 0), (100, 7), (10**6, 10**6), (10**9, 5 * 10**9)):
            for kernel in ("activation", "add_norm"):
                cost = roofline.stream(moved, flops, getattr(xpu, kernel), xpu)
                yield f"{kernel} {moved} {flops}: {_cost(cost)}"
            if moved:
                yield f"waves {moved} {flops}: {_cost(roofline.waves(moved, flops, 133, xpu))}"
        if xpu.silicon is None:
            continue
        yield f"cores that saturate: {number_text(saturating_cores(xpu, 0.7))}"
        for each in (0.0, 1e-6, 1e-3):
            yield f"burst {each}: {number_text(burst_rate(each, xpu))}"
        yield from _experts(xpu, Experts, expert_tile, experts_cost)
    for name in sorted(preset_names("system")):
        host = load_preset("system", name).config.host
        if host is None:
            continue
        for moved, flops, size in ((0, 0, 2), (10**6, 10**9, 2), (10**9, 10**6, 2), (1000, 10, 4)):
            cost = roofline.host_stream(moved, flops, size, host)
            yield f"{name}, host {moved} {flops} {size}: {_cost(cost)}"


def _experts(xpu: Any, make: Any, tile: Any, cost: Any) -> Iterator[str]:
    """Of a GPU, with its choices and with the other ones."""
    kernel = xpu.silicon.experts
    works = (
        make(1, [1, 1, 0, 0], 2, 2048, 768), make(32, [0, 32, 32], 2, 4096, 14336),
        make(33, [33, 0, 0, 1], 2, 4096, 14336), make(97, [60, 61, 62], 4, 4096, 512),
        make(129, [129, 100], 2, 512, 4096), make(600, [300, 301, 1], 2, 8192, 9000),
        make(64, [0, 0], 2, 128, 128), make(64, [5, 9], 2, 300, 200, 1),
        make(64, [5, 90], 2, 300, 200, 2, Fraction(17, 32)),
        make(64, [5, 90], 2, 300, 200, 2, None, 200),
    )  # fmt: skip
    for work in works:
        at = f"experts {work.tokens} {work.loads} {work.hidden} {work.inner}"
        try:
            yield f"{at}: {_cost(cost(work, xpu))}, hit {work.hit}, {work.stored_bytes} B"
        except Exception as error:
            yield f"{at}: {error}"
            return
        yield from facts(tile(work, kernel), "  tile")
        for changes in (
            {"skips_remote": not kernel.skips_remote},
            {"fuses_activation": not kernel.fuses_activation},
            {"stages": kernel.stages + 1, "step_ns": 0.0},
            {"overlap": 1.0, "launch_ns": 1e6},
        ):
            yield f"  {changes}: {_cost(cost(work, _with(xpu, 'experts', **changes)))}"


@values("gpus/step-costs")
def _step_costs() -> Iterator[str]:
    """What a service is told of servers of GPUs: room, idle power, steps of each kind."""
    import tempfile
    from pathlib import Path

    from pimsim.config.errors import InputError
    from pimsim.config.service_loader import load_service
    from pimsim.result.xpu_step_cost import XpuStepCosts
    from pimsim.workload.requests import Request
    from pimsim.workload.step import Step, StepEntry

    told = (
        "parts", "more", "fidelity", "pim_tokens", "channels", "least_loaded", "sub_batches",
        "stages", "notes", "max_context", "model",
    )  # fmt: skip
    steps = {
        "decode": ((1, 101), (1, 7)), "prompt": ((40, 40),), "piece": ((16, 64),),
        "mixed": ((1, 300), (40, 40), (3, 90)),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "service.yaml"
        (Path(folder) / "requests.csv").write_text("arrival_us,prompt,output\n0,8,2\n")
        for machine, model in (
            ("extends: dgx-h100, devices: 1", "smollm2-135m"),
            ("extends: dgx-h100, devices: 8, parallel: {pp: 2}", "llama-3-8b"),
            ("extends: dgx-a100, devices: 2", "olmoe-1b-7b"),
            ("extends: dgx-attacc-bank", "gpt3-7b"), ("extends: dgx-attacc-buffer", "gpt3-13b"),
            ("extends: dgx-a100a-cpu", "gpt3-7b"), ("extends: dgx-h100, devices: 1", "gpt3-175b"),
        ):  # fmt: skip
            path.write_text(
                "requests: {file: ./requests.csv}\nscheduler: {name: vllm}\n"
                f"machine: {{{machine}, workload: {{model: {model}, outside: true}}}}\n"
            )
            yield f"=== {machine}, {model}"
            try:
                costs: Any = XpuStepCosts(load_service(str(path), []).config.machine)
            except InputError as error:
                yield f"refused: {str(error).replace(folder, '')}"
                continue
            for each in told:
                yield from facts(getattr(costs, each), each)
            yield f"work {len(costs.work)}: {costs.work[:3].tolist()} to {costs.work[-1]}"
            yield from facts(costs.idle_w, "idle_w")
            for size in (1, 16, 1000, 10**6):
                yield f"tokens in blocks of {size} = {costs.tokens(size)}"
            for name, entries in steps.items():
                step = Step(
                    tuple(
                        StepEntry(Request(row, 0, context, 9, 0), new, context)
                        for row, (new, context) in enumerate(entries)
                    )
                )
                yield from facts(costs.cost(step), name)
