"""The mean step of a batch on GPUs, by the path of ``pimsim run``: its parts beside references.

A step is one token of every request, or a piece of each prompt; work beside the blocks is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from pimsim.config.errors import InputError
from pimsim.config.system import SystemConfig
from pimsim.engine.contexts import sampled
from pimsim.engine.xpu_device import build_xpu_devices, needed_bytes
from pimsim.engine.xpu_machine import XpuOutcome, run_xpu_devices
from pimsim.result.pipeline import total_energy
from pimsim.result.types import Energy
from pimsim.result.xpu_accounts import Shares, energy_of, stage_costs
from pimsim.result.xpu_pipeline import xpu_pipeline
from pimsim.workload.cards import ModelCard
from pimsim.workload.requests import Request
from pimsim.workload.run_steps import run_steps
from pimsim.workload.step import Step
from pimsim.workload.trace import OperatorTrace

__all__ = ["CONTEXTS", "MeanStep", "decoding", "mean_step", "prefilling"]

CONTEXTS = 3
"""Steps of decoding that are run where attention is on PIM, unless the caller wants more."""

_ROOFLINE_CONTEXTS = 128
"""The same for attention elsewhere, where a step is some formulas."""


@dataclass(frozen=True, slots=True)
class MeanStep:
    """The mean of several steps, of all of the model's blocks. Seconds; joules of all devices."""

    steps: int
    """That were run; those between them are interpolated."""
    step_s: float
    tokens_per_s: float
    """Fed; of a decode step as many are made."""
    parts_s: Mapping[str, float]
    """What adds up to the step: ``attention``, ``softmax``, ``gemm``, ``communication``,
    ``elementwise``. Where work overlaps, attention counts in full."""
    gemm_s: Mapping[str, float]
    """``gemm`` by its products."""
    energy_j: Energy
    bound_s: Mapping[str, float]
    """The least time of each unit for the step's work, everything perfect."""
    need_bytes: int
    """Weights, and the KV cache of the last step, on all devices."""

    @property
    def dynamic_j(self) -> float:
        """Energy of a step without static power."""
        return self.energy_j.total - self.energy_j.static


def decoding(
    config: SystemConfig, model: ModelCard | OperatorTrace, batch: int, input_tokens: int,
    output_tokens: int, contexts: int = CONTEXTS,
) -> MeanStep:  # fmt: skip
    """The mean step of requests of the same lengths, from their second token to their last.

    Parameters
    ----------
    config
        Of the server.
    model
        A card, or a trace of its operators.
    batch
        Requests.
    input_tokens
        Of each prompt.
    output_tokens
        That each request makes, the first in its prefill.
    contexts
        Steps that are run where attention is on PIM; those between are interpolated.

    Raises
    ------
    InputError
        For sizes that leave no step, and as a run does.
    """
    if output_tokens < 2 or input_tokens < 1:
        raise InputError(
            f"{input_tokens} + {output_tokens} tokens: at least 1 + 2 are needed, as the first "
            "output is prefill's"
        )
    lengths = range(input_tokens + 1, input_tokens + output_tokens)
    weights = sampled(lengths, contexts if config.attention == "pim" else _ROOFLINE_CONTEXTS)
    steps = [
        Step.decode([Request(number, 0.0, at, 1, 0) for number in range(batch)]) for at in weights
    ]
    return _run(config, model, steps, tuple(weights.values()))


def prefilling(
    config: SystemConfig, model: ModelCard | OperatorTrace, batch: int, input_tokens: int,
    chunk: int | None = None,
) -> MeanStep:  # fmt: skip
    """The mean step of prompts of the same length.

    Parameters
    ----------
    config
        Of the server.
    model
        A card, or a trace of its operators.
    batch
        Prompts.
    input_tokens
        Of each.
    chunk
        Of them, fed in a step at most; None: all at once.

    Raises
    ------
    InputError
        As a run does.
    """
    asked = config.workload.model_copy(update={"phase": "prefill", "chunk": chunk})
    prompts = [Request(number, 0.0, input_tokens, 1, 0) for number in range(batch)]
    steps = run_steps(prompts, asked)
    return _run(config, model, steps, [1 / len(steps)] * len(steps))


def _run(
    config: SystemConfig, model: ModelCard | OperatorTrace, steps: Sequence[Step],
    weights: Sequence[float],
) -> MeanStep:  # fmt: skip
    return mean_step(run_xpu_devices(build_xpu_devices(config, model, steps)), weights)


def mean_step(outcome: XpuOutcome, weights: Sequence[float]) -> MeanStep:
    """What a run's steps come to, on the mean.

    Parameters
    ----------
    outcome
        What the engine left behind.
    weights
        Of each step, (steps,); they add up to 1.
    """
    config, pipeline = outcome.config, xpu_pipeline(outcome)
    shares: Shares = []
    energies = []
    step_s = 0.0
    for number in range(len(pipeline.steps[0].stages)):
        own = [
            (cost, times * weight)
            for costs, weight in zip(stage_costs(outcome, pipeline, number), weights, strict=True)
            for cost, times in costs
        ]
        stage_s = fsum(cost.time_s * times for cost, times in own)
        energies.append(energy_of(own, stage_s, config))
        shares += own
        step_s += stage_s
    fed = [each.device.whole.tokens for each in outcome.steps]
    tokens = fsum(n * weight for n, weight in zip(fed, weights, strict=True))
    return MeanStep(
        steps=len(outcome.steps),
        step_s=step_s,
        tokens_per_s=tokens / step_s,
        parts_s=_total([(cost.parts_s, times) for cost, times in shares]),
        gemm_s=_total([(cost.gemm_s, times) for cost, times in shares]),
        energy_j=total_energy(energies, config.tp),
        bound_s=_total([(cost.bound_s, times) for cost, times in shares]),
        need_bytes=needed_bytes(outcome.device),
    )


def _total(parts: Sequence[tuple[Mapping[str, float], float]]) -> dict[str, float]:
    names = dict.fromkeys(name for part, _ in parts for name in part)
    return {name: fsum(part.get(name, 0.0) * times for part, times in parts) for name in names}
