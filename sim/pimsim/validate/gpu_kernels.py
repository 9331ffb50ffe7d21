"""Measured GPU kernels: which line of which table is what, ours, and which rows calibrate.

The figures are of vLLM's kernels on A100, H100, H200 and B200 (aiconfigurator-core's measurements)
and on an RTX 4090 (LLMServingSim's profile).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Literal

from pimsim.config.documents import load_document
from pimsim.config.xpu import XpuConfig
from pimsim.hardware.xpu.experts import Experts, experts_s
from pimsim.hardware.xpu.flash import FlashAttention
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.hardware.xpu.tiling import Product
from pimsim.mapping.kernels import flash_parts
from pimsim.validate.gpu_loads import device_loads
from pimsim.validate.types import ReferenceLine, References, read_lines
from pimsim.workload.requests import Request
from pimsim.workload.step import StepEntry

__all__ = ["DEVICES", "KINDS", "Kernel", "Kind", "kernels", "xpu_of"]

Kind = Literal["gemm", "context", "generation", "experts"]
KINDS: dict[Kind, str] = {
    "gemm": "products of 1, 512 or 8,192 rows (RTX 4090: 1, 512 or 2,048)",
    "context": (
        "prompts of 128, 2,048 or 16,384 tokens (RTX 4090: chunks of 16, 128 or 2,048 with nothing "
        "cached, 2,048 after 16,384)"
    ),
    "generation": "2, 1,024 or 16,384 keys a request (RTX 4090: 16, 1,024 or 16,384 cached)",
    "experts": "1, 128, 512, 4,096 or 16,384 tokens",
}
"""Kinds of kernels, and the rows of each that calibrate the constants of ``configs/xpu``."""

DEVICES = {"a100_sxm": "a100", "h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200"}
_PROFILE = "gpu/rtx4090_llama31_8b_profile/"
_LLAMA_HEADS = (32, 8, 128)
"""Heads of queries and of keys, and their width."""
_LLAMA_PRODUCTS = {
    "qkv_proj": ((32 + 2 * 8) * 128, 4096),
    "o_proj": (4096, 4096),
    "gate_up_proj": (2 * 14336, 4096),
    "down_proj": (4096, 14336),
}
"""Columns and depth of Llama 3.1 8B's products (n, k)."""


@dataclass(frozen=True)
class Kernel:
    """One measured row."""

    kind: Kind
    gpu: str
    case: str
    measured_us: float
    calibrates: bool
    """It is one of the rows that the device's constants come from."""
    ours_s: Callable[[XpuConfig], float]


@cache
def xpu_of(gpu: str) -> XpuConfig:
    """The preset of a device.

    Parameters
    ----------
    gpu
        Preset of the kind ``xpu``.
    """
    return load_document(XpuConfig, "xpu", gpu).config


def kernels(references: References) -> Iterator[Kernel]:
    """Every row of the four kinds; none without the folder.

    Parameters
    ----------
    references
        With the tables, of ``--reference``.
    """
    for name, make in _TABLES.items():
        path = references.file(name)
        if path is not None:
            for line in read_lines(path):
                yield from make(line)


def _attention(
    gpu: str, batch: int, new: int, context: int, shape: tuple[int, int, int], warm: bool
) -> Callable[[XpuConfig], float]:
    heads, kv_heads, dim = shape
    parts = flash_parts([StepEntry(Request(0, 0.0, context, 1, 0), new, context)] * batch, None)
    work = FlashAttention(
        parts, heads, kv_heads, dim, dim, key_value_bytes=4 * dim, warm=warm
    )  # fmt: skip
    return lambda xpu: gpu_kernels(xpu).flash(work, xpu).time_s


