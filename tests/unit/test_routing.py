"""Routing traces, generators, capacity, and what OpenMoE found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names, preset_path
from pimsim.workload.batch import DeviceRouting
from pimsim.workload.moe import DROPPED, ExpertLoad, Routing, UniformRouting
from pimsim.workload.routing import load_routing
from pimsim.workload.routing.file import RoutingTrace, read_routing, write_routing
from pimsim.workload.routing.findings import (
    agreement_with,
    experts_hit,
    findings,
    uniform_control,
)
from pimsim.workload.routing.generators import TokenIdRouting, ZipfRouting
from pimsim.workload.routing.replay import CapacityLimit, TraceRouting, capacity, dropped
from pimsim.workload.routing.shape import MoeShape

LAYERS, EXPERTS, CHOSEN = 3, 8, 2
SHAPE = MoeShape("m", LAYERS, tuple(range(LAYERS)), EXPERTS, CHOSEN)


def made(tokens: int = 60, seed: int = 0) -> RoutingTrace:
    routing = UniformRouting(EXPERTS, CHOSEN, seed)
    random = np.random.default_rng(seed)
    return RoutingTrace(
        "m", "made up", LAYERS, EXPERTS, CHOSEN, np.arange(tokens) // 20, np.arange(tokens) % 20,
        random.integers(0, 9, tokens), tuple(range(LAYERS)),
        np.stack([routing.assignments(layer, tokens) for layer in range(LAYERS)]),
    )  # fmt: skip


def same(a: RoutingTrace, b: RoutingTrace) -> bool:
    pairs = zip(vars(a).values(), vars(b).values(), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def test_a_trace_reads_back_and_is_written_the_same_each_time(tmp_path: Path) -> None:
    trace = made()
    write_routing(trace, tmp_path / "a.parquet")
    write_routing(trace, tmp_path / "b.parquet")
    assert same(read_routing(tmp_path / "a.parquet"), trace)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def changed(tmp_path: Path, change: Any = None, meta: dict[str, Any] | None = None) -> Path:
    """A written trace with its table or metadata changed."""
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    write_routing(made(), path)
    table = pq.read_table(path)
    found = json.loads(table.schema.metadata[b"pimsim"]) | (meta or {})
    table = table if change is None else change(table)
    pq.write_table(table.replace_schema_metadata({"pimsim": json.dumps(found)}), path)
    return path


def test_metadata_nested_too_deep_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    write_routing(made(), path)
    table = pq.read_table(path).replace_schema_metadata({"pimsim": "[" * 100_000})
    pq.write_table(table, path)
    with pytest.raises(
        InputError, match=r"t\.parquet: metadata 'pimsim': no JSON: nested too deep"
    ):
        read_routing(path)


@pytest.mark.parametrize(
    ("change", "meta", "expected"),
    [
        (None, {"version": 2}, "version 2; this pimsim reads up to 1"),
        (None, {"format": "other"}, "no routing trace"),
        (None, {"experts": 4}, "the model has 0 to 3"),
        (None, {"experts": 7}, "expert 7; the model has 0 to 6"),
        (None, {"layers": 2}, "layer 2; the model has 0 to 1"),
        (None, {"experts_per_token": 3}, "must have 3 entries"),
        (lambda t: t.drop_columns(["token"]), None, "no column 'token'"),
        (lambda t: t.slice(0, 100), None, "fewer rows than another"),
        (lambda t: t.slice(0, 0), None, "it has no rows"),
    ],
)
def test_what_is_no_routing_is_refused(
    tmp_path: Path, change: Any, meta: dict[str, Any] | None, expected: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_routing(changed(tmp_path, change, meta))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_routing(made(), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="damaged"):
        read_routing(path)
    with pytest.raises(InputError, match="no such file"):
        read_routing(tmp_path / "none.parquet")


@pytest.mark.parametrize(
    "spec", ["uniform", "zipf:1.2", "zipf:0", "token-id", "token-id:0.8", "trace"]
)
def test_every_routing_gives_each_token_distinct_experts_and_the_same_again(
    spec: str, tmp_path: Path
) -> None:
    if spec == "trace":
        write_routing(made(), tmp_path / "t.parquet")
        spec = str(tmp_path / "t.parquet")
    routing: Routing = load_routing(spec, SHAPE, seed=3)
    found = routing.assignments(1, 100)
    assert found.shape == (100, CHOSEN)
    assert all(len(set(row)) == CHOSEN for row in found.tolist())
    assert 0 <= found.min() <= found.max() < EXPERTS
    again = load_routing(spec, SHAPE, seed=3)
    assert np.array_equal(again.assignments(1, 100), found)
    assert not np.array_equal(load_routing(spec, SHAPE, seed=4).assignments(1, 100), found)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("unifrom", "did you mean 'uniform'?"),
        ("zipf", "an exponent of 0 to 10 is expected"),
        ("zipf:x", "an exponent of 0 to 10 is expected"),
        ("zipf:nan", "an exponent of 0 to 10 is expected"),
        ("mixtral-8x7b", "layers is 32, the model has 3"),
    ],
)
def test_a_routing_that_is_not_there_or_does_not_fit_is_refused(spec: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_routing(spec, SHAPE)
    assert expected in str(caught.value)


def test_zipf_is_as_skewed_as_its_exponent() -> None:
    loads = []
    for exponent in (0.0, 1.0, 2.0):
        found = ZipfRouting(16, 1, exponent).assignments(0, 20_000)
        counts = np.sort(np.bincount(found.ravel(), minlength=16))[::-1]
        loads.append(counts[0] / counts.sum())
        expected = 1 / (1.0 / np.arange(1, 17) ** exponent).sum()
        assert counts[0] / counts.sum() == pytest.approx(expected, abs=0.015)
    assert loads == sorted(loads)


def test_tokens_of_one_id_go_to_the_same_experts() -> None:
    routing = TokenIdRouting(EXPERTS, CHOSEN, 1.0, vocab=50)
    ids, found = routing.ids(300), routing.assignments(2, 300)
    for token in set(ids.tolist()):
        rows = found[ids == token]
        assert (rows == rows[0]).all()
    assert len({tuple(row) for row in found.tolist()}) > 5


def test_a_batch_takes_the_same_tokens_of_a_trace_in_every_block() -> None:
    trace = made(40)
    marked = replace(trace, chosen=np.stack([trace.chosen[0]] * LAYERS))
    routing = TraceRouting(marked, seed=2)
    found = [routing.assignments(layer, 90) for layer in range(LAYERS)]
    assert all(np.array_equal(found[0], other) for other in found)
    once = np.sort(routing.assignments(0, 40), axis=0)
    assert np.array_equal(once, np.sort(marked.of_layer(0), axis=0))  # each token once
    with pytest.raises(InputError, match="block 7 has no rows"):
        routing.assignments(7, 1)


@given(st.integers(1, 60), st.floats(0.1, 3.0), st.integers(0, 1000))
def test_no_expert_takes_more_than_its_capacity_and_nobody_is_dropped_needlessly(
    tokens: int, factor: float, seed: int
) -> None:
    whole = UniformRouting(EXPERTS, CHOSEN, seed)
    limited = CapacityLimit(whole, factor, EXPERTS, CHOSEN)
    before, after = whole.assignments(0, tokens), limited.assignments(0, tokens)
    room = capacity(factor, tokens, CHOSEN, EXPERTS)
    load = np.bincount(after[after != DROPPED], minlength=EXPERTS)
    wanted = np.bincount(before.ravel(), minlength=EXPERTS)
    assert np.array_equal(load, np.minimum(wanted, room))
    assert ((after == before) | (after == DROPPED)).all()
    assert ExpertLoad.of(after, EXPERTS).assigned == load.sum()


def test_the_last_tokens_of_a_full_expert_are_dropped() -> None:
    every = np.zeros((5, 1), dtype=np.int64)
    assert dropped(every, 3, 2).ravel().tolist() == [0, 0, 0, DROPPED, DROPPED]
    second = np.array([[1, 0], [0, 1]])  # first choices go before second ones
    assert dropped(second, 1, 2).tolist() == [[1, DROPPED], [0, DROPPED]]


def test_findings_tell_a_specialised_routing_from_a_random_one() -> None:
    routing = TokenIdRouting(16, 2, 1.0, vocab=200)
    tokens = 1000
    base = RoutingTrace(
        "t", "made", 2, 16, 2, np.arange(tokens) // 100, np.arange(tokens) % 100,
        routing.ids(tokens), (0, 1),
        np.stack([routing.assignments(layer, tokens) for layer in (0, 1)]),
    )  # fmt: skip
    specialised, random = findings(base, 1.25), findings(uniform_control(base), 1.25)
    assert [row.same_token_overlap for row in specialised] == [1.0, 1.0]
    for row in random:
        assert row.same_token_overlap == pytest.approx(2 / 16, abs=0.02)
        assert row.random_overlap == pytest.approx(2 / 16, abs=0.02)
    assert specialised[0].max_over_mean > random[0].max_over_mean
    # a skewed load overflows late, so the last quarter loses most
    drops = specialised[0].dropped_by_quarter
    assert drops[0] < drops[-1]
    assert agreement_with(base, base) == [1.0, 1.0]
    with pytest.raises(InputError, match="same tokens"):
        agreement_with(made(60), base)


def test_a_load_is_over_what_was_not_dropped() -> None:
    """Four tokens of two choices, three of them dropped: 3, 1, 1 and 0 tokens, 1.25 on average."""
    choices = np.array([[0, 1], [0, DROPPED], [2, DROPPED], [0, DROPPED]])
    where = np.zeros(4, dtype=np.int64), np.arange(4), np.arange(4)
    (found,) = findings(RoutingTrace("t", "made", 1, 4, 2, *where, (0,), choices[None]), 1.25)
    assert (found.max_over_mean, found.min_over_mean, found.dead) == (3 / 1.25, 0.0, 1)


def test_experts_hit_by_uniform_batches_are_as_computed() -> None:
    for size, (found, expected) in experts_hit(uniform_control(made(4000))).items():
        assert found == pytest.approx(expected, rel=0.05), size


@pytest.mark.parametrize("name", preset_names("routing"))
def test_shipped_traces_read_and_say_where_they_are_from(name: str) -> None:
    path = preset_path("routing", name)
    trace = read_routing(path)
    assert path.stat().st_size < 200_000
    assert "pimsim" in trace.source
    assert ("generated, not measured" in trace.source) == (name == "mixtral-8x7b")


def test_training_separates_the_shipped_traces() -> None:
    """Specialised and balanced beyond what the untrained model has; early routing rises."""
    steps = [read_routing(preset_path("routing", f"tiny-moe-step-{n}")) for n in (0, 50, 100, 200)]
    trained = read_routing(preset_path("routing", "tiny-moe"))
    late, early = findings(trained, 1.25), findings(steps[0], 1.25)
    for after, before in zip(late, early, strict=True):
        assert after.same_token_overlap > before.same_token_overlap
        assert after.max_over_mean < max(before.max_over_mean, 2.2)
        assert after.dead == 0
        assert after.same_token_overlap > 3 * after.random_overlap
    agreed = [np.mean(agreement_with(step, trained)) for step in steps]
    assert agreed == sorted(agreed)


def test_hits_are_printed_above_those_of_independent_choices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pimsim.cli.routing import _print

    trace = {"tokens": 9, "same_first_choice_as_last": None, "layers": []}
    hits = {
        "early": {"1": (2.0, 2.1), "8": (5.24, 6.5)},
        "late": {"1": (2.0, 2.1), "8": (4.0, 6.5)},
    }
    rows = {name: {**trace, "experts_hit": each} for name, each in hits.items()}
    _print({"experts": 8, "experts_per_token": 2, "capacity_factor": 1.25, "traces": rows})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    at = lines.index(["trace", "1", "8"])
    assert [words for words in lines[at + 1 :] if len(words) > 1] == [
        ["early", "2.0", "5.2"], ["late", "2.0", "4.0"], ["independent", "choices", "2.1", "6.5"],
    ]  # fmt: skip


def test_groups_of_devices_hold_experts_in_a_row() -> None:
    """Six experts on three groups: 0 and 1, 2 and 3, 4 and 5; what is dropped is nobody's."""
    chosen = np.array([[0, 1], [1, 2], [5, DROPPED], [4, 0]])
    step = SimpleNamespace(assignments=lambda layer, tokens: chosen[:tokens])
    device: Any = DeviceRouting(step, 4, (0, 1, 2, 3), 6, 3)  # type: ignore[arg-type]
    assert device.group_tokens(0).tolist() == [4, 1, 2]
    assert device.assignments(0, 4).tolist() == [
        [0, 1], [1, DROPPED], [DROPPED, DROPPED], [DROPPED, 0]
    ]  # fmt: skip
