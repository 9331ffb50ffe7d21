"""Results: JSON and back, the laws that catch a bug, tables, the folder on disk."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
from rich.console import Console, RenderableType

from pimsim.config.errors import CheckFailed, InputError
from pimsim.result import store
from pimsim.result.bottleneck import bottleneck, main_cause
from pimsim.result.compare import causes, compare, comparison_rows
from pimsim.result.invariants import (
    InvariantError,
    PowerFacts,
    RunFacts,
    check_invariants,
    violations,
)
from pimsim.result.tables import (
    compare_table,
    cycle_stack_table,
    operator_table,
    result_view,
    stage_table,
)
from pimsim.result.types import (
    Energy,
    Fidelity,
    Latency,
    OperatorResult,
    Percentiles,
    PipelineStage,
    Provenance,
    Result,
    Series,
    StageResult,
    Utilisation,
)

CYCLES = 1000


def make_result(**changes: Any) -> Result:
    result = Result(
        name="neupims",
        cycles=CYCLES,
        time_s=1e-6,
        tokens_per_s=64e6,
        iterations=1,
        stages=(
            StageResult("A", 400, npu_busy_cycles=400, pim_busy_cycles=0, bound_cycles=350),
            StageResult("B", 600, npu_busy_cycles=100, pim_busy_cycles=600, bound_cycles=0),
        ),
        operators=(
            OperatorResult("qkv", "gemm", "systolic", 0, 400, "A", 0, 1000, 4096, 350),
            OperatorResult("score", "attention_score", "pim", 0, 300, "B", 400, 10, 64, 100),
            OperatorResult("score", "attention_score", "pim", 1, 250, "B", 700, 10, 64, 100),
        ),
        utilisation=Utilisation(npu=0.4, vector=0.1, pim=0.6, dram_bus=0.3, command_bus=0.2),
        energy_j=Energy.of(dram=1.0, pim=0.5, npu=0.25, sram=0.125, link=0.0, static=0.125),
        tokens_per_j=32.0,
        cycle_stack={
            "npu": {"computing": 300, "weights": 200, "idle": 500},
            "pim": {"computing": 500, "refresh": 400, "odd_cause": 20, "idle": 80},
        },
        bound_cycles={"npu": 250, "dram": 900},
        fidelity=Fidelity("command"),
        provenance=Provenance("c" * 64, "t" * 64, "0.1.0", 7, wall_s=0.5, peak_rss_mb=100.0),
    )
    return replace(result, **changes)


FACTS = RunFacts(
    bytes_needed={"weight": 100},
    bytes_moved={"weight": 100, "kv": 5},
    macs_needed={"npu": 50},
    macs_done={"npu": 50},
    busy_cycles={"npu": 500, "pim": CYCLES},
)


# JSON


def test_json_has_the_keys_that_others_read() -> None:
    data = make_result().to_dict()
    assert set(data) >= {
        "cycles",
        "time_s",
        "tokens_per_s",
        "iterations",
        "stages",
        "operators",
        "utilisation",
        "latency_s",
        "energy_j",
        "tokens_per_j",
        "iteration_s",
        "layers_simulated",
        "layers_model",
        "cycle_stack",
        "bound_cycles",
        "fidelity",
        "provenance",
    }
    assert set(data["stages"][0]) >= {"name", "cycles", "npu_busy_cycles", "pim_busy_cycles"}
    assert set(data["operators"][0]) >= {"name", "kind", "unit", "layer", "cycles"}
    parts = {"dram", "pim", "npu", "sram", "link", "static", "host", "total"}
    assert set(data["energy_j"]) == parts


@pytest.mark.parametrize("serving", [False, True])
def test_a_result_survives_json(serving: bool) -> None:
    spread = Percentiles(mean=0.1, p50=0.1, p90=0.2, p99=0.3)
    latency = Latency(ttft=spread, tpot=spread, e2e=spread) if serving else None
    result = make_result(latency_s=latency, warnings=("a [bold]note[/]",))
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert Result.from_dict(json.loads(text)) == result
    assert json.loads(text) == result.to_dict()


def removed(data: dict[str, Any]) -> None:
    del data["stages"][1]["cycles"]


def misspelt(data: dict[str, Any]) -> None:
    data["cylces"] = 3


def mistyped(data: dict[str, Any]) -> None:
    data["cycles"] = "many"


def infinite(data: dict[str, Any]) -> None:
    data["time_s"] = float("nan")


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (removed, r"stages\.1\.cycles"),
        (misspelt, "cylces"),
        (mistyped, "cycles"),
        (infinite, "time_s"),
    ],
)
def test_damaged_json_is_named(damage: Callable[[dict[str, Any]], None], where: str) -> None:
    data = make_result().to_dict()
    damage(data)
    with pytest.raises(ValueError, match=rf"^{where}: "):
        Result.from_dict(data)


# Laws


def test_a_sound_run_passes() -> None:
    check_invariants(make_result(), FACTS)


def stage(**changes: Any) -> tuple[StageResult, ...]:
    first, second = make_result().stages
    return replace(first, **changes), second


def operator(**changes: Any) -> tuple[OperatorResult, ...]:
    first, *others = make_result().operators
    return replace(first, **changes), *others


def pipeline(
    first: Mapping[str, Any] | None = None, last: Mapping[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Two stages of two devices each: 10 W static for half a second, 15 J for 4 tokens of 7.5 J."""
    stages = (
        PipelineStage(4, 0.5, 1.0, 10, 10, 8.0), PipelineStage(3, 0.4, 0.8, 10, 10, 7.0),
    )  # fmt: skip
    return {
        "pipeline": (replace(stages[0], **(first or {})), replace(stages[1], **(last or {}))),
        "iteration_s": 0.5, "layers_model": 4, "devices": 4, "tokens": 4,
        "token_j": {"total": 7.5},
        "energy_j": Energy.of(dram=1.0, pim=0.0, npu=0.0, sram=0.0, link=0.0, static=1e-5),
        "static_w": {"arrays": 4.0, "rest": 6.0, "total": 10.0}, **changes,
    }  # fmt: skip


