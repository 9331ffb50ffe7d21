"""Experts on PIM designs with a controller of their own: what these are asked, at what cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.config.resources import preset_names
from pimsim.engine.estimates import block_estimates
from pimsim.engine.iteration import Outcome
from pimsim.engine.stream_side import StreamSide
from pimsim.hardware.energy.pim import stream_energy_pj
from pimsim.hardware.pim.designs import mapping_of
from pimsim.hardware.pim.operations import Gemv, OperationRuns, run_operation
from pimsim.hardware.pim.stream import run_stream
from pimsim.mapping.expert_costs import ExpertCosts
from pimsim.mapping.experts import ExpertPlacement, place_by_tokens
from pimsim.result.types import Result
from pimsim.simulate import observe, resolve
from pimsim.workload.operators import OperatorKind

OWN = [name for name in preset_names("pim") if load_pim(name).config.controller is not None]
MULTIPLYING = [name for name in OWN if "gemv" in load_pim(name).config.operations]
HIDDEN, OF_EXPERT, BLOCKS = 512, 512, 2
SHAPES = ((2 * OF_EXPERT, HIDDEN), (HIDDEN, OF_EXPERT))
"""Of an expert: gate and up in one matrix, down."""
PRODUCTS = len(SHAPES)
CARD = f"""
name: tiny-moe
source: made up
layers: {BLOCKS}
hidden: {HIDDEN}
heads: 4
kv_heads: 2
head_dim: 64
ffn_hidden: 384
ffn_gated: true
activation: silu
norm: rmsnorm
bias: BIAS
rope: true
vocab: 1000
tied_embeddings: true
max_context: 4096
dtype_bytes: 2
kv_dtype_bytes: 2
moe: {{experts: 4, experts_per_token: 2, expert_hidden: {OF_EXPERT}}}
"""


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("card") / "moe.yaml"
    path.write_text(CARD.replace("BIAS", "false"))
    return path


def observed(pim: str, card: Path, requests: Path, *overrides: str) -> tuple[Outcome, Result]:
    return observe(
        resolve(
            "npu-pim",
            [f"pim={pim}", f"workload.model={card}", f"workload.requests={requests}",
             "parallel.tp=1", f"workload.layers={BLOCKS}", "schedule.attention_placement=npu",
             *overrides],
        )
    )  # fmt: skip


def side_of(outcome: Outcome) -> StreamSide:
    assert isinstance(outcome.pim, StreamSide)
    return outcome.pim


def placements(outcome: Outcome) -> list[ExpertPlacement]:
    found = [each for part in outcome.device.experts for each in part if each is not None]
    assert len(found) == BLOCKS
    return found


def commands_of(design: PimDesignConfig, placed: Sequence[ExpertPlacement]) -> list[dict[str, int]]:
    """Of every expert on the design by itself, each product."""
    found = []
    for each in placed:
        for expert in each.on_pim:
            for shape in SHAPES:
                made = mapping_of(design, "gemv")(design, *shape, each.tokens[expert])
                result = run_stream(design, made)
                found.append({**result.commands, "cycles": result.cycles})
    return found


@pytest.mark.parametrize(
    ("pim", "fidelity"), [*((pim, "command") for pim in MULTIPLYING), ("duplex", "fast")]
)
def test_experts_take_what_the_kernel_says(
    pim: str, fidelity: str, card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    design = load_pim(pim).config
    outcome, result = observed(
        pim, card, write_trace([40, 90, 20]), "schedule.expert_placement=pim",
        f"fidelity={fidelity}",
    )  # fmt: skip
    placed = placements(outcome)
    assert all(not each.on_npu for each in placed)
    alone = commands_of(design, placed)
    side = side_of(outcome)
    assert side.computing_cycles + side.command_cycles == sum(each["cycles"] for each in alone)
    total: dict[str, int] = {}
    for each in alone:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    del total["cycles"]
    assert dict(outcome.recorder.pim_commands) == total
    pj = sum(stream_energy_pj(design, total).values())
    assert result.energy_j.pim == pytest.approx(pj * 1e-12, rel=1e-6)
    # each product of all experts is one turn; the vector units work on what is between
    mine = [o for o in outcome.recorder.operators if o.kind == str(OperatorKind.EXPERT_GEMM)]
    assert {o.unit for o in mine} == {"pim"}
    assert len(mine) == PRODUCTS * BLOCKS
    pairs = sum(each.pairs(each.on_pim) for each in placed)
    assert outcome.recorder.macs["pim"] == pairs * 3 * HIDDEN * OF_EXPERT
    hit = sum(len(each.on_pim) for each in placed)
    assert outcome.recorder.bytes_needed["pim_weight"] == hit * 3 * HIDDEN * OF_EXPERT * 2


def test_some_experts_are_the_npu_s_and_all_bytes_and_products_are_done_once(
    card: Path, write_trace: Callable[[Sequence[int]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 4

    def fixed(tokens: dict[int, int], *_: object, **__: object) -> ExpertPlacement:
        return ExpertPlacement(limit, tokens)

    monkeypatch.setattr("pimsim.engine.device_building.place_by_tokens", fixed)
    outcome, result = observed("duplex", card, write_trace([40] * 9))
    placed = placements(outcome)
    assert all(each.on_npu and each.on_pim for each in placed)
    design = load_pim("duplex").config
    side = side_of(outcome)
    alone = commands_of(design, placed)
    assert side.computing_cycles + side.command_cycles == sum(each["cycles"] for each in alone)
    operators = outcome.recorder.operators
    each_pair = 3 * HIDDEN * OF_EXPERT
    assert outcome.recorder.macs["pim"] == each_pair * sum(e.pairs(e.on_pim) for e in placed)
    experts = [o for o in operators if o.kind == str(OperatorKind.EXPERT_GEMM)]
    flops = {u: sum(o.flops for o in experts if o.unit == u) for u in ("pim", "systolic")}
    assert flops["pim"] + flops["systolic"] == 2 * each_pair * 18 * BLOCKS
    assert result.experts is not None
    # the second matrices wait for the first ones of both
    for layer in range(BLOCKS):
        mine = [o for o in experts if o.layer == layer]
        names = list(dict.fromkeys(o.name for o in mine))
        down = min(o.start_ps for o in mine if o.name == names[-1])
        assert all(o.end_ps <= down for o in mine if o.name != names[-1])


def test_biases_come_to_the_npu(
    card: Path, tmp_path: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    biased = tmp_path / "biased.yaml"
    biased.write_text(CARD.replace("BIAS", "true"))
    requests = write_trace([40, 90, 20])
    outcome, _ = observed("duplex", biased, requests, "schedule.expert_placement=pim")
    moved = [o for o in outcome.recorder.operators
             if o.kind == str(OperatorKind.EXPERT_GEMM) and o.unit == "dma"]  # fmt: skip
    assert len(moved) == PRODUCTS * BLOCKS


def test_by_tokens_goes_by_the_times_of_both(
    card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    few, _ = observed("aim", card, write_trace([40] * 2), "fidelity=fast")
    assert all(each.on_pim and not each.on_npu for each in placements(few))
    many, result = observed("aim", card, write_trace([40] * 64), "fidelity=fast")
    assert not any(each.on_pim for each in placements(many))
    assert not any(o.unit == "pim" for o in result.operators)
    # the threshold is the best of all
    config = few.device.config
    design = load_pim("aim").config
    costs = ExpertCosts(config.npu, config.memory, config.pim, runs=OperationRuns(design))
    block = few.device.passes[0].blocks[0]
    tokens = {expert: 1 + 3 * expert for expert in range(4)}

    def time(threshold: int) -> int:
        return sum(
            (costs.on_pim(block, False, n) or 0) if n <= threshold else costs.on_npu(block, n)
            for n in tokens.values()
        )

    found = place_by_tokens(
        tokens, lambda n: costs.on_npu(block, n), lambda n: costs.on_pim(block, False, n)
    )
    assert time(found.threshold) == min(time(each) for each in (0, *tokens.values()))
    assert costs.stream_share(block) is None


def test_a_pim_that_cannot_do_more_leaves_the_rest_to_the_npu() -> None:
    tokens = {0: 1, 1: 2, 2: 5}
    found = place_by_tokens(tokens, lambda n: 100, lambda n: n if n < 5 else None)
    assert found.on_pim == (0, 1)
    assert found.on_npu == (2,)
    asked: list[int] = []

    def slow(n: int) -> int:
        asked.append(n)
        return 1000

    assert not place_by_tokens(tokens, lambda n: 100, slow).on_pim
    assert asked == [1]  # PIM alone is later than the NPU with all


@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_experts_go_by_energy_too(
    objective: str, card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    outcome, _ = observed(
        "aim", card, write_trace([40] * 2), f"schedule.expert_objective={objective}",
        "fidelity=fast",
    )  # fmt: skip
    assert placements(outcome)


def test_energy_of_an_expert_is_that_of_its_commands(
    card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    outcome, _ = observed("duplex", card, write_trace([40] * 2), "fidelity=fast")
    config, design = outcome.device.config, load_pim("duplex").config
    costs = ExpertCosts(config.npu, config.memory, config.pim, runs=OperationRuns(design))
    energies = costs.energies(outcome.device.passes[0].blocks[0], config.energy, 1.0, False)
    placed = ExpertPlacement(7, {0: 7})
    alone = commands_of(design, [placed])
    pj = sum(
        value
        for each in alone
        for value in stream_energy_pj(
            design, {name: n for name, n in each.items() if name != "cycles"}
        ).values()
    )
    assert energies.pim_j(7) == pytest.approx(pj * 1e-12)


def test_experts_that_do_not_fit_are_refused_or_left_to_the_npu(
    card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    small = "pim.capacities.input_buffer_bytes=400"  # 200 elements: second matrices fit alone
    requests = write_trace([40, 90])
    with pytest.raises(
        InputError, match=r"expert_placement 'pim': .* a vector of 512 elements; the input buffer"
    ):
        observed("duplex", card, requests, small, "schedule.expert_placement=pim")
    _, result = observed("duplex", card, requests, small)
    assert not any(o.unit == "pim" for o in result.operators)


def test_estimates_of_blocks_know_the_design(
    card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    outcome, _ = observed(
        "duplex", card, write_trace([40, 90, 20]), "workload.layers=1", "fidelity=fast",
        "schedule.expert_placement=pim",
    )  # fmt: skip
    found = block_estimates(outcome.device)
    for of_kind in found.values():
        assert all(each > 0 for each in of_kind.values())


@pytest.mark.parametrize("pim", MULTIPLYING)
def test_matrices_of_one_operation_take_what_they_take_by_themselves(pim: str) -> None:
    design = load_pim(pim).config
    operation = Gemv(96, 160, (1, 3, 1, 2), design.element_bytes)
    whole, parts = run_operation(design, operation), OperationRuns(design).of(operation)
    assert (whole.cycles, whole.commands, whole.computing_cycles, whole.stack_w) == (
        parts.cycles, parts.commands, parts.computing_cycles, parts.stack_w,
    )  # fmt: skip
    assert (whole.refreshed == parts.refreshed).all()
