"""``pimsim system``: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pimsim.cli.edge import exit_code

RunCli = Callable[..., subprocess.CompletedProcess[str]]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """``call("system", "dgx-a100a")``: exit code, stdout and stderr, in this process."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pimsim", *map(str, arguments)])
        code = exit_code()
        out, err = capsys.readouterr()
        return code, out, err

    return run


PREFILL = ("--phase", "prefill")
SMALL = ("--model", "gpt3-7b", "--batch", "3", "--input", "100", "--output", "4")


def test_json_is_one_object_whose_parts_add_up(run_cli: RunCli) -> None:
    done = run_cli("system", "dgx-a100a", *SMALL, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert sum(report["parts_s"].values()) == pytest.approx(report["step_s"])
    assert sum(report["gemm_s"].values()) == pytest.approx(report["parts_s"]["gemm"])
    assert report["tokens_per_s"] == pytest.approx(3 / report["step_s"])
    energy = report["energy_j"]
    assert energy.pop("total") == pytest.approx(sum(energy.values()))
    assert report["bound_s"][report["bound"]] == max(report["bound_s"].values())
    assert (report["steps"], report["devices"], report["memory"]["fits"]) == (3, 8, True)
    assert report["warnings"] == []


def test_the_table_says_the_same(call: Call) -> None:
    _, out, _ = call("system", "dgx-attacc-bank", *SMALL, "--json")
    report = json.loads(out)
    code, out, err = call("system", "dgx-attacc-bank", *SMALL)
    assert (code, err) == (0, "")
    assert f"{report['tokens_per_s']:,.2f}" in out
    assert f"attention {1e3 * report['parts_s']['attention']:.3f}" in out
    assert f"{1e3 * report['step_s']:.3f} ms, " in out
    split = {line.split("│")[2].strip() for line in out.splitlines() if "│ fc1 " in line}
    assert split == {"xpu", "pim"}  # a row each: at the same time, of different lengths


def test_what_holds_of_a_mean_step_is_no_key_of_a_run(call: Call) -> None:
    arguments = ("system", "dgx-a100a", *SMALL, "--json")
    said = ("--set", "parallel.tp=8", "--set", "parallel.pp=1")
    one, two = (json.loads(call(*arguments, *more)[1]) for more in ((), said))
    assert one["step_s"] == two["step_s"]


def test_prefill_says_what_all_its_chunks_take(call: Call) -> None:
    arguments = ("system", "dgx-a100a", *PREFILL, *SMALL[:4], "--input", "100", "--chunk", "40")
    code, out, err = call(*arguments, "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert (report["phase"], report["chunk"], report["steps"]) == ("prefill", 40, 3)
    assert report["time_s"] == pytest.approx(3 * report["step_s"])
    assert report["tokens_per_s"] == pytest.approx(3 * 100 / report["time_s"])
    assert report["tokens_per_j"] == pytest.approx(100 / report["energy_j"]["total"])
    assert sum(report["parts_s"].values()) == pytest.approx(report["step_s"])
    assert report["kv_written_bytes"] == 32 * 3 * 100 * 2 * 4096 * 2
    decoded = json.loads(call("system", "dgx-a100a", *SMALL, "--json")[1])
    own = {"chunk", "time_s", "flops", "attention_flops", "executed_attention_flops"}
    assert report.keys() - decoded.keys() == own | {"kv_written_bytes"}
    assert decoded.keys() - report.keys() == {"output_tokens", "simulated_contexts"}
    code, out, _ = call(*arguments)
    assert f"{1e3 * report['time_s']:.3f} ms, to the logits" in out
    assert f"{report['executed_attention_flops']:,} done" in out
    assert "lm_head" in out


def test_what_a_real_system_could_not_do_is_a_warning(call: Call) -> None:
    arguments = ("system", "dgx-a100a", "--batch", "54", "--output", "3")
    code, _, err = call(*arguments)
    assert code == 0
    context, memory = err.splitlines()
    assert context.startswith("warning: contexts reach 2050 tokens; model gpt3-175b takes 2048")
    assert memory.startswith("warning: weights and KV cache need ")
    report = json.loads(call(*arguments, "--json")[1])
    assert [f"warning: {each}" for each in report["warnings"]] == [context, memory]
    assert report["memory"]["fits"] is False


def test_a_trace_is_decoded_as_its_card_is(call: Call, tmp_path: Path) -> None:
    from pimsim.workload.card_trace import card_trace
    from pimsim.workload.cards import load_card
    from pimsim.workload.trace import dump_trace

    path = tmp_path / "mine.json"
    path.write_text(dump_trace(card_trace(load_card("gpt3-7b"))))
    card = json.loads(call("system", "dgx-a100a", *SMALL, "--json")[1])
    code, out, err = call("system", "dgx-a100a", "--trace", path, *SMALL[2:], "--json")
    assert (code, err) == (0, "")
    report = json.loads(out)
    for key in ("model", "tokens_per_s", "parts_s", "energy_j", "memory", "kernels"):
        assert report[key] == card[key]
    assert report["provenance"]["content_sha256"] != card["provenance"]["content_sha256"]


def test_set_changes_the_system(call: Call) -> None:
    def step(*more: str) -> float:
        report = json.loads(call("system", "dgx-attacc-bank", *SMALL, "--json", *more)[1])
        return float(report["step_s"])

    assert step("--set", "overlap=none") > step("--set", "overlap=transfers") > step()
    assert step("--set", "ffn_split=false") > step()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dgx-a10",), "unknown system 'dgx-a10'; did you mean 'dgx-a100'?"),
        (("dgx-a100a", "--model", "gpt3-175"), "unknown model 'gpt3-175'; did you mean"),
        (("dgx-a100a", "--model", "gpt3-7b", "--trace", "gpt-oss-20b"), "runs one of them"),
        (("dgx-a100a", "--trace", "nothing.json"), "nothing.json"),
        (("dgx-a100a", "--model", "mixtral-8x7b"), "and only pimsim run knows how"),
        (("dgx-a100a", "--batch", "0"), "Invalid value for '--batch'"),
        (("dgx-a100a", "--output", "1"), "Invalid value for '--output'"),
        (("dgx-a100a", "--set", "devics=4"), "unknown key 'devics'; did you mean 'devices'?"),
        (("dgx-a100a", "--set", "seed=1"), "seed: found 1; only pimsim run reads it"),
        (("dgx-a100a", "--set", "parallel.pp=2"), "parallel.pp: found 2; only pimsim run reads it"),
        (
            ("dgx-a100a", *PREFILL, "--set", "workload.model=gpt3-7b"),
            "workload.model: found 'gpt3-7b'; only pimsim run reads it",
        ),
        (("dgx-attacc-bank", "--set", "attention_contexts=3"), "attention_contexts: found 3; only"),
        (("dgx-a100a", "--set", "devices=5"), "cannot be shared by tp 5; tp may be 1, 2, 3"),
        (("dgx-a100a", "--set", "xpu.cores=0"), "xpu.cores: found 0; allowed: at least 1"),
        (("dgx-a100a", "--set", "attention=pim"), "attention on pim needs a pim section"),
        (("dgx-a100a", "--set", "attention=gpu"), "attention: found 'gpu'; did you mean 'xpu'?"),
        (("dgx-a100a", "--set", "ffn_split=true"), "ffn_split is true, but attention is not on"),
        (
            ("dgx-a100a", "--set", "xpu.memory_utilisation=1.1"),
            "allowed: at least 0.001, at most 1",
        ),
        (
            ("dgx-h100", "--set", "xpu.silicon.decode.regroup_ns=5"),
            "regroup_ns is 5, but splits_single is true",
        ),
        (("dgx-a100a", "--set", "xpu.l1_per_core=1KiB"), "but the smallest tile (8 x 8) needs"),
        (
            ("dgx-attacc-bank", "--set", "pim=neupims"),
            "pim.controller: neupims has none",
        ),
        (("dgx-attacc-bank", "--set", "pim=aim"), "pim aim: key attention is missing"),
        (("dgx-attacc-bank", "--contexts", "0"), "Invalid value for '--contexts'"),
        (("dgx-attacc-bank", "--contexts", "4097"), "less than or equal to 4096"),
        (("dgx-a100a", "--input", f"1{'0' * 23}"), "less than or equal to 10000000"),
        (("dgx-a100a", "--output", f"1{'0' * 23}"), "less than or equal to 10000000"),
        (("dgx-a100a", "--set", "xpu=b20"), "unknown xpu 'b20'; did you mean 'b200'?"),
        (("dgx-a100a", "--phase", "prefil"), "unknown 'prefil'; did you mean 'prefill'?"),
        (("dgx-a100a", "--chunk", "8"), "--chunk 8: it is for --phase prefill, found decode"),
        (("dgx-a100a", *PREFILL, "--output", "8"), "--output 8: it is for --phase decode, found"),
        (("dgx-a100a", *PREFILL, "--contexts", "8"), "--contexts 8: it is for --phase decode"),
        (("dgx-a100a", *PREFILL, "--chunk", "0"), "Invalid value for '--chunk'"),
        (("dgx-a100a", *PREFILL, "--input", "0"), "Invalid value for '--input'"),
        (
            ("dgx-a100a", *PREFILL, "--input", "32769", "--chunk", "1"),
            "into 32,769 steps; at most 16,384 are simulated, so at least 3 is needed",
        ),
        (("dgx-a100a", *PREFILL, "--model", "mixtral-8x7b"), "and only pimsim run knows how"),
        (("dgx-a100a", *PREFILL, "--set", "devices=5"), "cannot be shared by tp 5; tp may be"),
        (("dgx-a100a", *PREFILL, "--set", "xpu.flash.query_rows=0"), "allowed: at least 1"),
        (("dgx-a100a", *PREFILL, "--set", "xpu.l1_per_core=8KiB"), "xpu.l1_per_core: 8192 bytes"),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    call: Call, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = call("system", *arguments)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_file_extends_a_preset(call: Call, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: dgx-a100a\nxpu:\n  memory_bandwidth_gb_per_s: 6704\n")
    one, two = (
        json.loads(call("system", name, *SMALL, "--json")[1]) for name in (mine, "dgx-a100a")
    )
    assert one["system"] == "mine"
    assert one["gemm_s"]["qkv"] == pytest.approx(two["gemm_s"]["qkv"] / 2)


def test_show_resolves_a_system(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("show", "dgx-h100")
    assert code == 0
    assert "configs/xpu/a100.yaml" in out
    copy = tmp_path / "copy.yaml"
    copy.write_text(out)
    one, two = (
        json.loads(call("system", name, *SMALL, "--json")[1]) for name in (copy, "dgx-h100")
    )
    assert one["provenance"] == two["provenance"]
