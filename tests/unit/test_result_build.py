"""What a result says, against formulas over the sizes of model and machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.loader import ResolvedRun, load_run
from pimsim.config.run import RunConfig
from pimsim.engine.device_building import build_device
from pimsim.engine.iteration import Outcome, run_iteration
from pimsim.hardware.dram.layout import C_BUS_BUSY, C_COMMANDS
from pimsim.hardware.dram.rules import COMMANDS
from pimsim.hardware.energy.dram import dram_energy
from pimsim.hardware.energy.pim import pim_energy
from pimsim.result.accounts import dram_counts, pim_counts, run_energy
from pimsim.result.build import apportion, build_result
from pimsim.result.invariants import RunFacts, check_invariants
from pimsim.result.steady import block_times
from pimsim.result.types import Result
from pimsim.workload.cards import ModelCard, load_card
from pimsim.workload.requests import RequestTrace, load_requests
from pimsim.workload.step import Step

CONTEXTS = (40, 700, 3, 260, 128, 33, 610)
LAYERS = 2
PS_PER_S = 10**12


@dataclass(frozen=True)
class Run:
    resolved: ResolvedRun
    card: ModelCard
    trace: RequestTrace
    outcome: Outcome
    result: Result
    facts: RunFacts

    @property
    def config(self) -> RunConfig:
        return self.resolved.config


Make = Callable[..., Run]


@pytest.fixture(scope="module")
def make(tiny_card: Path, write_trace: Callable[[Sequence[int]], Path]) -> Make:
    """``make("neupims", "key=value", layers=2)``: a small run with all that it left behind."""

    def run(preset: str, *overrides: str, layers: int = LAYERS) -> Run:
        small = ("memory.organization.channels=4", f"workload.layers={layers}")
        resolved = load_run(preset, [*small, *overrides])
        card = load_card(tiny_card)
        trace = load_requests(write_trace(CONTEXTS))
        outcome = run_iteration(build_device(resolved.config, card, Step.decode(trace.requests)))
        result, facts = build_result(outcome, resolved, trace, wall_s=0.25)
        check_invariants(result, facts)
        return Run(resolved, card, trace, outcome, result, facts)

    return run


# arithmetic


@given(
    weights=st.lists(st.integers(0, 10**15), min_size=1, max_size=9).filter(any),
    total=st.integers(0, 10**9),
)
def test_shares_are_whole_and_add_up(weights: list[int], total: int) -> None:
    named = {str(at): weight for at, weight in enumerate(weights)}
    shares = apportion(named, total)
    assert sum(shares.values()) == total
    for name, weight in named.items():
        exact = weight * total / sum(weights)
        assert abs(shares[name] - exact) < 1 + 1e-6 * exact


def test_the_largest_remainders_are_rounded_up() -> None:
    assert apportion({"a": 5, "b": 3, "c": 2}, 5) == {"a": 3, "b": 1, "c": 1}  # 2.5, 1.5, 1.0


# rates


@pytest.mark.parametrize("preset", ["npu-only", "npu-pim", "neupims"])
def test_missing_blocks_take_the_time_of_a_steady_one(make: Make, preset: str) -> None:
    run = make(preset)
    result, time_ps = run.result, run.outcome.time_ps
    recorder = run.outcome.recorder
    ends = [stage.end_ps for stage in recorder.stages]
    (block_ps,) = block_times(recorder.operators, ends, ["dense"] * LAYERS).values()
    iteration_ps = time_ps + (run.card.layers - LAYERS) * block_ps
    assert (result.layers_simulated, result.layers_model) == (LAYERS, run.card.layers)
    assert result.iteration_s == iteration_ps / PS_PER_S
    assert result.tokens_per_s == pytest.approx(len(CONTEXTS) * PS_PER_S / iteration_ps)
    assert result.time_s == time_ps / PS_PER_S
    assert result.cycles == -(-time_ps // run.outcome.clock.npu_ps)


def test_throughput_of_few_blocks_predicts_that_of_all(make: Make) -> None:
    few, whole = make("npu-pim").result, make("npu-pim", layers=4).result
    assert whole.iteration_s == whole.time_s
    # blocks differ by when refresh finds them
    assert few.tokens_per_s == pytest.approx(whole.tokens_per_s, rel=0.03)
    assert few.tokens_per_j == pytest.approx(whole.tokens_per_j, rel=0.03)


def test_pipeline_stages_work_on_batches_of_their_own(make: Make) -> None:
    """A stage holds half of the blocks: a batch leaves the pipeline in the time of one stage."""
    run = make("npu-pim", "parallel.tp=2", "parallel.pp=2").result
    assert run.devices == 2 * 2
    assert run.layers_model == LAYERS  # 4 blocks over 2 stages
    assert run.tokens_per_s == pytest.approx(len(CONTEXTS) / run.time_s)
    first, last = run.pipeline
    assert first.energy_j == pytest.approx(run.energy_j.total)  # all that was simulated is its own
    joule = 2 * (first.energy_j + last.energy_j)
    assert run.tokens_per_j == pytest.approx(len(CONTEXTS) / joule)


def test_one_sub_batch_pair_alone_says_that_it_is_no_steady_state(make: Make) -> None:
    assert any(
        "one block alone" in warning for warning in make("neupims", layers=1).result.warnings
    )
    assert make("neupims").result.warnings == ()


def test_more_blocks_than_the_model_has_are_told(make: Make) -> None:
    run = make("npu-pim", layers=5).result
    assert run.layers_model == 5
    assert any("a device has 4" in warning for warning in run.warnings)


def test_units_that_never_queue_have_no_utilisation(make: Make) -> None:
    run = make("neupims-artifact-npu-pim")
    (vector,) = run.result.warnings
    assert "vector units never queue" in vector
    assert run.result.utilisation.vector == 0


# shares and bounds


def macs_of_block(card: ModelCard, tokens: int) -> int:
    """Multiply-accumulates of one block's matrix products with the weights."""
    features = card.qkv_features + card.attention_features + 2 * card.ffn_hidden
    return tokens * card.hidden * features


