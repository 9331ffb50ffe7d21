"""PIM designs with a controller of their own in a run: what they take, what they are asked."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import simpy
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_pim, load_run
from pimsim.config.pim import PimDesignConfig
from pimsim.config.resources import preset_names
from pimsim.engine.iteration import Outcome
from pimsim.engine.memory import MemoryPort
from pimsim.engine.stream_side import StreamSide
from pimsim.hardware.dram.device_memory import device_memory
from pimsim.hardware.dram.layout import C_REFRESHES, INFINITY
from pimsim.hardware.dram.system import MemorySystem, Stream
from pimsim.hardware.energy.pim import stream_energy_pj
from pimsim.hardware.pim.designs import batch_attention, mapping_of
from pimsim.hardware.pim.operations import (
    Attention,
    Gemv,
    HeadProducts,
    OperationRun,
    OperationRuns,
    least_cycles,
    run_operation,
)
from pimsim.hardware.pim.stream import run_stream
from pimsim.mapping.pim_products import PimProducts
from pimsim.result.types import Result
from pimsim.simulate import observe, resolve
from pimsim.workload.operators import Operator, OperatorKind

HEADS, HEAD_DIM = 4, 128
"""Of the tiny card."""
OWN = [name for name in preset_names("pim") if load_pim(name).config.controller is not None]
MULTIPLYING = [name for name in OWN if "gemv" in load_pim(name).config.operations]
ATTENDING = [name for name in OWN if "attention" in load_pim(name).config.operations]


def observed(
    pim: str, card: Path, requests: Path, *overrides: str, preset: str = "npu-pim"
) -> tuple[Outcome, Result]:
    return observe(
        resolve(
            preset,
            [f"pim={pim}", f"workload.model={card}", f"workload.requests={requests}",
             "parallel.tp=1", "workload.layers=2", *overrides],
        )
    )  # fmt: skip


def side_of(outcome: Outcome) -> StreamSide:
    assert isinstance(outcome.pim, StreamSide)
    return outcome.pim


@pytest.fixture
def requests(write_trace: Callable[[Sequence[int]], Path]) -> Path:
    return write_trace([200])


def stream_cycles(design: PimDesignConfig, context: int) -> int:
    made = mapping_of(design, "attention")(design, HEADS, HEADS, HEAD_DIM, context)
    return run_stream(design, made).cycles


@pytest.mark.parametrize("pim", ATTENDING)
def test_a_run_s_attention_takes_what_the_kernel_says(
    pim: str, tiny_card: Path, requests: Path
) -> None:
    outcome, result = observed(pim, tiny_card, requests)
    design = load_pim(pim).config
    (context,) = outcome.device.whole.contexts
    alone = stream_cycles(design, context)
    side = side_of(outcome)
    assert side.computing_cycles + side.command_cycles == 2 * alone  # of two blocks
    took = [o for o in outcome.recorder.operators if o.name == "attention"]
    for operator in took:
        turn = (operator.end_ps - operator.start_ps) / design.tCK - alone
        # rows of the NPU's last requests are closed, or a refresh ends, and those of the stream
        t = design.memory.timings
        assert 2 * t["tRP"] <= turn <= t["tRAS"] + 200 + t["tRFC"]
    assert result.cycle_stack["pim"].keys() == {"computing", "commands", "turn", "npu"}


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """Of each turn of a run: when the memory is idle, when the turn begins, when it ends."""
    begun: list[tuple[int, int]] = []
    found: list[tuple[int, int, int]] = []
    take, end = MemoryPort.take_turn, MemoryPort.end_turn

    def taken(port: MemoryPort) -> Generator[simpy.Event, Any, tuple[int, int]]:
        begun.append((yield from take(port)))
        return begun[-1]

    def ended(
        port: MemoryPort, begin: int, until: int, refreshed: NDArray[np.int64]
    ) -> Generator[simpy.Event, Any, None]:
        assert begin == begun[-1][1]
        found.append((*begun[-1], until))
        yield from end(port, begin, until, refreshed)

    monkeypatch.setattr(MemoryPort, "take_turn", taken)
    monkeypatch.setattr(MemoryPort, "end_turn", ended)
    return found


@pytest.mark.parametrize(
    ("pim", "placed"),
    [("attacc-bank", "attention"), ("attacc-bg", "attention"), ("aim", "products"),
     ("hbm-pim", "products")],
)  # fmt: skip
def test_a_turn_is_what_closes_rows_the_operation_and_tRP(
    pim: str, placed: str, tiny_card: Path, requests: Path, turns: list[tuple[int, int, int]]
) -> None:
    on_npu = ["schedule.attention_placement=npu", "schedule.product_placement=pim"]
    outcome, result = observed(pim, tiny_card, requests, *(on_npu if placed == "products" else []))
    design = load_pim(pim).config
    tRP = design.memory.timings["tRP"]
    side, edge_ps = side_of(outcome), outcome.clock.memory.edge_ps
    if placed == "attention":
        (context,) = outcome.device.whole.contexts
        alone = [stream_cycles(design, context)] * 2  # of two blocks
    else:
        shapes = [(1536, 512), (512, 512), (1024, 512), (512, 1024)]
        alone = [
            run_stream(design, mapping_of(design, "gemv")(design, *shape, 1)).cycles
            for shape in shapes * 2
        ]
    assert [end - begin - tRP for _, begin, end in turns] == alone
    assert side.turn_cycles == sum(begin - idle + tRP for idle, begin, _ in turns)
    assert side.turn_cycles > len(turns) * tRP  # the NPU left rows open
    assert side.busy_ps == sum(edge_ps(end) - edge_ps(idle) for idle, _, end in turns)
    ends = [o.end_ps for o in outcome.recorder.operators if o.unit == "pim"]
    assert ends == [edge_ps(end) for _, _, end in turns]
    stack = result.cycle_stack["pim"]
    share = stack["turn"] / (stack["turn"] + stack["computing"] + stack["commands"])
    counted = sum(end - idle for idle, _, end in turns)
    assert share == pytest.approx(side.turn_cycles / counted, rel=1e-2)


def test_a_design_with_neither_attention_nor_products_is_not_asked_for_it(
    tiny_card: Path, requests: Path
) -> None:
    with pytest.raises(InputError, match="'pim': aim has no attention and no gemv, it does elem"):
        observed("aim", tiny_card, requests, "pim.operations=[elementwise]")


@pytest.mark.parametrize("pim", ATTENDING)
def test_a_design_with_attention_does_all_of_it(pim: str, tiny_card: Path, requests: Path) -> None:
    outcome, _ = observed(pim, tiny_card, requests, "workload.layers=1", "fidelity=fast")
    assert [o.name for o in outcome.recorder.operators if o.unit == "pim"] == ["attention"]


def cycles_of_head(design: PimDesignConfig, outputs: int, inputs: int) -> int:
    """Of one head's product, in the channels that it lies in."""
    if design.channels_per_head is not None:
        org = design.memory.organization.model_copy(update={"channels": design.channels_per_head})
        memory = design.memory.model_copy(update={"organization": org})
        design = design.model_copy(update={"memory": memory})
    return run_stream(design, mapping_of(design, "gemv")(design, outputs, inputs, 1)).cycles


