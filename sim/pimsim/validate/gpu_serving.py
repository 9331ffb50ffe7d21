"""Servers of GPUs, measured: a closed loop of users on ours, beside their TPOT and TTFT.

The table (``gpu/serving.csv`` of ``--reference DIR``, which does not ship) has runs of vLLM, SGLang
and TensorRT-LLM. Of each row we know lengths, users and how the devices share the model; ramp,
warm-up and number of requests nobody recorded, so that TTFT is printed and TPOT judged. Nothing
is fitted: kernels are calibrated on kernels (``gpu_kernels``), all-reduces on NCCL's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from pimsim.config.loader import load_system
from pimsim.config.service import SchedulerSettings
from pimsim.config.traffic import MOST_REQUESTS
from pimsim.result.xpu_step_cost import XpuStepCosts
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import load_scheduler
from pimsim.serving.service import Fleet, Service
from pimsim.serving.step_times.interpolated import Interpolated
from pimsim.validate.serving import MEASURED_CASE, measured_means
from pimsim.validate.types import ReferenceLine, References, Row, read_lines
from pimsim.workload.arrivals.closed import Closed, arrive
from pimsim.workload.cards import ModelCard, load_card
from pimsim.workload.draws import RandomStream
from pimsim.workload.traffic import Traffic

__all__ = [
    "CARDS", "NOT_DESCRIBED", "Point", "points", "preset_rows", "rows", "served_ms",
]  # fmt: skip

_TABLE = "gpu/serving.csv"
CARDS: Mapping[str, str] = {
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "llama-3.1-8b",
    "meta-llama/Llama-3.1-70B": "llama-3.1-70b",
    "Qwen/Qwen3-32B": "qwen3-32b",
    "Qwen/Qwen3-235B-A22B-FP8": "qwen3-235b-a22b",
    "MiniMaxAI/MiniMax-M2.5": "minimax-m2",
}
"""Cards of the table's models."""
NOT_DESCRIBED: Mapping[str, str] = {
    "Qwen/Qwen3.5-397B-A17B": "linear attention in three of four blocks",
    "deepseek-ai/DeepSeek-R1": "MLA, whose kernels on GPUs are not calibrated",
    "deepseek-ai/DeepSeek-V3": "as DeepSeek-R1",
    "moonshotai/Kimi-K2.5": "MLA, and weights of 4 bits",
    "nvidia/DeepSeek-R1-NVFP4": "MLA, and weights of 4 bits",
    "nvidia/DeepSeek-V3.1-NVFP4": "MLA, and weights of 4 bits",
    "nvidia/Qwen3-32B-NVFP4": "weights of 4 bits",
    "openai/gpt-oss-120b": "experts of 4 bits beside attention of 16",
    "zhipuai/GLM-5": "MLA with sparse attention",
}
"""Models of the table that no card describes for these kernels, and why."""
_BYTES: Mapping[str, int] = {"": 2, "fp8": 1}
"""Of an element, by the table's precision; keys and values have two."""
_DEVICES: Mapping[str, str] = {"h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200"}
_BLOCK_TOKENS = 16
_ROUNDS = 4
"""Requests of each user; the first and the last are not counted."""
_MOST = 12
"""Of a server, spread evenly over its rows in the order of lengths and users."""
_JUDGED = "mean_tpot_us"
_LEAST = 10
"""Rows of a model on a device that are judged; of fewer TTFT alone is told."""


class _Engine(NamedTuple):
    """How an engine serves unless it is told otherwise."""

    scheduler: str
    settings: Mapping[str, int]
    memory: float
    """Share of the memory for weights and cache."""
    beside: float = 1.0
    """Share of what weights leave that is cache."""


