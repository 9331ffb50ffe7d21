"""A run or a service that asks for no technique calls nothing of one."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from pathlib import Path

import pytest

import pimsim

_OF_TECHNIQUES = (
    "technique_runs", "served_model", "chosen_keys", "kept_tokens", "first_blocks", "rounds",
    "speculation", "diffusion", "draft_blocks", "extra_operators", "stored_cache",
    "stored_weights", "guesses",
)  # fmt: skip
_FOLDERS = ("decoding", "kv_views", "formats")


def calls(run: Callable[[], object]) -> tuple[int, int]:
    """Calls of functions in all, and of those in files of techniques."""
    profile = cProfile.Profile()
    profile.runcall(run)
    every = own = 0
    for entry in profile.getstats():
        every += entry.callcount
        if isinstance(entry.code, str):
            continue
        path = Path(entry.code.co_filename)
        if path.stem in _OF_TECHNIQUES or path.parent.name in _FOLDERS:
            # a package that is imported runs once; its functions do not
            own += entry.callcount * (entry.code.co_name != "<module>")
    return every, own


@pytest.mark.parametrize(
    ("machine", "keys"),
    [("npu-only", ["fidelity=fast", "workload.layers=1"]), ("dgx-h100", ["devices=1"])],
)
def test_a_run_calls_no_technique(tiny_card: Path, machine: str, keys: list[str]) -> None:
    def run(*more: str) -> object:
        return pimsim.run(machine, model=tiny_card, requests="equal:40+2", overrides=[*keys, *more])

    run()  # what is loaded once is loaded
    every, own = calls(run)
    assert every > 1000 and own == 0
    _, own = calls(lambda: run("workload.weight_format=int8"))
    assert own > 0


def test_a_service_calls_no_technique(tiny_card: Path, tmp_path: Path) -> None:
    (tmp_path / "requests.csv").write_text("arrival_us,prompt,output\n0,40,3\n")
    path = tmp_path / "service.yaml"
    path.write_text(
        "requests: {file: ./requests.csv}\nscheduler: {name: vllm}\n"
        f"machine: {{extends: dgx-h100, devices: 1, workload: {{model: {tiny_card}}}}}\n"
    )
    pimsim.serve(path)
    every, own = calls(lambda: pimsim.serve(path))
    # the one look at the machine's keys
    assert every > 1000 and own <= 2
    _, own = calls(lambda: pimsim.serve(path, overrides=["machine.workload.kv_format=int8"]))
    assert own > 20
