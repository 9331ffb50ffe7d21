"""Sparsity traces, unions, laws, and what hardware makes of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names, preset_path
from pimsim.workload.cards import load_card
from pimsim.workload.decode import card_pass
from pimsim.workload.requests import Request
from pimsim.workload.sparsity import load_sparsity
from pimsim.workload.sparsity.file import SparsityTrace, read_sparsity, write_sparsity
from pimsim.workload.sparsity.laws import BOTTLENECK, COEFFICIENTS, activation_ratio
from pimsim.workload.sparsity.spec import LawSparsity, TraceSparsity
from pimsim.workload.sparsity.union import GRANULARITIES, by_popularity, kept, unions
from pimsim.workload.step import Step
from pimsim.workload.transforms.sparse_ffn import sparse_ffn

masks = hnp.arrays(np.bool_, st.integers(1, 300))


def made(layers: int = 2, tokens: int = 9, ffn: int = 21) -> SparsityTrace:
    active = np.random.default_rng(0).random((layers, tokens, ffn)) < 0.3
    return SparsityTrace("m", "made up", ffn, np.arange(tokens), active, {"cett": 0.1})


def test_a_trace_reads_back(tmp_path: Path) -> None:
    trace = made()
    write_sparsity(trace, tmp_path / "a.parquet")
    found = read_sparsity(tmp_path / "a.parquet")
    assert np.array_equal(found.active, trace.active)
    assert np.array_equal(found.token, trace.token)
    assert (found.model, found.source, found.ffn) == (trace.model, trace.source, trace.ffn)
    assert found.measured == trace.measured


def test_metadata_nested_too_deep_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    write_sparsity(made(), path)
    table = pq.read_table(path).replace_schema_metadata({"pimsim": "[" * 100_000})
    pq.write_table(table, path)
    with pytest.raises(
        InputError, match=r"t\.parquet: metadata 'pimsim': no JSON: nested too deep"
    ):
        read_sparsity(path)


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"version": 9}, "reads up to 1"),
        ({"format": "x"}, "no sparsity trace"),
        ({"ffn": 40}, "has 5 bytes"),
        ({"layers": 4}, "18 rows for 4 layers"),
        ({"layers": 3}, "each of 3 layers must have"),
        ({"layers": 0}, "layers is 0"),
    ],
)
def test_what_is_no_sparsity_is_refused(
    tmp_path: Path, meta: dict[str, Any], expected: str
) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    write_sparsity(made(), path)
    table = pq.read_table(path)
    found = json.loads(table.schema.metadata[b"pimsim"]) | meta
    pq.write_table(table.replace_schema_metadata({"pimsim": json.dumps(found)}), path)
    with pytest.raises(InputError) as caught:
        read_sparsity(path)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_sparsity(made(), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="damaged"):
        read_sparsity(path)


@given(masks, st.integers(1, 64))
def test_groups_are_kept_whole_and_no_active_feature_is_lost(
    mask: np.ndarray[Any, Any], granularity: int
) -> None:
    left = kept(mask, granularity)
    assert left.shape == mask.shape
    assert (left >= mask).all()
    for start in range(0, len(mask), granularity):
        group = slice(start, start + granularity)
        assert set(left[group].tolist()) == {bool(mask[group].any())}


@given(masks, st.integers(0, 5), st.integers(0, 5))
def test_coarser_hardware_never_skips_more(
    mask: np.ndarray[Any, Any], small: int, more: int
) -> None:
    fine, coarse = 2**small, 2 ** (small + more)
    assert kept(mask, coarse).sum() >= kept(mask, fine).sum() >= mask.sum()


def test_the_union_grows_with_the_batch_and_follows_independence_when_independent() -> None:
    active = np.random.default_rng(1).random((1, 400, 3000)) < 0.2
    rows = unions(SparsityTrace("m", "s", 3000, np.zeros(400, dtype=np.int64), active))
    shares = [row.random for row in rows]
    assert shares == sorted(shares)
    for row in rows:
        assert row.random == pytest.approx(row.independent, abs=0.02)


def test_popular_features_come_first() -> None:
    active = np.array([[0, 1, 1], [0, 1, 0], [0, 1, 1]], dtype=np.bool_)
    assert by_popularity(active).tolist() == [1, 2, 0]


@pytest.mark.parametrize("size", COEFFICIENTS["relu"])
def test_the_laws_go_the_way_the_paper_says(size: str) -> None:
    data = [10, 100, 1000, 100_000]
    relu = [activation_ratio("relu", size, d) for d in data]
    silu = [activation_ratio("silu", size, d) for d in data]
    assert relu == sorted(relu, reverse=True)
    assert silu == sorted(silu)
    assert silu[-1] == pytest.approx(COEFFICIENTS["silu"][size].limit, rel=0.01)
    assert relu[-1] >= COEFFICIENTS["relu"][size].limit
    narrow = activation_ratio("relu", size, 1000, BOTTLENECK / 2)
    assert narrow < activation_ratio("relu", size, 1000, BOTTLENECK)
    assert activation_ratio("relu", size, 1000, 500) == activation_ratio("relu", size, 1000)


def test_the_generator_has_the_laws_ratio() -> None:
    source = load_sparsity("law:silu:tokens=1000", layers=4, ffn=20_000, seed=1)
    assert source is not None
    expected = activation_ratio("silu", "1.2b", 1000)
    for layer in range(3):
        assert source.active(layer, 50).mean() == pytest.approx(expected, abs=0.02)
        assert np.array_equal(source.active(layer, 5), source.active(layer, 5))


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("law:gelu", "no law for 'gelu'"),
        ("law:relu:token=3", "did you mean 'tokens'?"),
        ("law:relu:tokens=-3", "must be a number above 0"),
        ("law:relu:size=7b", "known: 0.1b"),
        ("nothing", "neither 'none' nor law:"),
        ("smollm2-135m", "layers is 30, the model has 4"),
    ],
)
def test_a_sparsity_that_is_not_there_or_does_not_fit_is_refused(spec: str, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        load_sparsity(spec, layers=4, ffn=64)
    assert expected in str(caught.value)


def test_groups_of_no_features_and_unknown_predictors_are_refused() -> None:
    with pytest.raises(InputError, match=r"granularity is 0; at least 1"):
        sparse_ffn(union=lambda _: np.ones(4, dtype=np.bool_), granularity=0)
    with pytest.raises(InputError, match=r"predictor is 'all'; allowed: none, oracle"):
        sparse_ffn(union=lambda _: np.ones(4, dtype=np.bool_), granularity=1, predictor="all")


def iteration(tp: int = 1) -> Any:
    requests = [
        Request(id=i, arrival_s=0.0, prompt_tokens=9, output_tokens=1, generated_tokens=0)
        for i in range(3)
    ]
    return card_pass(load_card("llama-3-8b"), Step.decode(requests), tp=tp, pp=1, layers=2)


def test_the_second_product_loses_rows_and_the_first_columns_if_they_are_known() -> None:
    before = iteration()
    features = before.blocks[0].operator("fc2").k
    mask = np.zeros(features, dtype=np.bool_)
    mask[: features // 4] = True
    blind = sparse_ffn(union=lambda _: mask, granularity=128)(before)
    seen = sparse_ffn(union=lambda _: mask, granularity=128, predictor="oracle")(before)
    for name, dim in (("fc2", "k"), ("fc1", "n")):
        whole, part = before.blocks[0].operator(name), seen.blocks[0].operator(name)
        for size in (dim, "flops", "weight_bytes"):
            assert getattr(part, size) * 4 == getattr(whole, size), (name, size)
    assert blind.blocks[0].operator("fc1") == before.blocks[0].operator("fc1")
    known = replace(blind.blocks[0].operator("fc2"), weights_chosen=False)
    assert known == seen.blocks[0].operator("fc2")
    assert blind.blocks[0].operator("fc2").weights_chosen
    everything = sparse_ffn(
        union=lambda _: np.ones(features, dtype=np.bool_), granularity=1, predictor="oracle"
    )(before)
    assert everything == before


@pytest.mark.parametrize("order", ["as-trained", "popularity"])
def test_a_run_gains_no_more_than_its_masks_and_loses_nothing(order: str) -> None:
    options = {"model": "llama-3-8b", "batch": 2, "layers": 1}
    dense = pimsim.run("npu-only", **options)  # type: ignore[arg-type]
    sparse = pimsim.run(
        "npu-only", **options,  # type: ignore[arg-type]
        overrides=["workload.sparsity=law:relu", f"workload.sparsity_order={order}"],
    )  # fmt: skip
    ends = [next(o.cycles for o in r.operators if o.name == "fc2") for r in (dense, sparse)]
    if order == "as-trained":
        # every tile of 128 has an active feature, but the machine cannot know that before
        assert ends[0] < ends[1] < 1.05 * ends[0]
    else:
        assert ends[1] < ends[0]
        assert sparse.cycles < dense.cycles
    assert GRANULARITIES["systolic tile"] == 128


@pytest.mark.parametrize("name", preset_names("sparsity"))
def test_shipped_traces_show_that_a_batch_of_eight_leaves_little(name: str) -> None:
    path = preset_path("sparsity", name)
    trace = read_sparsity(path)
    assert path.stat().st_size < 200_000
    shares = {row.batch: row.random for row in unions(trace)}
    assert 0 < shares[1] < shares[8] <= 1
    assert shares[8] > 0.9 or name == "tiny-relu"


@pytest.mark.parametrize("tokens", [1, 4, 9, 10, 30])
def test_each_token_has_a_row_of_features_in_every_block(tokens: int) -> None:
    """Whether a trace has fewer tokens or more; each is drawn as often as another one, nearly."""
    trace = made()
    drawn = TraceSparsity(trace, 3)
    for source in (drawn, LawSparsity(0.25, 21, 3)):
        rows = [source.active(layer, tokens) for layer in (0, 1)]
        assert [each.shape for each in rows] == [(tokens, 21)] * 2
    rows = []
    for layer in (0, 1):
        known = trace.active[layer].tolist()
        rows.append([known.index(row) for row in drawn.active(layer, tokens).tolist()])
    assert rows[0] == rows[1]
    times = [rows[0].count(token) for token in range(9)]
    assert max(times) - min(times) <= 1