_ENGINES: Mapping[str, _Engine] = {
    # vLLM's EngineArgs: gpu_memory_utilization, and the budget of an API server on these GPUs
    "vllm": _Engine("vllm", {"max_num_seqs": 1024, "max_num_batched_tokens": 8192}, 0.9),
    # TensorRT-LLM's BuildConfig.max_num_tokens, KvCacheConfig.free_gpu_memory_fraction
    "trtllm": _Engine("vllm", {"max_num_seqs": 2048, "max_num_batched_tokens": 8192}, 1.0, 0.9),
    # SGLang's ServerArgs: prompts first, max_prefill_tokens, mem_fraction_static
    "sglang": _Engine("vllm_v0", {"batch_cap": 2048, "max_tokens_in_batch": 16384}, 0.88),
}


class Point(NamedTuple):
    """A measured run that is served."""

    engine: str
    device: str
    model: str
    """Name of the card."""
    precision: str
    tp: int
    ep: int
    prompt: int
    output: int
    users: int
    tpot_ms: float
    ttft_ms: float

    @property
    def server(self) -> tuple[str, str, str, int, int, str]:
        """What has the same steps, and the same cache."""
        return self.device, self.model, self.precision, self.tp, self.ep, self.engine

    @property
    def case(self) -> str:
        """As a row is called."""
        shared = f"tp{self.tp}" + (f"/ep{self.ep}" if self.ep > 1 else "")
        return (
            f"{self.engine}/{self.device}/{self.model}/{self.precision}/{shared}/"
            f"{self.prompt}+{self.output}/{self.users}"
        )


def points(lines: Iterable[ReferenceLine]) -> Iterator[Point]:
    """The rows of the table that can be served: of a model that a card describes, in 16 or 8 bits,
    whose sizes of parallelism agree, without attention data parallel.

    Parameters
    ----------
    lines
        Of the table.

    Raises
    ------
    InputError
        For a model, a device, an engine or a precision that nobody knows.
    """
    known = {**CARDS, **dict.fromkeys(NOT_DESCRIBED, "")}
    precisions = {**{name: name or "bf16" for name in _BYTES}, "fp4": "", "int4": ""}
    for line in lines:
        model, device = line.known("model_path", known), line.known("system", _DEVICES)
        precision = line.known("precision", precisions)
        line.known("backend", _ENGINES)
        tp, pp, moe_tp, ep = (
            round(line.number(f"{name}_size")) for name in ("tp", "pp", "moe_tp", "moe_ep")
        )
        attention_dp = round(line.number("attention_dp_size")) if line["attention_dp_size"] else 1
        if not model or not precision or pp > 1 or attention_dp > 1:
            continue
        if load_card(model).moe is None:
            if (moe_tp * ep) not in (1, tp):
                continue
            ep = 1
        elif moe_tp * ep != tp:
            continue
        yield Point(
            line["backend"], device, model, precision, tp, ep, line.whole("isl"), line.whole("osl"),
            round(line.number("batch_size")), line.number("silicon_tpot_ms"),
            line.number("silicon_ttft_ms"),
        )  # fmt: skip


