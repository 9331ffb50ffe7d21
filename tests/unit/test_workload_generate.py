"""Our request traces: published means, warmed-up positions, the same bytes for the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.resources import preset_names, preset_path
from pimsim.workload.generate import (
    DATASETS,
    draw_requests,
    generate_trace,
    length_probabilities,
    seen_output_probabilities,
)
from pimsim.workload.requests import load_requests

SHIPPED_SEED = 1
SHIPPED = [(dataset, count) for dataset in DATASETS for count in (64, 128, 256, 512)]
MANY = 20_000


def mean(probabilities: Sequence[float]) -> float:
    return math.fsum(length * p for length, p in enumerate(probabilities, start=1))


def deviation(probabilities: Sequence[float]) -> float:
    second = math.fsum(length**2 * p for length, p in enumerate(probabilities, start=1))
    return math.sqrt(second - mean(probabilities) ** 2)


@pytest.mark.parametrize(
    ("dataset", "prompt", "output"), [("sharegpt", 80, 296), ("alpaca", 12, 56)]
)
def test_population_means_are_the_published_ones(dataset: str, prompt: int, output: int) -> None:
    assert mean(length_probabilities(DATASETS[dataset].prompt)) == pytest.approx(prompt, abs=1e-6)
    assert mean(length_probabilities(DATASETS[dataset].output)) == pytest.approx(output, abs=1e-6)


@pytest.mark.parametrize("dataset", DATASETS)
def test_probabilities_are_probabilities(dataset: str) -> None:
    lengths = DATASETS[dataset].output
    for probabilities in (length_probabilities(lengths), seen_output_probabilities(lengths)):
        assert len(probabilities) == lengths.longest
        assert min(probabilities) >= 0
        assert math.fsum(probabilities) == pytest.approx(1)


@pytest.mark.parametrize("dataset", DATASETS)
def test_outputs_seen_in_a_step_are_length_biased(dataset: str) -> None:
    plain = length_probabilities(DATASETS[dataset].output)
    seen = seen_output_probabilities(DATASETS[dataset].output)
    # A request of one token has no decode step; E_seen[o - 1] = E[(o - 1)^2] / E[o - 1].
    assert seen[0] == 0
    steps = mean(plain) - 1
    assert mean(seen) - 1 == pytest.approx((deviation(plain) ** 2 + steps**2) / steps)


@pytest.mark.parametrize("dataset", DATASETS)
def test_sample_means_agree_with_the_population(dataset: str) -> None:
    requests = draw_requests(dataset, MANY, seed=7)
    prompt = length_probabilities(DATASETS[dataset].prompt)
    seen = seen_output_probabilities(DATASETS[dataset].output)
    drawn = {
        "prompt_tokens": (mean(prompt), deviation(prompt)),
        "output_tokens": (mean(seen), deviation(seen)),
    }
    for name, (expected, spread) in drawn.items():
        sample = sum(getattr(request, name) for request in requests) / MANY
        assert abs(sample - expected) < 4 * spread / math.sqrt(MANY)


@pytest.mark.parametrize("dataset", DATASETS)
def test_positions_are_uniform_over_the_decode_steps(dataset: str) -> None:
    requests = draw_requests(dataset, MANY, seed=7)
    assert all(1 <= r.generated_tokens <= r.output_tokens - 1 for r in requests)
    # The middle of each step as a share of the steps is uniform: mean 1/2, deviation 1/sqrt(12).
    shares = [(r.generated_tokens - 0.5) / (r.output_tokens - 1) for r in requests]
    assert abs(sum(shares) / MANY - 0.5) < 4 / math.sqrt(12 * MANY)


def test_no_request_outgrows_a_gpt3_context() -> None:
    for dataset in DATASETS.values():
        assert dataset.prompt.longest + dataset.output.longest <= 2048


def test_the_shipped_traces_are_those_of_the_list() -> None:
    assert set(preset_names("trace")) == {f"{dataset}-{count}" for dataset, count in SHIPPED}


@pytest.mark.parametrize(("dataset", "count"), SHIPPED)
def test_shipped_traces_are_generated_again_byte_for_byte(
    tmp_path: Path, dataset: str, count: int
) -> None:
    name = f"{dataset}-{count}"
    again = generate_trace(dataset, count, SHIPPED_SEED, tmp_path / f"{name}.csv")
    assert again.read_bytes() == preset_path("trace", name).read_bytes()


@pytest.mark.parametrize(("dataset", "count"), SHIPPED)
def test_shipped_traces_are_read_as_drawn(dataset: str, count: int) -> None:
    trace = load_requests(f"{dataset}-{count}")
    assert trace.source == "pimsim"
    assert trace.requests == draw_requests(dataset, count, SHIPPED_SEED)


def test_a_shorter_trace_is_the_start_of_a_longer_one() -> None:
    assert draw_requests("alpaca", 10, 3) == draw_requests("alpaca", 30, 3)[:10]


def test_another_seed_or_data_set_is_another_trace() -> None:
    drawn = [draw_requests(*key) for key in [("alpaca", 9, 3), ("alpaca", 9, 4)]]
    drawn.append(draw_requests("sharegpt", 9, 3))
    assert len(set(drawn)) == 3


@pytest.mark.parametrize(
    ("dataset", "count", "seed", "expected"),
    [
        ("sharegtp", 1, 1, "did you mean 'sharegpt'"),
        ("alpaca", 0, 1, "0 requests"),
        ("alpaca", -1, 1, "-1 requests"),
        ("alpaca", 10**9, 1, "1000000000 requests"),
        ("alpaca", 1, -1, "the seed is -1"),
        ("alpaca", 1, 2**64, "the seed is"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_written(
    tmp_path: Path, dataset: str, count: int, seed: int, expected: str
) -> None:
    with pytest.raises(InputError, match=expected):
        generate_trace(dataset, count, seed, tmp_path / "out.csv")
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        generate_trace("alpaca", 1, 1, tmp_path / "missing" / "out.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        generate_trace("alpaca", 1, 1, tmp_path / "folder.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]
