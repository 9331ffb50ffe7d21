"""Memories that contradict themselves, and command traces that are none: one clear line."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim
from pimsim.config.memory import MemoryConfig
from pimsim.config.resources import preset_names
from pimsim.hardware.dram.command_trace import read_command_trace
from pimsim.hardware.dram.rules import compile_rules

Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules:\n  - {level: rank, first: [ACT], then: [ACT], delay: tRRD_X}\n",
         "m.yaml:3: rules.0.delay: no timing 'tRRD_X'; did you mean 'tRRD_"),
        ("rules:\n  - {level: rank, first: [ACT], then: [ACT], delay: tFAW + tRRD_X}\n",
         "m.yaml:3: rules.0.delay: no timing 'tRRD_X'; did you mean 'tRRD_"),
        ("rules:\n  - {level: rank, first: [ACTT], then: [ACT], delay: tFAW}\n",
         "m.yaml:3: rules.0.first.0: unknown command 'ACTT'; did you mean 'ACT'?"),
        ("rules:\n  - {level: rank, first: [ACT], then: [ACT], delay: 'tFAW +'}\n",
         "m.yaml:3: rules.0.delay: 'tFAW +' is no delay"),
        ("rules: []\n", "m.yaml:2: rules: none from ACT to RD at row_buffer or bank or"),
        ("rules:\n  - {level: rank, first: [RD], then: [ACT], delay: tFAW, window: 4}\n",
         "m.yaml:3: rules.0: window 4: it binds commands to earlier ones of their own kind"),
        ("timings: {tRC: 40}\n", "m.yaml:2: timings.tRC is 40, less than tRAS + tRP = 48"),
        ("timings: {tFAW: 3}\n", "m.yaml:2: timings.tFAW is 3, less than tRRD_S = 4"),
        ("timings: {tRRD_L: 3}\n", "m.yaml:2: timings.tRRD_L is 3, less than tRRD_S = 4"),
        ("timings: {tRAS: 10}\n", "m.yaml:2: timings.tRAS is 10, less than tRCDRD = 14"),
        ("timings: {tREFI: 200}\n", "m.yaml:2: timings.tREFI is 200, less than tRFC = 260"),
        ("timings: {tRFCpb: 300}\n", "timings.tRFC is 260, less than tRFCpb = 300"),
        ("controller: {write_drain_high: 40}\n",
         "m.yaml:2: controller.write_drain_high is 40, but write_queue_depth is 32"),
        ("controller: {scheduler: frfcfs}\n", "'frfcfs'; did you mean 'fr-fcfs'?"),
        ("controller: {page_policy: close}\n", "'close'; did you mean 'closed'?"),
    ],
)  # fmt: skip
def test_a_memory_that_contradicts_itself(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(f"extends: hbm2\n{text}")
    with pytest.raises(InputError) as refusal:
        compile_rules(load_memory(str(tmp_path / "m.yaml")).config, None)
    assert message in str(refusal.value)


def test_a_refresh_of_a_rank_binds_no_bank() -> None:
    memory = load_memory("hbm2").config
    rule = memory.rules[0].model_copy(update={"level": "bank", "first": ["REF"], "then": ["ACT"]})
    with pytest.raises(InputError, match=r"memory\.rules\[0\]: REF acts on more than one bank"):
        compile_rules(memory.model_copy(update={"rules": [rule]}), None)
    pim = load_pim("neupims").config
    of_pim = pim.model_copy(update={"rules": [*pim.rules[:1], rule]})
    with pytest.raises(InputError, match=r"pim\.rules\[1\]: REF acts on more than one bank"):
        compile_rules(load_memory("hbm2-neupims").config, of_pim)


PAIRS = [
    ("ACT", "RD"), ("ACT", "WR"), ("ACT", "PRE"), ("PRE", "ACT"), ("RD", "PRE"), ("WR", "PRE"),
    ("RD", "RD"), ("WR", "WR"), ("RD", "WR"), ("WR", "RD"), ("REF", "ACT"),
]  # fmt: skip


@pytest.mark.parametrize("name", preset_names("memory"))
@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_rules_that_every_standard_needs_are_missed(name: str, pair: tuple[str, str]) -> None:
    """Without any rule that ties the two commands, but for those of the bank group, whose other
    banks would be free, and of other ranks."""
    memory = load_memory(name).config
    if pair == ("REF", "ACT") and memory.controller.refresh == "none":
        pytest.skip(f"{name} is not refreshed")
    left = []
    for rule in memory.model_dump()["rules"]:
        loose = rule["window"] > 1 or rule["level"] in ("other_ranks", "bank_group")
        if not loose and pair[0] in rule["first"] and pair[1] in rule["then"]:
            rule["then"] = [then for then in rule["then"] if then != pair[1]]
        left.append(rule)
    with pytest.raises(ValidationError, match=f"none from {pair[0]} to {pair[1]} at"):
        MemoryConfig.model_validate({**memory.model_dump(), "rules": left})


def test_ranks_share_their_data_bus_by_a_rule() -> None:
    values = load_memory("ddr4-3200").config.model_dump()
    left = [rule for rule in values["rules"] if rule["level"] != "other_ranks"]
    with pytest.raises(ValidationError, match="none from RD to RD at other_ranks or"):
        MemoryConfig.model_validate({**values, "rules": left})
    values["organization"]["ranks"] = 1
    assert MemoryConfig.model_validate({**values, "rules": left}).organization.ranks == 1


@pytest.mark.parametrize(
    "field",
    ["channels", "pseudo_channels", "ranks", "bank_groups", "banks_per_group", "rows", "columns"],
)
def test_each_part_of_an_address_is_a_power_of_two(field: str) -> None:
    with pytest.raises(InputError, match=rf"organization\.{field} is 3, but .* power of two"):
        load_memory("hbm3-6400", [f"organization.{field}=3"])


@pytest.mark.parametrize("key", ["address_map", "stream_map"])
@pytest.mark.parametrize("text", ["rorabgbacococh", "rorabgbaco", "rorabgbachcopc", "rorabgbachcx"])
def test_a_map_names_each_field_once(key: str, text: str) -> None:
    with pytest.raises(InputError, match=rf"{key} '{text}' must hold each of"):
        load_memory("hbm2", [f"{key}={text}"])


@pytest.mark.parametrize(
    "setting",
    ["scheduler=fcfs", "page_policy=closed", "row_hit_cap=5", "bank_queue_depth=9",
     "requests_per_cycle=2", "fabric_latency=1", "requests_in_flight=9"],
)  # fmt: skip
def test_keys_of_the_other_controller_are_refused(setting: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(InputError, match=f"{key}.* is of model bank-queues"):
        load_memory("hbm2-2000", [f"controller.{setting}"])


def test_auto_precharge_is_bound_as_what_it_is(tmp_path: Path) -> None:
    rules = load_memory("hbm2").config.model_dump()["rules"]
    for rule, why in (
        ({"first": ["ACT"], "then": ["RDA"]}, "then: RDA waits for what RD waits for"),
        ({"first": ["WRA"], "then": ["WRA"], "window": 4}, "WRA waits for what WR waits for"),
    ):
        wrong = [*rules, {"level": "rank", "delay": "tRP", **rule}]
        with pytest.raises(ValidationError, match=why):
            MemoryConfig.model_validate({**load_memory("hbm2").config.model_dump(), "rules": wrong})


def test_memories_that_extend_each_other(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    (tmp_path / "t.trc").write_text("0x0 READ 0\n")
    message = refused("kernel", "dram", "t.trc", "--memory", "a.yaml")
    assert "extends goes in a circle: a.yaml -> b.yaml -> a.yaml" in message


def test_refresh_per_bank_needs_a_standard_that_has_it(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "t.trc").write_text("0x0 READ 0\n")
    choice = ("--set", "controller.refresh=per-bank")
    message = refused("kernel", "dram", "t.trc", "--memory", "ddr4-3200", *choice)
    assert "controller.refresh is per-bank, but timings lack tRFCpb" in message


def test_refresh_per_bank_is_refused_beside_pim(refused: Refused) -> None:
    message = refused("run", "npu-pim", "--set", "memory.controller.refresh=per-bank")
    assert "memory.controller.refresh: per-bank, but PIM design" in message
    assert "allowed with PIM: all-bank, none" in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 activate 0 0 3 1", "c.cmd:2: 6 fields; 8 are expected"),
        ("2 activat 0 0 3 1 0x1 0x0", "c.cmd:2: command 'activat'; did you mean 'activate'?"),
        ("x activate 0 0 3 1 0x1 0x0", "c.cmd:2: cycle 'x' is no whole number"),
        ("2 activate 0 0 4 1 0x1 0x0", "c.cmd:2: bank group 4 of activate; hbm2 has 0 to 3"),
        ("2 activate 8 0 3 1 0x1 0x0", "c.cmd:2: channel 8 of activate; hbm2 has -1 to 7"),
        ("2 activate 0 0 3 1 0x8000 0x0", "c.cmd:2: row 0x8000 of activate"),
        ("0 activate 0 0 3 1 0x1 0x0", "c.cmd:2: cycle 0 comes after 1 of line 1"),
    ],
)
def test_a_line_that_is_no_command(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.cmd").write_text(f"1 activate 0 0 0 0 0x0 0x0\n{line}\n")
    with pytest.raises(InputError) as refusal:
        read_command_trace(tmp_path / "c.cmd", load_memory("hbm2").config)
    assert message in str(refusal.value)


def test_a_trace_has_so_many_lines_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blank lines count: kilobytes of gzip hold billions of them."""
    monkeypatch.setattr("pimsim.hardware.dram.command_trace.MAX_LINES", 3)
    path, memory = tmp_path / "c.cmd.gz", load_memory("hbm2").config
    path.write_bytes(gzip.compress(b"1 activate 0 0 0 0 0x0 0x0\n\n\n"))
    assert len(read_command_trace(path, memory)) == 1
    path.write_bytes(gzip.compress(b"1 activate 0 0 0 0 0x0 0x0\n\n\n\n"))
    with pytest.raises(InputError, match=r"c\.cmd\.gz: more than 3 lines, the limit"):
        read_command_trace(path, memory)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "needs a TRACE, or --check-commands FILE"),
        (("t.trc", "--check-commands", "c.cmd"), "takes no TRACE"),
        (("--check-commands", "empty.cmd"), "empty.cmd: holds no command"),
        (("--check-commands", "broken.gz"), "broken.gz: cannot be read as gzip"),
        (("t.trc", "--commands", "no/such/folder"), "no/such/folder: cannot be written"),
    ],
)
def test_wrong_use(
    arguments: tuple[str, ...], message: str, refused: Refused, tmp_path: Path
) -> None:
    (tmp_path / "t.trc").write_text("0x0 READ 0\n")
    (tmp_path / "empty.cmd").write_text("\n# nothing\n")
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8b\x08")
    assert message in refused("kernel", "dram", *arguments)
