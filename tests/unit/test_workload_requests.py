"""Request traces: what is read, and how each mistake is answered."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pimsim.config.errors import InputError
from pimsim.workload.requests import MAX_TOKENS, MAX_TRACE_BYTES, Request, load_requests

HEADER = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens"


def _trace(folder: Path, text: str | bytes) -> Path:
    path = folder / "trace.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def _message(path: Path, batch: int | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_requests(path, batch=batch)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_own_format(tmp_path: Path) -> None:
    path = _trace(tmp_path, f"{HEADER}\n7,0.5,10,20,3\n8,1e-3,1,1,0\n")
    trace = load_requests(path)
    assert trace.requests == (
        Request(7, 0.5, 10, 20, 3, None),
        Request(8, 0.001, 1, 1, 0, None),
    )
    assert trace.contexts == (10 + 3, 1 + 0)
    assert (trace.name, trace.path, trace.source) == ("trace", path, "pimsim")
    assert trace.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_channel_column_may_be_there_and_may_be_empty(tmp_path: Path) -> None:
    path = _trace(tmp_path, f"{HEADER},channel\n0,0,10,20,3,31\n1,0,10,20,3,\n")
    assert [request.channel for request in load_requests(path).requests] == [31, None]


def test_artifact_format(tmp_path: Path) -> None:
    trace = load_requests(_trace(tmp_path, "seq_len,ch_idx\n2048,26\n6,0\n"))
    assert trace.source == "neupims-artifact"
    assert trace.contexts == (2048, 6)
    assert [(request.id, request.channel) for request in trace.requests] == [(0, 26), (1, 0)]


def test_columns_may_be_in_any_order(tmp_path: Path) -> None:
    trace = load_requests(_trace(tmp_path, "ch_idx,seq_len\n26,2048\n"))
    assert (trace.requests[0].context, trace.requests[0].channel) == (2048, 26)


@pytest.mark.parametrize(
    "text",
    [
        f"{HEADER}\r\n0,0,10,20,3\r\n",
        f"\ufeff{HEADER}\n0,0,10,20,3\n",
        f" {HEADER.replace(',', ' , ')}\n 0, 0, 10, 20, 3\n",
        f"{HEADER}\n\n0,0,10,20,3\n\n",
        f'{HEADER}\n"0","0","10","20","3"',
    ],
    ids=["crlf", "byte order mark", "spaces", "blank lines", "quotes and no last newline"],
)
def test_what_spreadsheets_do_to_a_file_is_read_the_same(tmp_path: Path, text: str) -> None:
    assert load_requests(_trace(tmp_path, text)).requests == (Request(0, 0.0, 10, 20, 3),)


def test_batch_takes_from_the_front_and_hashes_the_whole_file(tmp_path: Path) -> None:
    path = _trace(tmp_path, "seq_len,ch_idx\n3,0\n2,1\n1,2\n")
    assert load_requests(path, batch=2).contexts == (3, 2)
    assert load_requests(path, batch=3) == load_requests(path)
    assert load_requests(path, batch=2).sha256 == load_requests(path).sha256


@pytest.mark.parametrize("batch", [0, -1, 4])
def test_a_batch_the_trace_cannot_give_is_refused(tmp_path: Path, batch: int) -> None:
    path = _trace(tmp_path, "seq_len,ch_idx\n3,0\n2,1\n1,2\n")
    assert f"a batch of {batch} requests" in _message(path, batch=batch)


HUGE = MAX_TOKENS + 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        (f"{HEADER}\n", "empty"),
        ("seq_len,ch_idx\n\n", "empty"),
        ("12,3\n14,5\n", ":1: column 'request_id' is missing; found '12', '3'"),
        ("seq_len\n12\n", ":1: column 'ch_idx' is missing"),
        ("seq_length,ch_idx\n1,2\n", "'seq_len' is missing; found 'seq_length', 'ch_idx'; is"),
        (f"{HEADER},chanel\n0,0,1,1,0,0\n", "unknown column 'chanel'; did you mean 'channel'?"),
        ("seq_len,seq_len,ch_idx\n1,1,2\n", "column 'seq_len' stands there twice"),
        (f"{HEADER}\n0,0,10,20\n", ":2: 4 fields, where the header names 5"),
        (f"{HEADER}\n0,0,10,20,3,4\n", ":2: 6 fields, where the header names 5"),
        (f"{HEADER}\n0,0,10,20,3\n0,0,10,20,3\n", ":3: request_id 0 was used before, in line 2"),
        (f"{HEADER}\n-1,0,10,20,3\n", ":2: request_id is '-1'"),
        (f"{HEADER}\n0,0,-10,20,3\n", ":2: prompt_tokens is '-10'"),
        (f"{HEADER}\n0,0,0,20,3\n", f"prompt_tokens is '0'; an integer from 1 to {MAX_TOKENS}"),
        (f"{HEADER}\n0,0,{HUGE},20,3\n", f":2: prompt_tokens is '{HUGE}'"),
        (f"{HEADER}\n0,0,{'9' * 9999},20,3\n", ":2: prompt_tokens is '999"),
        (f"{HEADER}\n0,0,10.0,20,3\n", "prompt_tokens is '10.0'; an integer"),
        (f"{HEADER}\n0,0,1_0,20,3\n", "prompt_tokens is '1_0'; an integer"),
        (f"{HEADER}\n0,0,\u0661,20,3\n", "prompt_tokens is '\u0661'; an integer"),
        (f"{HEADER}\n0,0,NaN,20,3\n", "prompt_tokens is 'NaN'; an integer"),
        (f"{HEADER}\n0,0,,20,3\n", "prompt_tokens is ''; an integer"),
        (f"{HEADER}\n0,0,10,0,0\n", "output_tokens is '0'"),
        (f"{HEADER}\n0,0,10,20,-3\n", "generated_tokens is '-3'"),
        (f"{HEADER}\n0,0,10,20,21\n", "generated_tokens is '21'; at most output_tokens (20)"),
        (f"{HEADER}\n0,0,{MAX_TOKENS},20,1\n", f"the context may be at most {MAX_TOKENS}"),
        (f"{HEADER}\n0,nan,10,20,3\n", ":2: arrival_s is 'nan'; a finite number"),
        (f"{HEADER}\n0,inf,10,20,3\n", "arrival_s is 'inf'"),
        (f"{HEADER}\n0,-1,10,20,3\n", "arrival_s is '-1'"),
        (f"{HEADER}\n0,soon,10,20,3\n", "arrival_s is 'soon'"),
        (f"{HEADER},channel\n0,0,10,20,3,-1\n", "channel is '-1'; an integer from 0"),
        ("seq_len,ch_idx\n5,-1\n", ":2: ch_idx is '-1'; an integer from 0"),
        ("seq_len,ch_idx\n0,1\n", ":2: seq_len is '0'; an integer from 1"),
        ('seq_len,ch_idx\n"5,1\n', "not a CSV row"),
        (f"seq_len,ch_idx\n{'5' * 200_000},1\n", "not a CSV row"),
        (b"seq_len,ch_idx\n5,1\n\xff,1\n", ":3: not UTF-8 text (byte 19, 0xff)"),
        (b"\x00" * 64, "missing"),
    ],
)
def test_wrong_trace_is_refused_with_file_and_line(
    tmp_path: Path, text: str | bytes, expected: str
) -> None:
    message = _message(_trace(tmp_path, text))
    assert "trace.csv" in message
    assert expected in message
    assert len(message) < 400 + len(str(tmp_path))


def test_the_line_named_is_that_of_the_file_with_blank_lines_counted(tmp_path: Path) -> None:
    assert ":5: seq_len" in _message(_trace(tmp_path, "seq_len,ch_idx\n\n1,1\n\nx,1\n"))


def test_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory" in _message(tmp_path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in _message(tmp_path / "nothing.csv")


@pytest.mark.parametrize(
    ("name", "said"), [("x" * 300 + ".csv", "304 bytes"), ("nul\0.csv", "zero byte")]
)
def test_impossible_file_name_is_refused(tmp_path: Path, name: str, said: str) -> None:
    assert said in _message(tmp_path / name)


def test_file_above_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    with path.open("wb") as stream:
        stream.truncate(MAX_TRACE_BYTES + 1)
    assert f"larger than {MAX_TRACE_BYTES} bytes" in _message(path)


def test_unknown_name_is_answered_with_a_near_miss() -> None:
    with pytest.raises(InputError, match="did you mean 'sharegpt-64'"):
        load_requests("sharegtp-64")


@pytest.mark.parametrize("count", [8, 32, 64, 128, 512])
def test_artifact_round_robin_files_are_read_as_they_are(reference_dir: Path, count: int) -> None:
    trace = load_requests(reference_dir / "neupims" / "requests" / f"sg-rr-{count}.csv")
    assert trace.source == "neupims-artifact"
    assert len(trace.requests) == count
    assert max(trace.contexts) == 2048
    assert {request.channel for request in trace.requests} == set(range(min(count, 32)))


@pytest.mark.parametrize("count", [256, 512])
def test_artifact_balanced_files_use_every_channel(reference_dir: Path, count: int) -> None:
    trace = load_requests(str(reference_dir / "neupims" / "requests" / f"sg-clb-{count}.csv"))
    assert len(trace.requests) == count
    assert {request.channel for request in trace.requests} == set(range(32))