def test_npu_share_and_bound_follow_the_model(make: Make) -> None:
    run = make("neupims")
    systolic = run.config.npu.systolic
    peak = systolic.arrays * systolic.rows * systolic.cols
    macs = LAYERS * macs_of_block(run.card, len(CONTEXTS))
    assert run.result.utilisation.npu == pytest.approx(macs / (peak * run.result.cycles))
    assert run.result.bound_cycles["npu"] == macs // peak
    assert run.facts.macs_needed["npu"] == macs


def test_sub_batches_read_the_weights_twice(make: Make) -> None:
    whole = make("neupims", "schedule.sub_batches=false")
    halves = make("neupims")
    org, nbl = whole.config.memory.organization, whole.config.memory.timings["nBL"]
    card = whole.card
    features = card.qkv_features + card.hidden + card.ffn_hidden + card.hidden  # biases
    weights = macs_of_block(card, 1) + features
    needed = LAYERS * weights * card.dtype_bytes
    assert whole.facts.bytes_needed["weight"] == needed
    assert halves.facts.bytes_needed["weight"] == 2 * needed
    for run, size in ((whole, needed), (halves, 2 * needed)):
        bound = size // org.burst_bytes * nbl // org.channels  # both clocks are 1 GHz
        assert run.result.bound_cycles["dram"] == bound


def test_kv_is_read_on_the_side_that_attends(make: Make) -> None:
    card = make("npu-only").card
    size = LAYERS * 2 * sum(CONTEXTS) * card.kv_heads * card.head_dim * card.kv_dtype_bytes
    assert make("npu-only").facts.bytes_needed["kv"] == size
    on_pim = make("npu-pim")
    assert on_pim.facts.bytes_needed["pim_kv"] == size
    assert "kv" not in on_pim.facts.bytes_needed
    org, pim = on_pim.config.memory.organization, on_pim.config.pim
    assert pim is not None
    columns = size // card.kv_dtype_bytes // (org.ranks * org.banks * pim.elements_per_comp)
    timings = on_pim.config.memory.timings
    step = max(timings["nBL"], timings["tCCD_S"])
    assert on_pim.result.bound_cycles["pim"] == columns // org.channels * step