@pytest.mark.parametrize("pim", MULTIPLYING)
def test_a_design_of_products_attends_by_them(pim: str, tiny_card: Path, requests: Path) -> None:
    """Scores, softmax on the NPU, values: one after the other, each what its products take."""
    outcome, _ = observed(pim, tiny_card, requests, "workload.layers=1")
    design = load_pim(pim).config
    (context,) = outcome.device.whole.contexts
    found = {o.name: o for o in outcome.recorder.operators if o.name in ("score", "value")}
    # heads in a channel each are multiplied at once, else one after the other
    heads = 1 if design.channels_per_head is not None else HEADS
    for name, sizes in (("score", (context, HEAD_DIM)), ("value", (HEAD_DIM, context))):
        taken = (found[name].end_ps - found[name].start_ps) / design.tCK
        turn = taken - heads * cycles_of_head(design, *sizes)
        t = design.memory.timings
        assert t["tRP"] <= turn <= t["tRAS"] + 300 + t["tRFC"]
    (softmax,) = (o for o in outcome.recorder.operators if o.kind == OperatorKind.SOFTMAX)
    assert found["score"].end_ps <= softmax.start_ps < softmax.end_ps <= found["value"].start_ps


def test_heads_are_dealt_to_channels_the_longest_first() -> None:
    """Five heads to four channels: the two shortest share one."""
    design = load_pim("aim", ["memory.organization.channels=4"]).config
    contexts = (700, 650, 600, 300, 250)
    heads = tuple(Gemv(context, 64, (1,), 2) for context in contexts)
    runs = OperationRuns(design)
    found = runs.of(HeadProducts(heads))
    alone = {context: cycles_of_head(design, context, 64) for context in contexts}
    assert found.cycles == max(alone[700], alone[300] + alone[250])
    macs = 64 * sum(contexts)
    assert found.cycles >= least_cycles(design, macs, 2)
    assert found.commands["MAC16"] == sum(-(-context // 16) * 4 for context in contexts)
    one_each = OperationRuns(design.model_copy(update={"channels_per_head": None}))
    assert one_each.of(HeadProducts(heads)).commands["MAC16"] == found.commands["MAC16"]


def test_heads_lie_in_groups_that_divide_the_channels() -> None:
    with pytest.raises(InputError, match="channels_per_head is 3; it must divide the 32 channels"):
        load_pim("aim", ["channels_per_head=3"])


def test_narrower_elements_are_multiplied_as_many_more_at_once() -> None:
    """A column of 32 bytes has 32 of one byte, so that the peak of two bytes is no bound."""
    design = load_pim("aim").config
    outputs, inputs = 4096, 1024
    of_two = least_cycles(design, outputs * inputs, 2)
    assert least_cycles(design, outputs * inputs, 1) == of_two // 2
    assert least_cycles(design, outputs * inputs, 4) == of_two
    run = run_operation(design, Gemv(outputs, inputs, (1,), 1))
    assert run.computing_cycles < of_two
    assert run.computing_cycles >= of_two // 2


def test_weights_of_a_byte_obey_the_laws(tmp_path: Path, tiny_card: Path, requests: Path) -> None:
    """A long product of few channels is faster than the peak of two bytes."""
    card = tmp_path / "bytes.yaml"
    text = tiny_card.read_text().replace("dtype_bytes: 2", "dtype_bytes: 1")
    card.write_text(text.replace("ffn_hidden: 1024", "ffn_hidden: 65536"))
    outcome, result = observed(
        "aim", card, requests, "schedule.product_placement=pim", "workload.layers=1",
        "memory.organization.channels=4", "pim.timings.nRCDRDMAC=4", "memory.timings.tRP=4",
        "memory.timings.tRC=20", "memory.timings.tRAS=16", "memory.timings.tRCDRD=8",
        "memory.timings.tRCDWR=8",
    )  # fmt: skip
    (long,) = (o for o in outcome.recorder.operators if o.name == "fc2")
    design = side_of(outcome).runs.design
    took = (long.end_ps - long.start_ps) // design.tCK
    assert least_cycles(design, 65536 * 512, 1) <= took < least_cycles(design, 65536 * 512, 2)
    assert result.bound_cycles["pim"] <= result.cycles


@pytest.mark.parametrize("fidelity", ["command", "fast"])
@pytest.mark.parametrize("pim", MULTIPLYING)
def test_products_of_all_tokens_take_what_the_kernel_says(
    pim: str, fidelity: str, tiny_card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    design = load_pim(pim).config
    outcome, result = observed(
        pim, tiny_card, write_trace([40, 90]), "schedule.attention_placement=npu",
        "schedule.product_placement=pim", f"fidelity={fidelity}",
    )  # fmt: skip
    shapes = {"qkv": (1536, 512), "proj": (512, 512), "fc1": (1024, 512), "fc2": (512, 1024)}
    alone = {
        name: run_stream(design, mapping_of(design, "gemv")(design, *shape, 2)).cycles
        for name, shape in shapes.items()
    }
    side = side_of(outcome)
    assert side.computing_cycles + side.command_cycles == 2 * sum(alone.values())
    placed = {o.name for o in result.operators if o.unit == "pim"}
    assert placed == set(shapes)
    # nothing but keys and values and what the NPU's attention reads goes over the bus
    assert outcome.recorder.bytes_moved["weight"] == 0
    read = outcome.recorder.bytes_moved["pim_weight"]
    assert read >= 2 * sum(2 * n * k for n, k in shapes.values())


def test_auto_leaves_products_of_many_tokens_to_the_npu(
    tiny_card: Path, write_trace: Callable[[Sequence[int]], Path]
) -> None:
    def on_pim(contexts: Sequence[int]) -> set[str]:
        _, result = observed(
            "aim", tiny_card, write_trace(contexts), "schedule.attention_placement=npu",
            "schedule.product_placement=auto", "fidelity=fast",
        )  # fmt: skip
        return {o.name for o in result.operators if o.unit == "pim"}

    assert on_pim([40]) == {"qkv", "proj", "fc1", "fc2"}
    assert on_pim([40] * 64) == set()


@pytest.mark.parametrize(
    ("name", "element_bytes"), [("aim", 1), ("aim", 2), ("hbm-pim", 2), ("duplex", 2)]
)
def test_products_of_many_tokens_are_not_scheduled_to_be_left_to_the_npu(
    name: str, element_bytes: int
) -> None:
    design = load_pim(name).config
    runs, asked = OperationRuns(design), []

    def of(operation: Gemv) -> OperationRun:
        asked.append(operation.vectors[0])
        return runs.of(operation)

    # the NPU takes as long for any number of tokens, 100 us
    costs: Any = SimpleNamespace(
        npu=SimpleNamespace(frequency=10**9), product_cycles=lambda m, n, k, size: 100_000
    )
    stub: Any = SimpleNamespace(design=design, of=of)
    products = PimProducts(stub, costs, always=False)
    for tokens in (1, 2, 4096):
        product = Operator(
            "product", OperatorKind.GEMM, m=tokens, n=2048, k=1024, flops=2 * tokens * 2048 * 1024,
            weight_bytes=2048 * 1024 * element_bytes,
        )  # fmt: skip
        operation = products._operation(product)
        if tokens < 4096:  # the bound is one
            assert 0 < products._least_ps(operation) <= runs.of(operation).cycles * design.tCK
        assert products.takes(product) == (tokens < 4096)
    assert asked == [1, 2]


def test_products_that_do_not_fit_are_refused_or_left_to_the_npu(
    tiny_card: Path, requests: Path
) -> None:
    small = "pim.capacities.input_buffer_bytes=512"  # 256 elements
    common = ("schedule.attention_placement=npu", small)
    with pytest.raises(InputError, match=r"'pim': qkv .* a vector of 512 elements; the input buf"):
        observed("duplex", tiny_card, requests, *common, "schedule.product_placement=pim")
    _, result = observed("duplex", tiny_card, requests, *common, "schedule.product_placement=auto")
    assert not any(o.unit == "pim" for o in result.operators)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["pim=attacc-bank"], "attacc-bank does attention, no gemv"),
        (["pim=newton"], "newton, whose commands the memory's controller takes"),
        (["pim=aim", "schedule.policy=serial"], "needs a schedule.policy that uses PIM"),
    ],
)
def test_products_on_a_design_without_them_are_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_run("npu-pim", ["schedule.product_placement=pim", *overrides])


