"""``pimsim kernel`` on HBM-PIM and Duplex's designs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

RunCli = Callable[..., subprocess.CompletedProcess[str]]


def test_hbm_pim_reports_the_cycles_of_samsungs_simulator(run_cli: RunCli) -> None:
    report = json.loads(
        run_cli("kernel", "gemv", "4096", "1024", "--pim", "hbm-pim", "--json").stdout
    )
    assert report["cycles"] == 3662  # tests/data/hbm_pim.csv
    # eight banks of a channel, 16 weights each
    assert report["commands"]["RD_AB"] * 8 * 16 == 4096 * 1024
    assert report["utilisation"]["macs"] == pytest.approx(4096 * 1024 / 128 * 4 / 64 / 3662)
    added = json.loads(
        run_cli("kernel", "elementwise", "add", "1048576", "--pim", "hbm-pim", "--json").stdout
    )
    assert added["cycles"] == 3349


def test_a_batch_reads_the_matrix_once_on_the_logic_die_and_each_time_on_hbm_pim(
    run_cli: RunCli,
) -> None:
    def cycles(pim: str, batch: int) -> int:
        done = run_cli("kernel", "gemv", "4096", "4096", "--pim", pim, "--batch", batch, "--json")
        return int(json.loads(done.stdout)["cycles"])

    assert cycles("duplex", 7) < 1.02 * cycles("duplex", 1)
    assert cycles("hbm-pim", 4) > 3.9 * cycles("hbm-pim", 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("elementwise", "softmax", "64", "--pim", "hbm-pim"), "it does: add, multiply, relu"),
        (("gemv", "131072", "65536", "--pim", "hbm-pim"), "4096 can be operands"),
        (("gemv", "64", "600000", "--pim", "duplex"), "the input buffer holds 524288"),
        (("gemv", "64", "64", "--pim", "duplx"), "did you mean 'duplex'"),
        (
            ("gemv", "64", "64", "--pim", "hbm-pim", "--set", "controller.row_lookahead=true"),
            "row_lookahead cannot be set with the order 'requests'",
        ),
    ],
)
def test_what_a_design_cannot_do_is_one_clear_line(
    refused: Callable[..., str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in refused("kernel", *arguments)
