"""DRAM traces as text: what is read, piece by piece, and where an error is seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pimsim.config.errors import InputError
from pimsim.hardware.dram import trace_file
from pimsim.hardware.dram.trace_file import MAX_CYCLE, read_trace

CAPACITY = 2**33
PATH = "t.trc"
REQUESTS = st.tuples(st.integers(0, CAPACITY - 1), st.booleans(), st.integers(0, MAX_CYCLE))


@given(requests=st.lists(REQUESTS, min_size=1), chunk=st.integers(1, 200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_whatever_the_pieces(
    tmp_path: Path,
    requests: list[tuple[int, bool, int]],
    chunk: int,
) -> None:
    path = tmp_path / PATH
    lines = (f"{a:#x} {'WRITE' if w else 'READ'} {c}" for a, w, c in requests)
    path.write_text("\n# comment\n\n".join(lines))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace_file, "_CHUNK", chunk)
        trace = read_trace(path, CAPACITY)
    columns = (trace.addresses, trace.writes, trace.arrivals)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == requests
    assert all(column.dtype == np.int64 for column in columns)


FIELD = st.one_of(
    st.sampled_from([
        "0x1f40", "0XAb", "0x", "0xg", "0x" + "0" * 20 + "f" * 16, "0x1" + "0" * 16, "1_0", "-1",
        "9" * 19, "9" * 20, "0", "007", "R", "READ", "read", "Read", "RD", "wr", "WRITE", "ST",
        "ld", "WRITES", "REAREADS", "0,1", "+5", "12a", "\x0b", "é", "",
    ]),
    st.integers(0, 2**64).map(str),
)  # fmt: skip
GAP = st.sampled_from([" ", "\t", "  ", " \t", ""])
LINE = st.builds(
    lambda before, words, gap, after: before + gap.join(words) + after,
    GAP, st.lists(FIELD, max_size=4), GAP, st.sampled_from(["", " ", "#", " # R 0x0", "\t#é"]),
)  # fmt: skip


@given(lines=st.lists(LINE, max_size=4), form=st.sampled_from(trace_file._FORMS[:3]))
@settings(max_examples=400)
def test_one_pass_takes_the_lines_that_the_form_describes_and_no_others(
    lines: list[str], form: trace_file._Form
) -> None:
    """The form is an expression; numbers are read by Python's own."""
    text = "".join(f"{line}\n" for line in lines)
    found = trace_file._parse(text, form)
    assert (found is not None) == (form.lines.fullmatch(text) is not None)
    if found is None:
        return
    words = [line.partition("#")[0].split() for line in text.split("\n")]
    rows = [dict(zip(form.fields, each, strict=True)) for each in words if each]
    addresses = [int(r["address"], 16 if "x" in r["address"].lower() else 10) for r in rows]
    assert found.addresses.view(np.uint64).tolist() == addresses
    assert found.writes.tolist() == [r["kind"].upper()[0] in "WS" for r in rows]
    assert found.arrivals.tolist() == [int(r.get("cycle", 0)) for r in rows]


@pytest.mark.parametrize("chunk", [1, 7, 8, 9, 10, 11, 12, 1000])
@pytest.mark.parametrize("wrong", ["0x0 REED 0", f"{CAPACITY} READ 0", f"0x0 READ {MAX_CYCLE + 1}"])
def test_an_error_names_its_line_whatever_the_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, wrong: str
) -> None:
    before = ["0x0 READ 0", "", "# comment", "0x40 WRITE 3"]
    path = tmp_path / PATH
    path.write_text("\n".join([*before, wrong, "0x0 READ 0", ""]))
    monkeypatch.setattr(trace_file, "_CHUNK", chunk)
    with pytest.raises(InputError, match=f"{PATH}:{len(before) + 1}: "):
        read_trace(path, CAPACITY)


def test_the_first_request_decides_the_form_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / PATH
    for first, other in (
        ("0x0 READ 0", "LD 0x0"),
        ("LD 0x0", "0x0 READ 0"),
        ("0x0 R", "0x0 R 5"),
        ("0x0 R 5", "0x0 R"),
    ):
        path.write_text(f"# {other}\n{first}\n{other}\n")
        with pytest.raises(InputError, match=f"{PATH}:3: "):
            read_trace(path, CAPACITY)
        path.write_text(f"# {other}\n{first}\n")
        assert len(read_trace(path, CAPACITY).addresses) == 1


def test_line_ends_of_windows_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / PATH
    path.write_bytes(b"\xef\xbb\xbf0x40 READ 1\r\n0x80 WRITE 2\r\n")
    trace = read_trace(path, CAPACITY)
    assert trace.addresses.tolist() == [0x40, 0x80]
    assert trace.writes.tolist() == [0, 1]
    assert trace.arrivals.tolist() == [1, 2]