def test_energy_and_bytes_are_those_of_the_commands(tiny_card: Path, requests: Path) -> None:
    outcome, result = observed("attacc-bank-repaired", tiny_card, requests)
    design = load_pim("attacc-bank-repaired").config
    (context,) = outcome.device.whole.contexts
    made = mapping_of(design, "attention")(design, HEADS, HEADS, HEAD_DIM, context)
    commands = run_stream(design, made).commands
    assert outcome.recorder.pim_commands == {name: 2 * n for name, n in commands.items()}
    pj = 2 * sum(stream_energy_pj(design, commands).values())
    assert result.energy_j.pim == pytest.approx(pj * 1e-12, rel=1e-6)
    banks = design.organization.channel_banks
    assert sum(result.series.pim_bytes if result.series else ()) == (
        2 * commands["MACAB"] * banks * design.organization.burst_bytes
    )


def test_requests_of_unlike_contexts_share_the_channels() -> None:
    design = load_pim("attacc-bank-repaired").config
    alone = [run_stream(design, each) for n in (300, 700)
             for each in batch_attention(design, 8, 8, 64, [n])]  # fmt: skip
    (both,) = batch_attention(design, 8, 8, 64, [300, 700])
    merged = run_stream(design, both)
    assert sum(both.copies) == design.organization.channels
    # eight heads each on eight of sixteen channels: side by side
    assert merged.cycles == max(each.cycles for each in alone)
    counted = {name: sum(each.commands.get(name, 0) for each in alone) for name in ("MACAB", "SFM")}
    assert {name: merged.commands[name] for name in counted} == counted
    # twelve and twelve: the channels that have two heads do one after the other
    (more,) = batch_attention(design, 12, 12, 64, [300, 700])
    assert merged.cycles < run_stream(design, more).cycles
    # no two contexts share a row
    rows = [set(more.entries[(more.entries[:, 1] == c) & (more.entries[:, 6] >= 0), 6].tolist())
            for c in range(len(more.copies))]  # fmt: skip
    assert max(map(len, rows)) > 2


