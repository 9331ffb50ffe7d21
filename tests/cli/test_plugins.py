"""A distribution that adds presets, a model, a schedule, a dataflow, a PIM design, a technique."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

POLICY = """
from pimsim.engine.schedules.serial import Serial
from pimsim.mapping.barrier import Barrier

NAMES = {"A": "before", "B": "attention", "E": "after"}

class SCHEDULE(Serial):
    uses_pim = True

    def order(self, program):
        for task in super().order(program):
            yield Barrier(NAMES[task.label]) if isinstance(task, Barrier) else task
"""
DATAFLOW = """
from dataclasses import replace
from pimsim.hardware.npu.dataflows import load_dataflow

def plan(m, n, k, systolic, dtype_bytes):
    # a weight-stationary array that takes a hundred cycles to wake up
    found = load_dataflow("ws")(m, n, k, systolic, dtype_bytes)
    return replace(found, lead_cycles=found.lead_cycles + 100)
"""
DESIGN = """
from pimsim.hardware.pim.designs import aim

gemv = aim.gemv
"""
TRANSFORM = """
def as_is():
    return lambda iteration: iteration
"""
SCHEDULER = """
from pydantic import Field
from pimsim.serving.lists import append, push
from pimsim.serving.records import WAITING
from pimsim.serving.schedulers.static import Static, StaticSettings

class Settings(StaticSettings):
    short: int = Field(ge=1)

class SCHEDULER(Static):
    Settings = Settings

    def arrive(self, request):
        # short prompts pass all that wait
        join = push if self.requests[request]["prompt"] <= self.settings.short else append
        join(self.requests, self.lists[WAITING], request)
"""
ROUTER = """
from pimsim.serving.routers import Router

class ROUTER(Router):
    def replica(self, request):
        return len(self.schedulers) - 1
"""
ARRIVALS = """
from dataclasses import replace
from pimsim.config.traffic import ArrivalSettings
from pimsim.config.units import Picoseconds

class SETTINGS(ArrivalSettings):
    gap: Picoseconds

def arrive(traffic, settings, draw):
    return replace(traffic, arrival_ps=traffic.id * settings.gap)
"""
SERVICE = """
requests:
  count: 3
  prompt: {fixed: 10}
  output: {fixed: 1}
  arrivals: {process: even, gap: 1ms}