class _Server:
    """The devices of some points, which have the same steps."""

    def __init__(self, point: Point) -> None:
        self._engine = _ENGINES[point.engine]
        card = _card(point)
        mixture = card.moe is not None
        config = load_system(
            f"dgx-{point.device}",
            [f"devices={point.tp}", f"nccl={point.device}", f"parallel.ep={point.ep}",
             "workload.outside=true", *(["workload.layers=2"] if mixture else [])],
        ).config  # fmt: skip
        bytes_held = round(self._engine.memory * config.xpu.memory_capacity)
        xpu = config.xpu.model_copy(update={"memory_capacity": bytes_held})
        self._costs = XpuStepCosts(config.model_copy(update={"xpu": xpu}), card)
        self._known: dict[str, list[float]] = {}

    @cached_property
    def blocks(self) -> int:
        """Of the cache, as the engine takes memory unless told otherwise."""
        return int(self._engine.beside * self._costs.tokens(_BLOCK_TOKENS)) // _BLOCK_TOKENS

    def served(self, point: Point) -> tuple[float, float]:
        """Milliseconds: mean TPOT and mean TTFT of requests that neither begin nor end the run."""
        count = min(max(_ROUNDS * point.users, 32), MOST_REQUESTS)
        asked = Traffic(
            np.zeros(count, dtype=np.int64), np.full(count, point.prompt),
            np.full(count, point.output),
        )  # fmt: skip
        closed = Closed(process="closed", users=point.users)
        kind = load_scheduler(self._engine.scheduler)
        settings: Any = kind.Settings(name=self._engine.scheduler, **self._engine.settings)
        assert isinstance(settings, SchedulerSettings)
        fleet = Fleet(
            kind, settings, Interpolated(self._costs, 2, 0, 0, self._known), self.blocks,
            _BLOCK_TOKENS, load_router("round_robin"),
        )  # fmt: skip
        service = Service(arrive(asked, closed, RandomStream(0)), fleet)
        service.run()
        found = service.requests[point.users : count - point.users]
        made = (found["finish_ps"] - found["first_token_ps"]) / (point.output - 1)
        waited = found["first_token_ps"] - found["arrival_ps"]
        return float(made.mean()) / 1e9, float(waited.mean()) / 1e9


def served_ms(point: Point) -> tuple[float, float]:
    """Milliseconds of TPOT and TTFT of a point, on a server of its own.

    Parameters
    ----------
    point
        What was measured.
    """
    return _Server(point).served(point)


def _card(point: Point) -> ModelCard:
    """Its model, with elements of the precision that it ran in."""
    precision = "" if point.precision == "bf16" else point.precision
    return load_card(point.model).model_copy(update={"dtype_bytes": _BYTES[precision]})


def rows(references: References) -> Iterator[Row]:
    """TPOT and TTFT of each point; none without the folder.

    Each point's TPOT counts for its model, precision, device and engine, and once more for its
    engine.

    Parameters
    ----------
    references
        With the table, of ``--reference``.

    Raises
    ------
    InputError
        As ``points`` does.
    """
    path = references.file(_TABLE)
    if path is None:
        return
    ordered = sorted(points(read_lines(path)), key=lambda point: (point.server, point))
    found = [
        point
        for _, own in groupby(ordered, key=lambda point: point.server)
        for point in _spread(list(own))
    ]
    counts = Counter((each.model, each.precision, each.device) for each in found)
    for _, own in groupby(found, key=lambda point: point.server):
        server: _Server | None = None
        for point in own:
            if server is None:
                server = _Server(point)
            tpot_ms, ttft_ms = server.served(point)
            if counts[point.model, point.precision, point.device] >= _LEAST:
                own_group = f"{point.precision}_{point.model}_{point.device}_{point.engine}"
                for group in (own_group, f"{point.precision}_{point.engine}"):
                    yield Row(f"servers.{group}", point.case, "tpot_ms", point.tpot_ms, tpot_ms)
            yield Row("servers.ttft", point.case, "ttft_ms", point.ttft_ms, ttft_ms)


def _spread(own: Sequence[Point]) -> list[Point]:
    """At most ``_MOST`` of them."""
    count = min(len(own), _MOST)
    return [own[at * len(own) // count] for at in range(count)]


def preset_rows(references: References) -> Iterator[Row]:
    """The measured RTX 4090 server of the suite ``serving``, with the steps of the card's preset
    in place of the profile of its layers; none without the folder.

    Parameters
    ----------
    references
        With the table, of ``--reference``.
    """
    if references.folder is None:
        return
    config = load_system(
        "dgx-h100",
        ["xpu=rtx4090", "devices=1", "workload.outside=true", "workload.model=llama-3.1-8b"],
    ).config
    steps = Interpolated(XpuStepCosts(config), 2, 0, 0, {})
    for metric, reference, ours in measured_means(references, steps):
        judged = "_tpot" if metric == _JUDGED else ""
        yield Row(f"servers.rtx4090_preset{judged}", MEASURED_CASE, metric, reference, ours)
