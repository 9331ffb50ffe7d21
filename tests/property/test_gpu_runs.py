"""Runs on GPUs: the result type of every run, its laws, and what each key does to it."""

from __future__ import annotations

from dataclasses import replace
from math import fsum, isclose

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_system
from pimsim.config.resources import preset_names
from pimsim.engine.xpu_machine import XpuOutcome
from pimsim.result.invariants import violations
from pimsim.result.types import Energy, Result
from pimsim.result.xpu_accounts import xpu_facts
from pimsim.simulate import observe_xpu, resolve, simulate

SMALL = ("workload.model=gpt3-7b", "workload.requests=equal:256+1", "workload.batch=4")
GPUS = preset_names("system")


def run(preset: str, *overrides: str) -> tuple[XpuOutcome, Result]:
    return observe_xpu(load_system(preset, overrides))


def result_of(preset: str, *overrides: str) -> Result:
    return run(preset, *overrides)[1]


@pytest.fixture(scope="module")
def small() -> dict[str, tuple[XpuOutcome, Result]]:
    return {preset: run(preset, *SMALL) for preset in GPUS}


@pytest.mark.parametrize("preset", GPUS)
def test_a_result_has_what_every_run_has(
    preset: str, small: dict[str, tuple[XpuOutcome, Result]]
) -> None:
    outcome, result = small[preset]
    assert Result.from_dict(result.to_dict()) == result
    assert result.devices == 8
    assert (result.layers_simulated, result.layers_model) == (2, 32)
    assert result.tokens == 4 and len(result.steps) == 1 and len(result.requests) == 4
    assert isclose(result.tokens_per_s, 4 / result.iteration_s)
    # equal blocks: all take what those that were simulated do, and what they cost
    assert isclose(result.iteration_s, 16 * result.time_s)
    assert isclose(result.token_j["total"] * 4, 16 * 8 * result.energy_j.total)
    assert isclose(fsum(outcome.parts_s.values()), result.time_s, abs_tol=2e-12)
    for stack in result.cycle_stack.values():
        assert sum(stack.values()) == result.cycles
    assert result.series is not None
    assert sum(result.series.npu_macs) > 0
    # what a roofline does not know is not there
    assert result.utilisation.vector is None and result.utilisation.command_bus is None
    assert result.kv_cache is None and not result.area_mm2
    has_pim = outcome.config.attention == "pim"
    assert (result.utilisation.pim is not None) == has_pim == ("pim" in result.cycle_stack)


def test_laws_see_what_a_gpu_did_wrong(small: dict[str, tuple[XpuOutcome, Result]]) -> None:
    outcome, result = small["dgx-attacc-bank"]
    facts = xpu_facts(outcome, result)
    assert not list(violations(result, replace(facts, clock_ps=1e3)))

    def broken(changed: Result) -> str:
        return "; ".join(violations(changed, replace(facts, clock_ps=1e3)))

    energy = replace(result.energy_j, npu=2 * result.energy_j.npu)
    assert "energy parts add up" in broken(replace(result, energy_j=energy))
    assert "its bound on pim" in broken(replace(result, bound_cycles={"pim": result.cycles + 1}))
    operators = tuple(replace(o, flops=10**6 * o.flops) for o in result.operators)
    assert "are its roof" in broken(replace(result, operators=operators))
    moved = replace(facts, bytes_moved={"weight": 1, "kv": 1}, clock_ps=1e3)
    assert "bytes of weight moved" in "; ".join(violations(result, moved))
    done = replace(facts, macs_done={"all units": 1}, clock_ps=1e3)
    assert "MACs on all units done" in "; ".join(violations(result, done))
    few = {**result.static_w, "total": 2 * result.static_w["total"]}
    assert "static power" in broken(replace(result, static_w=few))


