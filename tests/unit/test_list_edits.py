"""A variant is the lines that differ: ``add`` and ``drop`` over a parent's list."""

from __future__ import annotations

from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim, load_run

DROP = "{level: channel, first: [GEMV], then: [PIM_PRE]}"
ADD = "{level: channel, first: [GEMV], then: [PIM_PRE], delay: tRTP + n}"


def written(folder: Path, text: str) -> str:
    file = folder / "mine.yaml"
    file.write_text(f"extends: neupims\nname: mine\n{text}")
    return str(file)


def test_rules_are_the_parent_s_but_for_those_named(tmp_path: Path) -> None:
    file = written(tmp_path, f"rules:\n  drop: [{DROP}]\n  add: [{ADD}]\n")
    parent, mine = load_pim("neupims").config, load_pim(file).config
    gone = [rule for rule in parent.rules if rule not in mine.rules]
    new = [rule for rule in mine.rules if rule not in parent.rules]
    assert [(rule.first, rule.then, rule.delay) for rule in gone] == [
        (["GEMV"], ["PIM_PRE"], "max(nBL, tCCD_S) * n + tRTP")
    ]
    assert [rule.delay for rule in new] == ["tRTP + n"]
    assert mine.rules == [rule for rule in parent.rules if rule not in gone] + new
    assert load_run("neupims", [f"pim={file}"]).config.pim.rules == mine.rules  # type: ignore[union-attr]


def test_edits_of_edits(tmp_path: Path) -> None:
    written(tmp_path, f"rules:\n  drop: [{DROP}]\n  add: [{ADD}]\n")
    child = tmp_path / "child.yaml"
    child.write_text("extends: ./mine.yaml\nrules: {drop: [{delay: tRTP + n}]}\n")
    with pytest.raises(InputError, match="no rule says when PIM_PRE may follow GEMV"):
        load_pim(str(child))
    child.write_text(
        f"extends: ./mine.yaml\nrules: {{drop: [{{delay: tRTP + n}}], add: [{ADD}]}}\n"
    )
    assert load_pim(str(child)).config.rules == load_pim(str(tmp_path / "mine.yaml")).config.rules


def test_a_window_is_told_from_a_plain_rule_by_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        "extends: hbm2\nrules:\n  drop:\n"
        "    - {level: rank, first: [ACT], then: [ACT], window: 4}\n"
    )
    left = load_memory(str(file)).config.rules
    assert next(r for r in load_memory("hbm2").config.rules if r not in left).delay == "tFAW"
    file.write_text("extends: hbm2\nrules: {drop: [{level: rank, first: [ACT], then: [ACT]}]}\n")
    with pytest.raises(InputError, match=r"m\.yaml:2: drop: .* means 2 of them \(.*hbm2\.yaml:"):
        load_memory(str(file))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules:\n  drop:\n    - {level: channel, first: [GEMV], then: [PIM_PRO]}\n",
         "mine.yaml:5: drop: there is no {level: channel, first: [GEMV], then: [PIM_PRO]}; did you "
         "mean '{level: channel, first: [GEMV], then: [PIM_PRE]}'?"),
        (f"rules:\n  drop: [{DROP}, {DROP}]\n", "mine.yaml:4: drop: there is no {level: channel"),
        ("rules:\n  drop: [tRTP]\n", "mine.yaml:4: drop: there is no tRTP"),
        ("rules: {remove: []}\n", "mine.yaml:3: found 'remove' over a list; allowed: add and drop"),
        ("rules: {}\n", "mine.yaml:3: found nothing over a list"),
        ("rules: {add: tRTP}\n", "mine.yaml:3: add: a list is expected"),
        ("rules:\n  add:\n    - {level: chanel, first: [GEMV], then: [RD], delay: n}\n",
         "mine.yaml:5: rules.35.level: unknown level 'chanel'; did you mean 'channel'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_edit_is_said_by_file_and_line(
    text: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refusal:
        load_pim(written(tmp_path, text))
    assert said in str(refusal.value)


def test_set_edits_a_list_too() -> None:
    mine = load_pim("neupims", [f"rules={{drop: [{DROP}], add: [{ADD}]}}"]).config
    assert mine.rules[-1].delay == "tRTP + n"


def test_a_list_without_a_parent_s_is_a_list() -> None:
    with pytest.raises(InputError, match="--set: found 'x' over a list; allowed: add and drop"):
        load_memory("hbm2", ["rules={x: []}"])
