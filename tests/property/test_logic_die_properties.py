"""Streams of bank bundles are legal, whatever their size."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle.stream_rules import broken_rules

from pimsim.config.loader import load_stream_pim
from pimsim.hardware.pim.designs.logic_die import gemv
from pimsim.hardware.pim.stream import run_stream

DESIGNS = {
    f"{name}/{bundles}": load_stream_pim(name, [f"capacities.bundles={bundles}"]).config
    for name, bundles in (
        ("duplex", 1),
        ("duplex", 4),
        ("duplex-bank-group", 2),
        ("duplex-bank", 1),
    )
}


@pytest.mark.parametrize("case", DESIGNS)
@settings(max_examples=8)
@given(st.integers(1, 700), st.integers(1, 2500), st.integers(1, 40))
def test_products_break_no_rule(case: str, outputs: int, inputs: int, vectors: int) -> None:
    design = DESIGNS[case]
    stream = gemv(design, outputs, inputs, vectors)
    log = run_stream(design, stream, log=True).log[0]
    timed = design.model_copy(update={"timings": {**design.timings, **stream.timings}})
    assert list(broken_rules(timed, log)) == []


@pytest.mark.parametrize("case", DESIGNS)
def test_a_long_product_with_refreshes_breaks_no_rule(case: str) -> None:
    design = DESIGNS[case]
    stream = gemv(design, 4 * 640, 4096, 12)
    log = run_stream(design, stream, log=True).log[0]
    names = list(design.all_commands)
    assert (log[:, 1] == names.index("REFab")).any()
    timed = design.model_copy(update={"timings": {**design.timings, **stream.timings}})
    assert list(broken_rules(timed, log)) == []
