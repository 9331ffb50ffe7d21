"""Experts: the placement with the least time, and nothing lost between NPU and PIM."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.mapping.block import _products
from pimsim.mapping.experts import (
    ExpertEnergies,
    ExpertPlacement,
    expert_levels,
    place_by_tokens,
)
from pimsim.workload.operators import Block, Operator, OperatorKind

loads = st.dictionaries(st.integers(0, 63), st.integers(1, 40), max_size=20)
EXPERT, VECTOR = OperatorKind.EXPERT_GEMM, OperatorKind.ACTIVATION


def operator(name: str, kind: OperatorKind, *after: str) -> Operator:
    return Operator(name, kind, depends_on=after)


@given(
    loads, st.integers(1, 50), st.integers(0, 9), st.integers(1, 50), st.integers(0, 500),
    st.integers(0, 500), st.none() | st.tuples(st.integers(0, 9), st.just(10)),
)  # fmt: skip
def test_no_threshold_beats_the_one_that_is_chosen(
    tokens: dict[int, int], stream: int, each: int, vector: int, npu_else: int, pim_else: int,
    share: tuple[int, int] | None,
) -> None:  # fmt: skip
    def npu_cost(m: int) -> int:
        return max(stream, each * m)

    def pim_cost(m: int) -> int:
        return vector * m

    def time(threshold: int) -> int:
        npu = npu_else + sum(npu_cost(m) for m in tokens.values() if m > threshold)
        pim = pim_else + sum(pim_cost(m) for m in tokens.values() if m <= threshold)
        if share is None:
            return npu + pim
        # what is left of the NPU's work when PIM is done
        return pim + max(npu - pim * share[0] // share[1], 0)

    found = place_by_tokens(tokens, npu_cost, pim_cost, npu_else, pim_else, share)
    assert time(found.threshold) == min(time(t) for t in (0, *tokens.values()))


@given(loads, st.integers(0, 50))
def test_every_expert_with_tokens_is_on_one_side(tokens: dict[int, int], threshold: int) -> None:
    placed = ExpertPlacement(threshold, tokens)
    assert sorted((*placed.on_pim, *placed.on_npu)) == sorted(tokens)
    assert placed.pairs(placed.on_pim) + placed.pairs(placed.on_npu) == sum(tokens.values())


def test_levels_are_products_and_the_work_between_them() -> None:
    block = Block("moe", (
        operator("ln2", OperatorKind.NORM),
        operator("router", OperatorKind.ROUTER, "ln2"),
        operator("gate", EXPERT, "ln2", "router"),
        operator("up", EXPERT, "ln2", "router"),
        operator("act", VECTOR, "gate", "up"),
        operator("down", EXPERT, "act"),
        operator("combine", OperatorKind.ELEMENTWISE, "down", "router"),
    ))  # fmt: skip
    first, second = expert_levels(block)
    assert [o.name for o in first.gemms] == ["gate", "up"]
    assert [o.name for o in first.after] == ["act"]
    assert [o.name for o in second.gemms] == ["down"]
    assert second.after == ()


def test_a_dense_block_has_no_levels() -> None:
    assert expert_levels(Block("decoder", (operator("fc1", OperatorKind.GEMM),))) == ()


def _energies(delay: bool) -> ExpertEnergies:
    """An expert takes 10 J on the NPU, 6 J a token on PIM; 1 J a cycle whatever runs."""
    return ExpertEnergies(lambda tokens: 10.0, lambda tokens: 6.0 * tokens, 1.0, delay)


@pytest.mark.parametrize(
    ("objective", "threshold"),
    # experts of 1, 2 and 4 tokens; 8 cycles each on the NPU, 4 a token on PIM, in turns. Time of
    # thresholds 0, 1, 2, 4: 24, 20, 20, 28. Energy: 30 + 24 = 54, 26 + 20 = 46, 28 + 20 = 48, 70.
    [(None, 1), (False, 1), (True, 1)],
)
def test_an_objective_decides_where_experts_run(objective: bool | None, threshold: int) -> None:
    energies = None if objective is None else _energies(objective)
    found = place_by_tokens({0: 1, 1: 2, 2: 4}, lambda t: 8, lambda t: 4 * t, energies=energies)
    assert found.threshold == threshold


def test_energy_and_time_may_disagree() -> None:
    """PIM is faster (3 cycles for 8) and takes 100 J a token: energy leaves all to the NPU."""

    def place(energies: ExpertEnergies | None) -> int:
        return place_by_tokens(
            {0: 1, 1: 1}, lambda t: 8, lambda t: 3 * t, energies=energies
        ).threshold

    def dear(delay: bool, pim_j: float) -> ExpertEnergies:
        return ExpertEnergies(lambda t: 10.0, lambda t: pim_j * t, 1.0, delay)

    assert place(None) == 1
    assert place(dear(False, 100.0)) == 0  # 20 + 16 J against 200 + 6
    assert place(dear(False, 14.0)) == 1  # 36 J against 34
    assert place(dear(False, 20.0)) == 0  # 36 J against 46 ...
    assert place(dear(True, 20.0)) == 1  # ... but 36 x 16 against 46 x 6


def test_an_expert_s_product_has_its_share_of_tokens_and_one_matrix() -> None:
    """Three of four tokens and one of them; the matrices are of one size."""
    whole = replace(
        operator("down", EXPERT), experts=(2, 5), expert_tokens=(3, 1), m=4, n=8, k=16,
        weight_bytes=2 * 256, input_bytes=4 * 32, output_bytes=4 * 16, flops=4 * 256,
    )  # fmt: skip
    (one, first), (two, second) = _products(whole, None)
    assert (first, second) == (2, 5)
    sizes = ("m", "weight_bytes", "input_bytes", "output_bytes", "flops")
    assert [getattr(one, size) for size in sizes] == [3, 256, 96, 48, 768]
    assert [getattr(two, size) for size in sizes] == [1, 256, 32, 16, 256]
    on_npu = ExpertPlacement(1, {2: 3, 5: 1})
    assert [expert for _, expert in _products(whole, on_npu)] == [2]
    heads = replace(whole, kind=OperatorKind.GEMM, experts=(), expert_tokens=(), count=4)
    parts = list(_products(heads, None))
    assert [part for _, part in parts] == [0, 1, 2, 3]
    assert {tuple(getattr(each, size) for size in sizes) for each, _ in parts} == {
        (4, 128, 32, 16, 256)
    }
