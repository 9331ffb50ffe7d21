"""The NeuPIMs artifact's cycle counts, its three branches, against the presets with its quirks on.

The table (``neupims_cycles.csv``) was measured with the artifact (reference neupims/MECHANISMS.md).
Rows: attention alone, a matrix product alone, the stages of one decode iteration, its total.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_npu_of, load_pim, load_run
from pimsim.engine.attention import run_attention
from pimsim.engine.device import Device
from pimsim.engine.device_building import build_device
from pimsim.engine.iteration import run_iteration
from pimsim.engine.product import run_product
from pimsim.validate.types import ReferenceLine, References, Row
from pimsim.workload.cards import load_card
from pimsim.workload.requests import Request, load_requests
from pimsim.workload.step import Step

__all__ = [
    "MeasuredIteration", "attention_rows", "gemm_rows", "iteration_rows", "iterations",
    "order_rows", "rows",
]  # fmt: skip

TABLE = "neupims_cycles.csv"
PRESETS = {
    "main": "neupims-artifact-main",
    "npu+pim": "neupims-artifact-npu-pim",
    "npu-only": "neupims-artifact-npu-only",
}
PIM_DESIGNS = {"main": "neupims-artifact", "npu+pim": "newton-artifact"}
MEMORY = "hbm2-neupims-artifact"
CHANNELS = 32
MODEL, TP = "gpt3-7b", 4
"""Of the iterations in the shipped table."""
NUMBERS = {
    word: count
    for count, word in enumerate(
        ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"), start=1
    )
}
"""How many requests of a channel, as the table writes them; or a number."""
_COUNT = "([1-9][0-9]{0,5})"
PIM_BOUND_SHARE = 0.95
"""Share of a stage that its PIM operators must fill for PIM to be what bounds it."""


@dataclass(frozen=True)
class MeasuredIteration:
    """One decode iteration of the table."""

    branch: str
    sub_batches: str
    """``on`` or ``off``."""
    trace: str
    """``u512-64``: 64 requests of 512 tokens, channel i mod 32; ``sg-...``: a file."""
    model: str
    """A card's name."""
    tp: int
    measured: tuple[tuple[str, int], ...]
    """Cycles by ``total``, ``stage_A``, ``A/SA/attn.QKVgen``."""

    @property
    def name(self) -> str:
        """As rows and tests name it; the model where it is not that of the shipped table."""
        own = "" if (self.model, self.tp) == (MODEL, TP) else f"/{self.model}-tp{self.tp}"
        return f"{self.branch}/{self.sub_batches}/{self.trace}{own}"

    def stages(self) -> dict[str, int]:
        """Cycles by stage; none for branch npu-only, which has no stages."""
        prefix = "stage_"
        return {o.removeprefix(prefix): c for o, c in self.measured if o.startswith(prefix)}

    def bound_by_pim(self, stage: str) -> bool:
        """Whether the artifact's own PIM operators fill the stage."""
        pim = sum(cycles for op, cycles in self.measured if op.startswith(f"{stage}/PIM/"))
        return pim >= PIM_BOUND_SHARE * self.stages()[stage]

    def requests(self, references: References) -> tuple[Request, ...] | None:
        """Its requests; None where they are in a file of the artifact that is not at hand."""
        uniform = re.fullmatch(r"u(\d+)-(\d+)", self.trace)
        if uniform is None:
            path = references.file(f"neupims/requests/{self.trace}.csv")
            return None if path is None else load_requests(path).requests
        context, count = (int(text) for text in uniform.groups())
        # the artifact makes one token of a prompt
        return tuple(
            Request(i, 0.0, prompt_tokens=context, output_tokens=1, generated_tokens=0,
                    channel=i % CHANNELS)
            for i in range(count)
        )  # fmt: skip


def _table(references: References) -> list[ReferenceLine]:
    return [line for line in references.table(TABLE) if line["metric"] == "cycles"]


def _sizes(line: ReferenceLine, column: str, pattern: str) -> tuple[int, ...]:
    """The numbers of a word. Raises ``InputError`` where it is of another form."""
    found = re.fullmatch(pattern, line[column])
    if found is None:
        raise InputError(
            f"{line.where}: {column}: {line[column]!r}; h8d128 heads are mb:h8d128, and requests "
            "of a channel one-512, four-512, 16-512, in an iteration u512-64 or a file's name"
        )
    return tuple(int(text) for text in found.groups())


