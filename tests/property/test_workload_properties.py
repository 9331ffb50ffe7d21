"""Laws of a decode step, on random architectures and batches."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pimsim.workload.cards import ModelCard
from pimsim.workload.decode import card_pass, memory_need
from pimsim.workload.operators import ForwardPass, Operator, OperatorKind
from pimsim.workload.requests import Request
from pimsim.workload.step import Step

REPLICATED = {OperatorKind.NORM, OperatorKind.ELEMENTWISE, OperatorKind.COLLECTIVE}
"""What every device does in full under tensor parallelism."""

SIZES = ("flops", "weight_bytes", "input_bytes", "output_bytes", "kv_read_bytes", "kv_write_bytes")


@st.composite
def cards(draw: st.DrawFn, tp: int = 1) -> ModelCard:
    """Any architecture that ``tp`` devices can share."""
    kv_heads = tp * draw(st.integers(1, 4))
    return ModelCard(
        name="drawn",
        source="drawn",
        layers=draw(st.integers(1, 4)),
        hidden=draw(st.integers(1, 300)),
        heads=kv_heads * draw(st.integers(1, 4)),
        kv_heads=kv_heads,
        head_dim=2 * draw(st.integers(1, 64)),
        ffn_hidden=tp * draw(st.integers(1, 300)),
        ffn_gated=draw(st.booleans()),
        activation=draw(st.sampled_from(["gelu", "silu", "relu"])),
        norm=draw(st.sampled_from(["layernorm", "rmsnorm"])),
        bias=draw(st.booleans()),
        rope=draw(st.booleans()),
        vocab=draw(st.integers(1, 1000)),
        tied_embeddings=draw(st.booleans()),
        max_context=4096,
        dtype_bytes=draw(st.sampled_from([1, 2, 4])),
        kv_dtype_bytes=draw(st.sampled_from([1, 2, 4])),
    )


contexts = st.lists(st.integers(1, 4000), min_size=1, max_size=8)


def batch(lengths: Iterable[int]) -> list[Request]:
    return [Request(i, 0.0, length, 1, 0) for i, length in enumerate(lengths)]


def of_kind(iteration: ForwardPass, kind: OperatorKind) -> list[Operator]:
    return [operator for operator in iteration.blocks[0].operators if operator.kind is kind]


@given(cards(), contexts)
def test_products_do_two_operations_per_weight_and_token(
    card: ModelCard, lengths: list[int]
) -> None:
    iteration = card_pass(card, Step.decode(batch(lengths)), layers=1)
    attention = card.heads * card.head_dim
    matrices = card.hidden * (
        2 * attention
        + 2 * card.kv_heads * card.head_dim
        + (3 if card.ffn_gated else 2) * card.ffn_hidden
    )
    gemms = of_kind(iteration, OperatorKind.GEMM)
    assert sum(gemm.flops for gemm in gemms) == 2 * len(lengths) * matrices
    biases = sum(gemm.n for gemm in gemms) if card.bias else 0
    assert sum(gemm.weight_bytes for gemm in gemms) == (matrices + biases) * card.dtype_bytes


@given(cards(), contexts)
def test_attention_does_four_operations_per_feature_of_each_cached_token(
    card: ModelCard, lengths: list[int]
) -> None:
    iteration = card_pass(card, Step.decode(batch(lengths)), layers=1)
    total = sum(lengths)
    flops = (
        iteration.blocks[0].operator("score").flops + iteration.blocks[0].operator("value").flops
    )
    assert flops == 4 * card.heads * card.head_dim * total
    assert iteration.kv_read_bytes == 2 * card.kv_heads * card.head_dim * total * (
        card.kv_dtype_bytes
    )


@given(st.sampled_from([2, 3, 4]).flatmap(lambda tp: st.tuples(st.just(tp), cards(tp))), contexts)
def test_devices_together_do_the_work_of_one(shared: tuple[int, ModelCard], lengths: list[int]):
    tp, card = shared
    alone = card_pass(card, Step.decode(batch(lengths)), tp=1, layers=1)
    device = card_pass(card, Step.decode(batch(lengths)), tp=tp, layers=1)
    for whole in alone.blocks[0].operators:
        part = device.blocks[0].operator(whole.name)
        copies = 1 if whole.kind in REPLICATED else tp
        assert copies * part.flops == whole.flops
        assert copies * part.kv_read_bytes == whole.kv_read_bytes
        assert copies * part.kv_write_bytes == whole.kv_write_bytes
        # Row-cut products (proj, fc2) keep their whole bias on each device.
        kept = part.n * card.dtype_bytes if card.bias and whole.name in ("proj", "fc2") else 0
        assert copies * (part.weight_bytes - kept) == whole.weight_bytes - kept
    extra = {o.name for o in device.blocks[0].operators} - {
        o.name for o in alone.blocks[0].operators
    }
    assert extra == {"allreduce1", "allreduce2"}


@given(cards(), contexts, st.data())
def test_longer_contexts_never_shrink_anything(
    card: ModelCard, lengths: list[int], data: st.DataObject
) -> None:
    grown = list(lengths)
    grown[data.draw(st.integers(0, len(lengths) - 1))] += 1
    before = card_pass(card, Step.decode(batch(lengths)))
    after = card_pass(card, Step.decode(batch(grown)))
    for size in SIZES:
        assert getattr(after, size) >= getattr(before, size)
    assert after.kv_read_bytes > before.kv_read_bytes
    assert after.flops > before.flops
    assert after.weight_bytes == before.weight_bytes


@given(cards(), contexts, contexts, st.booleans())
def test_sub_batches_add_up_to_the_batch_but_read_the_weights_twice(
    card: ModelCard, first: list[int], second: list[int], append_kv: bool
) -> None:
    parts = [
        card_pass(card, Step.decode(batch(part)), append_kv=append_kv) for part in (first, second)
    ]
    whole = card_pass(card, Step.decode(batch([*first, *second])), append_kv=append_kv)
    for size in SIZES:
        together = sum(getattr(part, size) for part in parts)
        factor = 2 if size == "weight_bytes" else 1
        assert together == factor * getattr(whole, size)


@given(cards(), contexts)
def test_every_result_but_the_last_is_used(card: ModelCard, lengths: list[int]) -> None:
    operators = card_pass(card, Step.decode(batch(lengths))).blocks[0].operators
    used = {name for operator in operators for name in operator.depends_on}
    assert {operator.name for operator in operators} - used == {"res2"}


@given(cards(), contexts)
def test_no_operator_has_a_negative_size_and_none_does_nothing(
    card: ModelCard, lengths: list[int]
) -> None:
    for operator in card_pass(card, Step.decode(batch(lengths))).blocks[0].operators:
        assert min(getattr(operator, size) for size in SIZES) >= 0
        moved = operator.output_bytes + operator.kv_write_bytes
        assert moved > 0
        assert operator.input_bytes > 0


@given(cards(tp=2), contexts)
def test_sharing_a_model_never_needs_more_on_a_device(card: ModelCard, lengths: list[int]) -> None:
    alone, shared = (memory_need(card, Step.decode(batch(lengths)), tp=tp) for tp in (1, 2))
    assert shared.weights_bytes <= alone.weights_bytes
    assert shared.kv_bytes * 2 == alone.kv_bytes


@pytest.mark.parametrize("order", [1, -1])
@given(card=cards(), lengths=contexts)
def test_order_of_requests_changes_no_size(card: ModelCard, lengths: list[int], order: int) -> None:
    plain = card_pass(card, Step.decode(batch(lengths)))
    sorted_ = card_pass(card, Step.decode(batch(sorted(lengths)[::order])))
    assert sorted_.blocks == plain.blocks
