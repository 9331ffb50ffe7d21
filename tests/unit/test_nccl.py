"""NCCL's protocols: which is chosen, what it takes, and how constants come from rows."""

from __future__ import annotations

from fractions import Fraction

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_nccl
from pimsim.config.nccl import NcclConfig
from pimsim.config.resources import preset_names
from pimsim.hardware.fabric.nccl import (
    Protocol,
    nccl_time,
    protocol_chosen,
    ring_steps,
    worked_bytes,
)
from pimsim.hardware.fabric.schedule import Operation
from pimsim.validate.nccl_fit import Measured, fit_protocols

AR, AG, RS = Operation.ALL_REDUCE, Operation.ALL_GATHER, Operation.REDUCE_SCATTER
CONFIG = NcclConfig.model_validate(
    {
        "name": "x", "sources": {},
        "tuner": {"ring_gb_per_s": 400.0, "ll_gb_per_s": 100.0, "ll128_gb_per_s": 300.0},
        "ll": {"base_us": 5.0, "hop_us": 1.0, "gb_per_s": 150.0},
        "ll128": {"base_us": 7.0, "hop_us": 2.0, "gb_per_s": 250.0},
        "simple": {"base_us": 9.0, "hop_us": 4.0, "gb_per_s": 350.0},
    }
)  # fmt: skip


def test_steps_and_pieces() -> None:
    """Kernels do a primitive a step and one more: 2 N - 1 of an all-reduce, else N."""
    assert [ring_steps(each, 8) for each in (AR, AG, RS)] == [14, 7, 7]
    assert worked_bytes(AR, 800, 8) == 15 * 100
    assert worked_bytes(AG, 800, 8) == worked_bytes(RS, 800, 8) == 800


@pytest.mark.parametrize(
    ("operation", "size", "devices", "chosen"),
    [
        # LL: 6.6 + 0.6 + S / 2 / 100; Simple: 8.4 + 3.4 + S / 2 / 400: equal at 1.227 MB
        (AG, 1_226_000, 2, Protocol.LL),
        (AG, 1_227_000, 2, Protocol.SIMPLE),
        # 14 steps: LL 15 + 1.75 S / 100, LL128 40.6 + 1.75 S / 300: equal at 2.194 MB;
        # Simple 56 + 1.75 S / 400: equal with LL128 at 10.56 MB
        (AR, 2_194_000, 8, Protocol.LL),
        (AR, 2_195_000, 8, Protocol.LL128),
        (AR, 10_559_000, 8, Protocol.LL128),
        (AR, 10_561_000, 8, Protocol.SIMPLE),
    ],
)
def test_the_choice_is_by_nccls_own_model(
    operation: Operation, size: int, devices: int, chosen: Protocol
) -> None:
    assert protocol_chosen(operation, size, devices, CONFIG) is chosen


def test_what_the_tuner_takes_at_most() -> None:
    """LL at most half of the ring, LL128 0.92 of it."""
    slow = CONFIG.model_copy(
        update={"tuner": CONFIG.tuner.model_copy(update={"ring_gb_per_s": 150.0})}
    )
    # LL at 75: 7.2 + S / 150; Simple 11.8 + S / 300: equal at 1.38 MB
    assert protocol_chosen(AG, 1_379_000, 2, slow) is Protocol.LL
    assert protocol_chosen(AG, 1_381_000, 2, slow) is Protocol.SIMPLE
    # LL128 at 138: 40.6 + 1.75 S / 138; Simple 56 + 1.75 S / 150: equal at 15.18 MB
    assert protocol_chosen(AR, 15_170_000, 8, slow) is Protocol.LL128
    assert protocol_chosen(AR, 15_190_000, 8, slow) is Protocol.SIMPLE


def test_the_time_by_hand() -> None:
    """Of 1 MB: LL, 5 us, 7 steps of 1 us, and the whole once at 150 GB/s."""
    found = nccl_time(AG, 10**6, 8, CONFIG)
    assert found.protocol is Protocol.LL
    assert found.time_ps == -(-(12 * 10**6 + Fraction(10**9, 150)) // 1)
    assert found.link_bytes == 7 * 10**6 // 8
    found = nccl_time(AR, 8 * 10**6, 8, CONFIG)
    assert found.protocol is Protocol.LL128
    assert found.time_ps == (7 + 14 * 2 + 15 * 1000 / 250) * 10**6
    found = nccl_time(RS, 35 * 10**7, 8, CONFIG)
    assert (found.protocol, found.time_ps) == (Protocol.SIMPLE, (9 + 7 * 4 + 1000) * 10**6)


def test_nothing_costs_nothing_and_what_cannot_be_is_refused() -> None:
    assert nccl_time(AR, 10**6, 1, CONFIG).time_ps == nccl_time(AR, 0, 8, CONFIG).time_ps == 0
    for size, devices in ((-1, 2), (1, 0)):
        with pytest.raises(InputError, match="over"):
            nccl_time(AR, size, devices, CONFIG)
    with pytest.raises(InputError, match="rings do all_reduce, all_gather, reduce_scatter"):
        nccl_time(Operation.ALL_TO_ALL, 1, 2, CONFIG)


def _rows(devices: int = 2) -> list[Measured]:
    return [
        Measured(each, size, devices, nccl_time(each, size, devices, CONFIG).time_ps / 1e6)
        for each in (AR, AG, RS) for size in (2**k for k in range(9, 30))
    ]  # fmt: skip


def test_rows_of_two_give_back_their_constants() -> None:
    """LL128 has none: LL's base and hop by NCCL's ratios, and Simple's bandwidth by 120 / 128."""
    found = fit_protocols(_rows(), CONFIG)
    assert found[Protocol.LL] == CONFIG.ll
    assert found[Protocol.SIMPLE] == CONFIG.simple
    ll128 = found[Protocol.LL128]
    assert ll128.base_us == pytest.approx(5 * 14.0 / 6.6, rel=1e-3)
    assert ll128.hop_us == pytest.approx(1.9 / 0.6, rel=1e-3)
    assert ll128.gb_per_s == pytest.approx(350 * 120 / 128, rel=1e-3)


def test_only_rows_of_two_calibrate() -> None:
    wrong = [Measured(r.operation, r.payload_bytes, 8, 3 * r.time_us) for r in _rows(8)]
    assert fit_protocols([*_rows(), *wrong], CONFIG) == fit_protocols(_rows(), CONFIG)
    with pytest.raises(InputError, match="0 rows of 2 GPUs under ll"):
        fit_protocols(wrong, CONFIG)


def test_constants_are_not_negative() -> None:
    """All-reduces that are quicker than the others would ask for a hop below 0."""
    rows = [
        Measured(r.operation, r.payload_bytes, 2, r.time_us / (2 if r.operation is AR else 1))
        for r in _rows()
    ]
    assert (
        min(min(each.model_dump().values()) for each in fit_protocols(rows, CONFIG).values()) == 0
    )


@pytest.mark.parametrize("name", preset_names("nccl"))
def test_each_preset_has_nine_constants_with_sources(name: str) -> None:
    config = load_nccl(name).config
    constants = [v for p in Protocol for v in getattr(config, p).model_dump().values()]
    assert len(constants) == 9
    assert {*config.sources} == {*Protocol} | {
        f"tuner.{key}" for key in type(config.tuner).model_fields
    }
