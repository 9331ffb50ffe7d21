"""PIM in a memory of its own: what goes over the link, what it takes, what each memory holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_area, load_run
from pimsim.engine.iteration import Outcome
from pimsim.engine.stream_side import StreamSide
from pimsim.hardware.area import device_area
from pimsim.mapping.pim_link import transfer_ps
from pimsim.result.pim_link import link_bytes
from pimsim.result.step_cost import StepCosts
from pimsim.result.types import Result
from pimsim.simulate import observe, resolve

TOKEN_BYTES = 512 * 2
"""Of the tiny card: a query, a key, a value or a result of all heads."""
Traced = Callable[[Sequence[int]], Path]


def observed(
    card: Path, requests: Path | str, *overrides: str, preset: str = "npu-attacc"
) -> tuple[Outcome, Result]:
    return observe(
        resolve(
            preset,
            [f"workload.model={card}", f"workload.requests={requests}", "parallel.tp=1",
             "workload.layers=2", *overrides],
        )
    )  # fmt: skip


def sent(outcome: Outcome, name: str) -> int:
    """Picoseconds of the link's transfers of a name."""
    return sum(
        each.end_ps - each.start_ps
        for each in outcome.recorder.operators
        if each.unit == "pim_link" and each.name == name
    )


def side_of(outcome: Outcome) -> StreamSide:
    assert isinstance(outcome.pim, StreamSide)
    return outcome.pim


def test_queries_results_and_new_keys_and_values_go_over_the_link(
    tiny_card: Path, write_trace: Traced
) -> None:
    outcome, result = observed(tiny_card, write_trace([200, 30, 31]))
    tokens, blocks = 3, 2
    assert outcome.recorder.pim_link_bytes == blocks * tokens * 4 * TOKEN_BYTES
    assert link_bytes(outcome.devices) == outcome.recorder.pim_link_bytes
    config = outcome.device.config
    assert config.pim_link is not None
    each = transfer_ps(tokens * TOKEN_BYTES, config.pim_link)
    assert sent(outcome, "queries") == sent(outcome, "results") == blocks * each
    assert result.energy_j.link == pytest.approx(
        outcome.recorder.pim_link_bytes * 8 * config.pim_link.pj_per_bit * 1e-12
    )
    assert result.bound_cycles["pim_link"] <= result.cycles
    assert result.series is not None
    assert sum(result.series.link_bytes) == outcome.recorder.pim_link_bytes
    assert result.cycle_stack["npu"]["pim_link"] > 0


def test_of_a_design_of_products_scores_and_probabilities_go_over_the_link_too(
    tiny_card: Path, write_trace: Traced
) -> None:
    outcome, _ = observed(
        tiny_card, write_trace([200, 30]), "pim=aim", "workload.layers=1",
        "pim_memory.organization.channels=8",
    )  # fmt: skip
    memory = outcome.device.config.pim_memory
    assert memory is not None
    assert memory.name == "gddr6-aim"
    (step,) = outcome.devices
    scores = 4 * sum(step.whole.contexts) * 2
    assert outcome.recorder.pim_link_bytes == 2 * 4 * TOKEN_BYTES + 2 * scores
    assert link_bytes(outcome.devices) == outcome.recorder.pim_link_bytes
    order = [o.unit for o in outcome.recorder.operators if o.name.startswith(("sc", "so", "va"))]
    link, pim = "pim_link", "pim"
    assert order == [link, pim, link, "vector", link, pim, link]


@pytest.mark.parametrize(("size", "ps"), [(0, 5000), (1, 5500), (3000, 1_505_000)])
def test_a_transfer_takes_its_latency_and_its_bytes(size: int, ps: int) -> None:
    link = load_run(
        "npu-attacc", ["pim_link.bandwidth_gb_per_s=2", "pim_link.latency_ns=5"]
    ).config.pim_link
    assert link is not None
    assert transfer_ps(size, link) == ps


