"""Runs of several steps: laws over all hardware presets, chunks against whole prompts, steps in a
row against single ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from cards import small_card

from pimsim.config.resources import preset_names
from pimsim.result.types import Result
from pimsim.simulate import resolve, simulate

HEAD = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens,new_tokens\n"
CARD = small_card(hidden=128, heads=6, kv_heads=3, head_dim=64, ffn_hidden=384, tp=3)


def requests(folder: Path, *rows: str) -> Path:
    path = folder / "requests.csv"
    path.write_text(HEAD + "".join(f"{at},0,{row}\n" for at, row in enumerate(rows)))
    (folder / "card.yaml").write_text(CARD)
    return path


def run(
    preset: str, trace: Path, *more: str, fidelity: str = "command", **workload: object
) -> Result:
    given = {"model": trace.with_name("card.yaml"), "requests": trace, "layers": 1, **workload}
    keys = [f"workload.{key}={value}" for key, value in given.items()]
    # simulate() holds every result to the laws
    return simulate(resolve(preset, [*keys, "parallel.tp=3", f"fidelity={fidelity}", *more]))


@pytest.mark.parametrize("fidelity", ["command", "fast"])
@pytest.mark.parametrize("preset", preset_names("hardware"))
def test_prompts_decodes_and_verifications_run_in_one_step(
    preset: str, fidelity: str, tmp_path: Path
) -> None:
    trace = requests(tmp_path, "70,9,2,1", "40,9,0,40", "90,9,6,5", "33,9,1,")
    found = run(preset, trace, fidelity=fidelity)
    (step,) = found.steps
    assert (step.requests, step.tokens, step.logits, step.made) == (4, 47, 4, 4)
    kinds = Counter(o.kind for o in found.operators)
    assert kinds["kv_append"] <= 2
    assert kinds["attention"] >= 1  # prompts and verifications in tiles
    # decodes token by token: two products, or one operator where the design has attention
    assert kinds["attention_score"] + (kinds["attention"] - 1) >= 1


@pytest.mark.parametrize("preset", ["npu-only", "neupims"])
@pytest.mark.parametrize("chunk", [25, 64])
def test_chunks_write_and_multiply_what_the_prompt_does(
    preset: str, chunk: int, tmp_path: Path
) -> None:
    trace = requests(tmp_path, "130,9,0,130", "70,9,0,70")
    whole, parts = run(preset, trace), run(preset, trace, chunk=chunk)
    assert len(parts.steps) == -(-130 // chunk)
    assert sum(step.made for step in parts.steps) == whole.steps[0].made == 2

    def sums(result: Result, kind: str) -> tuple[int, int]:
        own = [o for o in result.operators if o.kind == kind]
        return sum(o.flops for o in own), sum(o.bytes for o in own)

    assert sums(parts, "attention")[0] == sums(whole, "attention")[0]
    assert sums(parts, "gemm")[0] == sums(whole, "gemm")[0]
    assert parts.tokens == whole.tokens == 200


@pytest.mark.parametrize(
    ("preset", "schedule"),
    [("npu-only", "serial"), ("npu-pim", "blocked"), ("neupims", "interleaved"),
     ("neupims", "greedy")],
)  # fmt: skip
def test_steps_in_a_row_take_what_single_ones_take(
    preset: str, schedule: str, tmp_path: Path
) -> None:
    """What carries over, open rows, weights that come early and the refreshes' phase, is worth less
    than 1 % here, where there is work enough."""
    key, model = f"schedule.policy={schedule}", "smollm2-135m"
    rows = [[f"{4000 + 50 * n},90,{1 + at}," for n in range(24)] for at in range(3)]
    row = run(preset, requests(tmp_path, *rows[0]), key, model=model, steps=3)
    single = [run(preset, requests(tmp_path, *each), key, model=model) for each in rows]
    assert [s.context_max for s in row.steps] == [s.steps[0].context_max for s in single]
    assert row.cycles == pytest.approx(sum(s.cycles for s in single), rel=0.01)
    assert sum(s.cycles for s in row.steps) == row.cycles
    assert row.tokens == sum(s.tokens for s in single)
    assert row.iteration_s == pytest.approx(sum(s.iteration_s for s in single), rel=0.01)
    assert row.energy_j.total == pytest.approx(sum(s.energy_j.total for s in single), rel=0.01)


def test_several_new_tokens_attend_on_pim_where_the_schedule_asks_for_it(tmp_path: Path) -> None:
    trace = requests(tmp_path, "500,9,3,4", "400,9,3,1")
    model = trace.with_name("card.yaml")
    keys = [f"workload.requests={trace}", f"workload.model={model}", "workload.layers=1"]
    on_npu = simulate(resolve("npu-pim", [*keys, "parallel.tp=3"]))
    on_pim = simulate(
        resolve("npu-pim", [*keys, "parallel.tp=3", "schedule.attention_pim_tokens=4"])
    )
    assert {o.kind for o in on_npu.operators} >= {"attention", "attention_score"}
    assert "attention" not in {o.kind for o in on_pim.operators}
    flops = {
        name: sum(o.flops for o in result.operators if o.kind.startswith("attention"))
        for name, result in (("npu", on_npu), ("pim", on_pim))
    }
    assert flops["npu"] == flops["pim"]
