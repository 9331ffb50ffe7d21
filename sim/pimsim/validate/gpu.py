"""GPU kernels, and decoding of whole models, beside measured ones.

The figures are of vLLM's kernels on A100, H100, H200 and B200 (aiconfigurator-core's measurements)
and on an RTX 4090 (LLMServingSim's profile). They do not ship; ``gpu/`` of ``--reference DIR`` has
them. Some rows calibrate the constants of ``configs/xpu`` (``gpu_kernels.KINDS``): they are
reported in groups of their own. All others are judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import fsum

from pimsim.config.loader import load_system
from pimsim.hardware.xpu.kernels import gpu_kernels
from pimsim.hardware.xpu.tiling import Product
from pimsim.mapping.kernels import per_element
from pimsim.validate.gpu_kernels import KINDS, kernels, xpu_of
from pimsim.validate.gpu_steps import decoding
from pimsim.validate.types import ReferenceLine, References, Row, read_lines
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import load_card
from pimsim.workload.operators import OperatorKind
from pimsim.workload.outside import outside_work
from pimsim.workload.requests import Request
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace

__all__ = ["TITLE", "decoding_ms", "output_layer", "rows"]

TITLE = "kernels of GPUs, and decoding, beside measured ones; calibrated on " + "; ".join(
    KINDS.values()
)

_STATIC = "gpu/aiconfigurator_static.csv"
_SYSTEMS = {"a100_sxm": "dgx-a100", "h100_sxm": "dgx-h100", "h200_sxm": "dgx-h200"}
_MODELS = {
    "meta-llama/Meta-Llama-3.1-8B": "llama-3-8b",
    "meta-llama/Meta-Llama-3.1-70B": "llama-3-70b",
}
"""Cards of the same sizes."""


def rows(references: References) -> Iterator[Row]:
    """Every kernel row, then decoding; none without the folder.

    Parameters
    ----------
    references
        With the tables, of ``--reference``.
    """
    for each in kernels(references):
        ours = 1e6 * each.ours_s(xpu_of(each.gpu))
        group = f"gpu.{each.kind}_{each.gpu}" + ("_calibration" if each.calibrates else "")
        yield Row(group, each.case, "us", each.measured_us, ours)
    path = references.file(_STATIC)
    if path is not None:
        for line in read_lines(path):
            yield from _decoding(line)


def _decoding(line: ReferenceLine) -> Iterator[Row]:
    """A step of decoding as aiconfigurator puts it together from measured kernels."""
    if (line["mode"], line["db"]) != ("static_gen", "SILICON"):
        return
    system, model = line.known("system", _SYSTEMS), line.known("model", _MODELS)
    batch, degree = line.whole("batch"), line.whole("tp")
    ours = decoding_ms(system, model, batch, line.whole("isl"), line.whole("osl"), degree)
    case = f"{system}/{model}/tp{degree}/{line['isl']}+{line['osl']}/{batch}"
    yield Row("gpu.decoding", case, "ms", line.number("tpot_ms"), ours)


def decoding_ms(
    system: str, model: str, batch: int, input_tokens: int, output_tokens: int, devices: int
) -> float:
    """Milliseconds of the mean step, output layer included.

    Parameters
    ----------
    system
        Preset or path.
    model
        Card's name or path.
    batch
        Requests.
    input_tokens
        Of a prompt.
    output_tokens
        That each request makes.
    devices
        That share each layer.
    """
    config = load_system(system, [f"devices={devices}"]).config
    card = load_card(model)
    step_s = decoding(config, card, batch, input_tokens, output_tokens).step_s
    request = Request(0, 0.0, input_tokens, output_tokens, 1)
    heads = output_layer(card_trace(card), Step.decode([request] * batch), devices)
    model_of = gpu_kernels(config.xpu)
    heads_s = fsum(model_of.product(each, config.xpu).time_s for _, each in heads)
    return 1e3 * (step_s + heads_s)


def output_layer(trace: OperatorTrace, step: Step, devices: int) -> tuple[tuple[str, Product], ...]:
    """Products behind the blocks on one of ``devices``, with a row for each that logits are wanted
    of; none where there are none.

    Parameters
    ----------
    trace
        Of the model.
    step
        What each request is asked.
    devices
        That share the product.

    Returns
    -------
    tuple
        (name, product) of each.
    """
    return tuple(
        (
            each.name,
            Product(
                each.m,
                each.n,
                each.k,
                each.count,
                trace.facts.dtype_bytes,
                per_element(each.weight_bytes, each.n * each.k * each.count),
            ),
        )
        for outside in outside_work(trace, step, devices, 1, with_tables=True)
        for each in outside.block.operators
        if each.kind is OperatorKind.GEMM and each.m
    )
