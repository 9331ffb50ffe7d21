"""Prefill on GPUs beside measured kernels: FlashAttention and dense products, one launch each.

The figures are of vLLM's kernels on A100, H100, H200 and B200 (aiconfigurator-core's measurements)
and on an RTX 4090 (LLMServingSim's profile). They do not ship; ``gpu/`` of ``--reference DIR`` has
them. Nothing here is fitted to them: rows are reported, not judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

from pimsim.config.loader import load_document
from pimsim.config.xpu import XpuConfig
from pimsim.hardware.xpu import roofline
from pimsim.hardware.xpu.flash import FlashAttention, flash
from pimsim.hardware.xpu.tiling import Product
from pimsim.mapping.kernels import flash_parts
from pimsim.validate.types import ReferenceLine, References, Row, read_lines
from pimsim.workload.requests import Request
from pimsim.workload.step import StepEntry

__all__ = ["attention_us", "product_us", "rows"]

_FOLDER = "gpu/"
_PROFILE = "gpu/rtx4090_llama31_8b_profile/"
_DEVICES = {"a100_sxm": "a100", "h100_sxm": "h100", "h200_sxm": "h200", "b200_sxm": "b200"}

_LONG_PROMPT = 2048
"""Tokens of a prompt from which on arithmetic, not the launch, is most of attention."""
_MANY_ROWS = 128
"""Rows of a product from which on it is most often bound by arithmetic."""

_LLAMA = {"heads": 32, "kv_heads": 8, "head_dim": 128}
_LLAMA_PRODUCTS = {
    "qkv_proj": ((32 + 2 * 8) * 128, 4096),
    "o_proj": (4096, 4096),
    "gate_up_proj": (2 * 14336, 4096),
    "down_proj": (4096, 14336),
}
"""Columns and depth of Llama 3.1 8B's products (n, k)."""


def attention_us(
    gpu: str, batch: int, new_tokens: int, context: int, heads: int, kv_heads: int, head_dim: int
) -> float:
    """Microseconds of ``batch`` requests' causal attention in one launch, two bytes an element."""
    request = Request(0, 0.0, context, 1, 0)
    parts = flash_parts([StepEntry(request, new_tokens, context)] * batch, None)
    work = FlashAttention(
        parts, heads, kv_heads, head_dim, head_dim, key_value_bytes=4 * head_dim
    )  # fmt: skip
    return 1e6 * flash(work, _xpu(gpu)).time_s


def product_us(gpu: str, m: int, n: int, k: int) -> float:
    """Microseconds of a product of ``m`` rows with n x k weights, two bytes an element."""
    return 1e6 * roofline.product(Product(m, n, k), _xpu(gpu)).time_s


@cache
def _xpu(gpu: str) -> XpuConfig:
    return load_document(XpuConfig, "xpu", gpu).config


def rows(references: References) -> Iterator[Row]:
    """Every prefill row of attention, and every dense product; none without the folder."""
    for name, make in _TABLES.items():
        path = references.file(name)
        if path is not None:
            for line in read_lines(path):
                yield from make(line)


def _attention(line: ReferenceLine) -> Iterator[Row]:
    if line["phase"] != "context":
        return
    gpu, batch, new = line.known("device", _DEVICES), line.whole("batch_size"), line.whole("isl")
    heads, kv_heads = line.whole("num_heads"), line.whole("num_key_value_heads")
    context = new + line.whole("step")
    ours = attention_us(gpu, batch, new, context, heads, kv_heads, line.whole("head_dim"))
    size = "long" if new >= _LONG_PROMPT else "short"
    case = f"{gpu}/{batch}x{new}/{context}/{heads}:{kv_heads}"
    yield Row(f"gpu.{size}_prompts_{gpu}", case, "us", line.number("latency_us"), ours)


def _product(line: ReferenceLine) -> Iterator[Row]:
    gpu, m, n, k = line.known("device", _DEVICES), *(line.whole(name) for name in "mnk")
    size = "many" if m >= _MANY_ROWS else "few"
    ours = product_us(gpu, m, n, k)
    case = f"{gpu}/{m}x{n}x{k}"
    yield Row(f"gpu.products_{size}_rows_{gpu}", case, "us", line.number("latency_us"), ours)


def _chunk(line: ReferenceLine) -> Iterator[Row]:
    """A chunk alone: steps that decode too are not of one shape."""
    new, cached = line.whole("prefill_chunk"), line.whole("kv_prefill")
    if not new or line.whole("n_decode"):
        return
    ours = attention_us("rtx4090", 1, new, new + cached, **_LLAMA)
    case = f"rtx4090/{new}/{new + cached}"
    yield Row("gpu.chunks_rtx4090", case, "us", line.number("time_us"), ours)


def _dense(line: ReferenceLine) -> Iterator[Row]:
    if line["layer"] not in _LLAMA_PRODUCTS:
        return
    (n, k), m = _LLAMA_PRODUCTS[line["layer"]], line.whole("tokens")
    size = "many" if m >= _MANY_ROWS else "few"
    case = f"rtx4090/{line['layer']}/{m}"
    ours = product_us("rtx4090", m, n, k)
    yield Row(f"gpu.products_{size}_rows_rtx4090", case, "us", line.number("time_us"), ours)


_TABLES: dict[str, Callable[[ReferenceLine], Iterator[Row]]] = {
    f"{_FOLDER}attention_bf16.csv": _attention,
    f"{_PROFILE}attention.csv": _chunk,
    f"{_FOLDER}gemm_bf16.csv": _product,
    f"{_PROFILE}dense.csv": _dense,
}
