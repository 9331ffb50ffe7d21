"""Wrong services and request traces: one line, exit code 2, nothing written.

Drawn as ``test_bad_inputs.py`` draws; ``PIMSIM_FUZZ=500`` draws more cases of each kind.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import WORDS, AcceptedInput, check, mutated, mutated_lines, seeds, stop_before_work

from pimsim.config.resources import preset_names, preset_path
from pimsim.services import ServiceRun, prepare

SERVICE = """requests: {file: ./FILE}
scheduler: {name: vllm, max_num_seqs: 4, max_num_batched_tokens: 64}
cache: {blocks: 512, block_tokens: 16}
step_time: {linear: {step_us: 100, token_us: 1}}
slo: {ttft: 500ms, tpot: 50ms}
"""


def _lines(*objects: object) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in objects)


TRACES = {
    "pimsim": (
        "a.csv",
        b"request_id,arrival_s,prompt_tokens,output_tokens,priority\n"
        + b"".join(b"%d,0.%d,%d,9,1\n" % (at, at, 10 + at) for at in range(8)),
    ),
    "azure": (
        "a.csv",
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + b"".join(b"2023-11-16 18:15:4%d.6805900,%d,40\n" % (at, 300 + at) for at in range(8)),
    ),
    "azure in microseconds": (
        "a.csv",
        b"arrival_us,prompt,output,priority\n"
        + b"".join(b"%d,%d,40,0\n" % (9 * at, 300 + at) for at in range(8)),
    ),
    "burstgpt": (
        "a.csv",
        b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        + b"".join(b"%d,ChatGPT,%d,18,490,Conversation log\n" % (at, 472 + at) for at in range(8)),
    ),
    "mooncake": (
        "a.jsonl",
        _lines(*(
            {"timestamp": 9 * at, "input_length": 700, "output_length": 5, "hash_ids": [0, at]}
            for at in range(8)
        )),
    ),
    "vllm bench": (
        "a.json",
        _lines({"date": "x", "input_lens": [7, 8, 9], "output_lens": [4, 5, 6],
                "start_times": [1.25, 1.5, 2.0], "ttfts": [0.1, 0.1, 0.1]}),
    ),
    "agents": (
        "a.jsonl",
        _lines(*(
            {"session_id": f"s{at}", "arrival_time_ns": 9000 * at, "sub_requests": [
                {"input_toks": 20, "output_toks": 5, "tool_duration_ns": 800},
                {"input_toks": 40, "output_toks": 5}]}
            for at in range(4)
        )),
    ),
    "packed": (
        "a.csv.gz",
        gzip.compress(
            b"arrival_s,prompt_tokens,output_tokens\n" + b"0.5,40,9\n" * 3000, mtime=0
        ),
    ),
}  # fmt: skip
"""By format: a file's name, and what is right in it."""


@pytest.fixture(autouse=True)
def _in_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(*_: object, **__: object) -> None:
        raise AcceptedInput

    stop_before_work(monkeypatch)
    monkeypatch.setattr(ServiceRun, "run", stop)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("kind", TRACES)
def test_request_traces(kind: str, tmp_path: Path) -> None:
    """Right ones with bytes, words and lines changed; none is refused as it was."""
    name, right = TRACES[kind]
    file = tmp_path / name
    (tmp_path / "service.yaml").write_text(SERVICE.replace("FILE", name))
    file.write_bytes(right)
    assert not check(["serve", "service.yaml"], tmp_path)
    refused = []
    for draw in seeds(f"served {kind}"):
        is_text = not name.endswith(".gz") and draw.random() < 0.5
        changed = (
            mutated_lines(right.decode(), draw).encode("utf-8", "surrogateescape")
            if is_text else mutated(right, draw)
        )  # fmt: skip
        file.write_bytes(changed)
        refused.append(check(["serve", "service.yaml", "--out", "out"], tmp_path))
    assert sum(refused) > 0.15 * len(refused)


def test_services(tmp_path: Path) -> None:
    """Presets, and one with a trace, with lines, words and values changed."""
    (tmp_path / "a.csv").write_bytes(TRACES["pimsim"][1])
    right = [SERVICE.replace("FILE", "a.csv")]
    right += [preset_path("service", name).read_text() for name in preset_names("service")]
    refused = []
    for draw in seeds("services"):
        text = draw.choice(right)
        if draw.random() < 0.5:
            (tmp_path / "s.yaml").write_bytes(mutated(text.encode(), draw))
        else:
            (tmp_path / "s.yaml").write_text(mutated_lines(text, draw), errors="surrogateescape")
        refused.append(check(["serve", "s.yaml", "--out", "out"], tmp_path))
    assert sum(refused) > 0.3 * len(refused)


def _keys(values: dict[str, Any], before: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield before + key
        if isinstance(value, dict):
            yield from _keys(value, f"{before}{key}.")


def test_values_of_set(tmp_path: Path) -> None:
    """Any word as the value of any key, alone or with another."""
    keys = {
        name: sorted(_keys(prepare(name).config.model_dump())) for name in preset_names("service")
    }
    refused = []
    for draw in seeds("set service"):
        name = draw.choice(sorted(keys))
        changes = []
        for _ in range(draw.choice((1, 1, 2))):
            value = draw.choice(WORDS).replace("\x00", "")
            changes += ["--set", f"{draw.choice(keys[name])}={value}"]
        refused.append(check(["serve", name, *changes, "--out", "out"], tmp_path))
    assert sum(refused) > 0.3 * len(refused)