scheduler: {name: short-first, batch_cap: 1, short: 5}
cache: {blocks: 9}
step_time: {linear: {step_us: 5000, token_us: 0}}
replicas: {count: 2, router: last}
"""
PAGE = Path(__file__).parents[2] / "docs" / "pim-design.md"
SECTION = PAGE.read_text().partition("## A schedule of your own\n")[2]
LEVEL = SECTION.partition("```python\n")[2].partition("```")[0]
"""The schedule that the page shows."""
FILES = {
    "acme/__init__.py": "",
    "acme/configs/pim/acme-pim.yaml": "extends: neupims\nname: acme-pim\nelements_per_comp: 32\n",
    "acme/models/acme-1b.yaml": "extends: gpt3-7b\nname: acme-1b\nlayers: 2\n",
    "acme/schedules/one_stage.py": POLICY,
    "acme/schedules/level.py": LEVEL,
    "acme/dataflows/sleepy.py": DATAFLOW,
    "acme/designs/acme_isr.py": DESIGN,
    "acme/transforms/as_is.py": TRANSFORM,
    "acme/schedulers/short_first.py": SCHEDULER,
    "acme/routers/last.py": ROUTER,
    "acme/arrivals/even.py": ARRIVALS,
    "acme/configs/service/acme-chat.yaml": SERVICE,
    "acme-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n",
    "acme-1.0.dist-info/entry_points.txt": "[pimsim.plugins]\nacme = acme\n",
}


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """A folder that Python takes for one where the distribution is installed."""
    for name, text in FILES.items():
        path = tmp_path / "site" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "site"


def run(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "pimsim.cli.main", *arguments], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path}, timeout=300, check=False,
    )  # fmt: skip


def test_what_it_adds_is_found_by_name(acme: Path) -> None:
    assert "acme-pim" in json.loads(run(acme, "list", "--json").stdout)["pim"]
    shown = run(acme, "show", "acme-pim")
    assert "elements_per_comp: 32" in shown.stdout
    done = run(
        acme, "run", "neupims", "--model", "acme-1b", "--batch", "8", "--layers", "1", "--json",
        "--set", "pim=acme-pim", "--set", "schedule.sub_batches=false",
        "--set", "schedule.policy=one_stage", "--set", "memory.organization.rows=65536",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = json.loads(done.stdout)["stages"]
    assert [stage["name"] for stage in stages] == ["before", "attention", "after"]


def test_the_page_s_schedule_runs_and_overlaps(acme: Path) -> None:
    small = (
        "run", "neupims", "--model", "acme-1b", "--batch", "9", "--layers", "2", "--json",
        "--set", "memory.organization.rows=65536", "--set", "schedule.policy=level",
    )  # fmt: skip
    found = [
        json.loads(run(acme, *small, "--set", f"schedule.sub_batches={parts}").stdout)
        for parts in ("false", "3")
    ]
    for result, parts in zip(found, (1, 3), strict=True):
        assert [stage["name"] for stage in result["stages"]] == ["block 0", "block 1"]
        assert sum(o["name"] == "fc1" for o in result["operators"]) == 2 * parts
    # the banks work beside the NPU, which waits for them without sub-batches
    alone, beside = (result["cycle_stack"]["npu"].get("pim", 0) for result in found)
    assert beside < alone


def test_its_dataflow_is_one_among_ours(acme: Path) -> None:
    gemm = ("kernel", "gemm", "256", "256", "256", "--array", "128x128", "--json")
    ours = json.loads(run(acme, *gemm, "--dataflow", "ws").stdout)
    theirs = json.loads(run(acme, *gemm, "--dataflow", "sleepy").stdout)
    assert theirs["cycles"] == ours["cycles"] + 100
    wrong = run(acme, *gemm, "--dataflow", "sleepi")
    assert wrong.returncode == 2
    assert "did you mean 'sleepy'?" in wrong.stderr


def test_its_modules_are_loaded_by_name(acme: Path) -> None:
    code = (
        "from pimsim.hardware.pim.designs import aim, design_names\n"
        "from pimsim.config.plugins import load_module, plugin_versions\n"
        "from pimsim.workload.transforms import load_transform\n"
        "assert 'acme_isr' in design_names() and plugin_versions() == ('acme 1.0',)\n"
        "assert load_module('design', 'acme_isr').gemv is aim.gemv\n"
        "assert load_transform('as_is')()(7) == 7\n"
    )
    path = os.pathsep.join([str(acme), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("acme/configs/pim/newton.yaml", "extends: neupims\n", "pim 'newton' is there twice"),
        ("acme/schedules/serial.py", POLICY, "policy 'serial' is there already"),
        (
            "acme/schedules/nothing.py", "def stages(machine):\n    return ()\n",
            "has no SCHEDULE with uses_pim, at_once, max_parts",
        ),
        (
            "acme-1.0.dist-info/entry_points.txt", "[pimsim.plugins]\nacme = amce\n",
            "no package 'amce'",
        ),
    ],
)  # fmt: skip
def test_what_is_there_already_or_not_at_all_is_refused(
    acme: Path, name: str, text: str, said: str
) -> None:
    (acme / name).write_text(text)
    policy = ("--set", "schedule.policy=nothing") if "nothing" in name else ()
    done = run(acme, "run", "npu-pim", "--batch", "2", "--layers", "1", *policy)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_its_scheduler_router_and_arrivals_serve(acme: Path) -> None:
    done = run(acme, "serve", "acme-chat", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["requests"]["finished"] == 3
    assert found["time_s"] == 0.015  # one after the other on one of the two
    wrong = run(acme, "serve", "acme-chat", "--set", "scheduler.shrt=3")
    assert "did you mean 'short'?" in wrong.stderr
    missing = run(acme, "serve", "acme-chat", "--set", "scheduler.short=0")
    assert "scheduler.short: found 0; allowed: at least 1" in missing.stderr
