"""Random draws: PCG64's words as published, each transform by hand, and the laws that they obey."""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import pimsim
from pimsim.workload.draws import RandomStream, inverse
from pimsim.workload.moe import UniformRouting
from pimsim.workload.routing.generators import TokenIdRouting, ZipfRouting
from pimsim.workload.sparsity.spec import LawSparsity

LAST = 2**64 - 1
MANY = 100_000


class Scripted(RandomStream):
    """A stream of given words."""

    def __init__(self, words: Iterable[int]) -> None:
        self.left = list(words)

    def words(self, *shape: int) -> NDArray[np.uint64]:
        count = math.prod(shape)
        taken, self.left = self.left[:count], self.left[count:]
        assert len(taken) == count
        return np.array(taken, dtype=np.uint64).reshape(shape)


def shares(*values: float) -> Iterable[int]:
    """Words that are these parts of all."""
    return [int(value * 2**64) for value in values]


def test_words_are_those_of_pcg64() -> None:
    """The first words of numpy's own test vector (numpy/random/tests/data/pcg64-testset-1.csv)."""
    assert RandomStream(0xDEADBEAF).words(2).tolist() == [0x60D24054E17A0698, 0xD5E79D89856E4F12]
    assert RandomStream(1).words(2, 2).tolist() == [
        [9441442522235856127, 17532960557476522086], [2659275481604167885, 17499493567006797778],
    ]  # fmt: skip


def test_streams_of_different_seeds_differ() -> None:
    seeds = [(0,), (1,), (1, 2), (2, 1), (1, 2, 1), (2**64,), (2**64 + 1,)]
    firsts = {int(RandomStream(*seed).words(1)[0]) for seed in seeds}
    assert len(firsts) == len(seeds)


def test_uniform_numbers_are_the_top_53_bits() -> None:
    found = Scripted([0, 2**11 - 1, 2**11, 2**63, LAST]).uniform(5)
    assert found.tolist() == [0.0, 0.0, 2.0**-53, 0.5, 1 - 2.0**-53]


def test_whole_numbers_below_a_bound() -> None:
    assert Scripted([0, *shares(0.5), LAST]).below(10, 3).tolist() == [0, 5, 9]
    bounds = np.array([1, 2, 7])
    assert Scripted([LAST] * 3).below(bounds, 3).tolist() == [0, 1, 6]
    assert Scripted(shares(0.5, 0.5, 0.5)).below(bounds, 3).tolist() == [0, 1, 3]


def test_a_permutation_sorts_the_words() -> None:
    assert Scripted(shares(0.5, 0.125, 0.75, 0.25)).permutation(4).tolist() == [1, 3, 0, 2]
    assert Scripted([5 << 9] * 4).permutation(4).tolist() == [0, 1, 2, 3]
    assert RandomStream(0).permutation(0).tolist() == []


def test_a_subset_is_of_the_smallest_words() -> None:
    words = [*shares(0.5, 0.125, 0.75, 0.25), *shares(0.75, 0.5, 0.25, 0.125)]
    assert Scripted(words).subsets(2, 4, 2).tolist() == [[1, 3], [2, 3]]
    assert Scripted([LAST] * 6).subsets(2, 3, 2).tolist() == [[0, 1], [0, 1]]
    assert RandomStream(0).subsets(2, 3, 0).shape == (2, 0)
    assert RandomStream(0).subsets(1, 3, 3).tolist() == [[0, 1, 2]]


def test_choices_fall_where_the_shares_add_up_to() -> None:
    words = [0, *shares(0.249, 0.25, 0.499, 0.5), LAST]
    assert Scripted(words).choices([0.25, 0.25, 0.5], 6).tolist() == [0, 0, 1, 1, 2, 2]
    # ten tenths are a little less than 1; the last one has the rest
    tenths = [0.1] * 10
    assert float(np.add.accumulate(tenths)[-1]) < 1
    assert Scripted([LAST]).choices(tenths, 1).tolist() == [9]
    assert inverse([0.0, 1.0], np.array([0.0])).tolist() == [1]  # a share of 0 is never drawn


def test_weighted_subsets_take_what_is_left_by_weight() -> None:
    weights = np.array([4.0, 2.0, 1.0])
    # of 7: 3.5 is the first's; of the 3 that are left 1.5 is the second's
    assert Scripted(shares(0.5, 0.5)).weighted_subsets(1, weights, 2).tolist() == [[0, 1]]
    # of 7: 6.3 is the last's; of the 6 that are left 0 is the first's
    assert Scripted(shares(0.9, 0.0)).weighted_subsets(1, weights, 2).tolist() == [[0, 2]]
    # of 7: 4 is the second's; of 5, 4 is the last's; a draw for each row before the next choice
    both = Scripted(shares(4 / 7 + 1e-9, 0.0, 0.8 + 1e-9, 0.5))
    assert both.weighted_subsets(2, weights, 2).tolist() == [[1, 2], [0, 1]]
    for weight in (1.0, 0.5, 0.1, 2 / 3):  # the largest draw is the last's
        last = Scripted([LAST]).weighted_subsets(1, np.array([1.0, weight]), 1)
        assert last.tolist() == [[1]]


def test_normal_numbers_by_radius_and_turn() -> None:
    found = Scripted([*shares(0.5, 0.5, 0.0), *shares(0.0, 0.5, 0.25)]).normal(3)
    radius = math.sqrt(2 * math.log(2))
    assert found.tolist() == pytest.approx([radius, -radius, 0.0], abs=1e-12)