LAWS: list[tuple[dict[str, Any], str]] = [
    ({"stages": stage(bound_cycles=401)}, "stage A took 400 cycles, its bound is 401"),
    ({"stages": stage(npu_busy_cycles=401)}, "stage A has npu busy 401 of 400 cycles"),
    ({"stages": stage(pim_busy_cycles=-1)}, "stage A has pim busy -1 of 400 cycles"),
    ({"stages": stage(cycles=401)}, "stages take 1001 cycles, the run 1000"),
    ({"operators": operator(bound_cycles=401)}, "operator qkv (layer 0) took 400 cycles"),
    ({"operators": operator(start_cycle=601)}, "runs from 601 to 1001, the run 1000"),
    ({"bound_cycles": {"dram": CYCLES + 1}}, "its bound on dram is 1001"),
    ({"cycle_stack": {"npu": {"idle": 999}}}, "cycle stack of npu adds up to 999"),
    ({"cycle_stack": {"npu": {"idle": 1001, "x": -1}}}, "cycle stack of npu has -1 cycles of x"),
    ({"energy_j": replace(make_result().energy_j, dram=1.1)}, "energy parts add up to 2.1 J"),
    (
        {"energy_j": Energy.of(dram=-1, pim=2, npu=0, sram=0, link=0, static=0)},
        "energy of dram is -1 J",
    ),
    ({"utilisation": replace(make_result().utilisation, pim=1.01)}, "utilisation of pim is 1.01"),
    ({"utilisation": replace(make_result().utilisation, npu=float("nan"))}, "npu is nan"),
    ({"tokens_per_s": float("inf")}, "tokens_per_s is inf"),
    # 1 ns a cycle: 4096 bytes in 401 cycles are 10.214e9 a second, 1000 operations 2.49e9
    ({"peaks": {"npu_bytes_per_s": 10.21e9}}, "qkv (layer 0) has 4096 bytes in 401 cycles"),
    ({"peaks": {"npu_flop_per_s": 2.49e9}}, "qkv (layer 0) has 1000 flops in 401 cycles"),
    ({"peaks": {"pim_flop_per_s": 3.3e7}}, "score (layer 0) has 10 flops in 301 cycles"),
    ({"time_s": 0.0}, "the run took 1000 cycles, 0.0 s"),
    (pipeline(first={"time_s": 0.51}), "a pipeline stage takes 0.51 s, a batch leaves every 0.5 s"),
    (pipeline(layers_model=8), "pipeline stages have fewer blocks than the slowest one, 8"),
    (pipeline(first={"busy": 0.9}), "pipeline stage 1 is busy 0.9 of 0.5 s"),
    (pipeline(last={"busy": 0.0, "time_s": 0.0}), "pipeline stage 2 is busy 0.0 of 0.5 s"),
    (pipeline(last={"energy_j": 4.9}), "pipeline stage 2 takes 4.9 J, 5.0 J of it static"),
    (pipeline(first={"energy_j": 9.0}), "pipeline stages take 32.0 J, the tokens 30.0 J"),
]