@pytest.mark.parametrize("preset", ["npu-only", "npu-pim", "neupims"])
def test_bus_shares_are_those_of_the_channels_counters(make: Make, preset: str) -> None:
    run = make(preset)
    counter = run.outcome.system.channels["counter"]
    cycles = len(counter) * run.outcome.clock.memory_cycle(run.outcome.time_ps)
    commands = counter[:, C_COMMANDS : C_COMMANDS + len(COMMANDS)].sum()
    assert run.result.utilisation.dram_bus == counter[:, C_BUS_BUSY].sum() / cycles
    per_cycle = run.config.memory.controller.commands_per_cycle
    assert run.result.utilisation.command_bus == commands / cycles / per_cycle
    bursts = sum(counter[:, C_COMMANDS + COMMANDS.index(name)].sum() for name in ("RD", "WR"))
    moving = bursts * run.config.memory.timings["nBL"] / cycles * run.result.cycles
    assert run.result.cycle_stack["dram_bus"]["transfer"] == pytest.approx(moving, abs=1)


@pytest.mark.parametrize("preset", ["npu-only", "npu-pim", "neupims"])
@pytest.mark.parametrize("clock", ["1GHz", "1.3GHz", "600MHz"])
def test_cycle_stacks_add_up_whatever_the_clocks(make: Make, preset: str, clock: str) -> None:
    result = make(preset, f"npu.frequency={clock}").result
    units = {"npu", "dram_bus"} | ({"pim"} if preset != "npu-only" else set())
    assert set(result.cycle_stack) == units
    for stack in result.cycle_stack.values():
        assert sum(stack.values()) == result.cycles
        assert min(stack.values()) >= 0
    assert result.cycle_stack["npu"]["idle"] == 0  # every cycle is charged to a cause
    assert sum(stage.cycles for stage in result.stages) == result.cycles


def test_what_pim_does_fills_the_time_that_it_is_not_waiting(make: Make) -> None:
    """Blocked: PIM waits exactly while the NPU works, and the NPU while PIM works."""
    result = make("npu-pim").result
    attention = sum(stage.cycles for stage in result.stages if stage.name == "B")
    assert result.cycle_stack["npu"]["pim"] == attention
    assert result.cycle_stack["pim"]["npu"] == pytest.approx(result.cycles - attention, abs=8)
    busy = sum(stage.pim_busy_cycles for stage in result.stages)
    assert busy == pytest.approx(result.utilisation.pim * result.cycles, abs=8)
    assert all(stage.pim_busy_cycles == 0 for stage in result.stages if stage.name != "B")


# energy


def test_rank_cycles_and_commands_are_all_counted(make: Make) -> None:
    run = make("neupims")
    counts, org = dram_counts(run.outcome), run.config.memory.organization
    rank_ps = org.channels * org.ranks * run.outcome.time_ps
    assert counts.active_rank_ps + counts.idle_rank_ps == rank_ps
    assert 0 < counts.active_rank_ps < rank_ps
    total = run.outcome.system.channels["counter"].sum(axis=0)
    command = {name: int(total[C_COMMANDS + at]) for at, name in enumerate(COMMANDS)}
    assert (counts.act, counts.rd, counts.wr) == (command["ACT"], command["RD"], command["WR"])
    of_pim = pim_counts(run.outcome, run.outcome.recorder.totals[-1])
    assert of_pim.gact_banks == command["G_ACT"] * org.banks_per_group
    assert of_pim.readres == command["GEMV"]  # one result burst each; no READRES of its own
    assert command["READRES"] == 0


def test_energy_is_that_of_the_counts(make: Make) -> None:
    run = make("npu-pim")
    config, energy = run.config, run.result.energy_j
    assert config.pim is not None
    work = run.outcome.recorder.totals[-1]
    dram = dram_energy(dram_counts(run.outcome, work.counter), config.memory, config.energy)
    pim = pim_energy(pim_counts(run.outcome, work), config.memory, config.energy)
    assert energy.dram == pytest.approx(dram.total_j)
    assert energy.pim == pytest.approx(pim.total_j)
    assert energy.static == pytest.approx(run.result.static_w["total"] * run.result.time_s)
    macs = LAYERS * macs_of_block(run.card, len(CONTEXTS))
    assert energy.npu >= macs * config.energy.npu_mac_pj * 1e-12
    assert energy.link == 0  # one device


