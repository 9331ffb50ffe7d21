"""Request traces of every format, arrivals and lengths: what is read, what is drawn."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pimsim.config.errors import InputError
from pimsim.config.plugins import module_names
from pimsim.config.traffic import LengthConfig, RequestsConfig
from pimsim.workload.arrivals import load_arrivals
from pimsim.workload.draws import RandomStream
from pimsim.workload.lengths import draw_lengths
from pimsim.workload.load_traffic import load_traffic
from pimsim.workload.request_formats import read_traffic
from pimsim.workload.traffic import NOBODY, PrefixBlocks, Traffic, whole_ps

AGENTS = [
    {
        "session_id": "a", "arrival_time_ns": 7,
        "sub_requests": [
            {"input_toks": 100, "output_toks": 5, "tool_duration_ns": 1000},
            {"input_toks": 200, "output_toks": 6, "tool_duration_ns": 9},
        ],
    },
    {
        "session_id": "b", "arrival_time_ns": 8,
        "sub_requests": [{"input_toks": 1, "output_toks": 2}],
    },
]  # fmt: skip
FILES: dict[str, tuple[str, str, dict[str, list[int]]]] = {
    "azure": (
        "a.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:17:04.0319600,3180,8\n",
        {"arrival_ps": [0, 52_000_000_000], "prompt": [4808, 3180], "output": [10, 8]},
    ),
    "azure with a zone": (
        "b.csv",
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,1,2\n"
        "2024-05-10 00:00:01.009931+00:00,3,4\n",
        {"arrival_ps": [0, 1_000_001_000_000], "prompt": [1, 3], "output": [2, 4]},
    ),
    "azure in microseconds": (
        "c.csv", "arrival_us,prompt,output,priority\n5,1,2,9\n6,3,4,8\n",
        {"arrival_ps": [5_000_000, 6_000_000], "prompt": [1, 3], "priority": [9, 8]},
    ),
    "burstgpt": (
        "d.csv",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,"
        "Log Type\n5.5,1,1,ChatGPT,472,18,490,x\n45,2,1,GPT-4,1087,230,1317,x\n",
        {"arrival_ps": [0, 39_500_000_000_000], "prompt": [472, 1087], "output": [18, 230]},
    ),
    "pimsim_csv": (
        "e.csv",
        "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens\n7,0.5,10,20,3\n",
        {"arrival_ps": [500_000_000_000], "prompt": [10], "output": [20], "id": [7]},
    ),
    "mooncake": (
        "f.jsonl",
        '{"timestamp": 3, "input_length": 600, "output_length": 5, "hash_ids": [44, 9]}\n'
        '{"timestamp": 3, "input_length": 100, "output_length": 6, "hash_ids": [44]}\n',
        {"arrival_ps": [3 * 10**9] * 2, "prompt": [600, 100], "output": [5, 6]},
    ),
    "vllm_bench": (
        "g.jsonl",
        '{"input_lens": [3, 4], "output_lens": [5, 6], "start_times": [100.0, 100.25]}\n',
        {"arrival_ps": [0, 250_000_000_000], "prompt": [3, 4], "output": [5, 6]},
    ),
    "agents": (
        "h.jsonl", "".join(f"{json.dumps(one)}\n" for one in AGENTS),
        {
            "arrival_ps": [7000, 7000, 8000], "prompt": [100, 200, 1], "output": [5, 6, 2],
            "follows": [NOBODY, 0, NOBODY], "pause_ps": [0, 1_000_000, 0],
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_each_format_is_told_by_what_is_in_it(tmp_path: Path, name: str, packed: bool) -> None:
    file, text, wanted = FILES[name]
    path = tmp_path / (f"{file}.gz" if packed else file)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    read = read_traffic(path)
    assert read.format == name.split()[0]
    for column, values in wanted.items():
        assert getattr(read.traffic, column).tolist() == values, column
    first = 1 if path.name.removesuffix(".gz").endswith(".jsonl") else 2
    assert read.traffic.where(0).startswith(f"{path}:{first}")


def test_every_format_has_a_file_above() -> None:
    assert {name.split()[0] for name in FILES} == set(module_names("request_format"))


def test_blocks_of_prompts_are_split_into_those_of_the_cache() -> None:
    wide = PrefixBlocks(
        512, np.array([0, 1, 0], dtype=np.int32), np.array([0, 2]), np.array([2, 1])
    )
    found = wide.split(128, np.array([700, 300]))
    assert found.numbers.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3]
    assert found.first.tolist() == [0, 8]
    assert found.count.tolist() == [700 // 128, 300 // 128]
    with pytest.raises(InputError, match=r"block_tokens is 100; .* have 512 tokens"):
        wide.split(100, np.array([700, 300]))


BAD = {
    "cut off": (b"\x1f\x8b\x08", "cut off|damaged gzip"),
    "no JSON": (b'{"timestamp": ', "no JSON: line 1"),
    "another key": (b'{"timestamp": 1, "input_len": 2}\n', "known are"),
    "too many blocks": (
        b'{"timestamp": 1, "input_length": 512, "output_length": 1, "hash_ids": [1, 2]}\n',
        r"f:1: 2 hash_ids; a prompt of 512 tokens has 1 blocks",
    ),
    "a negative time": (
        b'{"timestamp": -1, "input_length": 5, "output_length": 1, "hash_ids": []}\n',
        "timestamp is '-1'",
    ),
    "two runs": (b'{"input_lens": [1], "output_lens": [1]}\n' * 2, "f:2: a second run"),
    "uneven": (b'{"input_lens": [1, 2], "output_lens": [1]}\n', "2 input_lens, 1 output_lens"),
    "no calls": (
        b'{"session_id": 1, "arrival_time_ns": 1, "sub_requests": []}\n', "at least one is expected"
    ),
    "a cell behind empty lines": (
        b"arrival_us,prompt,output\n\n0,1,1\n\n\n5,x,1\n", r"f:6: prompt is 'x'"
    ),
    "a short line behind empty ones": (
        b"\narrival_us,prompt,output\n\n0,1,1\n\n5,1\n", r"f:6: 2 fields"
    ),
    "no time": (
        b"TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n", "TIMESTAMP is 'yesterday'"
    ),
    "no text": (b"\xff\xfe\x00", "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, name: str) -> None:
    content, said = BAD[name]
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_traffic(tmp_path / "f")


def _requests(**given: Any) -> RequestsConfig:
    arrivals = given.pop("arrivals", {"process": "at_once"})
    settings = load_arrivals(arrivals["process"]).SETTINGS(**arrivals)
    lengths = LengthConfig(low=10, high=20)
    values = {"count": 4000, "prompt": lengths, "output": lengths, "arrivals": settings, **given}
    return RequestsConfig(**values)


def test_a_poisson_process_has_its_rate_and_forgets() -> None:
    found = load_traffic(_requests(arrivals={"process": "poisson", "rate_per_s": 8.0}), 3).traffic
    gaps = np.diff(found.arrival_ps) / 1e12
    assert gaps.mean() == pytest.approx(1 / 8, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(1, rel=0.05)
    assert np.corrcoef(gaps[1:], gaps[:-1])[0, 1] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("cv", [0.3, 1.0, 3.0])
def test_gamma_gaps_have_their_rate_and_variation(cv: float) -> None:
    config = _requests(arrivals={"process": "gamma", "rate_per_s": 2.0, "cv": cv}, count=40_000)
    gaps = np.diff(load_traffic(config, 1).traffic.arrival_ps) / 1e12
    assert gaps.mean() == pytest.approx(0.5, rel=0.06)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.06)


def test_gamma_draws_are_of_the_law() -> None:
    """Moments: mean and variance are the shape, the third central one is twice it."""
    for shape in (0.2, 1.0, 7.5):
        found = RandomStream(5).gamma(shape, 200_000)
        assert found.mean() == pytest.approx(shape, rel=0.02)
        assert found.var() == pytest.approx(shape, rel=0.03)
        assert ((found - found.mean()) ** 3).mean() == pytest.approx(2 * shape, rel=0.12)


def test_users_of_a_closed_loop_ask_in_turns() -> None:
    config = _requests(arrivals={"process": "closed", "users": 3, "think": 5}, count=7)
    found = load_traffic(config, 0).traffic
    assert found.follows.tolist() == [NOBODY] * 3 + [0, 1, 2, 3]
    assert found.pause_ps.tolist() == [0, 0, 0, 5, 5, 5, 5]


def test_the_same_seed_the_same_requests_and_another_one_others() -> None:
    config = _requests(arrivals={"process": "poisson", "rate_per_s": 8.0})
    one, same, other = (load_traffic(config, seed).traffic for seed in (1, 1, 2))
    for column in ("arrival_ps", "prompt", "output"):
        assert (getattr(one, column) == getattr(same, column)).all()
        assert (getattr(one, column) != getattr(other, column)).any()


def test_every_process_gives_as_many_requests_in_order() -> None:
    own = {"poisson": {"rate_per_s": 1.0}, "gamma": {"rate_per_s": 1.0, "cv": 2.0},
           "closed": {"users": 5}}  # fmt: skip
    for name in module_names("arrivals"):
        config = _requests(arrivals={"process": name, **own.get(name, {})}, count=50)
        found = load_traffic(config, 4).traffic
        assert len(found) == 50
        assert found.check() is found
        assert found.arrival_ps.min() >= 0


def test_lengths_are_of_their_law() -> None:
    draw = RandomStream(0)
    assert set(draw_lengths(LengthConfig(fixed=7), 9, draw)) == {7}
    even = draw_lengths(LengthConfig(low=3, high=5), 9000, draw)
    assert np.bincount(even).tolist()[:3] == [0, 0, 0]
    assert (np.bincount(even)[3:] / 9000).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    found = draw_lengths(LengthConfig(mean=500.0, cv=0.7), 50_000, draw)
    assert found.mean() == pytest.approx(500, rel=0.02)
    assert found.std() / found.mean() == pytest.approx(0.7, rel=0.05)
    cut = draw_lengths(LengthConfig(mean=500.0, cv=2.0, least=100, most=900), 5000, draw)
    assert (cut.min(), cut.max()) == (100, 900)


@pytest.mark.parametrize(
    "given",
    [
        {}, {"fixed": 1, "mean": 2.0}, {"low": 1}, {"low": 5, "high": 4},
        {"mean": 2.0, "least": 5, "most": 4}, {"fixed": 1, "cv": 1.0}, {"fixed": 1, "least": 1},
        {"low": 1, "high": 2, "most": 1_000_000},
    ],
)  # fmt: skip
def test_lengths_are_of_one_kind(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"either fixed|exceeds|is of a log-normal law"):
        LengthConfig(**given)


def test_a_number_is_of_one_request(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    header = "request_id,arrival_s,prompt_tokens,output_tokens\n"
    path.write_text(header + "7,0,1,1\n8,1,1,1\n7,2,1,1\n")
    said = r"requests\.csv:4: request 7 has the number of an earlier one \(.*requests\.csv:2\)"
    with pytest.raises(InputError, match=said):
        load_traffic(RequestsConfig(file=str(path)), 0)
    path.write_text(header + "7,0,1,1\n8,1,1,1\n6,2,1,1\n")
    assert load_traffic(RequestsConfig(file=str(path)), 0).traffic.id.tolist() == [7, 8, 6]


def _file(tmp_path: Path, **given: Any) -> Traffic:
    path = tmp_path / "requests.csv"
    rows = [f"{at * 10},{at + 1},{at + 100}" for at in range(5)]
    path.write_text("\n".join(["arrival_us,prompt,output", *rows]) + "\n")
    return load_traffic(RequestsConfig(file=str(path), **given), 6).traffic


def test_a_count_takes_the_front_or_goes_round_again(tmp_path: Path) -> None:
    assert _file(tmp_path, count=3).prompt.tolist() == [1, 2, 3]
    again = _file(tmp_path, count=12)
    assert again.arrival_ps.tolist() == [at * 10_000_000 for at in range(12)]
    assert again.prompt[:5].tolist() == [1, 2, 3, 4, 5]
    assert sorted(again.prompt[5:10]) == [1, 2, 3, 4, 5]
    assert again.prompt[5:10].tolist() != [1, 2, 3, 4, 5]
    assert (again.output - again.prompt == 99).all()
    assert again.id.tolist() == list(range(12))


def test_rate_scale_brings_arrivals_closer(tmp_path: Path) -> None:
    assert _file(tmp_path, rate_scale=4.0).arrival_ps.tolist() == [0, 2.5e6, 5e6, 7.5e6, 10e6]


def test_blocks_of_prompts_are_new_ones_when_a_trace_goes_round_again(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text(FILES["mooncake"][1])
    found = load_traffic(RequestsConfig(file=str(path), count=4), 0).traffic
    assert found.prefixes is not None
    held = [
        set(found.prefixes.numbers[first : first + count].tolist())
        for first, count in zip(found.prefixes.first, found.prefixes.count, strict=True)
    ]
    assert held[0] & held[1]
    assert held[2] & held[3]
    assert not (held[0] | held[1]) & (held[2] | held[3])


def test_requests_without_output_can_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("arrival_us,prompt,output\n0,1,1\n1,2,0\n2,3,3\n")
    with pytest.raises(InputError, match=r"a.csv:3: request 1: output is 0"):
        load_traffic(RequestsConfig(file=str(path)), 0)
    found = load_traffic(RequestsConfig(file=str(path), skip_empty=True), 0).traffic
    assert found.prompt.tolist() == [1, 3]
    assert found.where(1) == f"{path}:4: request 2"


def test_calls_of_sessions_take_no_other_arrivals(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(FILES["agents"][1])
    config = _requests(
        file=str(path), prompt=None, output=None, count=None,
        arrivals={"process": "poisson", "rate_per_s": 1.0},
    )  # fmt: skip
    with pytest.raises(InputError, match="come when those before them have ended"):
        load_traffic(config, 0)


_PLAIN = "arrival_s,prompt_tokens,output_tokens\n"
_DATED = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
TIMES = {
    "before 0": (f"{_PLAIN}-0.5,1,1\n", r"requests.csv:2: request 0 arrives before 0 s"),
    "beyond 64 bits": (f"{_PLAIN}1,1,1\n1e8,1,1\n", r"requests.csv:3: .* after 4,611,686 s"),
    "beyond 64 bits in microseconds": (
        "arrival_us,prompt,output\n10000000000000,1,1\n", r"requests.csv:2: .* after 4,611,686 s",
    ),
    **{
        f"the date {text!r}": (
            f"{_DATED}2023-11-16 18:17:03,1,1\n{text},1,1\n", r"csv:3: TIMESTAMP is",
        )
        for text in (
            "", "NaT", "now", "today", "2023", "2500-01-01 00:00:00", "2023-13-01 00:00:00",
            "2023-11-16 18:17:03+01:00",
        )
    },
    "a column twice": (
        "arrival_us,prompt,prompt,output\n0,1,2,3\n", r"'prompt' stands there twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TIMES)
def test_times_that_are_none_are_refused_by_line(tmp_path: Path, case: str) -> None:
    text, message = TIMES[case]
    path = tmp_path / "requests.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_traffic(RequestsConfig(file=str(path)), 0)


def test_the_front_of_a_trace_that_is_too_long_is_served(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text("Timestamp,Request tokens,Response tokens\n5,1,1\n6,1,1\n10450000,1,1\n")
    found = load_traffic(RequestsConfig(file=str(path), count=2), 0).traffic
    assert found.arrival_ps.tolist() == [0, 10**12]
    with pytest.raises(InputError, match=r"requests.csv:4: .* after 4,611,686 s"):
        load_traffic(RequestsConfig(file=str(path)), 0)


def test_drawn_and_scaled_times_fit_64_bits(tmp_path: Path) -> None:
    for process in ({"process": "poisson"}, {"process": "gamma", "cv": 2.0}):
        config = _requests(arrivals={"rate_per_s": 1e-300, **process})
        with pytest.raises(InputError, match=r"after 4,611,686 s"):
            load_traffic(config, 0)
    with pytest.raises(InputError, match=r"rate_scale is 1e-300: .* at least"):
        _file(tmp_path, rate_scale=1e-300)
    last_ps = 40_000_000
    assert _file(tmp_path, rate_scale=1e-9).arrival_ps[-1] == last_ps * 10**9
    with pytest.raises(InputError, match=r"100000000 times through a trace of 1 requests|pass"):
        path = tmp_path / "long.csv"
        path.write_text("arrival_us,prompt,output\n0,1,1\n1000000000000,1,1\n")
        load_traffic(RequestsConfig(file=str(path), count=100), 0)


def test_all_members_of_a_gzip_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv.gz"
    first, second = b"arrival_us,prompt,output\n0,1,1\n", b"5,2,2\n"
    path.write_bytes(gzip.compress(first) + gzip.compress(second) + b"\0" * 9)
    assert load_traffic(RequestsConfig(file=str(path)), 0).traffic.prompt.tolist() == [1, 2]
    for tail in (gzip.compress(second)[:-3], b"more"):
        path.write_bytes(gzip.compress(first) + tail)
        with pytest.raises(InputError, match=r"cut off|damaged"):
            load_traffic(RequestsConfig(file=str(path)), 0)


def test_a_decimal_time_is_its_nearest_picosecond() -> None:
    """0.57 s is a little less than 570,000,000,000 ps as a float."""
    micros = np.arange(0, 10**6, 997)
    assert (whole_ps(micros / 10**6, 10**12) == micros * 10**6).all()
    assert (whole_ps(micros / 10**3, 10**9) == micros * 10**6).all()
    assert whole_ps(np.array([1.4, 1.6, -0.4]), 1).tolist() == [1, 2, 0]
    assert whole_ps(micros, 10**6).tolist() == (micros * 10**6).tolist()


@pytest.mark.parametrize("key", ["prompt", "output"])
def test_a_number_in_place_of_a_length_is_told_its_mapping(key: str) -> None:
    given = {"prompt": {"fixed": 4}, "output": {"fixed": 4}, "count": 1, key: 100}
    with pytest.raises(ValidationError, match=r"for that many tokens: \{fixed: 100\}"):
        RequestsConfig.model_validate(given)
    with pytest.raises(ValidationError, match="dictionary"):
        RequestsConfig.model_validate(given | {key: True})