def test_energy_of_parts_is_that_of_the_kernels() -> None:
    outcome, result = run("dgx-a100a-cpu", *SMALL)
    picojoule = {part: fsum(w.cost.energy_pj[part] for w in outcome.recorder.works)
                 for part in ("memory", "core", "host", "link")}  # fmt: skip
    energy: Energy = result.energy_j
    assert isclose(energy.dram, picojoule["memory"] * 1e-12)
    assert isclose(energy.npu, picojoule["core"] * 1e-12)
    assert isclose(energy.host, picojoule["host"] * 1e-12) and energy.host > 0
    assert isclose(energy.link, picojoule["link"] * 1e-12)
    assert isclose(energy.static, result.static_w["total"] * result.time_s)


def test_a_run_is_the_same_however_many_blocks_are_simulated() -> None:
    for model in ("gpt3-7b", "olmoe-1b-7b"):
        few, all_of_them = (
            result_of("dgx-h100", f"workload.model={model}", "workload.batch=8",
                      "workload.requests=equal:128+1", f"workload.layers={layers}")
            for layers in ("auto", "null")
        )  # fmt: skip
        assert few.layers_simulated < all_of_them.layers_simulated == few.layers_model
        assert isclose(few.iteration_s, all_of_them.iteration_s, rel_tol=1e-6)


def test_stages_of_a_pipeline_have_their_own_blocks() -> None:
    whole = result_of("dgx-h100", *SMALL)
    cut = result_of("dgx-h100", *SMALL, "parallel.pp=2")
    assert [stage.blocks for stage in cut.pipeline] == [16, 16]
    assert cut.devices == whole.devices == 8
    # half as many devices share a block, and each stage has half of the blocks
    first, second = cut.pipeline
    assert first.time_s > second.time_s  # it sends
    assert cut.iteration_s == first.time_s
    assert any(o.name == "send" for o in cut.operators)
    with pytest.raises(InputError, match=r"parallel\.tp is 8; the 8 devices are 4 of 2 stages"):
        load_system("dgx-h100", ["parallel.pp=2", "parallel.tp=8"])
    with pytest.raises(InputError, match=r"parallel\.pp is 3; it must divide the 8 devices"):
        load_system("dgx-h100", ["parallel.pp=3"])


def test_steps_go_on_and_contexts_grow() -> None:
    alone = [
        result_of("dgx-h100", "workload.model=gpt3-7b", f"workload.requests=equal:{512 + at}",
                  "workload.batch=4").iteration_s
        for at in range(3)
    ]  # fmt: skip
    steps = result_of("dgx-h100", "workload.model=gpt3-7b", "workload.requests=equal:512",
                      "workload.batch=4", "workload.steps=3")  # fmt: skip
    assert [step.context_max for step in steps.steps] == [512, 513, 514]
    for one, step in zip(alone, steps.steps, strict=True):
        assert isclose(one, step.iteration_s, rel_tol=1e-9)
    assert isclose(steps.iteration_s, fsum(alone), rel_tol=1e-9)


def test_attention_on_pim_between_simulated_contexts_lies_between() -> None:
    given = ("workload.model=gpt3-7b", "workload.requests=equal:64+1", "workload.steps=9")
    exact = result_of("dgx-attacc-bank", *given, "attention_contexts=null")
    few = result_of("dgx-attacc-bank", *given, "attention_contexts=2")
    ends = [(exact.steps[at].time_s, few.steps[at].time_s) for at in (0, -1)]
    assert all(isclose(one, other, rel_tol=1e-12) for one, other in ends)
    assert isclose(exact.time_s, few.time_s, rel_tol=0.02)
    inner = [step.time_s for step in few.steps]
    assert inner == sorted(inner)
    with pytest.raises(InputError, match="attention_contexts is 3, but attention is not on pim"):
        load_system("dgx-h100", ["attention_contexts=3"])