SERIES = Series(
    end_ps=(600_000, 1_000_000), dram_bytes=(600, 400), pim_bytes=(0, 0), npu_macs=(30, 20),
    pim_macs=(0, 0), link_bytes=(0, 0), vector_lane_ops=(6, 4),
    energy_j={
        "dram": (0.6, 0.4), "pim": (0.5, 0.0), "npu": (0.25, 0.0), "sram": (0.0, 0.125),
        "link": (0.0, 0.0), "static": (0.075, 0.05),
    },
)  # fmt: skip
OVER_TIME = replace(
    FACTS, series_totals={"dram_bytes": 1000, "npu_macs": 50}, power=PowerFacts(dram_most_w=1.1e6)
)
# what the device does most of in the first interval of 600 ns and in the second of 400
SOUND = {"dram_bytes_per_s": 1e9, "npu_flop_per_s": 1e8}


@pytest.mark.parametrize(
    ("changes", "peaks", "facts", "message"),
    [
        ({}, {}, {}, ""),
        ({}, {"dram_bytes_per_s": 0.9e9}, {}, "dram_bytes in interval 0: 600 in 600000 ps"),
        ({}, {"npu_flop_per_s": 0.9e8}, {}, "npu_macs in interval 0: 30 in 600000 ps"),
        ({"pim_macs": (0, 5)}, {}, {}, "pim_macs in interval 1: 5 in 400000 ps, at most 0"),
        ({"pim_macs": (0, 5)}, {"pim_flop_per_s": 2.5e7}, {}, ""),
        # one that is rounded up may be there where none is possible
        ({"pim_macs": (0, 1)}, {}, {}, ""),
        ({"pim_macs": (0, 2)}, {}, {}, "pim_macs in interval 1: 2 in 400000 ps, at most 0"),
        ({}, {}, {"series_totals": {"dram_bytes": 999}}, "dram_bytes over time: 1000"),
        ({"dram_bytes": (1001, -1)}, {"dram_bytes_per_s": 1e12}, {}, "least -1"),
        ({"end_ps": (600_000, 999_000)}, {}, {}, "intervals end at 999000 ps"),
        ({"end_ps": (1_000_000, 1_000_000)}, {}, {}, "the shortest takes 0"),
        ({"energy_j": SERIES.energy_j | {"dram": (0.6, 0.3)}}, {}, {}, "energy of dram over time"),
        ({"energy_j": SERIES.energy_j | {"dram": (1.1, -0.1)}}, {}, {}, "energy of dram over time"),
        ({}, {}, {"power": PowerFacts(dram_most_w=0.9e6)}, "DRAM takes 0.6 J in interval 0"),
        # 1.425 J in 0.6 us are 2.375 MW
        ({}, {}, {"power": PowerFacts(device_most_w=2.4e6)}, ""),
        ({}, {}, {"power": PowerFacts(device_most_w=2.3e6)}, "interval 0 takes 1.425 J in 600000"),
        ({}, {"vector_ops_per_s": 1e7}, {}, ""),
        ({}, {"vector_ops_per_s": 0.7e7}, {}, "vector_lane_ops in interval 0: 6 in 600000 ps"),
        ({}, {}, {"series_totals": {"vector_lane_ops": 11}}, "vector_lane_ops over time: 10"),
    ],
)
def test_what_is_shown_over_time_is_what_happened(
    changes: dict[str, Any], peaks: dict[str, float], facts: dict[str, Any], message: str
) -> None:
    result = make_result(
        series=replace(SERIES, **changes), peaks=SOUND | peaks, operators=(), stages=()
    )
    found = list(violations(result, replace(OVER_TIME, **facts)))
    assert bool(found) == bool(message) and message in "; ".join(found)


