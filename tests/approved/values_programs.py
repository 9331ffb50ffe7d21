"""What runs are cut into: the program of a device with every tile, where its data lie, and what the
engine counted in every channel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import yaml
from cases import HERE, values
from facts import facts, number_text

RUNS = {
    "npu": ("npu-only", ["parallel.tp=1", "workload.layers=1"]),
    "greedy": ("neupims", ["parallel.tp=1", "workload.layers=1", "schedule.policy=greedy"]),
    "interleaved": ("neupims", ["parallel.tp=2", "workload.layers=1"]),
    "artifact": ("neupims-artifact-npu-pim", ["parallel.tp=2", "workload.layers=1"]),
    "onnxim": ("onnxim-transformer", ["workload.layers=1", "workload.batch=2"]),
}


def _given(folder: Path, preset: str, sets: list[str], card: str = "gqa") -> object:
    from pimsim.simulate import resolve

    files = yaml.safe_load((HERE / "commands" / "runs.yaml").read_text())["files"]
    for name in (f"{card}.yaml", "requests.csv"):
        (folder / name).write_text(files[name])
    model, requests = folder / f"{card}.yaml", folder / "requests.csv"
    return resolve(preset, [f"workload.model={model}", f"workload.requests={requests}", *sets])


def _in_folder(preset: str, sets: list[str], card: str = "gqa") -> Iterator[object]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield _given(Path(folder), preset, sets, card)


def _addresses(device: Any) -> Iterator[str]:
    plan = device.mapper.addresses
    yield from facts(list(device.channel), "channel of each request")
    for name in ("weight_burst", "activation_burst", "operand_row", "cache_kind", "row_bursts"):
        yield from facts(getattr(plan, name), name)
    yield from facts([plan.block_bursts, plan.outside_bursts], "bursts")
    yield from facts(plan.cache_rows(0), "cache rows")
    for member in range(len(device.channel)):
        yield from facts(plan.kv(0, member), f"pages of request {member}")


def _task(task: Any) -> Iterator[str]:
    """What differs from the defaults, and each tile."""
    yield f"--- {task.name}"
    for each in fields(task):
        value = getattr(task, each.name)
        if each.name in ("name", "steps", "programs") or _is_default(each, value):
            continue
        yield from facts(value, each.name)
    for number, step in enumerate(getattr(task, "steps", ())):
        yield f"tile {number}: core {step.core}, lane {step.lane}, {_plan(step.plan)}"
        told = ("loads", "stores", "scatters", "stored_after", "softmax_cycles", "needed")
        for name in told:
            value = getattr(step, name)
            if value is not None and len(value):
                yield from facts(value, f"  {name}")
        yield f"  inputs {step.inputs_first} B, scale {number_text(step.scale)}"
        for block in step.blocks[:3]:
            yield f"  block {_plan(block.plan)}"
            yield from facts([block.loads, block.stores], "  moves")
    for channel, program in enumerate(getattr(task, "programs", ())):
        if len(program):
            yield from facts(program[:12], f"channel {channel}, {len(program)} instructions")


def _is_default(field: Any, value: Any) -> bool:
    default = field.default
    return default is not MISSING and not hasattr(value, "shape") and value == default


def _plan(plan: Any) -> str:
    numbers = [
        plan.steps, plan.folds, plan.lead_cycles, plan.taken_cycles, plan.drain_cycles,
        plan.cycles, plan.macs, plan.streamed_cycles, plan.loading_cycles,
        int(plan.weight_bytes_needed[0]), int(plan.weight_bytes_needed[-1]),
    ]  # fmt: skip
    traffic = "" if plan.traffic is None else " ".join(facts(plan.traffic))
    return f"plan {' '.join(map(str, numbers))} {traffic}"


def _program(name: str, preset: str, sets: list[str]) -> None:
    @values(f"programs/{name}")
    def _lines() -> Iterator[str]:
        from pimsim.simulate import devices_of

        for resolved in _in_folder(preset, sets):
            device = devices_of(resolved)[0][0]
            yield from _addresses(device)
            for part in device.parts:
                yield f"part {part} has requests {list(device.members[part])}"
                for task in device.block(part, 0).tasks:
                    yield from _task(task)

    @values(f"counters/{name}")
    def _counters() -> Iterator[str]:
        from pimsim.simulate import observe

        for resolved in _in_folder(preset, sets, "tiny"):
            outcome, _ = observe(resolved)
            counter = outcome.system.channels["counter"]
            used = counter.any(axis=0).nonzero()[0].tolist()
            yield from facts(used, "counters that are not 0")
            for number, row in enumerate(counter):
                yield from facts(row[used], f"channel {number}")
            yield from facts(outcome.recorder.stages, "stages")


for _name, (_preset, _sets) in RUNS.items():
    _program(_name, _preset, _sets)


@values("programs/attention-work")
def _attention_work() -> Iterator[str]:
    """Programs of scores and values, and the vector work behind each result, of requests whose
    tokens take one row of a value, some, and a part of a ring."""
    from pimsim.config.loader import load_memory, load_npu_of, load_pim
    from pimsim.hardware.pim.kv_layout import KvRows
    from pimsim.hardware.pim.programs import AttentionShape
    from pimsim.mapping.attention import AttentionBatch, score_work, value_work

    for pim, memory, preset in (
        ("neupims", "hbm2-neupims", "neupims"), ("newton", "hbm2", "npu-pim"),
        ("neupims-artifact", "hbm2-neupims-artifact", "neupims-artifact-main"),
        ("newton-artifact", "hbm2-neupims-artifact", "neupims-artifact-npu-pim"),
    ):  # fmt: skip
        design, dram = load_pim(pim).config, load_memory(memory).config
        vector = load_npu_of(preset).vector
        for heads, kv_heads, dim in ((2, 2, 128), (8, 2, 64), (1, 1, 256)):
            shape = AttentionShape.of(heads, kv_heads, dim, dram, design, 2)
            contexts = (40, 512, 513, 1700)
            rows = tuple(
                KvRows.from_row(300 * number, shape.kv_sections, context)
                for number, context in enumerate(contexts)
            )
            ring = ((range(40),), (range(512),), (range(20, 513),), (range(100), range(900, 1700)))
            for label, places in (("whole", ()), ("spans", ring)):
                seen = tuple(sum(map(len, each)) for each in places) or contexts
                batch = AttentionBatch(shape, rows, seen, (0, 1, 1, 0), places)
                for name, work in (("score", score_work), ("value", value_work)):
                    yield f"=== {pim}, {heads} heads of {kv_heads} by {dim}, {label}, {name}"
                    try:
                        programs, marks, after = work(batch, 7, dram, design, vector, 2)
                    except Exception as error:
                        yield f"{type(error).__name__}: {error}"
                        continue
                    yield f"{marks} marks"
                    for each in fields(after):
                        yield from facts(getattr(after, each.name), each.name)
                    for channel, program in enumerate(programs):
                        if len(program):
                            yield f"{channel}: {program.shape}, {program.sum(axis=0).tolist()}"
                            yield f"  first {program[0].tolist()}, last {program[-1].tolist()}"
