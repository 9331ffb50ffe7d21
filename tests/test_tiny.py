"""An answer in seconds: a small piece of each part, from DRAM commands to a service.

``pytest tests/test_tiny.py -n 0`` after every edit (the first time compiles the kernels); what each
part owes in full, its own tests hold.
"""

from __future__ import annotations

from dataclasses import asdict
from math import fsum, isclose
from pathlib import Path

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_run
from pimsim.engine.gemm import run_gemm
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.replay import replay
from pimsim.hardware.dram.rules import Command
from pimsim.services import serve
from pimsim.simulate import run

ONE_STEP = ("workload.batch=4", "parallel.tp=1", "memory.organization.channels=2")


def test_rows_open_close_and_answer_after_their_delays() -> None:
    """A read, one more of its row, and one of another row of the bank."""
    memory = load_memory("hbm2").config
    timings = memory.timings
    mapping = AddressMap.parse(memory.address_map, memory.organization)
    lines = np.arange(1 << 16)
    places = mapping.decode(lines)
    home = (places.bank == 0) & (places.channel == 0)
    first, second = lines[home & (places.row == 0)][:2]
    other = lines[home & (places.row == 1)][0]
    asked = np.array([first, second, other]) * memory.organization.burst_bytes
    log = replay(memory, asked, np.zeros(3, np.int64), log_entries=9).log
    assert [Command(each).name for each in log[:, 2]] == ["ACT", "RD", "RD", "PRE", "ACT", "RD"]
    opened, read, again, closed, reopened, last = log[:, 0].tolist()
    assert read - opened == timings["tRCDRD"]
    assert again - read == timings["tCCD_L"]
    assert closed == max(opened + timings["tRAS"], again + timings["tRTP"])
    assert reopened - closed == timings["tRP"]
    assert last - reopened == timings["tRCDRD"]


def test_a_product_takes_no_less_than_its_arrays_and_its_bytes() -> None:
    config = load_run("npu-only").config
    m, n, k = 256, 256, 512
    taken = run_gemm(m, n, k, config.npu, config.memory)
    arrays = config.npu.systolic
    macs_per_cycle = config.npu.cores * arrays.arrays * arrays.rows * arrays.cols
    assert taken.cycles >= max(m * n * k / macs_per_cycle, taken.memory_cycles)
    assert taken.read_bytes >= 2 * (m * k + k * n)
    assert taken.written_bytes == 2 * m * n


@pytest.mark.parametrize(
    "machine, fidelity", [("npu-only", "command"), ("npu-pim", "fast"), ("neupims", "command")]
)
def test_a_run_accounts_for_its_time_and_energy(
    machine: str, fidelity: str, tiny_card: Path
) -> None:
    result = run(machine, model=tiny_card, fidelity=fidelity, layers=1, overrides=list(ONE_STEP))
    assert result.cycles > 0
    for unit, causes in result.cycle_stack.items():
        assert isclose(fsum(causes.values()), result.cycles, rel_tol=1e-9), unit
    joule = asdict(result.energy_j)
    assert isclose(fsum(joule.values()) - joule["total"], joule["total"], rel_tol=1e-9)
    assert (result.utilisation.pim > 0) == (machine != "npu-only")


def test_a_wrong_key_is_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"npu\.frequenzy.*frequency"):
        load_run("neupims", ["npu.frequenzy=1GHz"])


def test_a_request_is_served_in_the_times_of_its_steps(tmp_path: Path) -> None:
    """A prompt of 100 tokens in one step, then three tokens more: 1 ms a step, 10 us a token."""
    path = tmp_path / "service.yaml"
    path.write_text(
        "requests: {count: 1, arrivals: {process: at_once}, prompt: {low: 100, high: 100},\n"
        "  output: {low: 4, high: 4}}\n"
        "scheduler: {name: vllm}\ncache: {blocks: 200}\n"
        "step_time: {linear: {step_us: 1000, token_us: 10}}\n"
    )
    (request,) = serve(path).requests
    assert request["first_token_ps"] == 2_000 * 10**6
    assert request["finish_ps"] == (2_000 + 3 * 1_010) * 10**6
