"""One schema for PIM designs: what comes from the memory, what a run takes, what does not go."""

from __future__ import annotations

import pytest
from tests.oracle.bare_memory import bare_memory

from pimsim.config.commands import OF_REQUESTS, OF_STREAMS, CommandConfig, memory_commands
from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim, load_run, load_stream_pim
from pimsim.config.pim import PimDesignConfig
from pimsim.config.resources import preset_names
from pimsim.hardware.pim.stream import StreamBuilder, run_stream
from pimsim.hardware.pim.stream_tables import make_parameters


def test_a_design_set_for_a_run_brings_its_memory_along() -> None:
    def memory(*overrides: str) -> tuple[str, int]:
        found = load_run("neupims", overrides).config.memory
        return found.name, found.organization.channels

    assert memory() == ("hbm2-neupims", 32)
    assert memory("pim=neupims-artifact") == ("hbm2-neupims-artifact", 32)
    # whichever comes first
    few = "memory.organization.channels=4"
    assert memory("pim=neupims-artifact", few) == ("hbm2-neupims-artifact", 4)
    assert memory(few, "pim=neupims-artifact") == ("hbm2-neupims-artifact", 4)
    # a memory that is set stays
    assert memory("pim=neupims-artifact", "memory=hbm2-neupims") == ("hbm2-neupims", 32)
    assert memory("memory=hbm2-neupims", "pim=neupims-artifact") == ("hbm2-neupims", 32)
    assert memory("pim=neupims-artifact", "memory={tCK: 2ns}") == ("hbm2-neupims", 32)
    # what a design is changed by brings none
    assert memory("pim.row_buffers=1") == ("hbm2-neupims", 32)


def test_a_run_has_no_memory_in_its_pim() -> None:
    assert not hasattr(load_run("neupims").config.pim, "memory")
    with pytest.raises(InputError, match=r"unknown key 'pim\.memory'"):
        load_run("neupims", ["pim.memory=hbm2"])


@pytest.mark.parametrize("name", preset_names("pim"))
def test_every_design_names_a_memory_preset(name: str) -> None:
    design = load_pim(name).config
    assert design.memory.name in preset_names("memory")
    assert set(design.commands) <= set(design.all_commands)


def test_plain_commands_of_a_stream_are_the_memory_s() -> None:
    derived = memory_commands(load_memory("hbm2").config)
    assert derived.keys() == {"ACT", "PRE", "PREA", "RD", "WR", "REF", "REFpb"}
    read, write, refresh = derived["RD"], derived["WR"], derived["REF"]
    assert (read.latency, write.latency) == ("CL + nBL", "CWL + nBL")
    assert (read.row, read.activate, read.precharge, read.queue) == ("open", "ACT", "PRE", "plain")
    assert (refresh.row, refresh.precharge, refresh.broadcast) == (
        "closed", "PREA", ["bank_group", "bank"],
    )  # fmt: skip
    assert (derived["REFpb"].precharge, derived["REFpb"].broadcast) == ("PRE", [])


def plain_design(memory: str) -> PimDesignConfig:
    """No command but the memory's."""
    return PimDesignConfig.model_validate(
        {
            "name": "plain", "source": "made up", "design": "aim", "commands": {}, "rules": [],
            "controller": {"queue_depth": 8, "commands_per_cycle": 2, "instructions_per_cycle": 0},
            "memory": load_memory(memory).config.model_dump(),
        }
    )  # fmt: skip


def test_a_stream_s_plain_commands_take_their_time_on_the_command_bus() -> None:
    """HBM3: an activate takes three half clocks, and delays count from ends to ends."""
    design = plain_design("hbm3-6400")
    names, t = list(design.all_commands), design.memory.timings
    builder = StreamBuilder(design, [1])
    builder.add("RD", row=1)
    log = run_stream(design, builder.build(), log=True).log[0]
    issued = [(int(line[0]), names[line[1]]) for line in log]
    assert issued == [(0, "ACT"), (t["tRCDRD"] + 1, "RD")]  # half a clock, rounded up
    parameters = make_parameters(design, 1)
    act = names.index("ACT")
    begin, end = parameters.first[act, 0], parameters.first[act, 1]
    held = {names[then]: delay for then, delay in parameters.rules[begin:end].tolist()}
    assert held == dict.fromkeys(("ACT", "PRE", "PREA", "REF", "REFpb"), 2)  # row pins alone


def test_ranks_share_the_data_bus_in_a_stream_too() -> None:
    design = load_stream_pim("hbm-pim").config.model_copy(
        update={"controller": plain_design("hbm2").controller}
    )
    names, t = list(design.all_commands), design.memory.timings
    reads = []
    for rank in (0, 1):
        builder = StreamBuilder(design, [1], lanes=2)
        builder.add("RD", row=1)
        builder.add("RD", row=1, place=(0, rank, 1, 0), lane=1)
        log = run_stream(design, builder.build(), log=True).log[0]
        reads.append([int(line[0]) for line in log if names[line[1]] == "RD"])
    assert reads[1][1] - reads[1][0] == t["nBL"] + t["tRTRS"]
    assert reads[0][1] - reads[0][0] == max(t["tRRD_S"], t["tCCD_S"])