def test_no_interval_is_below_the_static_power() -> None:
    """0.125 J in 1 us: 125 kW, of which the second interval lacks a part."""
    static = {"rest": 125e3, "total": 125e3}
    low = SERIES.energy_j | {"dram": (1.0, 0.0), "sram": (0.125, 0.0), "static": (0.1, 0.025)}
    for joules, message in ((SERIES.energy_j, ""), (low, "interval 1 takes 0.025 J in 400000 ps")):
        result = make_result(
            series=replace(SERIES, energy_j=joules), peaks=SOUND, static_w=static, operators=(),
            stages=(),
        )  # fmt: skip
        facts = replace(OVER_TIME, power=PowerFacts())
        found = list(violations(result, facts))
        assert bool(found) == bool(message) and message in "; ".join(found)


def test_a_sound_pipeline_passes() -> None:
    check_invariants(make_result(**pipeline()), FACTS)


def test_an_operator_may_lie_at_its_roof() -> None:
    """Prefetch gives it more time, posted writes fewer bytes."""
    peaks = {"npu_bytes_per_s": 10.22e9, "npu_flop_per_s": 2.5e9, "pim_flop_per_s": 3.99e7}
    check_invariants(make_result(peaks=peaks), FACTS)
    peaks["npu_bytes_per_s"] = 8.2e9
    for change in ({"lead_cycles": 100}, {"posted_bytes": 1000}):
        check_invariants(make_result(peaks=peaks, operators=operator(**change)), FACTS)


@pytest.mark.parametrize(("changes", "message"), LAWS)
def test_a_broken_law_is_a_bug(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvariantError) as caught:
        check_invariants(make_result(**changes), FACTS)
    assert message in str(caught.value)
    assert isinstance(caught.value, CheckFailed)  # exit code 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bytes_moved": {"weight": 99}}, "99 bytes of weight moved, 100 needed"),
        ({"bytes_moved": {}}, "0 bytes of weight moved, 100 needed"),
        ({"macs_done": {"npu": 49}}, "49 MACs on npu done, 50 needed"),
        ({"busy_cycles": {"vector": CYCLES + 1}}, "vector is busy 1001 cycles of a run of 1000"),
    ],
)
def test_work_is_conserved(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvariantError) as caught:
        check_invariants(make_result(), replace(FACTS, **changes))
    assert message in str(caught.value)


def test_all_broken_laws_are_told_at_once() -> None:
    result = make_result(bound_cycles={"dram": 2000}, time_s=0.0)
    with pytest.raises(InvariantError, match="2 law"):
        check_invariants(result, FACTS)


# Tables