def _attention_row(line: ReferenceLine) -> Iterator[Kernel]:
    """The collector runs a kernel again and again over the same tensors."""
    gpu, batch, new = line.known("device", DEVICES), line.whole("batch_size"), line.whole("isl")
    kind: Kind = line.known("phase", {"context": "context", "generation": "generation"})
    shape = (
        line.whole("num_heads"), line.whole("num_key_value_heads"), line.whole("head_dim"),
    )  # fmt: skip
    context = new + line.whole("step")
    case = f"{gpu}/{batch}x{new}/{context}/{shape[0]}:{shape[1]}"
    states = new in (128, 2048, 16384) if kind == "context" else context in (2, 1024, 16384)
    ours = _attention(gpu, batch, new, context, shape, warm=True)
    yield Kernel(kind, gpu, case, line.number("latency_us"), states, ours)


def _chunk(line: ReferenceLine) -> Iterator[Kernel]:
    """A chunk alone, or decoding alone: steps that do both are not of one kind. A whole layer runs
    between two measurements, so nothing is in L2."""
    new, cached = line.whole("prefill_chunk"), line.whole("kv_prefill")
    batch, keys = line.whole("n_decode"), line.whole("kv_decode")
    measured = line.number("time_us")
    if new and not batch:
        states = (new, cached) in ((16, 0), (128, 0), (2048, 0), (2048, 16384))
        ours = _attention("rtx4090", 1, new, new + cached, _LLAMA_HEADS, warm=False)
        case = f"rtx4090/{new}/{new + cached}"
        yield Kernel("context", "rtx4090", case, measured, states, ours)
    elif batch and not new:
        ours = _attention("rtx4090", batch, 1, keys + 1, _LLAMA_HEADS, warm=False)
        case = f"rtx4090/{batch}x1/{keys + 1}"
        yield Kernel("generation", "rtx4090", case, measured, keys in (16, 1024, 16384), ours)


def _product(gpu: str, m: int, n: int, k: int) -> Callable[[XpuConfig], float]:
    work = Product(m, n, k)
    return lambda xpu: gpu_kernels(xpu).product(work, xpu).time_s


def _product_row(line: ReferenceLine) -> Iterator[Kernel]:
    gpu, m, n, k = line.known("device", DEVICES), *(line.whole(name) for name in "mnk")
    case = f"{gpu}/{m}x{n}x{k}"
    states = m in (1, 512, 8192)
    yield Kernel("gemm", gpu, case, line.number("latency_us"), states, _product(gpu, m, n, k))


def _dense(line: ReferenceLine) -> Iterator[Kernel]:
    if line["layer"] not in _LLAMA_PRODUCTS:
        return
    (n, k), m = _LLAMA_PRODUCTS[line["layer"]], line.whole("tokens")
    case = f"rtx4090/{line['layer']}/{m}"
    ours = _product("rtx4090", m, n, k)
    yield Kernel("gemm", "rtx4090", case, line.number("time_us"), m in (1, 512, 2048), ours)


def _experts(line: ReferenceLine) -> Iterator[Kernel]:
    gpu, tokens = line.known("device", DEVICES), line.whole("num_tokens")
    hidden, inner = line.whole("hidden_size"), line.whole("inter_size")
    choices, experts = line.whole("topk"), line.whole("num_experts")
    devices = line.whole("moe_ep_size")
    loads = device_loads(line["distribution"], tokens, experts, choices, devices, line["version"])
    works = [Experts(tokens, each.tolist(), choices, hidden, inner) for each in loads]
    case = (
        f"{gpu}/{tokens}/{hidden}:{inner}/{choices}of{experts}/ep{devices}/{line['distribution']}"
    )
    states = tokens in (1, 128, 512, 4096, 16384)
    yield Kernel(
        "experts", gpu, case, line.number("latency_us"), states,
        lambda xpu: fmean(experts_s(each, xpu) for each in works),
    )  # fmt: skip


_TABLES: dict[str, Callable[[ReferenceLine], Iterator[Kernel]]] = {
    "gpu/gemm_bf16.csv": _product_row,
    f"{_PROFILE}dense.csv": _dense,
    "gpu/attention_bf16.csv": _attention_row,
    f"{_PROFILE}attention.csv": _chunk,
    "gpu/moe_bf16.csv": _experts,
}