def test_attention_behind_a_fast_link_is_that_in_the_device_s_memory(
    tiny_card: Path, write_trace: Traced
) -> None:
    requests = write_trace([200])
    apart, _ = observed(
        tiny_card, requests, "pim_link.bandwidth_gb_per_s=1000000", "pim_memory=hbm3-attacc"
    )
    within, _ = observed(tiny_card, requests, "pim=attacc-bank-repaired", preset="npu-pim")
    found, expected = side_of(apart), side_of(within)
    assert found.computing_cycles == expected.computing_cycles > 0
    assert found.command_cycles == expected.command_cycles
    assert apart.recorder.pim_commands == within.recorder.pim_commands
    took = [o.end_ps - o.start_ps for o in apart.recorder.operators if o.name == "attention"]
    design = found.runs.design
    t = design.memory.timings
    for each in took:  # rows of new keys and values are closed before, the stream's behind
        turn = each / design.tCK - (found.computing_cycles + found.command_cycles) / 2
        assert t["tRP"] <= turn <= t["tRAS"] + 2 * t["tRP"] + t["tRFC"] + 200


def test_a_slower_link_is_never_faster(tiny_card: Path, write_trace: Traced) -> None:
    requests = write_trace([200, 30])
    cycles = [
        observed(tiny_card, requests, f"pim_link.bandwidth_gb_per_s={rate}")[1].cycles
        for rate in (1000, 30, 1, 0.1)
    ]
    assert cycles == sorted(cycles)
    assert cycles[-1] - cycles[-2] > 0.9 * 2 * 2 * 4 * TOKEN_BYTES * (10 - 1)  # ns at 1 GHz


def test_the_npu_works_while_pim_in_its_own_memory_does(
    tiny_card: Path, write_trace: Traced
) -> None:
    outcome, _ = observed(
        tiny_card, write_trace([900] * 8), "schedule.policy=interleaved",
        "schedule.sub_batches=true",
    )  # fmt: skip
    operators = outcome.recorder.operators
    assert any(
        pim.start_ps < npu.end_ps and npu.start_ps < pim.end_ps
        for pim in operators if pim.unit == "pim"
        for npu in operators if npu.unit == "systolic"
    )  # fmt: skip


@pytest.mark.parametrize("pad", ["32MiB", "512KiB"])
def test_a_piece_of_a_prompt_has_what_is_cached_of_it_come_over_the_link(
    pad: str, tiny_card: Path
) -> None:
    outcome, _ = observed(
        tiny_card, "equal:96+0", "workload.phase=prefill", "workload.chunk=32",
        f"npu.scratchpad.capacity={pad}",
    )  # fmt: skip
    new, cached = 96, 32 + 64
    assert outcome.recorder.pim_link_bytes == 2 * (new + cached) * 2 * TOKEN_BYTES
    assert link_bytes(outcome.devices) == outcome.recorder.pim_link_bytes
    landed = [o for o in outcome.recorder.operators if o.unit == "dma" and o.name == "cached"]
    assert len(landed) == (0 if pad == "32MiB" else 4)
    order = [o.name for o in outcome.recorder.operators if o.layer == 0 and o.kind != "gemm"]
    last = order[len(order) - order[::-1].index("cached") :]
    assert "attention" in last


def test_each_memory_holds_its_own(tiny_card: Path, write_trace: Traced) -> None:
    """The device's the weights, PIM's the cache."""
    requests = write_trace([1000] * 40)  # 4 KiB a token and block: 625 MiB
    small = "memory.organization.rows=32"
    outcome, result = observed(tiny_card, requests, small, "workload.layers=1")
    memory, of_pim = outcome.device.config.memory, outcome.device.config.pim_memory
    assert of_pim is not None
    (need,) = outcome.device.work.needs
    assert need.weights_bytes <= memory.organization.capacity_bytes < need.total_bytes
    capacities = [each.organization.capacity_bytes for each in (memory, of_pim)]
    assert result.memory_bytes == sum(capacities)
    with pytest.raises(InputError, match=r"memory has 0\.03 GiB:"):
        observed(tiny_card, requests, small, preset="npu-only")


