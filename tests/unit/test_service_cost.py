"""What a service costs, at the user's prices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.prices import Prices
from pimsim.result.service_cost import service_cost
from pimsim.result.service_view import service_lines

Write = Callable[..., Path]
SERVICE = (
    "requests: {file: ./requests.csv}\nscheduler: {name: vllm}\ncache: {blocks: 100}\n"
    "step_time: {linear: {step_us: 1000000, token_us: 0}}\nreplicas: {count: 3}\n"
)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "requests.csv").write_text("arrival_us,prompt,output\n0,20,5\n10,30,5\n")

    def write(more: str = "", text: str = SERVICE) -> Path:
        path = tmp_path / "service.yaml"
        path.write_text(text + more)
        return path

    return write


def test_cost_by_hand() -> None:
    prices = Prices(
        currency="EUR", replica_hour=36, decode_replica_hour=72, kwh=0.5, power_overhead=1.2
    )
    found = service_cost(prices, 36.0, 200.0, 100.0, 7.2e6, 1000, 4000)
    # 36/3600 x 200 + 72/3600 x 100, and 2 kWh x 1.2 x 0.5
    assert found == {
        "currency": "EUR", "total": pytest.approx(5.2), "machines": pytest.approx(4.0),
        "energy": pytest.approx(1.2), "million_tokens_made": pytest.approx(5200.0),
        "million_tokens": pytest.approx(1300.0),
    }  # fmt: skip
    same = prices.model_copy(update={"decode_replica_hour": None})
    alike = service_cost(same, 36, 200, 100, 0, 0, 0)
    assert alike is not None
    assert alike["machines"] == pytest.approx(3.0)
    assert alike["million_tokens_made"] is None
    assert service_cost(None, 0.0, 1.0, 1.0, 1.0, 1, 1) is None


def test_all_replicas_count_whether_they_work_or_not(write: Write) -> None:
    found = pimsim.serve(write("prices: {currency: USD, replica_hour: 3600}\n"))
    figures = found.to_dict()
    cost = figures["cost"]
    assert cost is not None
    assert cost["total"] == pytest.approx(3 * figures["time_s"])
    assert cost["million_tokens_made"] == pytest.approx(cost["total"] / 10 * 1e6)
    assert cost["million_tokens"] == pytest.approx(cost["total"] / 60 * 1e6)
    assert service_lines(found)["cost"].endswith("USD per million tokens made")
    plain = pimsim.serve(write())
    assert plain.to_dict()["cost"] is None
    assert service_lines(plain)["cost"] == ""


def test_a_second_pool_has_its_own_price(write: Write) -> None:
    more = (
        "decode: {count: 2}\n"
        "prices: {currency: USD, replica_hour: 3600, decode_replica_hour: 7200}\n"
    )
    figures = pimsim.serve(write(more)).to_dict()
    assert figures["cost"] is not None
    assert figures["cost"]["total"] == pytest.approx((3 + 2 * 2) * figures["time_s"])


def test_energy_of_a_machine_costs_too(write: Write, tiny_card: Path) -> None:
    path = write(
        "prices: {currency: USD, replica_hour: 0, kwh: 3.6e5}\n",
        "requests: {file: ./requests.csv}\nscheduler: {name: vllm}\n"
        f"machine: {{extends: dgx-h100, devices: 1, workload: {{model: {tiny_card}}}}}\n",
    )
    figures = pimsim.serve(path).to_dict()
    assert figures["cost"] is not None
    assert figures["energy_j"] is not None
    assert figures["cost"]["total"] == pytest.approx(0.1 * figures["energy_j"]["total"])
    assert figures["cost"]["machines"] == 0


GPU = (
    "requests: {file: ./requests.csv}\nscheduler: {name: vllm}\n"
    "machine: {extends: dgx-h100, devices: 2, workload: {model: CARD}}\n"
)
NPU = (
    "requests: {file: ./requests.csv}\nscheduler: {name: vllm}\nreplicas: {count: 2}\n"
    "machine: {extends: neupims, fidelity: fast, parallel: {tp: 2}, workload: {model: CARD}}\n"
)


def test_parts_of_a_machine_cost_a_service_what_they_cost_a_run(
    write: Write, tiny_card: Path
) -> None:
    prices = "{currency: USD, memory_gb: 1, logic_mm2: 0.5, device: 10, hours: 100, kwh: 0.2}"
    text = NPU.replace("CARD", str(tiny_card))
    figures = pimsim.serve(write(f"prices: {prices}\n", text)).to_dict()
    cost, energy = figures["cost"], figures["energy_j"]
    assert cost is not None and energy is not None
    run = pimsim.run(
        "neupims", model=str(tiny_card), batch=2, fidelity="fast", overrides=["parallel.tp=2"]
    )
    assert run.devices == 2
    machine = run.memory_bytes / 2**30 + 0.5 * run.area_mm2["logic_dies"] + 10 * 2
    hours = figures["time_s"] / 3600
    assert cost["machines"] == pytest.approx(machine / 100 * 2 * hours)
    assert cost["energy"] == pytest.approx(0.2 * energy["total"] / 3.6e6)


def test_a_gpu_has_a_price_as_a_device(write: Write, tiny_card: Path) -> None:
    text = GPU.replace("CARD", str(tiny_card))
    path = write("prices: {currency: USD, device: 3600, hours: 1}\n", text)
    figures = pimsim.serve(path).to_dict()
    assert figures["cost"] is not None
    assert figures["cost"]["machines"] == pytest.approx(2 * figures["time_s"])
    for prices, said in (
        ("{currency: USD, logic_mm2: 1, hours: 1}", "prices.logic_mm2: the area"),
        ("{currency: USD, device: 1}", "prices.hours is missing"),
    ):
        with pytest.raises(InputError, match=said):
            pimsim.serve(write(f"prices: {prices}\n", text))


@pytest.mark.parametrize(
    ("prices", "said"),
    [
        ("{currency: USD, replica_hour: 1, kwh: 1}", "prices.kwh needs a machine"),
        ("{currency: USD, replica_hour: 1, decode_replica_hour: 1}", "is of decode"),
        ("{currency: USD, replica_hour: 1, power_overhead: 2}", "kwh is the price of"),
        ("{currency: USD}", "or replica_hour"),
        ("{currency: USD, device: 1, hours: 1}", "prices.replica_hour is missing"),
        ("{currency: USD, replica_hour: 1, device: 1}", "one of the two"),
        ("{currency: USD, replica_hour: 1, hours: 1}", "hours are those"),
        ("{currency: USD, device: 1, decode_replica_hour: 1}", "is beside replica_hour"),
        ("{currency: USD, replica_hour: -1}", "at least 0"),
        ("{currency: USD, replica_huor: 1}", "did you mean 'replica_hour'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(write: Write, prices: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        pimsim.serve(write(f"prices: {prices}\n"))
    assert "\n" not in str(error.value)