def test_arcsine_pairs_that_exceed_one_are_drawn_anew() -> None:
    # squares: 0.25 and 0.5625 fit; 1 and 1 do not, then 0.25 and 0.25 do
    words = [*shares(0.5, 0.0), *shares(0.25, 0.0), *shares(0.5), *shares(0.5)]
    assert Scripted(words).arcsine(0.5, 2).tolist() == [0.25 / 0.8125, 0.5]


def near(found: float, share: float, draws: int = MANY) -> bool:
    """Within four standard deviations of a share of draws."""
    return abs(found - share) < 4 * math.sqrt(share * (1 - share) / draws)


def test_laws_of_uniform_normal_and_whole_numbers() -> None:
    random = RandomStream(7)
    uniform = random.uniform(MANY)
    assert near(float((uniform < 0.3).mean()), 0.3)
    assert abs(uniform.mean() - 0.5) < 4 * math.sqrt(1 / 12 / MANY)
    whole = random.below(6, MANY)
    assert set(whole.tolist()) == set(range(6))
    assert all(near(float((whole == value).mean()), 1 / 6) for value in range(6))
    normal = random.normal(MANY)
    assert abs(normal.mean()) < 4 / math.sqrt(MANY)
    assert abs(normal.var() - 1) < 4 * math.sqrt(2 / MANY)
    assert near(float((np.abs(normal) < 1).mean()), math.erf(1 / math.sqrt(2)))


def test_every_permutation_and_subset_is_as_likely() -> None:
    random = RandomStream(8)
    rounds = 6_000
    orders = Counter(tuple(random.permutation(3).tolist()) for _ in range(rounds))
    assert set(orders) == set(permutations(range(3)))
    assert all(near(count / rounds, 1 / 6, rounds) for count in orders.values())
    sets = Counter(map(tuple, random.subsets(MANY, 5, 2).tolist()))
    assert len(sets) == 10
    assert all(near(count / MANY, 0.1) for count in sets.values())


def test_weighted_subsets_have_the_probabilities_of_successive_choices() -> None:
    weights = np.array([4.0, 2.0, 1.0])
    found = Counter(map(tuple, RandomStream(9).weighted_subsets(MANY, weights, 2).tolist()))
    expected = {
        (0, 1): 4 / 7 * 2 / 3 + 2 / 7 * 4 / 5,
        (0, 2): 4 / 7 * 1 / 3 + 1 / 7 * 4 / 6,
        (1, 2): 2 / 7 * 1 / 5 + 1 / 7 * 2 / 6,
    }
    assert set(found) == set(expected)
    assert all(near(found[each] / MANY, share) for each, share in expected.items())


@pytest.mark.parametrize("mean", [0.01, 0.2, 0.5, 0.95])
def test_arcsine_has_its_mean_and_variance(mean: float) -> None:
    found = RandomStream(10).arcsine(mean, MANY)
    assert found.min() >= 0 and found.max() <= 1
    variance = mean * (1 - mean) / 2  # a b / ((a + b)^2 (a + b + 1)) with a + b = 1
    assert abs(found.mean() - mean) < 4 * math.sqrt(variance / MANY)
    assert found.var() == pytest.approx(variance, rel=0.05)
    if mean == 0.5:  # P(X < x) = 2 / pi asin(sqrt(x))
        assert near(float((found < 0.25).mean()), 1 / 3)


@given(st.integers(0, 2**70), st.integers(1, 40), st.integers(0, 40))
def test_draws_without_replacement_are_distinct(seed: int, count: int, chosen: int) -> None:
    chosen = min(chosen, count)
    random = RandomStream(seed)
    assert sorted(random.permutation(count).tolist()) == list(range(count))
    weights = 1.0 / np.arange(1, count + 1) ** 2
    for rows in (random.subsets(3, count, chosen), random.weighted_subsets(3, weights, chosen)):
        assert rows.shape == (3, chosen)
        assert all(row == sorted(set(row)) for row in rows.tolist())
        assert ((rows >= 0) & (rows < count)).all()


def test_routing_and_sparsity_stay_what_they_are() -> None:
    """The same draws with every numpy; these change only where a law is changed on purpose."""
    assert UniformRouting(8, 2, 3).assignments(1, 4).tolist() == [[0, 6], [6, 7], [2, 3], [0, 4]]
    assert ZipfRouting(8, 2, 1.0, 3).assignments(1, 4).tolist() == [[2, 4], [2, 5], [4, 6], [5, 6]]
    token = TokenIdRouting(8, 2, 1.0, 50, 3)
    assert token.ids(8).tolist() == [0, 15, 21, 0, 0, 0, 3, 1]
    assert token.assignments(1, 4).tolist() == [[4, 5], [1, 2], [1, 6], [4, 5]]
    assert np.flatnonzero(LawSparsity(0.2, 40, 3).active(1, 1)[0]).tolist() == [
        4,
        10,
        18,
        21,
        27,
        28,
        30,
        32,
    ]


def test_nothing_draws_otherwise() -> None:
    """No module but ``draws`` takes numbers from numpy's distributions."""
    package = Path(pimsim.__file__).parent
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [ast.unparse(node)] if isinstance(node, ast.Attribute) else []
            if any(name in ("np.random", "numpy.random") for name in names):
                found.append(path.relative_to(package).as_posix())
    assert set(found) == {"workload/draws.py"}