def rendered(what: RenderableType, width: int = 160) -> str:
    console = Console(width=width, no_color=True, legacy_windows=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


def test_view_shows_what_an_architect_asks() -> None:
    text = rendered(result_view(make_result(name="my[red]run", warnings=("[red]odd[/red]",))))
    for expected in ("64,000,000.0 tokens/s", "1.000 us", "qkv", "score", "60.0%", "2 J"):
        assert expected in text
    assert "my[red]run" in text
    assert "note: [red]odd[/red]" in text  # text of ours and of users is no markup


def test_bottleneck_names_causes_and_bound() -> None:
    assert bottleneck(make_result()) == (
        "the NPU spends 50.0% idle: no work, 30.0% computing, 20.0% waiting for weights; "
        "the nearest bound is dram (90.0% of the time even if all else were free)"
    )
    assert main_cause(make_result()) == "50.0% idle: no work"
    assert "no cycle stack" in bottleneck(make_result(cycle_stack={}, bound_cycles={}))
    assert main_cause(make_result(cycle_stack={})) == ""


def test_waiting_for_pim_is_explained_by_what_pim_did() -> None:
    stack = {
        "npu": {"computing": 300, "pim": 700},
        "pim": {"computing": 500, "refresh": 100, "row_miss": 10, "npu": 390},
    }
    waits = make_result(cycle_stack=stack, bound_cycles={})
    assert bottleneck(waits) == (
        "the NPU spends 70.0% waiting for PIM, 30.0% computing; "
        "PIM spends 50.0% computing, 10.0% refresh"  # 1 % is no reason for the time
    )
    assert main_cause(waits) == "70.0% waiting for PIM (50.0% computing)"


def test_stages_of_a_name_are_summed() -> None:
    first, second = make_result().stages
    text = rendered(stage_table(make_result(stages=(first, second, first), cycles=2 * CYCLES)))
    row = next(line.split() for line in text.splitlines() if line.split()[:1] == ["A"])
    assert row == ["A", "2", "800", "40.0%", "100.0%", "0.0%", "87.5%"]


def test_stages_of_a_page_are_in_their_order() -> None:
    from pimsim.report.runs import _stages

    table = _stages(make_result())
    assert table.columns == ("stage", "cycles", "share", "NPU busy", "PIM busy", "bound/cycles")
    assert table.rows == (
        ("A", "400", "40.0%", "100.0%", "0.0%", "87.5%"),
        ("B", "600", "60.0%", "16.7%", "100.0%", "0.0%"),
    )


def test_operators_of_a_name_are_summed_and_the_longest_come_first() -> None:
    text = rendered(operator_table(make_result()))
    assert text.index("score") < text.index("qkv")
    assert "550" in text
    short = rendered(operator_table(make_result(), limit=1))
    assert "qkv" not in short
    assert "1 more" in short


def test_cycle_stack_lists_each_cause_once_idle_last() -> None:
    lines = [
        line.split("  ")[0].strip() or line.strip().split("  ")[0]
        for line in rendered(cycle_stack_table(make_result())).splitlines()
    ]
    causes = [line for line in lines if line and "──" not in line and "cycle stack" not in line]
    assert causes == [
        "cause",
        "computing",
        "waiting for weights",
        "refresh",
        "odd cause",
        "idle: no work",
    ]


def test_compare_gives_ratios_to_the_first() -> None:
    slow = make_result(name="npu-only")
    fast = make_result(tokens_per_s=2.4 * slow.tokens_per_s, tokens_per_j=3 * slow.tokens_per_j)
    rows = comparison_rows([slow, fast])
    assert [row["name"] for row in rows] == ["npu-only", "neupims"]
    assert [row["speedup"] for row in rows] == pytest.approx([1, 2.4])
    assert [row["energy_ratio"] for row in rows] == pytest.approx([1, 3])
    text = rendered(compare_table([slow, fast], ["one", "two"]), width=200)
    assert "compared with one" in text
    assert "2.40x" in text
    assert "3.00x" in text
    frame = compare([slow, fast], ["one", "two"])
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc["two", "speedup"] == pytest.approx(2.4)


def test_compare_refuses_what_it_cannot_line_up() -> None:
    with pytest.raises(InputError, match="no results"):
        comparison_rows([])
    with pytest.raises(InputError, match="1 results, but 2 names"):
        comparison_rows([make_result()], ["a", "b"])


# Disk


def test_saved_result_loads_equal(tmp_path: Path) -> None:
    result, out = make_result(), tmp_path / "new" / "run"
    store.save(result, "name: neupims\n", out)
    assert store.load(out) == result
    assert store.load_config_text(out) == "name: neupims\n"
    frame = pandas.read_parquet(out / store.TABLE_FILES["operators"])
    assert frame["name"].tolist() == [op.name for op in result.operators]
    assert frame["cycles"].sum() == sum(op.cycles for op in result.operators)
    assert frame["start_cycle"].dtype == "int64"
    assert sorted(path.name for path in out.parent.iterdir()) == ["run"]


def test_a_run_without_operators_has_a_typed_table(tmp_path: Path) -> None:
    store.save(make_result(operators=()), "", tmp_path / "run")
    frame = pandas.read_parquet(tmp_path / "run" / store.TABLE_FILES["operators"])
    assert len(frame) == 0
    assert frame["cycles"].dtype == "int64"


def test_an_earlier_result_is_replaced_and_an_empty_folder_filled(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    store.save(make_result(), "a", out)
    store.save(make_result(tokens_per_s=1.0), "b", out)
    assert store.load(out).tokens_per_s == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    for attempt in (
        lambda: store.save(make_result(), "", tmp_path),
        lambda: store.check_writable(tmp_path),
    ):
        with pytest.raises(InputError, match=r"holds 'thesis\.tex'"):
            attempt()
    assert (tmp_path / "thesis.tex").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for out in (file, file / "below"):
        with pytest.raises(InputError, match="--out"):
            store.check_writable(out)
        with pytest.raises(InputError, match="--out"):
            store.save(make_result(), "", out)
    store.check_writable(tmp_path / "new" / "deep")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_file_system_that_takes_no_files_is_refused() -> None:
    """Not even root can write there."""
    out = Path("/proc/pimsim-run")
    with pytest.raises(InputError, match="/proc is not a folder that can be written"):
        store.check_writable(out)
    with pytest.raises(InputError, match=r"^--out /proc/pimsim-run: cannot be written"):
        store.save(make_result(), "", out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(InputError, match="not a folder that can be written"):
        store.check_writable(tmp_path / "run")


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.save(make_result(), "old", tmp_path / "run")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_write_tables", full)
    with pytest.raises(InputError, match="No space left on device"):
        store.save(make_result(tokens_per_s=1.0), "new", tmp_path / "run")
    assert store.load_config_text(tmp_path / "run") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "no JSON: line 1"),
        ("[]", "found list"),
        ('{"cycles": 1}', "Field required"),
    ],
)
def test_a_damaged_folder_is_one_clear_line(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / store.RESULT_FILE).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        store.load(tmp_path)
    assert "\n" not in str(caught.value)


def test_causes_are_the_stacks_subtracted_per_block() -> None:
    before = make_result(
        cycle_stack={"npu": {"computing": 400, "weights": 500, "idle": 100}}, layers_simulated=1
    )
    after = make_result(
        cycle_stack={"npu": {"computing": 400, "weights": 300, "idle": 300}}, layers_simulated=1
    )
    found = causes(before, after)
    assert [(each.unit, each.cause) for each in found] == [("npu", "weights")]
    micro = before.time_s / before.cycles * 1e6
    assert found[0].saved == pytest.approx(200 * micro)
    assert "waiting for weights of the NPU fell by 40%" in found[0].words()
    back = causes(after, before)
    assert [each.saved for each in back] == [-found[0].saved]
    assert causes(before, before) == []


def test_a_cause_of_twice_the_blocks_is_the_same_per_block() -> None:
    one = make_result(cycle_stack={"npu": {"computing": 1000}}, layers_simulated=1)
    two = replace(
        make_result(cycle_stack={"npu": {"computing": 2000}}, layers_simulated=2),
        cycles=2 * one.cycles, time_s=2 * one.time_s,
    )  # fmt: skip
    assert causes(one, two) == []
