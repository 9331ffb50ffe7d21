"""Small random models with experts, latents and windows on every machine.

Every run checks the laws of all runs (no unit beats its bound; bytes and multiplications that the
operators need are moved and done; cycle stacks add up); here is what must hold beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pimsim.config.loader import load_run
from pimsim.engine.device import Device
from pimsim.engine.device_building import build_device
from pimsim.engine.iteration import Outcome, run_iteration
from pimsim.engine.records import OperatorRecord
from pimsim.result.accounts import dram_counts, run_facts
from pimsim.result.build import build_result
from pimsim.result.invariants import check_invariants
from pimsim.result.types import Result
from pimsim.workload.cards import ModelCard
from pimsim.workload.operators import OperatorKind
from pimsim.workload.requests import Request, RequestTrace
from pimsim.workload.step import Step

PRESETS = ("npu-only", "npu-pim", "neupims")
few = settings(max_examples=12)
contexts = st.lists(st.integers(1, 700), min_size=1, max_size=7)


@st.composite
def cards(draw: st.DrawFn, moe: bool | None = None) -> ModelCard:
    """A model with any of: grouped queries, latents, windows, experts, a gated FFN."""
    dim = draw(st.sampled_from([32, 48, 64]))
    kv = draw(st.sampled_from([1, 2, 3]))
    group = draw(st.sampled_from([1, 2, 3]))
    sections: dict[str, Any] = {}
    if draw(st.booleans()) if moe is None else moe:
        experts = draw(st.sampled_from([4, 8]))
        sections["moe"] = {
            "experts": experts, "experts_per_token": draw(st.integers(1, 3)),
            "expert_hidden": draw(st.sampled_from([64, 200, 640])),
            "shared_hidden": draw(st.sampled_from([0, 96])),
            "dense_layers": draw(st.integers(0, 1)),
        }  # fmt: skip
    kind = draw(st.sampled_from(["full", "window", "latent"]))
    if kind == "window":
        sections["window"] = {
            "size": draw(st.integers(2, 300)), "full_every": draw(st.sampled_from([0, 2])),
        }  # fmt: skip
    if kind == "latent":
        kv = 1
        sections["mla"] = {
            "q_lora": draw(st.sampled_from([0, 96])), "kv_lora": draw(st.sampled_from([64, 512])),
            "nope_dim": dim, "rope_dim": 32, "v_dim": dim,
        }  # fmt: skip
    return ModelCard.model_validate({
        "name": "random", "source": "made up", "layers": 3, "hidden": 256, "heads": kv * group,
        "kv_heads": kv * group if kind == "latent" else kv, "head_dim": dim, "ffn_hidden": 384,
        "ffn_gated": draw(st.booleans()),
        "activation": draw(st.sampled_from(["gelu", "silu", "relu"])),
        "norm": draw(st.sampled_from(["layernorm", "rmsnorm"])), "bias": draw(st.booleans()),
        "rope": True, "vocab": 1000, "tied_embeddings": True, "max_context": 4096,
        "dtype_bytes": draw(st.sampled_from([1, 2, 4])),
        "kv_dtype_bytes": draw(st.sampled_from([1, 2])), **sections,
    })  # fmt: skip


def run(
    preset: str, card: ModelCard, batch: Sequence[int], *overrides: str
) -> tuple[Device, Outcome, Result]:
    small = ("memory.organization.channels=4", "npu.systolic.arrays=2", "workload.layers=3")
    resolved = load_run(preset, [*small, *overrides])
    requests = tuple(
        Request(id=i, arrival_s=0.0, prompt_tokens=c, output_tokens=2, generated_tokens=0)
        for i, c in enumerate(batch)
    )
    device = build_device(resolved.config, card, Step.decode(requests))
    outcome = run_iteration(device)
    result, facts = build_result(
        outcome, resolved, RequestTrace("made up", Path("none"), requests, "none", "pimsim"), 0.0
    )
    check_invariants(result, facts)
    return device, outcome, result


@pytest.mark.parametrize("preset", PRESETS)
@few
@given(card=cards(), batch=contexts)
def test_any_model_runs_within_the_laws(preset: str, card: ModelCard, batch: list[int]) -> None:
    device, _, result = run(preset, card, batch)
    assert result.tokens == len(batch)
    assert (result.experts is not None) == (card.moe is not None)
    assert result.layers_model == card.layers
    assert device.whole.layer_numbers == (0, 1, 2)


@few
@given(
    card=cards(moe=True), batch=contexts, preset=st.sampled_from(["npu-pim", "neupims"]),
    placement=st.sampled_from(["npu", "pim", "by-tokens"]),
    attention=st.sampled_from(["npu", "pim"]),
)  # fmt: skip
def test_experts_do_the_same_work_wherever_they_run(
    card: ModelCard, batch: list[int], preset: str, placement: str, attention: str
) -> None:
    device, outcome, _ = run(
        preset, card, batch, f"schedule.expert_placement={placement}",
        f"schedule.attention_placement={attention}",
    )  # fmt: skip
    needed = sum(
        o.flops for forward in device.passes for block in forward.blocks
        for o in block.operators if o.kind is OperatorKind.EXPERT_GEMM
    )  # fmt: skip
    mine = [o for o in outcome.recorder.operators if o.kind == "expert_gemm"]
    assert sum(o.flops for o in mine) == needed
    units = {o.unit for o in mine}
    if placement != "by-tokens":
        assert units == {"systolic" if placement == "npu" else "pim"}
    facts = run_facts(outcome, dram_counts(outcome))
    moved = facts.bytes_moved
    in_banks = moved.get("pim_weight", 0) + moved.get("pim_kv", 0)
    if card.dtype_bytes == card.kv_dtype_bytes:  # every dot product is of one kind or the other
        assert in_banks == facts.macs_done.get("pim", 0) * card.dtype_bytes
    scores = {o.unit for o in outcome.recorder.operators if o.kind == "attention_score"}
    assert scores == {"systolic" if attention == "npu" else "pim"}


@few
@given(card=cards(), batch=contexts)
def test_flops_do_not_depend_on_the_machine(card: ModelCard, batch: list[int]) -> None:
    whole = [
        sum(o.flops for block in run(preset, card, batch)[0].whole.blocks for o in block.operators)
        for preset in PRESETS
    ]
    assert len(set(whole)) == 1


@few
@given(card=cards(moe=True), batch=contexts)
def test_devices_with_experts_of_their_own_hold_the_same_bytes(
    card: ModelCard, batch: list[int]
) -> None:
    even = card.model_copy(update={"heads": 4, "kv_heads": 4, "ffn_hidden": 384, "mla": None})
    work = {}
    for ep in (1, 2):
        device, _, result = run("npu-only", even, batch, "parallel.tp=2", f"parallel.ep={ep}")
        work[ep] = device
        assert result.experts is not None
        assert result.experts.device_imbalance >= 1
    held = {ep: device.work.held_experts for ep, device in work.items()}
    assert held[1] == 2 * held[2]
    names = [o.name for o in work[1].whole.blocks[-1].operators]
    assert names == [o.name for o in work[2].whole.blocks[-1].operators]
    for one, two in zip(work[1].whole.blocks, work[2].whole.blocks, strict=True):
        for first, second in zip(one.operators, two.operators, strict=True):
            if first.kind is OperatorKind.EXPERT_GEMM and second.experts:
                # half of each expert, or half of the experts
                each = first.weight_bytes // len(first.experts)
                assert abs(second.weight_bytes // len(second.experts) - 2 * each) <= 4096
                assert second.m <= first.m


@few
@given(card=cards(), batch=contexts)
def test_the_output_layer_adds_its_time_once(card: ModelCard, batch: list[int]) -> None:
    with_it = run("neupims", card, batch, "workload.outside=true")[2]
    without = run("neupims", card, batch)[2]
    stage = with_it.stages[-1]
    assert stage.name == "outside"
    assert with_it.cycles == pytest.approx(without.cycles + stage.cycles, abs=1)
    assert {"embed", "lm_head"} <= {o.name for o in with_it.operators}


@few
@given(
    card=cards(moe=True), batch=contexts, preset=st.sampled_from(["npu-pim", "neupims"]),
    placement=st.sampled_from(["pim", "by-tokens"]),
)  # fmt: skip
def test_experts_on_pim_have_their_inputs_and_are_waited_for(
    card: ModelCard, batch: list[int], preset: str, placement: str
) -> None:
    _, outcome, _ = run(preset, card, batch, f"schedule.expert_placement={placement}")
    stages: dict[tuple[str, int], list[OperatorRecord]] = {}
    for record in outcome.recorder.operators:
        stages.setdefault((record.stage, record.layer), []).append(record)
    for records in stages.values():
        on_pim = [r for r in records if r.kind == "expert_gemm" and r.unit == "pim"]
        if not on_pim:
            continue
        sent = next(r for r in records if r.name == "expert_inputs")
        combine = next(r for r in records if r.name == "combine")
        assert sent.end_ps <= min(r.start_ps for r in on_pim)
        assert max(r.end_ps for r in on_pim) <= combine.start_ps
        # one PIM operation at a time, first matrices before second ones
        ordered = sorted(on_pim, key=lambda r: r.start_ps)
        assert all(a.end_ps <= b.start_ps for a, b in pairwise(ordered))
        assert [r.name for r in ordered] == sorted(r.name for r in ordered)
        if preset == "npu-pim":  # blocked: the NPU waits meanwhile
            own = [r for r in records if r.kind == "expert_gemm" and r.unit != "pim"]
            assert all(r.start_ps >= max(p.end_ps for p in on_pim) for r in own)
