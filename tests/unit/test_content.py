"""One hash of all that a result depends on: each thing by itself changes it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pimsim.config import content
from pimsim.config.area import AreaConfig
from pimsim.config.content import digest, folder_sha256, run_content, sources_sha256
from pimsim.config.documents import Resolved
from pimsim.config.loader import load_area, load_pim, load_run
from pimsim.config.plugins import Plugin
from pimsim.config.run import RunConfig
from pimsim.explore.keys import Contents, point_id, result_key
from pimsim.hardware.dram.fast.calibration import calibration_file
from pimsim.hardware.dram.fast.probe import Probe
from pimsim.simulate import resolve, simulate
from pimsim.workload.batch import input_hashes, traces_sha256

INPUTS = {"requests": "a", "model": "b"}


def _key(*overrides: str) -> str:
    return result_key(load_run("neupims", overrides), Contents())


def _leaves(values: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        if isinstance(value, (dict, list)) and value:
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


class _Config:
    """A config that says what it is told to."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def model_dump(self, mode: str) -> Any:
        return self.values


def test_each_value_of_the_config_changes_it() -> None:
    whole: RunConfig = load_run("neupims").config
    values = whole.model_dump(mode="json")
    seen = {run_content(load_run("neupims"), INPUTS)}
    leaves = list(_leaves(values))
    assert len(leaves) > 100
    for path in leaves:
        changed = json.loads(json.dumps(values))
        inner = changed
        for step in path[:-1]:
            inner = inner[step]
        inner[path[-1]] = "other"
        seen.add(run_content(Resolved(_Config(changed)), INPUTS))  # type: ignore[type-var]
    assert len(seen) == len(leaves) + 1


@pytest.fixture
def kinds(
    tmp_path: Path, tiny_card: Path, write_trace: Callable[[Sequence[int]], Path], repo_dir: Path
) -> dict[str, Path]:
    """A file of one's own for each key of ``workload`` that names one."""
    from pimsim.config.resources import find_source

    found = {
        "model": tmp_path / "card.yaml", "requests": tmp_path / "requests.csv",
        "trace": tmp_path / "operators.json", "routing": tmp_path / "routing.parquet",
        "sparsity": tmp_path / "sparsity.parquet",
    }  # fmt: skip
    shutil.copy(tiny_card, found["model"])
    shutil.copy(write_trace([30, 500]), found["requests"])
    sources = (
        ("trace", "operators", "mixtral-8x7b"), ("routing", "routing", "mixtral-8x7b"),
        ("sparsity", "sparsity", ""),
    )  # fmt: skip
    for key, kind, name in sources:
        if name:
            shutil.copy(find_source(kind, name), found[key])
        else:
            found[key].write_bytes(b"masks")
    return found


@pytest.mark.parametrize("key", ["model", "requests", "trace", "routing", "sparsity"])
def test_other_content_at_the_same_path_is_another_result(kinds: dict[str, Path], key: str) -> None:
    beside = {"trace": kinds["trace"]} if key in ("routing", "trace") else {}
    given = [f"workload.{name}={json.dumps(str(kinds[name]))}" for name in {key, *beside}]
    before = _key(*given)
    assert before == _key(*given)
    path = kinds[key]
    if path.suffix in (".yaml", ".csv"):
        text = path.read_text()
        changed = text.replace("1024", "2048") if key == "model" else text.replace(",500", ",501")
        assert changed != text
        path.write_text(changed)
    else:
        path.write_bytes(path.read_bytes() + b"\n")
    assert _key(*given) != before


def test_a_comment_in_a_card_changes_nothing(kinds: dict[str, Path]) -> None:
    given = f"workload.model={json.dumps(str(kinds['model']))}"
    before = _key(given)
    kinds["model"].write_text("# a comment\n" + kinds["model"].read_text())
    assert _key(given) == before


def test_a_file_in_another_role_is_another_result() -> None:
    hashes = [
        traces_sha256({"requests": "a"}), traces_sha256({"requests": "a", "routing": "b"}),
        traces_sha256({"requests": "a", "sparsity": "b"}),
        traces_sha256({"requests": "b", "routing": "a"}),
    ]  # fmt: skip
    assert len(set(hashes)) == 4
    assert hashes[0] == "a"
    assert traces_sha256({"requests": "a", "model": "m"}) == "a"