def test_equal_contexts_are_one_batch_of_heads() -> None:
    design = load_pim("attacc-bg").config
    of_batch = run_operation(design, Attention(8, 8, 64, (300,) * 4, 2))
    (one,) = batch_attention(design, 32, 32, 64, [300])
    assert of_batch.cycles == run_stream(design, one).cycles


def test_a_batch_larger_than_the_banks_is_refused_in_the_design_s_words() -> None:
    design = load_pim("attacc-bank").config
    with pytest.raises(InputError, match=r"attacc-bank: K of .* rows of each bank"):
        run_operation(design, Attention(96, 96, 128, (4096,) * 256, 2))


# the memory ------------------------------------------------------------------------------


def test_requests_wait_while_the_memory_is_lent_and_rows_close_by_the_rules() -> None:
    memory = device_memory(load_memory("hbm3-attacc").config)
    timings = memory.timings
    system = MemorySystem(memory)
    system.submit(0, [Stream(0, 64)])
    while (done := system.advance(INFINITY)) is None:
        pass
    opened = int(system.channels["counter"][:, 0].sum())
    begin = system.hand_over(done.done_cycle)
    assert begin > done.done_cycle
    assert int(system.channels["counter"][:, 1].sum()) == opened  # every row that was opened
    assert (system.channels["bank"][:, : memory.organization.banks, 0] == -1).all()
    # an idle memory is ready at once
    assert system.hand_over(begin + 1000) == begin + 1000
    end = begin + 5000
    system.end_turn(begin, end, np.zeros(len(system.channels), np.int64))
    system.submit(begin + 1001, [Stream(0, 64)])
    while (again := system.advance(INFINITY)) is None:
        pass
    assert again.done_cycle >= end + timings["tRCDRD"] + timings["CL"] + timings["nBL"]


