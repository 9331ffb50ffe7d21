"""The report of a service: its page, its charts, its timeline."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pimsim
from pimsim.config.errors import InputError
from pimsim.report.charts import LaneChart, XYChart
from pimsim.report.service_charts import PHASES, phases_of
from pimsim.report.service_timeline import service_timeline, tracks_of
from pimsim.report.services import finding, is_service, read_service, service_page, service_trace

RunCli = Callable[..., subprocess.CompletedProcess[str]]
YAML = """\
name: <script>x</script>
requests:
  count: 60
  arrivals: {process: poisson, rate_per_s: 40}
  prompt: {low: 10, high: 200}
  output: {low: 1, high: 40}
scheduler: {name: vllm, max_num_seqs: 8}
cache: {blocks: 200}
step_time: {linear: {step_us: 4000, token_us: 20}}
slo: {ttft: 100ms}
"""
POOLS = "decode={token_bytes: 1kB, links: {bandwidth_gb_per_s: 0.01, latency_ns: 9}}"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("service") / "s.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def folder(service: Path) -> Path:
    out = service.with_name("out")
    pimsim.serve(service, overrides=[POOLS], out=out)
    return out


def test_where_time_goes_adds_up_to_the_latency(folder: Path) -> None:
    requests = read_service(folder).requests
    phases = phases_of(requests)
    assert list(phases) == list(PHASES)
    assert np.allclose(sum(phases.values()), requests["e2e_s"], rtol=0, atol=1e-9)
    assert all((seconds >= 0).all() for seconds in phases.values())
    assert phases["handover"][requests["output"] > 1].min() > 0
    assert phases["handover"][requests["output"] == 1].max() == 0


def test_the_page_says_what_was_found_and_runs_no_foreign_script(folder: Path) -> None:
    found = read_service(folder)
    assert is_service(folder)
    page = service_page(found)
    assert "<script>x</script>" not in page and "&lt;script&gt;x" in page
    assert finding(found.figures, found.requests).replace("'", "&#39;") in page
    for title in ("Latencies", "Where each request", "Queue", "Batch", "KV cache", "Percentiles"):
        assert title in page
    assert "of keys and values went over 1 links" in page
    assert len(page) < 5_000_000


def test_charts_are_of_the_figures(folder: Path) -> None:
    found = read_service(folder)
    charts = {chart.key: chart for chart in found.charts}
    assert list(charts) == ["latencies", "requests", "queue", "batch", "cache"]
    lines = charts["latencies"]
    assert isinstance(lines, XYChart)
    by_name = {line.name: line for line in lines.lines}
    ttft = by_name["TTFT"]
    assert ttft.x[-1] == pytest.approx(found.figures["latency_s"]["ttft"]["max"])
    assert np.interp(50, ttft.y, ttft.x) == pytest.approx(found.figures["latency_s"]["ttft"]["p50"])
    assert by_name["limit of TTFT"].x == (0.1, 0.1)
    bars = charts["requests"]
    assert isinstance(bars, LaneChart)
    assert len(bars.lanes) == 25
    slowest = found.requests.nlargest(1, "e2e_s").iloc[0]
    assert bars.lanes[1] == f"request {int(slowest['id'])}"
    ends = [span.end for span in bars.spans if span.lane == bars.lanes[1]]
    assert max(ends) == pytest.approx(slowest["e2e_s"])
    queue = charts["queue"]
    assert isinstance(queue, XYChart)
    assert queue.lines[0].y == tuple(found.figures["over_time"]["in_system"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["requests.rate_scale=20"],
            r"^Overloaded: \S+ requests/s come.* into waiting",
        ),
        (["requests.rate_scale=0.1"], r"^100\.0% of the requests keep the SLO; .* its tokens$"),
        (
            ["slo.ttft=null", "requests.rate_scale=0.1"],
            r"^\d+% of a request's .* into making its tokens$",
        ),
    ],
)
def test_a_finding_is_one_sentence(service: Path, changes: list[str], said: str) -> None:
    result = pimsim.serve(service, overrides=changes)
    found = finding(dict(result.to_dict()), result.table())
    assert re.search(said, found), found
    early = pimsim.serve(service, max_time="1us")
    assert finding(dict(early.to_dict()), early.table()) == "No request has ended"


def test_a_service_that_was_stopped_has_a_page(service: Path, tmp_path: Path) -> None:
    for at, stop in enumerate(("1us", "300ms")):
        out = tmp_path / str(at)
        pimsim.serve(service, out=out, max_time=stop)
        assert "It was stopped early" in service_page(read_service(out))


spans = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=40)


@given(spans)
def test_tracks_hold_one_span_at_a_time_and_are_as_few_as_can_be(
    drawn: list[tuple[int, int]],
) -> None:
    found = sorted((start, start + length) for start, length in drawn)
    tracks = tracks_of(found)
    for track in set(tracks):
        mine = [span for span, at in zip(found, tracks, strict=True) if at == track]
        assert all(one[1] <= two[0] for one, two in pairwise(mine))
    most = max((sum(a <= t < b for a, b in found) for t in range(80)), default=0)
    assert len(set(tracks)) == most


def _events(content: bytes) -> tuple[dict[int, str], list[Any]]:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

    trace = Trace()
    trace.ParseFromString(content)
    names = {
        packet.track_descriptor.uuid: packet.track_descriptor.name
        for packet in trace.packet if packet.HasField("track_descriptor")
    }  # fmt: skip
    return names, [packet for packet in trace.packet if packet.HasField("track_event")]


def test_the_timeline_has_every_step_and_request_and_their_phases(folder: Path) -> None:
    pytest.importorskip("perfetto")
    found = read_service(folder)
    names, events = _events(service_trace(found))
    begun = [event.track_event for event in events if event.track_event.type == 1]
    counts = Counter(event.categories[0] for event in begun)
    assert counts["step"] == found.figures["steps"]["count"]
    assert counts["request"] == len(found.requests)
    phases = Counter(event.name for event in begun if event.categories[0] == "phase")
    assert phases["prompt"] == len(found.requests)
    assert phases["tokens"] == phases["handover"] == (found.requests["output"] > 1).sum()
    assert {"replica 0", "replica 1", "replica 1: blocks in use", "requests"} <= set(names.values())
    open_spans: dict[int, list[int]] = {}
    for event in events:  # what begins later on a track ends sooner
        track = open_spans.setdefault(event.track_event.track_uuid, [])
        if event.track_event.type == 1:
            assert not track or track[-1] <= event.timestamp
            track.append(event.timestamp)
        elif event.track_event.type == 2:
            assert track.pop() <= event.timestamp
    assert not any(open_spans.values())


def test_a_trace_that_no_browser_opens_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pimsim.report.service_timeline._MOST", 10)
    with pytest.raises(InputError, match="at most 10 are written"):
        service_trace(read_service(folder))
    assert service_timeline is not None


def test_the_command_writes_page_figures_and_timeline(
    folder: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    pytest.importorskip("perfetto")
    page, trace = tmp_path / "p.html", tmp_path / "t.pftrace"
    options = ["--out", str(page), "--figures", str(tmp_path / "f"), "--formats", "svg"]
    done = run_cli("report", str(folder), *options, "--timeline", str(trace))
    assert done.returncode == 0, done.stderr
    assert page.stat().st_size > 10_000 and trace.stat().st_size > 1000
    assert {file.stem for file in (tmp_path / "f").iterdir()} == {
        "latencies", "requests", "queue", "batch", "cache",
    }  # fmt: skip
    refused = run_cli("report", str(folder), "--stage", "x")
    assert refused.returncode == 2
    assert "a service has no --commands and no --stage" in refused.stderr


def test_a_damaged_folder_is_one_line(folder: Path, tmp_path: Path) -> None:
    for name, text in {
        "requests.parquet": "no table", "result.json": json.dumps({"goodput": 1}),
    }.items():  # fmt: skip
        copy = tmp_path / name
        copy.mkdir()
        for file in folder.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        (copy / name).write_text(text)
        with pytest.raises(InputError, match="not what pimsim serve --out writes"):
            read_service(copy)
    (tmp_path / "result.json" / "steps.parquet").write_text("no table")
