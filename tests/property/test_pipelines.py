"""Random models in any number of stages: laws, memory, and sums over stages."""

from __future__ import annotations

from math import fsum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models_on_device import PRESETS, cards, contexts, run

from pimsim.workload.cards import ModelCard, tensor_degrees
from pimsim.workload.decode import memory_needs
from pimsim.workload.requests import Request
from pimsim.workload.step import Step

few = settings(max_examples=10)


def batch(lengths: list[int]) -> list[Request]:
    return [Request(i, 0.0, context, 2, 0) for i, context in enumerate(lengths)]


@settings(max_examples=60)
@given(
    card=cards(), layers=st.integers(1, 12), lengths=contexts, data=st.data(),
)  # fmt: skip
def test_stages_hold_the_model_and_all_batches(
    card: ModelCard, layers: int, lengths: list[int], data: st.DataObject
) -> None:
    dense = min(card.moe.dense_layers, layers) if card.moe else 0
    moe = card.moe.model_copy(update={"dense_layers": dense}) if card.moe else None
    card = card.model_copy(update={"layers": layers, "moe": moe})
    tp = data.draw(st.sampled_from(tensor_degrees(card)))
    pp = data.draw(st.integers(1, layers))
    batches = data.draw(st.integers(1, pp))
    (whole,) = memory_needs(card, Step.decode(batch(lengths)), tp, 1)
    stages = memory_needs(card, Step.decode(batch(lengths)), tp, pp, batches)
    table = -(-card.vocab // tp) * card.hidden * card.dtype_bytes  # tied: on both ends
    assert len(stages) == pp
    assert sum(s.weights_bytes for s in stages) == whole.weights_bytes + (pp > 1) * table
    assert sum(s.kv_bytes for s in stages) == batches * whole.kv_bytes


@pytest.mark.parametrize("preset", PRESETS)
@few
@given(card=cards(), lengths=contexts, data=st.data())
def test_any_pipeline_keeps_the_laws_and_adds_up(
    preset: str, card: ModelCard, lengths: list[int], data: st.DataObject
) -> None:
    """Three blocks, all simulated: stages have each of them once, and cost no more work."""
    tp = data.draw(st.sampled_from([t for t in tensor_degrees(card) if t <= 4]))
    pp = data.draw(st.integers(2, 3))
    outside = data.draw(st.sampled_from(["true", "false"]))
    given = (f"parallel.tp={tp}", f"workload.outside={outside}", "workload.beyond_banks=true")
    _, _, whole = run(preset, card, lengths, *given)
    _, outcome, piped = run(preset, card, lengths, *given, f"parallel.pp={pp}")
    assert sum(stage.blocks for stage in piped.pipeline) == 3
    assert piped.iteration_s == max(stage.time_s for stage in piped.pipeline)
    assert piped.devices == tp * pp
    # all blocks were simulated, so that over all stages each counts once
    for part in ("npu", "pim"):
        assert piped.token_j[part] == pytest.approx(whole.token_j[part], rel=1e-9)
    sends = pp - 1
    names = [o.name for o in outcome.recorder.operators if o.name == "send"]
    assert 1 <= len(names) <= sends
    assert fsum(s.time_s for s in piped.pipeline) > 0.9 * whole.iteration_s
    assert piped.pipeline[-1].busy <= 1
