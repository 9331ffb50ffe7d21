"""What `import pimsim`, `pimsim --help` and `pimsim list` may not pull in; their time is measured
by hand."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer.main

import pimsim
from pimsim.cli.commands import COMMANDS, app

HEAVY = ("matplotlib", "numba", "numpy", "onnx", "pandas", "pyarrow", "pydantic", "simpy", "yaml")


def _modules_of(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stderr.split())


def _loaded_by(code: str) -> set[str]:
    return {name.partition(".")[0] for name in _modules_of(code)}


def _command(*words: str) -> str:
    return f"from pimsim.cli.commands import app\napp({list(words)}, standalone_mode=False)"


@pytest.mark.parametrize("code", ["import pimsim", "import pimsim.cli.commands"])
def test_importing_leaves_heavy_libraries_alone(code: str) -> None:
    loaded = _loaded_by(code)
    assert "pimsim" in loaded
    assert not loaded.intersection(HEAVY)


def test_help_imports_no_command_and_nothing_that_draws() -> None:
    modules = _modules_of(_command("--help"))
    commands = {f"pimsim.cli.{place.module}" for place in COMMANDS.values()}
    assert "pimsim.cli.commands" in modules
    assert not commands & modules
    assert not {"rich", "pydantic", *HEAVY} & {name.partition(".")[0] for name in modules}


def test_a_list_of_presets_imports_no_other_command() -> None:
    modules = _modules_of(_command("list"))
    commands = {f"pimsim.cli.{place.module}" for place in COMMANDS.values()}
    assert commands & modules == {"pimsim.cli.show"}
    # newer versions of typer would have pydantic convert what is text already
    loaded = {name.partition(".")[0] for name in modules}
    assert not ({"rich", *HEAVY} - {"yaml"}) & loaded


def test_a_run_loads_what_it_asks_for_alone() -> None:
    words = (
        "run", "neupims", "--model", "smollm2-135m", "--layers", "1", "--batch", "2", "--set",
        "parallel.tp=1", "--json",
    )  # fmt: skip
    modules = _modules_of(_command(*words))
    assert "pimsim.engine.iteration" in modules
    asked_by_others = {
        "pimsim.engine.xpu_machine", "pimsim.hardware.fabric.plan", "pimsim.hardware.pim.designs",
        "pimsim.hardware.pim.stream", "pimsim.mapping.kernels", "pimsim.result.xpu_build",
        "pimsim.workload.routing.file", "pimsim.workload.routing.generators", "pandas", "pyarrow",
    }  # fmt: skip
    assert not asked_by_others & modules


def test_garbage_is_looked_for_once_modules_are_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COLLECTOR], capture_output=True, text=True, check=True, timeout=60
    )
    before, loading, after, callbacks, frozen = done.stdout.split()
    # others in the process look for what refers to an object, which finds no frozen ones
    assert int(frozen) == 0
    assert int(loading) > 100 * int(before)
    assert after == before
    assert int(callbacks) == 0


_COLLECTOR = """
import gc
from pimsim.cli import edge
thresholds = [gc.get_threshold()[0]]
edge._collect_later()
thresholds.append(gc.get_threshold()[0])
kept = [[] for _ in range(edge.LOADED_OBJECTS + 10)]
print(*thresholds, gc.get_threshold()[0], len(gc.callbacks), gc.get_freeze_count())
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_list_is_there_and_says_more(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    assert command.name == name
    assert command.help
    assert command.hidden == COMMANDS[name].hidden
    assert len(COMMANDS[name].summary) < 64
    assert COMMANDS[name].summary.endswith(".")


@pytest.mark.parametrize("name", [name for name in pimsim.__all__ if name != "__version__"])
def test_every_public_name_resolves(name: str) -> None:
    assert callable(getattr(pimsim, name))
    assert name in dir(pimsim)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        pimsim.simulat  # noqa: B018  # the access is the test
