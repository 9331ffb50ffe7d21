"""The language of rules: words are the file's own, and what is named wrongly is one line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim, load_run
from pimsim.config.memory import MemoryConfig
from pimsim.config.pim import PimDesignConfig
from pimsim.config.resources import preset_names, preset_path
from pimsim.config.rules import Rule, delay_line
from pimsim.hardware.dram.legality import check_commands
from pimsim.hardware.dram.rules import Command, RuleTables, compile_rules
from pimsim.hardware.rule_tables import PairTable

WORD = re.compile(r"\b(ACT|PRE|PREA|RD|WR|RDA|WRA|REF|REFpb)\b")


def renamed(name: str, folder: Path) -> MemoryConfig:
    """A memory preset whose standard calls every command otherwise."""
    text = preset_path("memory", name).read_text()
    lines = [
        WORD.sub(r"X_\1", line)
        if re.match(r"\s*(- \{|commands:|WRA:|duration|either)", line)
        else line
        for line in text.splitlines()
    ]
    file = folder / "renamed.yaml"
    file.write_text("\n".join(lines))
    return load_memory(str(file)).config


def equal(one: RuleTables, other: RuleTables) -> bool:
    return all(
        np.array_equal(getattr(one, key), getattr(other, key))
        for key in ("rules", "first", "windows", "window_adds")
    )


BASES = [n for n in preset_names("memory") if "\ncommands:" in preset_path("memory", n).read_text()]


@pytest.mark.parametrize("name", BASES)
def test_commands_are_called_what_the_standard_calls_them(name: str, tmp_path: Path) -> None:
    own, other = load_memory(name).config, renamed(name, tmp_path)
    assert set(other.commands) == {f"X_{command}" for command in own.commands}
    ticks = own.command_bus.ticks_per_clock
    assert equal(compile_rules(own, None, ticks), compile_rules(other, None, ticks))
    closed = {"controller": own.controller.model_copy(update={"page_policy": "auto-precharge"})}
    assert equal(
        compile_rules(own.model_copy(update=closed), None, ticks),
        compile_rules(other.model_copy(update=closed), None, ticks),
    )
    early = [(0, 0, Command.ACT, 0, 3), (1, 0, Command.RD, 0, 3)]
    found = check_commands(early, other)
    assert found is not None and found.required == check_commands(early, own).required  # type: ignore[union-attr]


@pytest.mark.parametrize("buffers", [1, 2])
def test_pim_s_commands_are_called_what_the_design_calls_them(buffers: int, tmp_path: Path) -> None:
    word = re.compile(r"\b(G_ACT|PIM_PRE|GWRITE|HEADER|COMP|READRES|GEMV)\b")
    text = word.sub(r"\1x", preset_path("pim", "newton").read_text())
    (tmp_path / "mine.yaml").write_text(text)
    own, other = (
        load_pim(design, [f"row_buffers={buffers}"]).config
        for design in ("newton", str(tmp_path / "mine.yaml"))
    )
    assert equal(compile_rules(own.memory, own), compile_rules(other.memory, other))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules:\n  - {level: bnk, first: [ACT], then: [RD], delay: '1'}\n",
         "m.yaml:3: rules.0.level: unknown level 'bnk'; did you mean 'bank'?"),
        ("rules:\n  - {level: bank, first: [ACT], then: [RD, RDX], delay: '1'}\n",
         "m.yaml:3: rules.0.then.1: unknown command 'RDX'; did you mean 'RD"),
        ("commands: {SRX: read}\n", "commands.SRX: RD is for 'read' already"),
        ("commands: {SRX: raed}\n", "m.yaml:2: commands.SRX: found 'raed'; did you mean 'read'?"),
        ("commands: null\n", "m.yaml:2: commands"),
        ("command_bus: {duration: {ATC: 2}}\n",
         "m.yaml:2: command_bus.duration: unknown command 'ATC'; did you mean 'ACT'?"),
        ("command_bus: {either_edge: [PER]}\n",
         "m.yaml:2: command_bus.either_edge: unknown command 'PER'; did you mean 'PRE'?"),
        ("rules:\n  - {level: bank, first: [ACT], then: [RD], delay: n}\n",
         "m.yaml:3: rules.0.delay: no timing 'n'"),
        ("rules:\n  - {level: bank, first: [ACT], then: [RD], delay: '1', other_place: [bank]}\n",
         "m.yaml:3: rules.0: other_place is of the rules of a PIM design's command stream"),
        ("rules:\n  - {level: bank, first: [ACT], then: [WRA], delay: '1'}\n",
         "m.yaml:3: rules.0: then: WRA waits for what WR waits for"),
    ],
)  # fmt: skip
def test_a_memory_names_what_it_has(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("extends: hbm2\n" + text)
    with pytest.raises(InputError) as refusal:
        load_memory(str(tmp_path / "m.yaml"))
    assert said in str(refusal.value)


@pytest.mark.parametrize("action", ["activate", "read", "refresh", "read-precharge"])
def test_a_memory_has_a_command_for_what_its_controller_does(action: str) -> None:
    values = load_memory("hbm2", ["controller.page_policy=auto-precharge"]).config.model_dump()
    values["commands"] = {name: does for name, does in values["commands"].items() if does != action}
    with pytest.raises(ValueError, match=f"commands: none is for '{action}'"):
        MemoryConfig.model_validate(values)


def test_an_action_that_a_design_lacks_is_one_clear_error() -> None:
    design = load_pim("newton").config
    others = {name: each for name, each in design.commands.items() if name != "GEMV"}
    with pytest.raises(ValueError, match="commands: none has the action 'multiply-and-read'"):
        design.model_copy(update={"commands": others}).command("multiply-and-read")


@pytest.mark.parametrize(
    ("values", "levels", "ties"),
    [
        ({}, None, True),
        ({}, ["bank", "rank"], True),
        ({}, ["channel"], False),
        ({"first": ["B"]}, None, False),
        ({"then": ["A"]}, None, False),
        ({"window": 4}, None, False),
        ({"window": 4}, ["bank"], False),
        ({"level": "other_ranks"}, None, False),
        ({"level": "other_ranks"}, ["other_ranks"], True),
        ({"other_place": ["rank"]}, None, False),
        ({"other_place": ["rank"]}, ["bank"], False),
    ],
)
def test_a_rule_ties_what_may_follow_the_last_command(
    values: dict[str, object], levels: list[str] | None, ties: bool
) -> None:
    """One notion for memories and for designs of both kinds."""
    plain = {"level": "bank", "first": ["A", "C"], "then": ["B"], "delay": "1"}
    assert Rule.model_validate({**plain, **values}).ties("A", "B", levels) == ties


@pytest.mark.parametrize(
    "action", ["activate", "precharge", "load-operand", "announce", "multiply"]
)
def test_a_design_has_a_command_for_what_is_done_with_pim(action: str) -> None:
    values = load_pim("newton").config.model_dump()
    values["commands"] = {n: c for n, c in values["commands"].items() if c["action"] != action}
    with pytest.raises(ValueError, match=f"commands: none has the action '{action}'"):
        PimDesignConfig.model_validate(values)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("{level: bank, first: [ACT], then: [PRE], delay: '500', other_place: [rank]}",
         "rules.35: other_place is of the rules of a PIM design's command stream"),
        ("{level: rank, first: [ACT], then: [RD], delay: '500', window: 4}",
         "rules.35: window 4: it binds commands to earlier ones of their own kind in a rank"),
        ("{level: row_buffer, first: [ACT], then: [ACT], delay: '500', window: 4}",
         "rules.35: window 4: it binds commands to earlier ones of their own kind in a rank"),
        ("{level: rank, first: [ACT, G_ACT], then: [ACT, G_ACT], delay: '500', window: 4}",
         "rules.35: window 4: one command, found ACT, G_ACT"),
        ("{level: bank, first: [ACT], then: [RDA], delay: '500'}",
         "rules.35: then: RDA waits for what RD waits for"),
    ],
)  # fmt: skip
def test_a_design_on_the_memorys_controller_has_rules_that_this_keeps(
    rule: str, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(f"extends: newton\nrules:\n  add:\n    - {rule}\n")
    with pytest.raises(InputError) as refusal:
        load_pim(str(file))
    assert f"p.yaml:4: {said}" in str(refusal.value)
    with pytest.raises(InputError) as refusal:
        load_run("neupims", [f"pim={file}"])
    assert f"p.yaml:4: pim.{said}" in str(refusal.value)


def test_a_window_of_a_stream_is_not_over_other_ranks(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    rule = "{level: other_ranks, first: [MACAB], then: [MACAB], delay: '5', window: 4}"
    file.write_text(f"extends: attacc-bank\nrules:\n  add:\n    - {rule}\n")
    with pytest.raises(InputError, match=r"p\.yaml:4: rules\.34\.level: other_ranks is of rules"):
        load_pim(str(file))


def test_two_commands_for_one_action_and_none_are_refused() -> None:
    values = load_pim("newton").config.model_dump()
    values["commands"]["MAC"] = values["commands"]["COMP"]
    with pytest.raises(ValueError, match=r"commands\.MAC: COMP is for 'multiply' already"):
        PimDesignConfig.model_validate(values)
    values["commands"]["MAC"] = {**values["commands"]["COMP"], "action": None}
    with pytest.raises(ValueError, match=r"commands\.MAC: its action is missing"):
        PimDesignConfig.model_validate(values)


def test_a_memory_without_the_timings_of_a_design_is_refused_by_file_and_line(
    tmp_path: Path,
) -> None:
    text = preset_path("pim", "newton").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("delay: tFAW}", "delay: tPPD}"))
    line = next(i for i, each in enumerate(text.splitlines(), 1) if "delay: tFAW}" in each)
    number = [rule.delay for rule in load_pim("newton").config.rules].index("tFAW")
    with pytest.raises(
        InputError, match=rf"mine\.yaml:{line}: pim\.rules\.{number}\.delay: no timing 'tPPD'"
    ):
        load_run("neupims", [f"pim={tmp_path / 'mine.yaml'}"])


def test_a_delay_grows_by_what_a_dot_product_adds() -> None:
    timings = {"a": 3, "b": 2}
    assert delay_line("a * (n + 1) + b", timings, "x") == (5, 3)
    assert delay_line("a + b", timings, "x") == (5, 0)


def test_of_several_rules_the_longest_binds() -> None:
    table = PairTable(3, 2)
    table.bind(0, 1, 2, 4)
    table.bind(0, 1, 2, 9, 1)
    table.bind(0, 1, 2, 7)
    table.bind(2, 0, 0, -3)
    rules, first = table.arrays()
    assert rules.tolist() == [[1, 2, 9, 1], [0, 0, -3, 0]]
    assert first.tolist() == [[0, 0, 1], [1, 1, 1], [1, 2, 2]]
