"""What A100s draw while they serve, beside what was measured (Splitwise, ISCA 2024).

The table (``gpu/splitwise_measured.csv`` of ``--reference DIR``, which does not ship) has power in
parts of the TDP: the mean of a run is that of its decode steps, the peak that of its prompt. A
difference is told in points of the TDP: a row's reference is 1, ours 1 and what we are above it.
No constant of a preset comes from these rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pimsim.config.loader import load_system
from pimsim.result.xpu_step_cost import XpuStepCosts
from pimsim.serving.step_times import StepCost
from pimsim.serving.step_times.anchors import Anchor
from pimsim.validate.types import References, Row, read_lines
from pimsim.workload.cards import load_card

__all__ = ["rows"]

_TABLE = "gpu/splitwise_measured.csv"
_MODELS: Mapping[str, tuple[str, int]] = {"llama2-70b": ("llama-3.1-70b", 32_000)}
"""A card of the same blocks, and the rows of its table."""
_NOT_DESCRIBED: Mapping[str, str] = {"bloom-176b": "positions as a bias of attention (ALiBi)"}
_DEVICES: Mapping[str, str] = {"a100-80gb": "a100", "h100-80gb": "", "h100-80gb-pcap": ""}
"""Power of the H100s was not measured."""
_PS_PER_S = 10**12


def rows(references: References) -> Iterator[Row]:
    """Power of each run that has one: of a decode step half way, and of its prompts; none without
    the folder.

    Parameters
    ----------
    references
        With the table, of ``--reference``.

    Raises
    ------
    InputError
        For a model or a device that nobody knows.
    """
    path = references.file(_TABLE)
    if path is None:
        return
    known: dict[tuple[str, int], XpuStepCosts] = {}
    for line in read_lines(path):
        model = line.known("model", {**_MODELS, **dict.fromkeys(_NOT_DESCRIBED, ("", 0))})
        device = line.known("hardware", _DEVICES)
        mean, peak = line.number("avg_power"), line.number("peak_power")
        if not model[0] or not device or not mean:
            continue
        tp, batch, prompt = (
            line.whole(name) for name in ("tensor_parallel", "batch_size", "prompt_size")
        )
        if (device, tp) not in known:
            known[device, tp] = _costs(device, tp, *model)
        costs = known[device, tp]
        context = prompt + line.whole("token_size") // 2
        case = f"{device}/{line['model']}/tp{tp}/{prompt}/{batch}"
        for phase, measured, anchor in (
            ("decode", mean, Anchor(batch, context)),
            ("prefill", peak, Anchor(0, 0, batch * prompt, batch)),
        ):
            ours = _share(costs, costs.cost(anchor.step(1)))
            yield Row(
                f"servers.power_{device}_{phase}_tp{tp}", case, "tdp_share", 1.0,
                1.0 + ours - measured,
            )  # fmt: skip


def _costs(device: str, tp: int, card: str, vocab: int) -> XpuStepCosts:
    model = load_card(card).model_copy(update={"vocab": vocab})
    keys = [f"devices={tp}", f"nccl={device}", "workload.outside=true"]
    return XpuStepCosts(load_system(f"dgx-{device}", keys).config, model)


def _share(costs: XpuStepCosts, cost: StepCost) -> float:
    """Of its TDP that a device draws in a step."""
    config = costs.config
    assert config.xpu.tdp_w is not None
    watt = float(cost.joule.sum()) / (cost.time_ps / _PS_PER_S) / config.devices
    return watt / config.xpu.tdp_w