def test_provenance_names_config_trace_and_cost(make: Make) -> None:
    run = make("npu-only", "seed=11")
    provenance = run.result.provenance
    assert provenance.config_sha256 == run.resolved.sha256
    assert provenance.trace_sha256 == run.trace.sha256
    assert (provenance.seed, provenance.wall_s) == (11, 0.25)
    assert provenance.peak_rss_mb > 10
    assert run.result.name == "npu-only"
    assert run.result.model == run.card.name


@pytest.mark.parametrize("elements", [8, 16, 32])
def test_energy_of_pim_is_of_bytes_and_multiplications(make: Make, elements: int) -> None:
    """The same cache in wider dot products: the same bytes read, the same products."""
    run = make("npu-pim", f"pim.elements_per_comp={elements}")
    counts = pim_counts(run.outcome, run.outcome.recorder.totals[-1])
    banks = run.config.memory.organization.ranks * run.config.memory.organization.banks
    assert counts.macs == counts.read_bytes // 2
    assert counts.broadcast_bytes == counts.read_bytes // banks
    moved = run.facts.bytes_moved
    assert counts.read_bytes == moved["pim_kv"]
    sixteen = make("npu-pim")
    same = pim_counts(sixteen.outcome, sixteen.outcome.recorder.totals[-1])
    assert counts.read_bytes == pytest.approx(same.read_bytes, rel=0.05)  # tails of contexts


def test_a_dot_product_wider_than_a_column_is_refused(make: Make) -> None:
    with pytest.raises(InputError, match="elements_per_comp is 64"):
        make("npu-pim", "pim.elements_per_comp=64")


def test_writes_left_in_queues_are_charged(make: Make) -> None:
    """Commands and rates charge the same writes, whether they went out before the end or not."""
    counts = []
    for fidelity in ("command", "fast"):
        run = make("neupims", f"fidelity={fidelity}")
        counts.append(dram_counts(run.outcome, run.outcome.recorder.totals[-1].counter))
    assert counts[0].wr == counts[1].wr > 0
    assert counts[0].rd == counts[1].rd


def test_rows_open_at_the_end_count_as_open(make: Make) -> None:
    """A rank whose rows are open throughout but for refresh: nearly all of the time is active."""
    run = make("npu-only")
    counts = dram_counts(run.outcome)
    channels = run.outcome.system.channels
    assert (channels["rank"][:, :, 0] > 0).any()
    closed = int(channels["rank"][:, :, 2].sum()) * run.outcome.clock.memory_ps
    assert counts.active_rank_ps > closed


FREE = [
    "energy.dram_io_pj_per_bit=0", "memory.currents.IDD4R=55", "memory.currents.IDD4W=55",
    "memory.currents.IDD0=50.625",  # (34 x 55 + 14 x 40) / 48: a row costs its standby alone
]  # fmt: skip


@pytest.mark.parametrize("preset", ["npu-only", "neupims"])
def test_standby_is_between_idle_and_active_power_times_time(make: Make, preset: str) -> None:
    """Where all else is free: 66 mW a rank with an open row, 48 mW without."""
    result = make(preset, *FREE, "memory.currents.IDD5AB=55").result
    ranks = 4 * 2
    assert ranks * 0.048 * result.time_s < result.energy_j.dram < ranks * 0.066 * result.time_s


def test_refresh_and_standby_grow_with_time_and_nothing_else_does(make: Make) -> None:
    run = make("npu-only", *FREE)
    work = [(run.outcome.recorder.totals[-1], (1, 1))]
    time_s = run.result.time_s
    once, thrice = (run_energy(run.outcome, time_s * times, work) for times in (1, 3))
    assert thrice.dram == pytest.approx(3 * once.dram)
    assert thrice.static == pytest.approx(3 * once.static)
    assert (thrice.npu, thrice.sram, thrice.pim) == (once.npu, once.sram, once.pim)
    work = [(run.outcome.recorder.totals[-1], (6, 2))]
    assert run_energy(run.outcome, time_s, work).npu == pytest.approx(3 * once.npu)
    refreshes = dram_counts(run.outcome).ref
    without = make("npu-only", *FREE, "memory.currents.IDD5AB=55").result.energy_j.dram
    assert once.dram - without == pytest.approx(refreshes * 1.2 * (250 - 55) * 260e-12, rel=1e-6)