def test_a_mixed_step_has_one_launch_of_attention_for_prompts_and_single_tokens() -> None:
    trace = ("workload.model=llama-3-8b", "workload.requests=sharegpt-64", "workload.batch=8")
    decode = result_of("dgx-h100", *trace)
    prompt = result_of("dgx-h100", *trace, "workload.phase=prefill")
    assert prompt.tokens > decode.tokens == 8
    assert prompt.time_s > decode.time_s
    chunked = result_of("dgx-h100", *trace, "workload.phase=prefill", "workload.chunk=128",
                        "workload.steps=6")  # fmt: skip
    mixed = [step for step in chunked.steps if 8 < step.tokens < 8 * 128]
    assert mixed
    assert {o.unit for o in chunked.operators} == {"xpu", "link"}


@pytest.mark.parametrize("model", ["mixtral-8x7b", "deepseek-v3", "gpt-oss-120b"])
def test_experts_and_latents_run_on_gpus(model: str) -> None:
    result = result_of("dgx-h200", f"workload.model={model}", "workload.batch=4",
                       "workload.requests=equal:64+1")  # fmt: skip
    assert result.experts is not None
    assert result.experts.hit_mean > 1
    assert any(o.name == "experts" for o in result.operators)
    spread = result_of("dgx-h200", f"workload.model={model}", "workload.batch=4",
                       "workload.requests=equal:64+1", "parallel.ep=8")  # fmt: skip
    assert spread.experts is not None
    assert spread.experts.hit_mean < result.experts.hit_mean


def test_weights_of_one_byte_are_half_the_work_of_memory() -> None:
    dense, packed = (
        result_of("dgx-h100", f"workload.trace={trace}", "workload.batch=2", "workload.layers=1")
        for trace in ("llama-3-8b", "gpt-oss-120b")
    )
    moved = {o.name: o.bytes for o in packed.operators}
    assert moved["experts"] > 0
    assert dense.experts is None


def test_what_no_kernel_does_is_refused_with_the_way_out() -> None:
    def refused(preset: str, *overrides: str) -> str:
        with pytest.raises(InputError) as caught:
            run(preset, *overrides)
        return str(caught.value)

    pim = "dgx-attacc-bank"
    assert "keeps latents" in refused(pim, "workload.model=deepseek-v3", "workload.batch=1")
    assert "has no experts" in refused("dgx-a100a", "workload.model=mixtral-8x7b")
    assert "experts were not measured" in refused(
        "dgx-h100", "workload.model=mixtral-8x7b", "xpu.silicon.experts=null"
    )


def test_embedding_and_output_layer_are_there_where_they_are_asked_for() -> None:
    without, with_them = (
        result_of("dgx-h100", *SMALL, f"workload.outside={value}") for value in ("false", "true")
    )
    names = {o.name for o in with_them.operators} - {o.name for o in without.operators}
    assert any("lm_head" in name or "logits" in name or "output" in name for name in names), names
    assert with_them.iteration_s > without.iteration_s
    assert with_them.time_s - without.time_s == pytest.approx(
        with_them.iteration_s - without.iteration_s
    )


def test_all_reduces_are_nccls_where_the_system_has_a_section_for_it() -> None:
    ring, nccl = (result_of("dgx-h100", *SMALL, f"nccl={value}") for value in ("null", "h100"))
    took = [
        fsum(o.cycles for o in each.operators if o.name.startswith("allreduce"))
        for each in (ring, nccl)
    ]
    assert took[0] != took[1]
    assert ring.time_s - nccl.time_s == pytest.approx(
        (took[0] - took[1]) / ring.cycles * ring.time_s, rel=1e-3
    )


def test_keys_that_act_on_npus_alone_are_refused() -> None:
    for key in (
        "npu.frequency=1GHz", "memory=hbm3-6400", "schedule.policy=serial", "fidelity=fast",
        "workload.sparsity=law:relu", "workload.beyond_banks=true",
    ):  # fmt: skip
        with pytest.raises(InputError, match="unknown key"):
            resolve("dgx-h100", [key])


def test_the_name_or_the_section_says_what_computes(tmp_path: object) -> None:
    assert simulate(resolve("dgx-h100", [*SMALL])).cycle_stack.keys() == {"xpu"}
    with pytest.raises(InputError, match="did you mean 'dgx-h100'"):
        resolve("dgx-h10")