def test_a_cache_too_large_for_pim_s_memory_is_one_line(
    tiny_card: Path, write_trace: Traced, tmp_path: Path
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text("extends: npu-attacc\npim_memory:\n  organization:\n    rows: 2\n")
    with pytest.raises(InputError) as error:
        observed(tiny_card, write_trace([1000] * 40), preset=str(file))
    text = str(error.value)
    assert text.startswith(f"{file}:4: pim_memory: ")
    assert "pim_memory 0.01 GiB for the KV cache: request 1" in text
    assert "\n" not in text


def test_a_service_counts_the_cache_s_memory_alone(tiny_card: Path) -> None:
    machine = load_run("npu-attacc", [f"workload.model={tiny_card}", "parallel.tp=1"]).config
    assert machine.pim_memory is not None
    costs = StepCosts(machine)
    kept = machine.pim_memory.organization.capacity_bytes // (4 * 2 * TOKEN_BYTES)
    assert 0.9 * kept <= costs.tokens(16) <= kept


def test_dies_and_standby_are_of_both_memories(tiny_card: Path, write_trace: Traced) -> None:
    config = load_run("npu-attacc").config
    area, pim = load_area().config, config.pim
    assert config.pim_memory is not None
    assert pim is not None
    both = device_area(config.npu, config.memory, pim, area, config.pim_memory)
    device = device_area(config.npu, config.memory, None, area)
    stacks = device_area(config.npu, config.pim_memory, pim, area)
    assert both.dram == pytest.approx(device.dram + stacks.dram)
    assert both.pim == stacks.pim > 0
    requests = write_trace([30])
    two = observed(tiny_card, requests)[1]
    one = observed(tiny_card, requests, "pim_memory.organization.channels=16")[1]
    assert two.power_w["dram"] > one.power_w["dram"]
    assert two.static_w["memory"] > one.static_w["memory"]
    assert two.stacks == one.stacks + 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["pim_link=null"], "'hbm3-attacc' needs a pim_link with bandwidth_gb_per_s"),
        (["pim_memory=null"], "pim_link is the link to a pim_memory, which is missing"),
        (["pim_link.bandwidth_gb_per_s=0"], "pim_link.bandwidth_gb_per_s: found 0"),
        (["pim=null", "schedule.policy=serial"], "needs a pim section"),
        (["schedule.policy=serial"], "needs a schedule.policy that uses PIM: "),
        (["pim=neupims"], "pim_memory 'hbm2-neupims': neupims has no controller of its own"),
        (["schedule.attention_placement=npu"], "holds the KV cache, so that schedule.attention"),
        (["pim=aim", "pim.operations=[trace]"], "aim has no attention and no gemv"),
        (["schedule.product_placement=auto"], "no weights: schedule.product_placement: found 'au"),
        (["schedule.expert_placement=pim"], "no weights: schedule.expert_placement: found 'pim'"),
        (["pim_link.bandwith_gb_per_s=3"], "did you mean 'bandwidth_gb_per_s'"),
    ],
)
def test_what_cannot_be_is_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        load_run("npu-attacc", overrides)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_link_without_its_bandwidth_is_said_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    file.write_text(
        "extends: npu-only\npim: attacc-bank\npim_memory: hbm3-attacc\n"
        "pim_link: {pj_per_bit: 1.3, sources: {}}\nschedule: {policy: blocked}\n"
    )
    with pytest.raises(InputError, match=r"none\.yaml:4: pim_link\.bandwidth_gb_per_s"):
        load_run(str(file))


def test_latents_that_are_expanded_again_are_refused() -> None:
    with pytest.raises(InputError, match="reads it on the NPU"):
        observe(
            resolve(
                "npu-attacc",
                ["workload.model=deepseek-v3", "workload.requests=equal:64+0", "workload.layers=1",
                 "workload.phase=prefill", "workload.chunk=32", "parallel.ep=16"],
            )
        )  # fmt: skip
