"""Experts: the placement with the least time, and nothing lost between NPU and PIM."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pimsim.mapping.experts import ExpertPlacement, expert_levels, place_by_tokens
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
