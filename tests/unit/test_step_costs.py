"""What a service asks of a machine beside the time of a step."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.loader import load_run
from pimsim.result.step_cost import StepCosts
from pimsim.serving.step_times import ON_CHANNELS, Dealing
from pimsim.workload.requests import Request
from pimsim.workload.step import Step, StepEntry

HEADS = 4
"""Of queries and of keys of the tiny card."""
CASES = [
    ("neupims", (), ON_CHANNELS),
    ("npu-only", (), ON_CHANNELS),
    ("npu-duplex", (), Dealing(64, HEADS, True)),
    ("npu-duplex", ("pim.channels_per_head=4",), Dealing(16, HEADS, True)),
    ("npu-duplex", ("pim.channels_per_head=null",), Dealing(1, HEADS, True)),
    ("npu-duplex", ("schedule.attention_placement=npu",), ON_CHANNELS),
    ("npu-attacc", (), Dealing(64, HEADS, False)),
    ("npu-aim-card", (), Dealing(32, HEADS, True)),
]


def costs(preset: str, card: Path, *overrides: str) -> StepCosts:
    return StepCosts(
        load_run(preset, [f"workload.model={card}", "parallel.tp=1", *overrides]).config
    )


@pytest.mark.parametrize(("preset", "overrides", "dealing"), CASES)
def test_heads_are_dealt_as_the_machine_does(
    preset: str, overrides: tuple[str, ...], dealing: Dealing, tiny_card: Path
) -> None:
    found = costs(preset, tiny_card, *overrides)
    assert found.dealing == dealing
    attends = preset != "npu-only" and "schedule.attention_placement=npu" not in overrides
    assert found.pim_tokens == (1 if attends else 0)


def test_a_window_counts_in_what_a_context_is_worth(tmp_path: Path, tiny_card: Path) -> None:
    """Three of four blocks see 100 keys at most; the machine simulates all."""
    card = tmp_path / "windowed.yaml"
    card.write_text(tiny_card.read_text() + "window: {size: 100, full_every: 4}\n")
    plain, windowed = (
        costs("npu-duplex", each, "workload.layers=4") for each in (tiny_card, card)
    )  # fmt: skip
    assert plain.work[[0, 1, 900]].tolist() == [0, 1, 900]
    assert windowed.work[[0, 1, 100, 900]].tolist() == [0, 1, 100, (3 * 100 + 900) // 4]


@pytest.mark.parametrize("preset", ["npu-duplex", "npu-attacc"])
def test_the_place_with_the_longest_head_decides(preset: str, tiny_card: Path) -> None:
    """Four places of 64 have the long request's heads, four others those of the short one."""
    machine = costs(preset, tiny_card, "workload.layers=1")

    def attention_ps(*contexts: int) -> int:
        entries = (
            StepEntry(Request(at, 0.0, context, 1, 0, 0), 1, context)
            for at, context in enumerate(contexts)
        )
        outcome = machine.outcome(Step(tuple(entries)))
        return sum(
            record.end_ps - record.start_ps
            for step in outcome.steps for record in step.operators
            if record.unit == "pim"
        )  # fmt: skip

    # but for the phase of refresh
    assert attention_ps(900, 100) == pytest.approx(attention_ps(900, 800), rel=0.01)
    assert attention_ps(900, 100) < 0.95 * attention_ps(1000, 100)
