"""What functions decide that runs ask on their way: the records of designs' streams, the machines
of services, the tiles of every tiling, the charts of a run, and where a model's operations belong.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from cases import values
from facts import facts, number_text

CARD = """\
name: tiny
source: made up
layers: 4
hidden: 256
heads: 2
kv_heads: 2
head_dim: 128
ffn_hidden: 512
ffn_gated: false
activation: gelu
norm: layernorm
bias: true
rope: false
vocab: 1000
tied_embeddings: true
max_context: 600
dtype_bytes: 2
kv_dtype_bytes: 2
"""


@values("tables/streams")
def _streams() -> Iterator[str]:
    """Of each design, and of all where what a command reaches is told by the unit."""
    from pimsim.config.loader import load_pim
    from pimsim.config.resources import preset_names
    from pimsim.hardware.pim.stream_tables import PARAMETERS, make_parameters

    for name in sorted(preset_names("pim")):
        design = load_pim(name).config
        if design.controller is None:
            continue
        commands = design.all_commands
        for unit in (False, True):
            if unit:
                wide = {
                    key: command.model_copy(update={"broadcast": ["bank_group", "unit"]})
                    for key, command in commands.items() if command.bank_block is None
                }  # fmt: skip
                update = {"commands": design.commands | wide}
                record = make_parameters(design.model_copy(update=update), 3)
            else:
                record = make_parameters(design, 2)
            yield f"=== {name}{', by unit' if unit else ''}"
            for field in PARAMETERS.names or ():
                value = record[field]
                if field == "broadcast":
                    yield from facts(value[: len(commands)].tolist(), field)
                elif not unit and value.size <= 64:
                    yield from facts(value.tolist(), field)
                elif not unit:
                    used = value[value.astype(bool)]
                    yield f"{field}: {len(used)} are not 0, of sum {used.sum()}"


@values("parts/machines")
def _machines() -> Iterator[str]:
    """What a service is told of its machine."""
    from pimsim.config.service_loader import load_service
    from pimsim.result.step_cost import StepCosts
    from pimsim.workload.requests import Request
    from pimsim.workload.step import Step, StepEntry

    told = (
        "fidelity", "notes", "stages", "max_context", "model", "on_pim", "pim_tokens", "channels",
        "least_loaded", "sub_batches",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny.yaml").write_text(CARD)
        (Path(folder) / "requests.csv").write_text("arrival_us,prompt,output\n0,8,2\n")
        for name, more in (
            ("npu-only", ""), ("npu-pim", ", schedule: {attention_pim_tokens: 3}"),
            ("neupims", ", schedule: {channel_assignment: round-robin, sub_batches: false}"),
            ("neupims", ", parallel: {tp: 1, pp: 2}"),
        ):  # fmt: skip
            path = Path(folder) / "service.yaml"
            path.write_text(
                "requests: {file: ./requests.csv}\nscheduler: {name: vllm}\n"
                f"machine: {{extends: {name}, memory: {{organization: {{channels: 2}}}}, "
                f"workload: {{model: ./tiny.yaml, layers: 1}}{more}}}\n"
            )
            machine: Any = StepCosts(load_service(str(path), []).config.machine)
            yield f"=== {name}{more}"
            for each in told:
                yield from facts(getattr(machine, each), each)
            yield from facts(machine.work[[0, 1, 31, 32, 33, 500, 600]], "work")
            yield from facts(machine.idle_w, "idle_w")
            for size in (1, 16, 1000):
                yield f"tokens in blocks of {size} = {machine.tokens(size)}"
            entries = (
                StepEntry(Request(0, 0, 8, 4, 0, channel=0), 8, 8),
                StepEntry(Request(1, 0, 100, 4, 1, channel=1), 1, 101),
            )
            for count in (1, 2):
                yield from facts(machine.cost(Step(entries[:count])), f"cost of {count}")


@values("parts/tilings")
def _tilings() -> Iterator[str]:
    """Tiles of every tiling, with activations on chip and across the memory's bus."""
    from pimsim.config.loader import load_run
    from pimsim.mapping.product_tiles import product_tiles
    from pimsim.workload.operators import Operator, OperatorKind

    for name, sets in (
        ("npu-only", []), ("neupims-artifact-npu-only", []), ("neupims-artifact-main", []),
        ("neupims-artifact-main", ["npu.operand_layout=tiled"]), ("onnxim-tpuv4", []),
    ):  # fmt: skip
        config = load_run(name, sets).config
        npu, memory = config.npu, config.memory
        tiles = product_tiles(npu.tiling)(npu, memory, 2, 1 << 20)
        for (m, n, k), spill, bias in product(
            ((1, 300, 200), (40, 128, 2000), (300, 900, 700)), (False, True), (0, 1)
        ):
            work = Operator(
                "product", OperatorKind.GEMM, m=m, n=n, k=k, flops=2 * m * n * k,
                weight_bytes=2 * n * (k + bias), input_bytes=2 * m * k, output_bytes=2 * m * n,
            )  # fmt: skip
            steps, found = tiles.steps(work, 7, spill)
            yield f"=== {name} {npu.tiling} {npu.operand_layout}: {m} {n} {k}, {spill}, {bias}"
            yield f"{len(steps)} steps, {len(found)} tiles"
            for number in sorted({0, 1, len(steps) // 2, len(steps) - 1} & set(range(len(steps)))):
                step = steps[number]
                yield f"step {number}: core {step.core}, scale {number_text(step.scale)}"
                yield from facts(found[number], "  tile")
                for what in ("loads", "stores", "stored_after", "needed"):
                    value = getattr(step, what)
                    if value is not None and len(value):
                        yield from facts(value[:2], f"  {what}")


@values("parts/charts")
def _charts() -> Iterator[str]:
    """Every chart of a run, one with a power limit and one whose stage has few operators."""
    import pimsim
    from pimsim.report import run_charts

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.yaml"
        path.write_text(CARD)
        runs = [
            pimsim.run(name, model=path, batch=3, layers=1, overrides=["parallel.tp=1"])
            for name in ("neupims", "npu-only")
        ]
    first = runs[0] = replace(runs[0], tdp_w=123.5)
    charts = [
        run_charts.comparison_chart(runs, ["a", "b"]), run_charts.stack_chart(runs, ["a", "b"]),
        run_charts.energy_chart(runs, ["a", "b"]), run_charts.roofline_chart(first),
        run_charts.gantt_chart(first), run_charts.utilisation_chart(first),
        run_charts.power_chart(first), run_charts.power_chart(runs[1]),
    ]  # fmt: skip
    for chart in charts:
        yield f"=== {chart.key}"
        yield from _chart(chart)


def _chart(chart: Any) -> Iterator[str]:
    for key, value in facts_of(chart).items():
        if key == "lines":
            for line in value:
                yield (
                    f"line {line.name}: {line.colour}, dashed {line.dashed}, step {line.step}, "
                    f"above {line.above}, {len(line.x)} points"
                )
                yield from facts(line.x[:4] + line.x[-2:], "  x")
                yield from facts(line.y[:4] + line.y[-2:], "  y")
        elif key in ("spans", "points"):
            yield from facts(value[:40], key)
        elif value not in ((), {}):  # of kinds of charts that have it
            yield from facts(value, key)


def facts_of(record: Any) -> dict[str, Any]:
    """Fields of a record by name, unchanged."""
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@values("parts/places", "torch")
def _places() -> Iterator[str]:
    """Where an operation of a module belongs, by its place in the model."""
    from pimsim.capture.placing import is_movement, layer_of, place
    from pimsim.capture.recorder import OpEvent, TensorFacts

    paths = {
        "model.layers.3.self_attn": "LlamaAttention", "model.layers.3.self_attn.q_proj": "Linear",
        "model.layers.3.self_attn.o_proj": "Linear", "transformer.h.0.attn.c_attn": "Conv1D",
        "model.layers.3.input_layernorm": "LlamaRMSNorm", "model.layers.3.odd_norm": "RMSNorm",
        "model.layers.3": "LlamaDecoderLayer", "model.layers.3.mlp": "LlamaMLP",
        "model.layers.3.mlp.act_fn": "SiLU", "model.layers.3.mlp.experts": "Experts",
        "model.layers.3.mlp.experts.act_fn": "SiLU", "model.layers.3.mlp.experts.2": "Experts",
        "model.layers.3.mlp.gate": "Router", "model.layers.3.block_sparse_moe": "SparseMoeBlock",
        "model.layers.3.mlp.shared_expert": "LlamaMLP", "model.layers.3.activation_fn": "ReLU",
        "model.layers.3.mlp.shared_experts.act_fn": "SiLU", "model.layers.3.odd": "Odd",
        "model.rotary_emb": "RotaryEmbedding", "lm_head": "Linear", "model.norm": "LlamaRMSNorm",
        "model.embed_tokens": "Embedding", "model.odd": "Odd",
    }  # fmt: skip
    whole = TensorFacts((4, 4), "float32")
    weight = TensorFacts((4, 4), "float32", "weight")
    for path, owner in paths.items():
        yield f"=== {path} ({owner}): {layer_of(path)}"
        for op, given in product(
            ("mm", "add", "mul", "silu", "gelu", "relu", "sigmoid", "softmax", "view"),
            ((whole,), (whole, weight)),
        ):
            event = OpEvent(op, path, owner, given, (whole,))
            found = place(event)
            yield (
                f"{op} of {len(given)}: {'nowhere' if found is None else found.group}"
                f"{'' if found is None else ' ' + found.name}, movement {is_movement(event)}"
            )
