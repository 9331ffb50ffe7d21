"""``pimsim run`` of operator traces and of models with experts, latents and windows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Refused = Callable[..., str]

BATCH = ("--requests", "sharegpt-64", "--batch", "16")
FEW = ("--requests", "sharegpt-64", "--batch", "4")
"""Where a few requests show it."""
BATCH_BEYOND = (*BATCH, "--set", "workload.beyond_banks=true")
"""Of models whose blocks need more rows of PIM's layout than the default memory has."""


FEW_BEYOND = (*FEW, *BATCH_BEYOND[-2:])


def result_of(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def within_bounds(result: Any) -> None:
    """No unit beats its bound; stages and operators neither."""
    assert all(result["cycles"] >= bound for bound in result["bound_cycles"].values())
    for each in (*result["stages"], *result["operators"]):
        assert each["cycles"] >= each["bound_cycles"]
    for stack in result["cycle_stack"].values():
        assert sum(stack.values()) == result["cycles"]


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("smollm2-135m", ()),
        ("mixtral-8x7b", ("--routing", "mixtral-8x7b", "--layers", "1")),
        ("deepseek-v3", ("--layers", "2")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_shipped_traces_run_within_their_bounds(
    run_cli: RunCli, model: str, more: tuple[str, ...]
) -> None:
    found = result_of(run_cli("run", "neupims", "--trace", model, *more, *FEW_BEYOND, "--json"))
    within_bounds(found)
    assert found["model"] == model
    assert (found["experts"] is None) == (model == "smollm2-135m")
    assert len([w for w in found["warnings"] if "embedding and output layer" in w]) == 1
    card = result_of(run_cli("run", "neupims", "--model", model, *more, *FEW_BEYOND, "--json"))
    # a card and the trace of the real model are the same work, on as many devices
    assert card["devices"] == found["devices"]
    assert (card["cycles"], card["stages"]) == (found["cycles"], found["stages"])
    assert card["provenance"]["trace_sha256"] != found["provenance"]["trace_sha256"]


@pytest.mark.parametrize("preset", ["npu-only", "npu-pim"])
def test_the_other_machines_run_experts_too(run_cli: RunCli, preset: str) -> None:
    found = result_of(
        run_cli("run", preset, "--model", "qwen3-30b-a3b", "--layers", "1", *BATCH, "--json")
    )
    within_bounds(found)
    on_pim = found["experts"]["on_pim_share"]
    assert on_pim == 0 if preset == "npu-only" else on_pim > 0
    units = {o["unit"] for o in found["operators"] if o["kind"] == "expert_gemm"}
    assert units == ({"systolic"} if preset == "npu-only" else {"systolic", "pim"})


def test_few_tokens_favour_pim_and_a_limit_beats_both(run_cli: RunCli) -> None:
    def rate(placement: str) -> float:
        found = result_of(
            run_cli("run", "neupims", "--model", "qwen3-30b-a3b", "--layers", "1", *FEW, "--json",
                    "--set", f"schedule.expert_placement={placement}")
        )  # fmt: skip
        return float(found["tokens_per_s"])

    assert rate("npu") < rate("pim") <= rate("by-tokens")


def test_the_table_says_where_experts_ran(run_cli: RunCli) -> None:
    done = run_cli("run", "neupims", "--model", "olmoe-1b-7b", "--layers", "1", *FEW)
    assert done.returncode == 0, done.stderr
    assert " hit a block, " in done.stdout
    assert "of the pairs of token and expert, experts of up to " in done.stdout


def test_windows_keep_less(run_cli: RunCli) -> None:
    found = result_of(
        run_cli(
            "run", "neupims", "--model", "gpt-oss-120b", *BATCH_BEYOND, "--layers", "2", "--json"
        )
    )
    within_bounds(found)
    scores = {o["layer"]: 0 for o in found["operators"]}
    for operator in found["operators"]:
        if operator["name"] == "score":
            scores[operator["layer"]] += operator["bytes"]
    assert min(scores.values()) < max(scores.values())
    (note,) = [w for w in found["warnings"] if "to show each kind" in w]
    assert note.startswith("3 blocks simulated, not 2")


def test_the_output_layer_can_be_a_part(run_cli: RunCli) -> None:
    found = result_of(
        run_cli("run", "neupims", "--model", "smollm2-135m", *BATCH, "--json",
                "--set", "workload.outside=true")
    )  # fmt: skip
    within_bounds(found)
    assert found["stages"][-1]["name"] == "outside"
    assert "lm_head" in {o["name"] for o in found["operators"]}


# wrong input


def test_a_card_and_a_trace_at_once_are_refused(refused: Refused) -> None:
    line = refused("run", "neupims", "--model", "gpt3-7b", "--trace", "mixtral-8x7b")
    assert "--model gpt3-7b and --trace mixtral-8x7b" in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--trace", "missing.json"), "missing.json"),
        (("--model", "gpt3-7b", "--routing", "zipf:1"), "no experts"),
        (("--model", "mixtral-8x7b", "--routing", "zebra"), "zebra"),
        (("--model", "gpt3-7b", "--set", "parallel.ep=2"), "parallel.ep is 2"),
        (("--model", "mixtral-8x7b", "--set", "parallel.ep=3"), "must divide tp"),
        (("--model", "mixtral-8x7b", "--set", "parallel.tp=1"), "GiB"),
        (("--set", "schedule.expert_placement=both"), "expert_placement"),
    ],
)
def test_wrong_input_is_refused(refused: Refused, arguments: tuple[str, ...], told: str) -> None:
    assert told in refused("run", "neupims", *arguments, *BATCH)


def test_experts_on_pim_need_a_machine_that_uses_it(refused: Refused) -> None:
    line = refused("run", "npu-only", "--set", "schedule.expert_placement=pim")
    assert "needs a schedule.policy that uses PIM: blocked, greedy, interleaved" in line


def test_a_broken_trace_is_refused(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"format": "pimsim-operator-trace", "version": 99}')
    assert "version 99" in refused("run", "neupims", "--trace", path)