def test_a_rule_of_other_ranks_binds_them_alone() -> None:
    counts = {"channels": 1, "ranks": 2, "bank_groups": 1, "banks_per_group": 2, "rows": 4,
              "columns": 4, "column_bytes": 32}  # fmt: skip
    design = PimDesignConfig.model_validate(
        {
            **plain_design("hbm2").model_dump(), "memory": bare_memory(counts),
            "commands": {"MOVE": {}},
            "rules": [{"level": "other_ranks", "first": ["MOVE"], "then": ["MOVE"], "delay": "5"}],
        }
    )  # fmt: skip
    builder = StreamBuilder(design, [1])
    for rank in (0, 0, 1, 1, 0):
        builder.add("MOVE", place=(0, rank, 0, 0))
    log = run_stream(design, builder.build(), log=True).log[0]
    assert [int(line[0]) for line in log] == [0, 1, 1 + 5, 1 + 5 + 1, 1 + 5 + 1 + 5]


@pytest.mark.parametrize(
    ("preset", "override", "said"),
    [
        ("newton", "banks_per_unit=2", "banks_per_unit: 2; the memory's controller multiplies in"),
        (
            "newton",
            "static_w_per_channel=1",
            "static_w_per_channel is of designs with a controller",
        ),
        (
            "aim",
            "banks_per_unit=4",
            "banks_per_unit: 4; MAC16 multiplies in 16 banks of a rank at "
            "once, which has 4 units then: its broadcast needs 'unit' in place of 'bank'",
        ),
        ("aim", "commands.MAC16.bus=none", "commands.MAC16.bus: found 'none', which costs no slot"),
        (
            "aim",
            "commands.MAC16.drives=2",
            "commands.MAC16.drives: 2; it would go to 32 banks of a rank, which has 16",
        ),
        ("hbm-pim", "banks_per_unit=4", "banks_per_unit: 4; RD_AB multiplies in 8 banks of a rank"),
        ("aim", "row_buffers=2", "row_buffers is of designs without a controller of their own"),
        ("aim", "comp_pipeline=7", "comp_pipeline is of designs without a controller"),
        ("aim", "controller=null", "is of designs with a controller of their own"),
        ("newton", "element_bytes=1", "element_bytes is of designs with a controller"),
        ("newton", "dtype=bf16", "dtype is of designs with a controller"),
        ("newton", "design=aim", "design is of designs with a controller"),
        ("neupims", "commands.COMP.drives=4", "commands.COMP.drives is of designs with a controll"),
        ("neupims", "commands.HEADER.bus=none", "commands.HEADER.bus is of designs with a contr"),
        ("aim", "commands={X: {action: announce}}", "commands.X.action is of designs without a c"),
        ("newton", "commands.PIM_PRE.with_one_buffer=PRX", "hbm2-neupims has no command 'PRX'"),
        (
            "newton",
            "commands.PIM_PRE.with_one_buffer=PREA",
            "with_one_buffer: found 'PREA', which is for 'precharge-all'; allowed: PRE",
        ),
        (
            "neupims",
            "commands.G_ACT.with_one_buffer=ACT",
            "with_one_buffer: found 'ACT'; G_ACT ('activate') has no command of the memory",
        ),
        (
            "newton",
            "commands.PIM_PRE.with_one_buffer=null",
            "commands.PIM_PRE.with_one_buffer is missing: with row_buffers 1",
        ),
    ],
)
def test_keys_of_the_other_kind_are_refused(preset: str, override: str, said: str) -> None:
    with pytest.raises(InputError) as refusal:
        load_pim(preset, [override])
    assert said in str(refusal.value)


def test_every_key_of_a_command_is_of_one_kind_of_controller() -> None:
    assert sorted([*OF_REQUESTS, *OF_STREAMS]) == sorted(CommandConfig.model_fields)


@pytest.mark.parametrize("name", ["newton", "neupims"])
def test_a_second_row_buffer_is_what_dot_products_work_on(name: str) -> None:
    """Not GWRITE, which reads a row that ACT opened, nor HEADER, which touches none."""
    for buffers, apart in ((1, set()), (2, {"G_ACT", "PIM_PRE", "COMP", "READRES", "GEMV"})):
        design = load_pim(name, [f"row_buffers={buffers}"]).config
        assert {each for each in design.commands if design.in_pim_buffer(each)} == apart


@pytest.mark.parametrize("name", preset_names("memory"))
def test_a_memory_refreshes_single_banks_only_with_a_time_for_it(name: str) -> None:
    memory = load_memory(name).config
    assert ("refresh-bank" in memory.commands.values()) == ("tRFCpb" in memory.timings)
    if "tRFCpb" not in memory.timings:
        with pytest.raises(InputError, match=r"commands\.PREA: refresh-bank takes tRFCpb, which t"):
            load_memory(name, ["commands.PREA=refresh-bank"])