@pytest.mark.parametrize("done", [0, 4])
def test_refreshes_that_nobody_did_in_a_turn_are_made_up_for(done: int) -> None:
    memory = device_memory(load_memory("hbm3-attacc").config)
    system = MemorySystem(memory)
    interval = int(system.parameters[0]["ref_interval"])
    begin = system.hand_over(interval // 2)
    end = begin + 10 * interval
    system.end_turn(begin, end, np.full(len(system.channels), done))
    while system.now < end + 5 * interval:
        system.advance(end + 5 * interval)
    refreshes = system.channels["counter"][:, C_REFRESHES[0]]
    assert (refreshes == 15 - done).all()


# what is set ------------------------------------------------------------------------------


def test_a_memory_that_the_run_s_own_file_names_stays_and_is_said(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: npu-pim\nmemory: hbm2-neupims\n")
    resolved = load_run(str(mine), ["pim=newton-artifact"])
    assert resolved.config.memory.name == "hbm2-neupims"
    (note,) = resolved.notes
    assert "mine.yaml:2" in note and "memory=hbm2-neupims-artifact" in note
    # one that the design is not on is refused, in the file's own line
    with pytest.raises(InputError, match="attacc"):
        load_run(str(mine), ["pim=attacc-bank"])
    # of a preset the design's own comes along, and that is said too
    mine.write_text("extends: npu-pim\n")
    resolved = load_run(str(mine), ["pim=newton-artifact"])
    assert resolved.config.memory.name == "hbm2-neupims-artifact"
    assert len(resolved.notes) == 1
    assert not load_run("npu-pim", ["pim=neupims"]).notes


def test_experts_on_a_design_that_has_no_products_are_refused() -> None:
    with pytest.raises(InputError, match="expert_placement 'pim': attacc-bank does attention"):
        load_run("npu-pim", ["pim=attacc-bank", "schedule.expert_placement=pim"])


def test_bank_pim_is_ahead_of_logic_pim_below_four_to_eight_vectors() -> None:
    """Duplex figure 8: the crossover lies between 4 and 8 operations a byte."""
    logic, bank = (load_pim(name).config for name in ("duplex", "duplex-bank"))

    def ratio(vectors: int) -> float:
        gemv = Gemv(4096, 4096, (vectors,), 2)
        return run_operation(logic, gemv).cycles / run_operation(bank, gemv).cycles

    assert ratio(1) > ratio(4) > 1 > ratio(8)


def test_bank_pim_is_ahead_where_no_heads_share_keys() -> None:
    """Duplex section VII: OPT, whose query heads have keys of their own; not with eight a key."""

    def attends(pim: str, kv_heads: int) -> int:
        runs = OperationRuns(load_pim(pim).config)
        head = Gemv(1024, 128, (32 // kv_heads,) * kv_heads, 2)
        return runs.of(HeadProducts((head,) * 4)).cycles

    assert attends("duplex-bank", 32) < attends("duplex", 32)
    assert attends("duplex-bank", 2) > attends("duplex", 2)
