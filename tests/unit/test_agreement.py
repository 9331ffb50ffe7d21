"""Cards and exported traces agree, operator by operator."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pimsim.config.resources import preset_names, preset_path
from pimsim.workload.agreement import disagreements
from pimsim.workload.card_trace import card_trace
from pimsim.workload.cards import ModelCard, load_card
from pimsim.workload.operators import OperatorKind
from pimsim.workload.trace import OperatorTrace, Shard, load_trace

BOTH = sorted(set(preset_names("model")) & set(preset_names("operators")))


def test_every_shipped_trace_has_a_card() -> None:
    assert set(preset_names("operators")) <= set(preset_names("model"))
    assert len(BOTH) >= 10


@pytest.mark.parametrize("name", BOTH)
def test_card_and_trace_give_the_same_flops_weights_and_cache(name: str) -> None:
    """Forms in tokens, contexts and experts are equal, so every batch's numbers are."""
    trace = load_trace(preset_path("operators", name))
    assert [str(each) for each in disagreements(card_trace(load_card(name)), trace)] == []


@pytest.mark.parametrize("name", BOTH)
def test_card_and_trace_count_the_same_parameters(name: str) -> None:
    card = load_card(name)
    ours, theirs = card_trace(card).facts, load_trace(preset_path("operators", name)).facts
    # a bias for the choice of experts is no parameter to PyTorch
    chosen = 0
    if card.moe is not None and card.moe.scoring == "sigmoid" and card.moe.router_bias:
        chosen = (card.layers - card.moe.dense_layers) * card.moe.experts
    assert ours.parameters == theirs.parameters + chosen
    for fact in ("layers", "hidden", "heads", "vocab", "max_context", "experts",
                 "experts_per_token", "kv_bytes_per_token", "dtype_bytes"):  # fmt: skip
        assert getattr(ours, fact) == getattr(theirs, fact), fact


@pytest.mark.parametrize(
    ("change", "group", "size"),
    [
        ({"ffn_hidden": 4096}, "fc1", "FLOPs"),
        ({"kv_heads": 16}, "kv_append", "KV bytes written"),
        ({"window": {"size": 64}}, "score", "KV bytes read"),
        ({"bias": True}, "proj", "weight bytes"),
        ({"qk_norm": "head"}, "qk_norm", "FLOPs"),
    ],
)
def test_what_differs_is_named(change: dict[str, object], group: str, size: str) -> None:
    card = load_card("llama-3-8b")
    other = ModelCard.model_validate({**card.model_dump(), **change})
    found = {(each.group, each.size) for each in disagreements(card_trace(other), card_trace(card))}
    assert (group, size) in found


def changed(trace: OperatorTrace, name: str, **update: object) -> OperatorTrace:
    """The trace with one operator of each block another one."""
    phases = {}
    for phase, each in trace.phases.items():
        blocks = {
            kind: tuple(o.model_copy(update=update) if o.name == name else o for o in operators)
            for kind, operators in each.blocks.items()
        }
        phases[phase] = each.model_copy(update={"blocks": blocks})
    return trace.model_copy(update={"phases": phases})


@pytest.mark.parametrize(
    ("name", "update", "group", "fact"),
    [
        ("fc2", {"shard": Shard.COLUMNS}, "fc2", "shards"),
        ("q", {"shard": Shard.NONE}, "qkv", "shards"),
        ("act", {"function": "gelu"}, "act", "functions"),
        ("score", {"window": 64}, "score", "windows"),
        ("score", {"depends_on": ("rope",)}, "score", "after"),
        ("proj", {"kind": OperatorKind.ROUTER}, "proj", "kinds"),
        ("fc2", {"depends_on": ("ln2",)}, "fc2", "after"),
    ],
)
def test_what_an_operator_is_and_follows_is_compared(
    name: str, update: dict[str, object], group: str, fact: str
) -> None:
    trace = card_trace(load_card("llama-3-8b"))
    found = {
        (each.group, each.size) for each in disagreements(changed(trace, name, **update), trace)
    }
    assert (group, fact) in found


def test_a_detour_says_the_same() -> None:
    """What an operator needs through another is not missed where it is not named too."""
    trace = card_trace(load_card("llama-3-8b"))
    softmax = next(o for o in trace.phases["decode"].blocks["decoder"] if o.name == "softmax")
    both = changed(trace, "softmax", depends_on=(*softmax.depends_on, "rope"))
    assert list(disagreements(both, trace)) == []


def test_another_order_of_blocks_is_a_disagreement() -> None:
    card = load_card("gemma-3-270m")
    assert card.window is not None
    window = {"size": card.window.size, "full_every": 2}
    other = ModelCard.model_validate({**card.model_dump(), "window": window})
    found = list(disagreements(card_trace(card), card_trace(other)))
    assert found[0].group == "blocks"


def test_shipped_traces_are_small() -> None:
    for name in preset_names("operators"):
        assert preset_path("operators", name).stat().st_size < 200_000, name


@pytest.mark.parametrize("value", [True, 1.5, "T", None])
def test_a_size_that_is_no_number_of_something_is_refused(value: object) -> None:
    trace = card_trace(load_card("llama-3-8b"))
    (first, *_) = trace.phases["decode"].blocks["decoder"]
    with pytest.raises(ValidationError, match="is neither a whole number nor a mapping of symbols"):
        type(first).model_validate(first.model_dump() | {"flops": value})