def rows(references: References) -> Iterator[Row]:
    """Every row of the table that is modelled, as it is simulated.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    yield from attention_rows(references)
    yield from gemm_rows(references)
    for iteration in iterations(references):
        yield from iteration_rows(iteration, references)
    yield from order_rows(references)


def attention_rows(references: References, only: str = "") -> Iterator[Row]:
    """Scores (with their softmax) and values of one channel, no other traffic.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    only
        Part of the names of the cases that are compared.
    """
    measured: dict[tuple[str, str, str], dict[str, int]] = {}
    lines: dict[tuple[str, str, str], ReferenceLine] = {}
    for row in _table(references):
        if row["model"].startswith("mb:") and "/attn." in row["op"]:
            key = (row["branch"], row["model"].removeprefix("mb:"), row["trace"])
            measured.setdefault(key, {})[row["op"].split(".")[-1]] = row.whole("value")
            lines[key] = row
    memory = load_memory(MEMORY).config
    vector = load_npu_of(PRESETS["main"]).vector
    for (branch, model, trace), cycles in measured.items():
        case = f"{branch}/{model}/{trace}"
        if only not in case:
            continue
        line = lines[branch, model, trace]
        heads, head_dim = _sizes(line, "model", rf"mb:h{_COUNT}d{_COUNT}")
        requests = NUMBERS.get(trace.partition("-")[0], 0)
        if requests:
            contexts = [*_sizes(line, "trace", rf"[a-z]+-{_COUNT}")] * requests
        else:
            requests, context = _sizes(line, "trace", rf"{_COUNT}-{_COUNT}")
            contexts = [context] * requests
        pim = load_pim(line.known("branch", PIM_DESIGNS)).config
        ours = run_attention(memory, pim, heads, head_dim, contexts, vector)
        for op, found in (
            ("NeuPIMSLogitSoftmax", ours.score_cycles), ("NeuPIMSAttend", ours.value_cycles),
        ):  # fmt: skip
            if op in cycles:
                yield Row("neupims.attention", f"{case}/{op}", "cycles", cycles[op], found)


def gemm_rows(references: References) -> Iterator[Row]:
    """``gemmMxKxN``: a matrix product alone, weights and activations from memory.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    for row in _table(references):
        sizes = re.match(r"gemm(\d+)x(\d+)x(\d+)/", row["op"])
        if sizes is None:
            continue
        m, k, n = (int(text) for text in sizes.groups())
        config = load_run(row.known("branch", PRESETS)).config
        ours = run_product(config, load_card(config.workload.model), m, n, k)
        case = f"{row['branch']}/gemm{m}x{k}x{n}"
        yield Row("neupims.gemm", case, "cycles", row.whole("value"), ours)


def iterations(references: References) -> list[MeasuredIteration]:
    """The decode iterations of the table, in its order.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    found: dict[tuple[str, str, str, str, int], list[tuple[str, int]]] = {}
    for row in _table(references):
        if not row["model"].startswith("mb:"):
            row.known("branch", PRESETS)
            row.known("sub_batch", {"on": "", "off": ""})
            model = row["model"].lower()
            key = (row["branch"], row["sub_batch"], row["trace"], model, row.whole("tp"))
            found.setdefault(key, []).append((row["op"], row.whole("value")))
    return [MeasuredIteration(*key, tuple(measured)) for key, measured in found.items()]


def iteration_device(iteration: MeasuredIteration, references: References) -> Device | None:
    """What the iteration runs on; None where its request file is not at hand."""
    requests = iteration.requests(references)
    if requests is None:
        return None
    # The artifact counts no rows, so its memory holds what a memory of its size would not.
    overrides = [
        "workload.beyond_banks=true", f"workload.model={iteration.model}",
        f"parallel.tp={iteration.tp}",
    ]  # fmt: skip
    if iteration.sub_batches == "on":
        # A to F once are two blocks of each sub-batch
        overrides += ["schedule.sub_batches=true", "workload.layers=2"]
    config = load_run(PRESETS[iteration.branch], overrides).config
    return build_device(config, load_card(config.workload.model), Step.decode(requests))


def iteration_rows(iteration: MeasuredIteration, references: References) -> Iterator[Row]:
    """Total and stages of one iteration; nothing where its request file is not at hand.

    Parameters
    ----------
    iteration
        Of the table.
    references
        Where its request file may be.
    """
    device = iteration_device(iteration, references)
    if device is None:
        return
    outcome = run_iteration(device)
    clock = outcome.clock
    ours = {
        stage.name: clock.npu_cycle(stage.end_ps) - clock.npu_cycle(stage.start_ps)
        for stage in outcome.recorder.stages
    }
    total = dict(iteration.measured).get("total")
    time = clock.npu_cycle(outcome.time_ps)
    if total is not None:
        yield Row("neupims.total", iteration.name, "cycles", total, time)
    for stage, cycles in iteration.stages().items():
        group = "neupims.pim_stage" if iteration.bound_by_pim(stage) else "neupims.stream_stage"
        yield Row(group, f"{iteration.name}/{stage}", "cycles", cycles, ours.get(stage, 0))


def order_rows(references: References) -> Iterator[Row]:
    """How far the artifact's own order moves one product: context for ``neupims.stream_stage``.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    for case in iterations(references):
        measured = dict(case.measured)
        alone, beside = (measured.get(f"{stage}/SA/attn.QKVgen") for stage in "AC")
        if case.name != "main/on/sg-rr-64" or alone is None or beside is None:
            continue
        yield Row(
            "neupims.stream_stage", f"{case.name}/QKV in stage A and in stage C", "cycles", alone,
            beside,
            known_wrong="both are the artifact's: one product, 32 rows, with the memory to itself "
            "and beside PIM; banks run ahead of each other as its request order and its phase to "
            "the refreshes have it",
        )  # fmt: skip
