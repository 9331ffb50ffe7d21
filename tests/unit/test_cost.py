"""What machines and tokens cost at the user's prices: by hand, and the same wherever it is told."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from math import isnan
from pathlib import Path

import pytest

import pimsim
from pimsim.config.errors import InputError
from pimsim.config.prices import Prices, load_prices
from pimsim.explore.sweep import load_table
from pimsim.report.sweep_view import View
from pimsim.report.sweeps import read_sweep, sweep_page
from pimsim.result.cost import (
    Priced,
    cost_words,
    hour_cost,
    machine_cost,
    missing_price,
    priced_metrics,
    priced_table,
)  # fmt: skip
from pimsim.result.metrics import METRICS

RunCli = Callable[..., subprocess.CompletedProcess[str]]
ROW = {
    "memory_bytes": 64 * 2**30, "area_mm2.logic_dies": 200.0, "devices": 2, "tokens_per_s": 1000.0,
    "tokens_per_j": 4.0,
}  # fmt: skip
PRICES = "currency: EUR\nmemory_gb: 10\nlogic_mm2: 0.5\nhours: 1000\n"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    return path


def row(key: str) -> float:
    return ROW.get(key, float("nan"))


def test_cost_by_hand() -> None:
    paid = Prices(
        currency="EUR", memory_gb=10, logic_mm2=0.5, device=80, hours=1000, kwh=0.36,
        power_overhead=2,
    )  # fmt: skip
    found = machine_cost(paid, row)
    assert found == {
        "memory": 640.0, "logic": 100.0, "devices": 160.0, "total": 900.0,
        # 900 / 3.6e6 a second, and 250 W x 2 x 0.36 / 3.6e6, of a thousand tokens
        "million_tokens": pytest.approx((900 / 3.6e6 + 180 / 3.6e6) / 1000 * 1e6),
    }  # fmt: skip
    assert METRICS["cost"].of(Priced(ROW, paid)) == 900.0
    assert METRICS["tokens_per_s_cost"].of(Priced(ROW, paid)) == pytest.approx(1000 / 900)
    assert Priced(ROW, paid).get("devices") == 2
    assert isnan(Priced(ROW, paid).get("cost.nothing"))
    bare = Prices(currency="EUR", device=80)
    assert machine_cost(bare, row) == {"devices": 160.0, "total": 160.0}
    assert priced_metrics(bare) == ("cost", "tokens_per_s_cost")
    assert priced_metrics(paid) == ("cost", "tokens_per_s_cost", "cost_million_tokens")
    assert priced_metrics(None) == ()


def test_a_machine_by_the_hour_tells_tokens_alone() -> None:
    paid = Prices(currency="EUR", replica_hour=36, kwh=0.36, power_overhead=2)
    # a hundredth a second, and 250 W x 2 x 0.36 / 3.6e6, of a thousand tokens
    assert machine_cost(paid, row) == {"million_tokens": pytest.approx((0.01 + 5e-5) * 1e3)}
    assert hour_cost(paid, row) == 36
    assert isnan(hour_cost(Prices(currency="EUR", device=80), row))
    assert priced_metrics(paid) == ("cost_million_tokens",)
    assert isnan(METRICS["cost"].of(Priced(ROW, paid)))
    result = pimsim.run("dgx-h100", requests="equal:64+1", batch=1, layers=1)
    assert next(text for _, text in cost_words(result, paid)).endswith(
        "EUR for a million, at 36 EUR an hour, with energy"
    )
    assert missing_price("cost", paid) == " with memory_gb, logic_mm2 or device"
    assert missing_price("cost", None) == ""
    assert missing_price("cost_million_tokens", None) == " with hours or replica_hour"


def test_silicon_that_is_not_known_has_no_price() -> None:
    result = pimsim.run("dgx-h100", requests="equal:64+1", batch=1, layers=1)
    paid = Prices(currency="EUR", memory_gb=1, logic_mm2=1, hours=1)
    assert isnan(Priced(result, paid).cost["total"])
    assert isnan(Priced(result, paid).cost["million_tokens"])
    assert dict(cost_words(result, paid))["cost of the machine"].startswith("not known")
    known = Prices(currency="EUR", device=25_000)
    said = dict(cost_words(result, known))["cost of the machine"]
    assert said.startswith(f"{25_000 * result.devices:,.4g} EUR of all devices (devices ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("memory_gb: 1\n", "currency is missing"),
        ("currency: EUR\n", "memory_gb, logic_mm2 or device is needed"),
        ("currency: EUR\nmemry_gb: 1\n", "unknown key 'memry_gb'; did you mean 'memory_gb'?"),
        ("currency: EUR\nmemory_gb: -1\n", "prices.yaml:2: memory_gb: found -1"),
        ("currency: EUR\ndevice: 1\nkwh: 1\n", "hours is missing"),
        ("currency: EUR\ndevice: 1\nhours: 1\npower_overhead: 2\n", "power_overhead is of"),
        ("currency: EUR\ndevice: 1\nhours: 0\n", "hours: found 0"),
    ],
)
def test_wrong_prices_are_refused_in_one_line(prices: Path, text: str, message: str) -> None:
    prices.write_text(text)
    with pytest.raises(InputError) as error:
        load_prices(prices)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_run_tells_its_cost_and_is_no_other_run(
    run_cli: RunCli, tiny_card: Path, prices: Path
) -> None:
    words = ("run", "neupims", "--model", str(tiny_card), "--batch", "4", "--fidelity", "fast")
    bare = json.loads(run_cli(*words, "--json").stdout)
    told = json.loads(run_cli(*words, "--prices", str(prices), "--json").stdout)
    cost = told.pop("cost")
    assert told["provenance"]["content_sha256"] == bare["provenance"]["content_sha256"]
    assert told.keys() == bare.keys()
    memory = 10 * bare["memory_bytes"] / 2**30
    logic = 0.5 * bare["area_mm2"]["logic_dies"]
    assert cost["currency"] == "EUR"
    assert cost["total"] == pytest.approx(memory + logic)
    assert cost["tokens_per_s_cost"] == pytest.approx(bare["tokens_per_s"] / cost["total"])
    each = cost["total"] / 3.6e6 / bare["tokens_per_s"] * 1e6
    assert cost["million_tokens"] == pytest.approx(each)
    shown = run_cli(*words, "--prices", str(prices)).stdout
    assert "at your prices" in shown and "EUR of all devices (memory " in shown


def test_a_sweep_its_page_and_a_search_tell_the_same(tmp_path: Path, prices: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "base: dgx-h100\nset: {workload.requests: 'equal:64+1', workload.layers: 1}\n"
        "grid: {workload.batch: [1, 2], workload.model: [gpt3-7b]}\n"
    )
    table = pimsim.sweep(study, tmp_path / "study", workers=1)
    paid = Prices(currency="EUR", device=1000, hours=10)
    priced = priced_table(table, paid)
    assert list(priced["cost.total"]) == [1000.0 * n for n in table["devices"]]
    assert priced_table(table, None) is table
    for name in priced_metrics(paid):
        expected = METRICS[name].of(Priced(table.iloc[0].to_dict(), paid))
        assert METRICS[name].of(priced.iloc[0]) == pytest.approx(expected)
    view = View(("tokens_per_s_cost",), "cost_million_tokens")
    page = sweep_page(read_sweep(tmp_path / "study", view, paid))
    assert "tokens/s/cost" in page and "cost/Mtoken" in page
    with pytest.raises(InputError, match="tokens_per_s_cost needs --prices FILE: none ship"):
        read_sweep(tmp_path / "study", view)
    without = Prices(currency="EUR", device=1000)
    with pytest.raises(InputError, match="cost_million_tokens needs --prices FILE with hours"):
        read_sweep(tmp_path / "study", view, without)
    assert "cost.total" not in load_table(tmp_path / "study")


SEARCH = """
name: first
base: dgx-h100
set: {workload.requests: 'equal:64+1', workload.layers: 1, workload.model: gpt3-7b}
space: {workload.batch: {choices: [1, 2]}}
objectives: [{metric: tokens_per_s_cost}]
constraints: ["cost > 0"]
trials: 2
batch: 2
sampler: random
"""


def test_a_search_has_prices_and_keeps_to_them(tmp_path: Path) -> None:
    from pimsim.explore.search import run_search

    path, out = tmp_path / "search.yaml", tmp_path / "found"
    path.write_text(SEARCH)
    with pytest.raises(InputError, match="objective tokens_per_s_cost needs prices; none ship"):
        run_search(path, out, 1)
    path.write_text(SEARCH + "prices: {currency: EUR, device: 1000}\n")
    first = run_search(path, out, 1)
    best = max(trial.values[0] for trial in first.trials if trial.values)
    path.write_text(SEARCH + "prices: {currency: EUR, device: 500}\n")
    with pytest.raises(InputError, match="prices are not those of the trials"):
        run_search(path, out, 1)
    path.write_text((SEARCH + "prices: {currency: EUR, device: 500}\n").replace("first", "second"))
    again = run_search(path, out, 1)
    assert max(t.values[0] for t in again.trials if t.values) == pytest.approx(2 * best)
