"""Runs put together from presets, files and overrides, each value with its origin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pimsim.config.documents import Resolved
from pimsim.config.errors import InputError
from pimsim.config.loader import (
    CONFIG_MODELS,
    load_energy,
    load_memory,
    load_npu_of,
    load_pim,
    load_preset,
    load_run,
)
from pimsim.config.resources import preset_names

SHIPPED = [(kind, name) for kind in CONFIG_MODELS for name in preset_names(kind)]


def _write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def _refusal(name: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load_run(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# every shipped preset


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_preset_loads_and_is_named_as_its_file(kind: str, name: str) -> None:
    resolved = load_preset(kind, name)
    assert resolved.config.model_dump()["name"] == name


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
@pytest.mark.parametrize("with_origins", [False, True])
def test_a_resolved_preset_written_as_yaml_loads_to_the_same_config(
    kind: str, name: str, with_origins: bool, tmp_path: Path
) -> None:
    before = load_preset(kind, name)
    path = _write(tmp_path, "copy.yaml", before.to_yaml(with_origins=with_origins))
    after = load_preset(kind, path)
    assert after.config == before.config
    assert after.sha256 == before.sha256


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_every_leaf_of_a_preset_has_an_origin(kind: str, name: str) -> None:
    resolved = load_preset(kind, name)
    for key, origin in resolved.origins.items():
        assert origin == "default" or re.fullmatch(r"configs/\w+/[\w-]+\.yaml:[0-9]+", origin), key


# presets by section


def test_the_section_loaders_give_what_the_run_holds() -> None:
    run = load_run("neupims").config
    assert load_memory("hbm2-neupims").config == run.memory
    assert run.pim is not None
    assert (
        load_pim("neupims").config.model_dump(exclude={"device", "memory"}) == run.pim.model_dump()
    )
    assert load_energy("default").config == run.energy
    assert load_npu_of("neupims") == run.npu


# extends


def test_a_child_changes_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    path = _write(tmp_path, "mine.yaml", "extends: neupims\nnpu:\n  systolic:\n    arrays: 4\n")
    child, parent = load_run(path), load_run("neupims")
    systolic = parent.config.npu.systolic.model_copy(update={"arrays": 4})
    npu = parent.config.npu.model_copy(update={"systolic": systolic})
    assert child.config == parent.config.model_copy(update={"npu": npu, "name": "mine"})
    assert child.origins["npu.systolic.arrays"] == f"{path}:4"
    assert child.origins["npu.systolic.rows"] == parent.origins["npu.systolic.rows"]


def test_a_sections_extends_and_its_bare_name_mean_the_same(tmp_path: Path) -> None:
    bare = _write(tmp_path, "a.yaml", "extends: neupims\nname: x\nmemory: hbm2-neupims-artifact\n")
    long = _write(
        tmp_path, "b.yaml", "extends: neupims\nname: x\nmemory: {extends: hbm2-neupims-artifact}\n"
    )
    assert load_run(bare).config == load_run(long).config


def test_a_section_without_extends_changes_the_inherited_one(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "a.yaml",
        "extends: neupims-artifact-main\nmemory:\n  controller: {row_hit_cap: 7}\n",
    )
    inherited = load_memory("hbm2-neupims-artifact").config
    controller = inherited.controller.model_copy(update={"row_hit_cap": 7})
    assert load_run(path).config.memory == inherited.model_copy(update={"controller": controller})


def test_a_section_with_extends_replaces_the_inherited_one(tmp_path: Path) -> None:
    path = _write(
        tmp_path,
        "a.yaml",
        "extends: neupims-artifact-main\n"
        "memory:\n  extends: hbm2-neupims\n  controller: {row_hit_cap: 7}\n",
    )
    named = load_memory("hbm2-neupims").config
    controller = named.controller.model_copy(update={"row_hit_cap": 7})
    assert load_run(path).config.memory == named.model_copy(update={"controller": controller})


def test_a_grandchilds_section_merges_with_its_parents_replacement(tmp_path: Path) -> None:
    _write(
        tmp_path, "parent.yaml", "extends: neupims-artifact-main\nmemory: {extends: hbm2-neupims}\n"
    )
    path = _write(
        tmp_path, "child.yaml", "extends: ./parent.yaml\nmemory: {controller: {row_hit_cap: 7}}\n"
    )
    resolved = load_run(path)
    assert resolved.config.memory.name == "hbm2-neupims"
    assert resolved.config.memory.controller.row_hit_cap == 7


def test_null_removes_the_pim(tmp_path: Path) -> None:
    text = "extends: neupims\npim: null\nschedule: {policy: serial, sub_batches: false}\n"
    assert load_run(_write(tmp_path, "a.yaml", text)).config.pim is None


def test_a_memory_file_extends_a_preset(tmp_path: Path) -> None:
    path = _write(tmp_path, "slow.yaml", "extends: hbm2-neupims\ntimings: {tRP: 20}\n")
    base, slow = load_memory("hbm2-neupims").config, load_memory(path).config
    assert slow.timings == {**base.timings, "tRP": 20}
    assert slow.rules == base.rules
    assert slow.name == "slow"


def test_relative_paths_count_from_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    _write(tmp_path, "memory.yaml", "extends: hbm2-neupims\ntCK: 2ns\n")
    path = _write(
        tmp_path / "sub",
        "run.yaml",
        "extends: neupims\nmemory: ../memory.yaml\n"
        "workload: {requests: mine.csv, model: gpt3-13b}\n",
    )
    config = load_run(path).config
    assert config.memory.tCK == 2000
    assert config.workload.requests == str(tmp_path / "sub" / "mine.csv")
    assert config.workload.model == "gpt3-13b"


def test_extends_in_a_circle_is_refused_with_the_chain(tmp_path: Path) -> None:
    _write(tmp_path, "a.yaml", "extends: ./b.yaml\n")
    _write(tmp_path, "b.yaml", "extends: ./a.yaml\n")
    message = _refusal(str(tmp_path / "a.yaml"))
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    assert f"extends goes in a circle: {a} -> {b} -> {a}" in message


def test_a_file_that_extends_itself_through_a_section_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.yaml", "extends: neupims\nmemory: ./a.yaml\n")
    assert "extends goes in a circle" in _refusal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: neupim\n", ":1: unknown hardware 'neupim'; did you mean 'neupims'"),
        ("extends: [neupims]\n", ":1: extends takes the name of a hardware preset or a path"),
        ("extends: ./none.yaml\n", ":1: ./none.yaml: no such file"),
        ("extends: neupims\nmemory: hbm2-neupim\n", ":2: unknown memory 'hbm2-neupim'"),
        ("extends: neupims\nmemory: {extends: 3}\n", ":2: extends takes the name of a memory"),
    ],
)
def test_what_cannot_be_extended_is_named_with_its_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = _write(tmp_path, "a.yaml", text)
    assert f"{path}{message}" in _refusal(path)


# what is wrong is said with file, line, key, what was found and what is allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("npu: {frequncy: 1GHz}", "unknown key 'npu.frequncy'; did you mean 'frequency'?; allowed"),
        ("npuu: 1", "unknown key 'npuu'; did you mean 'npu'?"),
        ("npu: {frequency: 1Ghz}", "npu.frequency: unit 'Ghz' of '1Ghz' is none of Hz, kHz"),
        ("npu: {systolic: {rows: 0}}", "npu.systolic.rows: found 0; allowed: at least 1"),
        ("npu: {systolic: {rows: 1.5}}", "npu.systolic.rows: found 1.5; a whole number is"),
        ("npu: {systolic: {rows: true}}", "npu.systolic.rows: found true; a whole number is"),
        ("npu: {systolic: {rows: '8'}}", "npu.systolic.rows: found '8'; a whole number is"),
        ("npu: {systolic: {rows: null}}", "npu.systolic.rows: found null; a whole number is"),
        ("npu: {systolic: {dataflow: wss}}", "'wss'; did you mean 'ws'?; allowed: is, os, ws"),
        ("npu: {systolic: 3}", "npu.systolic: found 3; a mapping of keys to values is expected"),
        ("npu: {prefetch_weights: yes}", "npu.prefetch_weights: found 'yes'; true or false is"),
        ("npu: [1]", "npu: found a list; a mapping of keys to values is expected"),
        ("link: {bandwidth_gb_per_s: 0}", "found 0; allowed: at least 0.001"),
        ("link: {bandwidth_gb_per_s: fast}", "found 'fast'; a number is expected"),
        ("workload: {batch: -4}", "workload.batch: found -4; allowed: at least 1"),
        ("pim: null", "schedule.policy 'interleaved' needs a pim section"),
        ("memory: {organization: {channels: 33}}", "organization.channels is 33, but the address"),
        (
            "memory: {timings: {tRP: -1}}",
            "timings.tRP: found -1; allowed: at least 0, at most",
        ),
        ("memory: {address_map: rorabgbachch}", "address_map 'rorabgbachch' must hold each of"),
        ("memory: {rules: [{level: bnk}]}", "memory.rules.0."),
        ("pim: 7", "pim: found 7; a mapping of keys to values is expected"),
    ],
)
def test_a_wrong_value_is_named_with_its_line_and_what_is_allowed(
    tmp_path: Path, text: str, message: str
) -> None:
    path = _write(tmp_path, "a.yaml", f"extends: neupims\n\n{text}\n")
    refusal = _refusal(path)
    assert message in refusal
    assert refusal.startswith((f"{path}:3: ", "configs/hardware/neupims.yaml:")), refusal


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = _write(tmp_path, "a.yaml", "name: x\nnpu:\n  frequency: 1GHz\n")
    assert re.search(r"a\.yaml:[12]: \S+ is missing \(and [0-9]+ more\)", _refusal(path))


def test_a_validators_message_points_at_the_line_of_the_value_it_blames(tmp_path: Path) -> None:
    path = _write(
        tmp_path, "a.yaml", "extends: neupims\nmemory:\n  organization:\n    banks_per_group: 3\n"
    )
    assert f"{path}:4: memory.organization.banks_per_group is 3, but the address map needs a " in (
        _refusal(path)
    )


# overrides


def test_set_changes_a_value_and_says_so() -> None:
    resolved = load_run("neupims", ["npu.frequency=2GHz", "schedule.sub_batches=false"])
    assert resolved.config.npu.frequency == 2 * 10**9
    assert resolved.config.schedule.sub_batches is False
    assert resolved.origins["npu.frequency"] == "--set"


def test_the_last_set_wins() -> None:
    assert load_run("neupims", ["seed=1", "seed=2"]).config.seed == 2


def test_set_replaces_a_whole_section_by_a_preset() -> None:
    changed = load_run("neupims", ["pim=newton", "memory.controller.row_hit_cap=7"])
    newton = load_pim("newton").config.model_dump(exclude={"device", "memory"})
    assert changed.config.pim is not None
    assert changed.config.pim.model_dump() == newton
    assert changed.config.memory.controller.row_hit_cap == 7


def test_set_takes_a_mapping_and_merges_it() -> None:
    config = load_run("neupims", ["npu.systolic={rows: 64, cols: 64}"]).config
    before = load_run("neupims").config.npu.systolic
    assert config.npu.systolic == before.model_copy(update={"rows": 64, "cols": 64})


def test_set_reaches_a_section_that_the_file_leaves_to_its_default(tmp_path: Path) -> None:
    origins = load_run("neupims", ["memory.controller.scheduler=fr-fcfs"]).origins
    assert origins["memory.controller.scheduler"] == "--set"


def test_the_hash_follows_the_values_and_nothing_else() -> None:
    plain: Resolved[object] = load_run("neupims")
    rows = plain.config.npu.systolic.rows
    assert load_run("neupims", [f"npu.systolic.rows={rows}"]).sha256 == plain.sha256
    assert load_run("neupims", [f"npu.systolic.rows={rows * 2}"]).sha256 != plain.sha256


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("npu.frequncy=1GHz", "unknown key 'npu.frequncy'; did you mean 'frequency'?; allowed: "),
        ("npuu.frequency=1GHz", "unknown key 'npuu'; did you mean 'npu'?"),
        ("memory.timings.tRPP=3", "unknown key 'memory.timings.tRPP'; did you mean 'tRP'?"),
        ("npu.frequency.hz=1", "--set npu.frequency.hz=1: npu.frequency has no keys"),
        ("memory.rules.0.delay=tRP", "memory.rules has no keys; set it whole"),
        ("npu.frequency", "key.of.it=value expected"),
        ("=3", "key.of.it=value expected"),
        ("npu..frequency=3", "key.of.it=value expected"),
        ("seed=-1", "--set: seed: found -1; allowed: at least 0"),
        ("seed=.nan", "found .nan; a finite number is expected"),
        ("seed={a: 1", "not valid YAML"),
        ("pim=newtn", "unknown pim 'newtn'; did you mean 'newton'?"),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str) -> None:
    assert message in _refusal("neupims", override)


def test_set_inside_a_null_section_says_how_to_give_it_a_value() -> None:
    message = _refusal("npu-only", "pim.row_buffers=2")
    assert "pim is null here; give it a value first, such as --set pim=" in message


# keys of a design by itself


def test_a_designs_device_stays_with_the_design(tmp_path: Path) -> None:
    """It is what kernels take; a run that names the design, or extends it, has its own."""
    assert load_pim("neupims-artifact").config.device == "neupims-artifact-main"
    own = _write(tmp_path, "own.yaml", "extends: neupims-artifact\n")
    assert load_pim(own).config.device == "neupims-artifact-main"
    assert load_pim(own, ["device=npu-pim"]).config.device == "npu-pim"
    for text in (own, f"{{extends: {own}, row_buffers: 2}}"):
        run = load_run("neupims", [f"pim={text}"])
        assert run.config.pim is not None
        assert not run.config.pim.timed_comps
        assert "device" not in run.config.pim.model_dump()


@pytest.mark.parametrize(
    "pim", ["{device: npu-pim}", "{extends: neupims-artifact, device: npu-pim}"]
)
def test_a_run_refuses_a_designs_device(pim: str, tmp_path: Path) -> None:
    path = _write(tmp_path, "run.yaml", f"extends: neupims\npim: {pim}\n")
    assert f"{path}:2: unknown key 'pim.device'" in _refusal(path)
    assert "--set pim.device=npu-pim: unknown key 'pim.device'" in _refusal(
        "neupims", "pim.device=npu-pim"
    )
    assert "--set: unknown key 'pim.device'" in _refusal("neupims", f"pim={pim}")