def test_areas_sources_and_plugins_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = load_run("neupims")
    found = [run_content(resolved, INPUTS)]
    area = load_area()
    for name in AreaConfig.model_fields:
        value = getattr(area.config, name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            other = Resolved(area.config.model_copy(update={name: value * 2 + 1}))
            with monkeypatch.context() as patch:
                patch.setattr("pimsim.config.loader.load_area", lambda other=other: other)
                found.append(run_content(resolved, INPUTS))
    assert len(found) > 3
    with monkeypatch.context() as patch:
        patch.setattr(content, "sources_sha256", lambda: "edited")
        found.append(run_content(resolved, INPUTS))
    for version, text in (("1", "x = 1"), ("2", "x = 1"), ("1", "x = 2")):
        (tmp_path / "policy.py").write_text(text)
        plugin = Plugin("mine", "mine", tmp_path, version)
        content._plugins.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(content, "plugins", lambda plugin=plugin: (plugin,))
            found.append(run_content(resolved, INPUTS))
        content._plugins.cache_clear()
    found += [run_content(resolved, {**INPUTS, key: "other"}) for key in INPUTS]
    assert len(set(found)) == len(found)
    assert run_content(resolved, INPUTS) == found[0]


def test_sources_are_hashed_by_name_and_content(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.py").write_text("x = 1")
    (tmp_path / "inner" / "b.py").write_text("y = 1")
    found = [folder_sha256(tmp_path)]
    (tmp_path / "notes.txt").write_text("no source")
    assert folder_sha256(tmp_path) == found[0]
    (tmp_path / "inner" / "b.py").write_text("y = 2")
    found.append(folder_sha256(tmp_path))
    (tmp_path / "inner" / "b.py").rename(tmp_path / "inner" / "c.py")
    found.append(folder_sha256(tmp_path))
    (tmp_path / "a.py").write_text("")
    found.append(folder_sha256(tmp_path))
    assert len(set(found)) == 4
    names = content.SIMULATION
    assert len({sources_sha256(names[:count]) for count in range(len(names) + 1)}) > len(names)


def test_all_that_a_simulation_loads_is_hashed() -> None:
    script = (
        "import sys; from pimsim.simulate import resolve, simulate\n"
        "for name in ('neupims', 'npu-only'):\n"
        "    for fidelity in ('command', 'fast'):\n"
        "        simulate(resolve(name, ['workload.model=smollm2-135m', 'workload.layers=1',\n"
        "            'workload.batch=2', 'parallel.tp=1', f'fidelity={fidelity}',\n"
        "            'workload.decoding=prompt_lookup:tokens=1.5']))\n"
        "print(*(n for n in sys.modules if n.startswith('pimsim.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300
    )
    loaded = {name.split(".")[1] for name in done.stdout.split()}
    hashed = {name.removesuffix(".py") for name in content.SIMULATION}
    assert "engine" in loaded
    assert loaded <= hashed


def test_no_two_lists_of_values_are_one() -> None:
    assert digest("ab", "c") != digest("a", "bc")
    assert digest(["a"], "b") != digest("a", ["b"])
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_points_and_results_are_known_by_each_of_their_parts() -> None:
    points = [
        point_id("a", ["x=1", "y=2"]), point_id("b", ["x=1", "y=2"]), point_id("a", ["x=1"]),
        point_id("a", ["x=1", "y=3"]),
    ]  # fmt: skip
    assert len(set(points)) == 4
    assert point_id("a", ["y=2", "x=1"]) == points[0]
    keys = [_key(), _key("seed=7"), _key("workload.batch=8"), _key("workload.layers=3")]
    assert len(set(keys)) == 4


def test_provenance_is_the_hash_that_stores_use(tiny_card: Path) -> None:
    given = [f"workload.model={json.dumps(str(tiny_card))}", "workload.batch=2", "parallel.tp=1"]
    resolved = resolve("npu-only", given)
    found = simulate(resolved).provenance.content_sha256
    assert found == run_content(resolved, input_hashes(resolved.config.workload))
    assert found.startswith(result_key(resolved, Contents()))


def test_calibrations_are_kept_by_memory_design_and_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIMSIM_CACHE_DIR", str(tmp_path))
    memory, pim = load_run("neupims").config.memory, load_pim("neupims").config
    slower = memory.model_copy(update={"timings": {**memory.timings, "tRP": 40}})
    probes = [Probe(memory, None), Probe(memory, pim), Probe(slower, None)]
    probes += [Probe(memory, load_pim("newton").config)]
    found = [calibration_file(probe) for probe in probes]
    with monkeypatch.context() as patch:
        patch.setattr("pimsim.hardware.dram.fast.calibration.sources_sha256", lambda _: "edited")
        found.append(calibration_file(probes[0]))
    assert len(set(found)) == len(found)
