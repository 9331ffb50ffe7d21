"""Pipelines: stages that differ, with the fullest deciding memory and the slowest the rate."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from math import fsum, hypot, sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import load_run
from pimsim.config.resources import preset_names
from pimsim.engine.iteration import Outcome
from pimsim.hardware.fabric.collectives import all_gather, all_reduce, send
from pimsim.mapping.addresses import WeightRegion, plan_addresses
from pimsim.result.accounts import run_energy
from pimsim.result.pipeline import Pipeline, RunPipeline, StageTime
from pimsim.result.scale import Extrapolation, extrapolate
from pimsim.result.types import Result
from pimsim.simulate import device_of, observe, resolve
from pimsim.workload.batch import device_work
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, load_card
from pimsim.workload.decode import memory_need, memory_needs
from pimsim.workload.degrees import trace_memory_needs
from pimsim.workload.instantiate import held_bytes
from pimsim.workload.pipeline import MemoryNeed, Room, fullest
from pimsim.workload.requests import Request
from pimsim.workload.stages import cut_blocks, misfit
from pimsim.workload.step import Step

CARD = """\
name: stages
source: made up
layers: {layers}
hidden: 512
heads: 4
kv_heads: 4
head_dim: 64
ffn_hidden: 1024
ffn_gated: true
activation: silu
norm: rmsnorm
bias: false
rope: true
vocab: 4000
tied_embeddings: {tied}
max_context: 2048
dtype_bytes: 2
kv_dtype_bytes: 2
"""
EXPERTS = """\
moe: {{experts: 8, experts_per_token: 2, expert_hidden: 1024, dense_layers: {dense}}}
"""
SMALL = ("memory.organization.channels=4", "fidelity=command")
CONTEXTS = (40, 700, 3, 260, 128, 33, 610, 512)
Write = Callable[[Sequence[int]], Path]
Run = Callable[..., tuple[Outcome, Result]]


@pytest.fixture
def run(tmp_path: Path, write_trace: Write) -> Run:
    """``run(6, "parallel.pp=2", preset="npu-pim", dense=2)``: a small model of so many blocks."""
    requests = write_trace(CONTEXTS)

    def simulate(
        layers: int, *more: str, preset: str = "npu-only", dense: int | None = None
    ) -> tuple[Outcome, Result]:
        card = tmp_path / f"stages-{layers}-{dense}.yaml"
        text = CARD.format(layers=layers, tied="false")
        card.write_text(text if dense is None else text + EXPERTS.format(dense=dense))
        given = [f"workload.model={card}", f"workload.requests={requests}", "workload.layers=null"]
        return observe(resolve(preset, [*SMALL, *given, *more]))

    return simulate


# cutting


@pytest.mark.parametrize(
    ("layers", "pp", "sizes"),
    [
        (32, 4, [8, 8, 8, 8]),
        (61, 4, [15, 15, 16, 15]),
        (10, 4, [2, 3, 3, 2]),
        (7, 4, [2, 2, 2, 1]),
        (3, 3, [1, 1, 1]),
        (5, 1, [5]),
    ],
)
def test_blocks_are_cut_into_stages(layers: int, pp: int, sizes: list[int]) -> None:
    assert [len(stage) for stage in cut_blocks(layers, pp)] == sizes


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n))))
def test_stages_have_all_blocks_in_their_order(cut: tuple[int, int]) -> None:
    layers, pp = cut
    stages = cut_blocks(layers, pp)
    assert [number for stage in stages for number in stage] == list(range(layers))
    sizes = [len(stage) for stage in stages]
    assert len(sizes) == pp and max(sizes) - min(sizes) <= 1 and sizes[-1] == min(sizes)


@pytest.mark.parametrize("pp", [0, -1, 4])
def test_more_stages_than_blocks_are_refused(pp: int) -> None:
    assert misfit(3, pp) == f"layers (3) cannot be cut into pp {pp} stages; pp may be 1 to 3"
    with pytest.raises(ValueError, match="pp may be 1 to 3"):
        cut_blocks(3, pp)


def test_a_run_with_more_stages_than_blocks_is_refused_in_one_line() -> None:
    for what in ("model", "trace"):
        given = [f"workload.{what}=smollm2-135m", "parallel.pp=31"]
        with pytest.raises(InputError, match=r"layers \(30\) cannot be cut into pp 31 stages"):
            device_of(resolve("npu-only", given))


# memory


def batch(*contexts: int) -> list[Request]:
    return [Request(i, 0.0, context, 1, 0) for i, context in enumerate(contexts)]


def test_sixty_four_requests_of_8000_tokens_in_each_of_four_batches_do_not_fit(
    write_trace: Write,
) -> None:
    """Row N26: 64 x 8,000 tokens of 16 KiB in 8 blocks, four times; 8 blocks and a table."""
    requests = write_trace([8000] * 64)
    given = ["workload.model=llama-3-8b", f"workload.requests={requests}", "parallel.pp=4"]
    with pytest.raises(
        InputError,
        match=r"64 requests in each of 4 batches\) needs 66\.73 GiB on each device of the fullest "
        r"stage \(weights 4\.23, KV 62\.50\), memory has 32\.00 GiB: request 28 with 8000 tokens "
        r"is the first without room: its KV cache takes 1000\.0 MiB, 4\d\d\.\d MiB are left; take "
        r"fewer or shorter requests, or more devices \(parallel\.tp, parallel\.pp\)$",
    ):
        device_of(resolve("npu-only", given))
    device, _ = device_of(resolve("npu-only", [*given, "parallel.batches=1"]))
    assert device.work.needs[0].kv_bytes == 64 * 8000 * 8 * 2 * 8 * 128 * 2


def test_needs_of_uneven_stages_by_hand() -> None:
    card, requests = load_card("llama-3-8b"), batch(100, 29)
    hidden, table = card.hidden, card.vocab // 2 * card.hidden * 2
    # q and o, k and v, gate, up and down of one of two devices; two norms
    block = hidden * 2 * (hidden + 1024 + 3 * card.ffn_hidden // 2) + 2 * hidden * 2
    token = 2 * 4 * 128 * 2
    needs = memory_needs(card, Step.decode(requests), tp=2, pp=3)
    sizes = (11, 11, 10)
    assert [need.kv_bytes for need in needs] == [3 * 129 * token * size for size in sizes]
    assert [need.weights_bytes for need in needs] == [
        11 * block + table, 11 * block, 10 * block + table + hidden * 2
    ]  # fmt: skip
    assert memory_need(card, Step.decode(requests), tp=2, pp=3) == needs[0]


@pytest.mark.parametrize("name", preset_names("model"))
def test_stages_together_hold_what_one_device_holds(name: str) -> None:
    card, requests = load_card(name), batch(7, 1000)
    for tp in {1, card.tp}:
        (whole,) = memory_needs(card, Step.decode(requests), tp, 1)
        table = -(-card.vocab // tp) * card.hidden * card.dtype_bytes
        for pp in (2, 3, card.layers):
            stages = memory_needs(card, Step.decode(requests), tp, pp)
            twice = table if card.tied_embeddings else 0
            assert sum(s.weights_bytes for s in stages) == whole.weights_bytes + twice
            assert sum(s.kv_bytes for s in stages) == pp * whole.kv_bytes
            single = memory_needs(card, Step.decode(requests), tp, pp, batches=1)
            assert sum(s.kv_bytes for s in single) == whole.kv_bytes


@pytest.mark.parametrize("name", preset_names("model"))
def test_the_need_of_a_trace_is_that_of_its_card(name: str) -> None:
    card, requests = load_card(name), batch(7, 1000)
    for pp in (1, 2, min(5, card.layers)):
        assert trace_memory_needs(card_trace(card), Step.decode(requests), 1, pp) == memory_needs(
            card, Step.decode(requests), 1, pp
        )


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (1, 3), (4, 1), (2, 3)])
def test_a_device_holds_of_a_trace_what_it_holds_of_its_card(tp: int, pp: int) -> None:
    card = load_card("gpt3-7b")
    parallel = load_run("npu-only", [f"parallel.tp={tp}", f"parallel.pp={pp}"]).config.parallel
    step = Step.decode(batch(7, 1000))
    card_work, trace_work = (
        device_work(model, step, parallel, None, Room(80 << 30), None, 0, True, False)
        for model in (card, card_trace(card))
    )
    for work in (card_work, trace_work):
        assert (work.degrees.tp, work.degrees.pp, len(work.needs)) == (tp, pp, pp)
    for mine, other in zip(trace_work.needs, card_work.needs, strict=True):
        assert mine.kv_bytes == other.kv_bytes
        # a trace does not say which of its tables lie whole on each device
        assert mine.weights_bytes == pytest.approx(other.weights_bytes, rel=0.005)


def test_tied_tables_of_a_trace_lie_on_both_ends() -> None:
    for tied, learned in ((True, True), (True, False), (False, True), (False, False)):
        card = ModelCard.model_validate(
            load_card("gpt3-7b").model_dump() | {"tied_embeddings": tied, "rope": not learned}
        )
        needs = memory_needs(card, Step.decode(batch(5)), 1, 4)
        assert trace_memory_needs(card_trace(card), Step.decode(batch(5)), 1, 4) == needs
        table = card.vocab * card.hidden * 2
        blocks = 8 * held_bytes(card_trace(card), Step.decode(batch(5)), 1)["decoder"].weights
        positions = card.max_context * card.hidden * 2 if learned else 0
        assert needs[0].weights_bytes == blocks + table + positions
        assert needs[3].weights_bytes == blocks + table + 2 * card.hidden * 2


def test_rows_of_pim_are_those_of_all_batches(run: Run) -> None:
    given = ("parallel.pp=2", "memory.organization.rows=65536")
    one = run(6, *given, "parallel.batches=1", preset="npu-pim")[0].device
    two = run(6, *given, preset="npu-pim")[0].device
    whole = run(6, given[1], preset="npu-pim")[0].device
    addresses = whole.mapper.addresses
    by_block = [addresses.cache_rows(layer) for layer in range(whole.layers)]
    caches = max(map(sum, zip(*by_block, strict=True)))
    assert two.rows_needed - one.rows_needed == caches // 2  # three of six blocks, once more
    weights = whole.mapper.addresses.block_bursts[0] / whole.mapper.addresses.row_bursts
    assert whole.rows_needed - two.rows_needed == pytest.approx(3 * weights, abs=1)


def test_a_layout_of_all_batches_beyond_the_banks_is_refused(run: Run) -> None:
    # rows that are half empty, so that the layout takes more than the bytes in it
    given = ("parallel.pp=6", "parallel.tp=1", "pim.keys_share_rows=false")
    needed = run(6, *given, preset="npu-pim")[0].device.rows_needed
    rows = 1 << (needed - 1).bit_length()
    small = (*given, f"memory.organization.rows={rows // 2}")
    with pytest.raises(
        InputError, match=f"blocks of a stage with the caches of 6 batches need {needed} rows"
    ):
        run(6, *small, preset="npu-pim")
    run(6, *small, "parallel.batches=1", preset="npu-pim")


@pytest.mark.parametrize(
    ("pp", "batches", "words"),
    [
        (1, 1, "all blocks"),
        (2, 1, "the blocks of a stage with the caches of 1 batch"),
        (2, 2, "the blocks of a stage with the caches of 2 batches"),
    ],
)
def test_rows_are_said_to_be_of_what_needs_them(pp: int, batches: int, words: str) -> None:
    from types import SimpleNamespace

    from pimsim.engine.rows_needed import rows_of

    work: Any = SimpleNamespace(degrees=SimpleNamespace(pp=pp), batches=batches)
    assert rows_of(work) == words


# time


def link_ps(outcome: Outcome, name: str) -> list[int]:
    return [o.end_ps - o.start_ps for o in outcome.recorder.operators if o.name == name]


def test_a_stage_takes_its_blocks_and_what_it_sends(run: Run) -> None:
    """Five blocks: three and two. The last stage sends nothing."""
    outcome, result = run(5, "parallel.pp=2")
    sent = send(len(CONTEXTS) * 512 * 2, outcome.device.config.link)
    assert [stage.blocks for stage in result.pipeline] == [3, 2]
    alone = {n: run(n)[1].time_s for n in (2, 3)}
    first, last = (stage.time_s for stage in result.pipeline)
    assert first == pytest.approx(alone[3] + sent.time_ps / 1e12, rel=1e-12)
    assert last == pytest.approx(alone[2], rel=0.02)
    assert result.iteration_s == first
    assert result.tokens_per_s == pytest.approx(len(CONTEXTS) / first)
    assert [stage.busy for stage in result.pipeline] == pytest.approx([1, last / first])
    assert result.layers_model == 3


def test_embedding_and_output_layer_are_each_in_one_stage(run: Run) -> None:
    outcome, result = run(6, "parallel.pp=3", "workload.outside=true")
    took = {o.name: (o.end_ps - o.start_ps) / 1e12 for o in outcome.recorder.operators
            if o.layer >= outcome.device.layers}  # fmt: skip
    assert set(took) == {"embed", "send", "final_norm", "lm_head"}
    bare = run(6, "parallel.pp=3")[1]
    middle = bare.pipeline[1].time_s
    sends = [stage.name for stage in result.stages if stage.name.startswith("outside")]
    assert sends == ["outside 1", "outside 2", "outside 3"]
    first, second, third = (stage.time_s for stage in result.pipeline)
    assert second == pytest.approx(middle, rel=1e-3)
    assert first == pytest.approx(second + took["embed"], rel=1e-6)
    assert third == pytest.approx(
        second - took["send"] + took["final_norm"] + took["lm_head"], rel=1e-6
    )
    assert result.iteration_s == third


def test_stages_take_together_what_the_model_takes(run: Run) -> None:
    outcome, result = run(7, "parallel.pp=3")
    sends = 2 * send(len(CONTEXTS) * 512 * 2, outcome.device.config.link).time_ps / 1e12
    whole = run(7)[1].iteration_s
    # each stage has a first block, on an idle memory
    assert fsum(s.time_s for s in result.pipeline) - sends == pytest.approx(whole, rel=0.03)


@pytest.mark.parametrize("preset", ["npu-only", "npu-pim", "neupims"])
def test_stages_of_other_kinds_of_blocks_differ(run: Run, preset: str) -> None:
    """Dense blocks in the first stage, experts in the others, which are slower."""
    _, result = run(6, "parallel.pp=3", preset=preset, dense=2)
    first, second, third = result.pipeline
    assert first.time_s < 0.9 * min(second.time_s, third.time_s)
    assert first.weights_bytes < second.weights_bytes
    assert result.iteration_s == max(second.time_s, third.time_s)
    everything = run(6, preset=preset, dense=2)[1]
    assert fsum(s.time_s for s in result.pipeline) == pytest.approx(
        everything.iteration_s, rel=0.05
    )


def test_the_interval_of_stages_with_experts_holds_what_all_blocks_take(run: Run) -> None:
    few = run(24, "parallel.pp=2", "workload.layers=auto", dense=0)[1]
    every = run(24, "parallel.pp=2", "workload.layers=24", dense=0)[1]
    assert few.layers_simulated == 10
    assert few.tokens_per_s_interval is not None
    low, high = few.tokens_per_s_interval
    assert low < few.tokens_per_s < high
    assert low <= every.tokens_per_s <= high or few.tokens_per_s == pytest.approx(
        every.tokens_per_s, rel=0.02
    )
    assert few.block_spread is not None


def test_fewer_batches_than_stages_leave_them_waiting(run: Run) -> None:
    full = run(6, "parallel.pp=3")[1]
    times = [stage.time_s for stage in full.pipeline]
    for batches, expected in ((1, fsum(times)), (2, max(*times, fsum(times) / 2)), (3, max(times))):
        some = run(6, "parallel.pp=3", f"parallel.batches={batches}")[1]
        assert some.iteration_s == pytest.approx(expected, abs=2e-12)
        assert [s.kv_bytes * 3 for s in some.pipeline] == [
            s.kv_bytes * batches for s in full.pipeline
        ]
    with pytest.raises(InputError, match=r"parallel\.batches is 4; pp is 3"):
        run(6, "parallel.pp=3", "parallel.batches=4")
    with pytest.raises(InputError, match=r"parallel\.batches is 2; pp is 1"):
        run(6, "parallel.batches=2")


def test_more_blocks_than_a_stage_has_are_told(run: Run) -> None:
    _, result = run(6, "parallel.pp=3", "workload.layers=4")
    assert result.layers_simulated == 4
    assert [stage.blocks for stage in result.pipeline] == [2, 2, 2]
    assert result.warnings == ("4 blocks simulated, a device has 2; rates are of 2",)
    assert result.iteration_s == pytest.approx(run(6, "parallel.pp=3")[1].iteration_s, rel=0.02)


# energy


def test_a_token_costs_the_same_work_and_the_others_idle_power(run: Run) -> None:
    """Row N27: what lies outside the blocks is charged once."""
    (one, alone), (_, parts) = (
        run(8, f"parallel.pp={pp}", "workload.outside=true") for pp in (1, 4)
    )
    assert parts.token_j["npu"] == pytest.approx(alone.token_j["npu"], rel=1e-12)
    size = len(CONTEXTS) * 512 * 2
    energy = one.device.config.energy
    sent = 3 * size * 8 * energy.link_pj_per_bit * 1e-12 / len(CONTEXTS)
    assert parts.token_j["link"] == pytest.approx(sent, rel=1e-12)
    assert alone.token_j["link"] == 0
    interval = parts.iteration_s
    assert parts.token_j["static"] * len(CONTEXTS) == pytest.approx(
        4 * interval * parts.static_w["total"]
    )
    # the DRAM of a stage that waits stands by and is refreshed
    waited = 4 * interval - fsum(stage.time_s for stage in parts.pipeline)
    idle_j = (parts.idle_w - parts.static_w["total"]) * waited
    more = (parts.token_j["dram"] - alone.token_j["dram"]) * len(CONTEXTS)
    assert idle_j > 0.03 * alone.token_j["dram"] * len(CONTEXTS)
    assert more == pytest.approx(idle_j, rel=0.05)
    assert parts.tokens_per_j == pytest.approx(1 / parts.token_j["total"])
    assert fsum(s.energy_j for s in parts.pipeline) == pytest.approx(
        parts.token_j["total"] * len(CONTEXTS)
    )


def test_the_devices_of_a_stage_all_count(run: Run) -> None:
    _, result = run(6, "parallel.pp=3", "parallel.tp=2")
    assert result.devices == 6
    assert result.token_j["total"] * len(CONTEXTS) == pytest.approx(
        2 * fsum(s.energy_j for s in result.pipeline)
    )


def test_stages_of_other_kinds_cost_what_their_blocks_cost(run: Run) -> None:
    apart = run(6, "parallel.pp=3", dense=2)[1]
    whole = run(6, dense=2)[1]
    assert apart.token_j["npu"] == pytest.approx(whole.token_j["npu"], rel=0.02)
    first, second, _ = apart.pipeline
    assert first.energy_j < second.energy_j


# collectives of the tables


def test_tables_cut_by_tp_are_added_up_and_gathered(run: Run) -> None:
    for pp in (1, 2):
        outcome, result = run(4, f"parallel.pp={pp}", "parallel.tp=2", "workload.outside=true")
        link, tokens = outcome.device.config.link, len(CONTEXTS)
        embedded = all_reduce(tokens * 512 * 2, 2, link)
        logits = all_gather(tokens * 4000 * 2, 2, link)
        assert link_ps(outcome, "embed_allreduce") == [embedded.time_ps]
        assert link_ps(outcome, "lm_head_allgather") == [logits.time_ps]
        shown = {o.name: o for o in result.operators if o.unit == "link"}
        assert {"embed_allreduce", "lm_head_allgather"} <= set(shown)
        assert ("send" in shown) == (pp == 2)
        # the collectives of the blocks, those of the tables, and what is sent
        block = 2 * all_reduce(tokens * 512 * 2, 2, link).link_bytes
        total = 4 * block + embedded.link_bytes + logits.link_bytes
        total += (pp - 1) * send(tokens * 512 * 2, link).link_bytes
        joule = 2 * total * 8 * outcome.device.config.energy.link_pj_per_bit * 1e-12
        assert result.token_j["link"] * tokens == pytest.approx(joule, rel=1e-9)


def test_one_device_a_stage_has_no_collectives_of_tables(run: Run) -> None:
    _, result = run(4, "workload.outside=true")
    assert not [o.name for o in result.operators if o.unit == "link"]


def test_an_all_gather_is_the_second_half_of_an_all_reduce() -> None:
    link = resolve("npu-only").config.link
    both, half = (f(12_000, 4, link) for f in (all_reduce, all_gather))
    assert half.link_bytes * 2 == both.link_bytes == 2 * 3 * 12_000 // 4
    assert abs(both.time_ps - 2 * half.time_ps) <= 1
    exact = 12_000 * 1000 / Fraction(link.bandwidth_gb_per_s) + 1000 * Fraction(link.latency_ns)
    assert send(12_000, link).time_ps == -(-exact.numerator // exact.denominator)
    assert send(12_000, link).link_bytes == 12_000
    free = link.model_copy(update={"collectives": "neupims_none"})
    assert send(12_000, free).time_ps == all_gather(12_000, 4, free).time_ps == 0


# pages


def test_a_pipeline_is_shown_stage_by_stage(run: Run) -> None:
    from rich.console import Console

    from pimsim.report.runs import _pipeline
    from pimsim.result.tables import result_view

    _, piped = run(5, "parallel.pp=2", "workload.outside=true")
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(result_view(piped))
    lines = console.export_text().splitlines()
    title = next(at for at, line in enumerate(lines) if line.strip() == "pipeline")
    shown = [line.split() for line in lines[title : title + 8]]
    for number, stage in enumerate(piped.pipeline, 1):
        (row,) = [words for words in shown if words[:2] == [str(number), str(stage.blocks)]]
        assert f"{1e6 * stage.time_s:,.3f} us" in " ".join(row)
    assert any(words[:1] == ["send"] for words in map(str.split, lines))
    (page,) = _pipeline(piped)
    assert [row[:3] for row in page.rows] == [
        (str(n), str(s.blocks), f"{1e3 * s.time_s:,.3f}") for n, s in enumerate(piped.pipeline, 1)
    ]
    _, whole = run(5)
    console.print(result_view(whole))
    assert "pipeline" not in console.export_text(clear=True).rsplit("run", 1)[-1]
    assert _pipeline(whole) == () and whole.pipeline == ()
    assert Result.from_dict(piped.to_dict()) == piped


def test_a_device_that_waits_draws_idle_power_and_does_no_work(run: Run) -> None:
    outcome, result = run(4)
    work = [(outcome.recorder.totals[-1], (1, 1))]
    busy, waited = (run_energy(outcome, result.time_s, work, idle_s) for idle_s in (0.0, 2.0))
    idle_w = result.idle_w - result.static_w["total"]
    assert waited.static - busy.static == pytest.approx(2 * result.static_w["total"])
    assert waited.dram - busy.dram == pytest.approx(2 * idle_w)
    assert (waited.npu, waited.sram, waited.link) == (busy.npu, busy.sram, busy.link)
    assert waited.total - busy.total == pytest.approx(2 * result.idle_w)


# extrapolation by stage


def test_a_stage_takes_its_own_blocks_of_those_simulated() -> None:
    """Two dense and three others simulated, at 10 and 100 ps in the steady state."""
    simulated = ["dense", "dense", "moe", "moe", "moe"]
    times = {1: 10, 3: 90, 4: 110}
    for own, expected in (
        ({"dense": 2, "moe": 3}, 0),
        ({"dense": 3, "moe": 1}, 10 - 200),
        ({"moe": 7}, -20 + 400),
        ({"dense": 1}, -10 - 300),
    ):
        found = extrapolate(times, simulated, tuple(own.items()), own_numbers=range(9))
        assert (found.missing_ps, found.half_width_ps) == (expected, 0.0)


def test_blocks_that_differ_come_and_go_by_number() -> None:
    """Of six blocks 0, 2, 4 were simulated; the stage has 3, 4 and 5."""
    known = {number: 1000 + 10 * number for number in range(6)}
    left = {1: 90, 2: 110}  # the run's first block says nothing of its own time
    times = {at: known[2 * at] + each for at, each in left.items()}
    found = extrapolate(
        times, ["moe"] * 3, (("moe", 3),), (0, 2, 4), {"moe": known}, range(3, 6)
    )  # fmt: skip
    # 3 and 5 come with the mean of what was left open; 2 goes with its time, 0 with an estimate
    assert found.missing_ps == (1030 + 1050 + 2 * 100) - (1020 + 90) - (1000 + 100)
    assert found.least_ps == -(1020 + 90) - (1000 + 100)
    # two that come and one that goes unseen, of which the mean is off for one more than goes
    spread = sqrt((10**2 + 10**2) / 1)
    assert found.half_width_ps == pytest.approx(12.706 * spread * sqrt(3 + 1**2 / 2))


def stage_time(simulated_ps: int, missing: Extrapolation) -> StageTime:
    return StageTime({"moe": 1}, (), simulated_ps, missing)


def test_the_slowest_stage_sets_rate_and_interval() -> None:
    """100 +- 20 ps and 110 +- 5 ps: 110, between 105 and 120; blocks to come take some time."""
    wide = stage_time(70, Extrapolation(30, 20.0, 0.1))
    narrow = stage_time(70, Extrapolation(40, 5.0, 0.1))
    short = stage_time(70, Extrapolation(-30, 50.0, 0.1, least_ps=-45.0))
    assert wide.interval_ps() == (80.0, 120.0)
    assert stage_time(70, Extrapolation(10, 20.0, 0.1)).interval_ps() == (70.0, 100.0)
    assert short.interval_ps() == (25.0, 90.0)
    both = Pipeline((wide, narrow), 2)
    assert (both.interval_ps, both.slowest) == (110, narrow)
    run = RunPipeline((both,))
    assert run.tokens_per_s(11) == pytest.approx(11 / 110e-12)
    assert run.tokens_per_s_interval(12) == pytest.approx((12 / 120e-12, 12 / 105e-12))
    # one batch alone: the sum of the stages
    alone = Pipeline((wide, narrow), 1)
    assert alone.interval_ps == 210
    assert alone.bounds_ps() == (185, 235)
    unknown = Pipeline((wide, stage_time(70, Extrapolation(0, None, None))), 2)
    assert unknown.bounds_ps() is None
    equal = Pipeline((stage_time(70, Extrapolation(3, 0.0, None)),) * 2, 2)
    assert equal.bounds_ps() == (73, 73)
    # steps follow one another
    steps = RunPipeline((both, alone))
    assert steps.interval_ps == 110 + 210
    assert steps.tokens_per_s(16) == pytest.approx(16 / 320e-12)
    assert steps.tokens_per_s_interval(1) == pytest.approx((1 / 355e-12, 1 / 290e-12))
    assert RunPipeline((both, unknown)).tokens_per_s_interval(1) is None
    certain = RunPipeline((equal, equal))
    assert certain.tokens_per_s_interval(1) == (certain.tokens_per_s(1),) * 2
    # rates in place of commands: where all blocks are known, and beside what is not known of them
    assert certain.tokens_per_s_interval(1, 0.1) == pytest.approx(
        (0.9 * certain.tokens_per_s(1), 1.1 * certain.tokens_per_s(1))
    )
    low, high = run.tokens_per_s_interval(12, 0.1) or (0.0, 0.0)
    assert low == pytest.approx(12 / 110e-12 * (1 - hypot(1 - 110 / 120, 0.1)))
    assert high == pytest.approx(12 / 110e-12 * (1 + hypot(110 / 105 - 1, 0.1)))
    assert certain.tokens_per_s_interval(1, 1.5) == pytest.approx(
        (0, 2.5 * certain.tokens_per_s(1))
    )
    assert certain.spread is None
    assert steps.spread == 0.1


def test_the_fullest_stage_is_that_of_weights_and_caches_together() -> None:
    needs = (MemoryNeed(5, 1), MemoryNeed(4, 3), MemoryNeed(3, 4))
    assert fullest(needs) == needs[1]


def test_a_default_run_simulates_what_the_fullest_stage_has(run: Run) -> None:
    _, result = run(3, "parallel.pp=2", "workload.layers=auto")
    assert [stage.blocks for stage in result.pipeline] == [2, 1]
    assert result.layers_simulated == 2
    _, middle = run(7, "parallel.pp=3")
    assert [stage.blocks for stage in middle.pipeline] == [2, 3, 2]
    assert (middle.layers_simulated, middle.layers_model) == (3, 3)


def test_weights_beside_the_blocks_of_other_stages_take_the_same_place(run: Run) -> None:
    """The output layer is the larger one; activations lie behind it, whichever comes last."""
    plan = run(4, "parallel.pp=2", "workload.outside=true")[0].device.mapper.addresses
    blocks, (embed, head) = plan.weight_burst[:2], plan.weight_burst[2:]
    behind = sum(plan.block_bursts)
    assert len(blocks) == 2
    assert embed["embed"][0] == head["final_norm"][0] == behind
    burst = 64
    assert plan.outside_bursts * burst >= 4000 * 512 * 2
    assert plan.activation_burst == behind + plan.outside_bursts
    small, large = ({"w": WeightRegion(n * burst)} for n in (3, 8))
    memory = resolve("npu-only").config.memory
    for outside in ((small, large), (large, small)):
        found = plan_addresses(memory, [small], 0, [], [], [], 0, outside)
        per = memory.organization.burst_bytes
        assert found.activation_burst == (3 + 8) * burst // per
        assert [each["w"][0] for each in found.weight_burst] == [0, *[3 * burst // per] * 2]
