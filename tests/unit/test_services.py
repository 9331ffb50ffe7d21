"""A service from Python: what its result depends on, how far it says that it is."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel

import pimsim
from pimsim import services
from pimsim.config.errors import InputError
from pimsim.interrupts import held
from pimsim.services import ServiceProgress, ServiceRun, prepare

TRACE = "arrival_us,prompt,output\n0,100,3\n1000,200,1\n900000,50,2\n"
DENSE = "layer,tokens,time_us\nmlp,1,10\nmlp,2048,30\n"
SEQUENCES = "layer,sequences,time_us\nlm_head,1,1\nlm_head,256,2\n"
ATTENTION = (
    "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,1,4\n0,0,256,1,4\n0,0,1,9999,4\n"
    "0,0,256,9999,9\n2048,0,0,0,20\n2048,0,1,1,24\n2048,0,1,9999,24\n2048,0,256,1,24\n"
    "2048,0,256,9999,24\n"
)


@pytest.fixture
def service(tmp_path: Path) -> Path:
    (tmp_path / "requests.csv").write_text(TRACE)
    for name, text in {
        "dense.csv": DENSE, "per_sequence.csv": SEQUENCES, "attention.csv": ATTENTION,
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    path = tmp_path / "service.yaml"
    path.write_text(
        "requests: {file: ./requests.csv}\nscheduler: {name: vllm}\ncache: {blocks: 101}\n"
        "step_time: {profile: {folder: ./, layers: 4}}\n"
    )
    return path


def _content(service: Path, *overrides: str) -> str:
    with ServiceRun(prepare(service, overrides)) as running:
        found: str = running.result().to_dict()["provenance"]["content_sha256"]
    return found


def test_its_content_is_config_trace_and_profile(service: Path) -> None:
    first = _content(service)
    assert first == _content(service)
    found = {first, _content(service, "seed=1"), _content(service, "scheduler.max_num_seqs=7")}
    for name in ("requests.csv", "dense.csv", "per_sequence.csv", "attention.csv"):
        path = service.parent / name
        path.write_text(path.read_text().replace("9", "8"))
        if name in ("dense.csv", "per_sequence.csv"):
            path.write_text(path.read_text().replace("1\n", "3\n").replace("10\n", "11\n"))
        found.add(_content(service))
    assert len(found) == 7


def test_it_says_how_far_it_is(service: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_LOOK_EVERY", 1)
    monkeypatch.setattr(services, "_TOLD_S", 0.0)
    told: list[ServiceProgress] = []
    with ServiceRun(prepare(service)) as running:
        running.run(on_progress=told.append)
    assert [one.finished for one in told] == sorted(one.finished for one in told)
    assert [one.time_ps for one in told] == sorted(one.time_ps for one in told)
    assert {one.requests for one in told} == {3}
    assert told[0].left_s is None
    assert told[-1].finished == 3
    assert told[-1].left_s == 0


def test_a_result_is_shown_in_a_line(service: Path) -> None:
    shown = repr(pimsim.serve(service, max_requests=2))
    assert shown.startswith("ServiceResult(name=") and len(shown) < 300


def test_python_stops_where_it_is_told_to(service: Path) -> None:
    assert pimsim.serve(service).to_dict()["finished"] is True
    early = pimsim.serve(service, max_time="500ms")
    assert early.to_dict()["requests"] == {"asked": 3, "arrived": 2, "finished": 2}
    assert early.to_dict()["time_s"] == 0.5
    table = early.table()
    assert table["finish_s"].isna().tolist() == [False, False, True]
    assert table["arrival_s"].tolist() == [0, 0.001, 0.9]
    assert pimsim.serve(service, max_requests=1).to_dict()["requests"]["finished"] == 1
    with pytest.raises(InputError, match="--max-time: a time needs its unit"):
        pimsim.serve(service, max_time="3")


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "2", 10**9])
def test_a_number_of_requests_is_one_in_python_too(service: Path, count: Any) -> None:
    with pytest.raises(InputError, match=r"max_requests: found .*; allowed: a whole number of 1"):
        pimsim.serve(service, max_requests=count)


def test_a_version_without_quotes_is_understood(service: Path) -> None:
    for text in ("0.19", "'0.19'"):
        config = prepare(service, [f"scheduler.version={text}"]).config
        assert config.scheduler.model_dump()["version"] == "0.19"
    for text in ("0.2", "19"):
        with pytest.raises(InputError, match=r"version: found .*; allowed: 0\.33, 0\.19"):
            prepare(service, [f"scheduler.version={text}"])


@pytest.mark.parametrize("accept", ["-1", "65", "1.5", "-0.1", "true", "max", "[1]", "null"])
def test_what_no_draft_is_accepted_by_is_told_with_all_that_is(service: Path, accept: str) -> None:
    said = r"speculation\.accept: found .*; allowed: a whole number of 0 to 64, a probability"
    with pytest.raises(InputError, match=said):
        prepare(service, [f"speculation={{drafts: 3, accept: {accept}}}"])


def test_a_number_with_a_point_is_a_probability(service: Path) -> None:
    found = {}
    for accept in ("1", "1.0", "0", "0.0"):
        options = ["speculation={drafts: 3, accept: " + accept + "}", "step_time.profile=null"]
        options.append("step_time.linear={step_us: 9, token_us: 1}")
        table = pimsim.serve(service, overrides=options).table()
        found[accept] = table["accepted"].sum()
    assert found["1.0"] > found["1"] > found["0"] == found["0.0"] == 0


def test_an_override_of_a_whole_section_drops_the_keys_of_the_former_one(service: Path) -> None:
    path = service.with_name("other.yaml")
    path.write_text(
        "requests: {count: 4, prompt: {fixed: 9}, output: {fixed: 2},\n"
        "  arrivals: {process: poisson, rate_per_s: 5}}\n"
        "scheduler: {name: vllm, max_num_seqs: 3, policy: priority}\ncache: {blocks: 99}\n"
        "step_time: {linear: {step_us: 10, token_us: 1}}\n"
    )
    whole = ["scheduler={name: sarathi, chunk: 7}", "requests.arrivals={process: at_once}"]
    config = prepare(path, whole).config
    assert config.scheduler.model_dump()["chunk"] == 7
    assert config.requests.arrivals.model_dump() == {"process": "at_once"}
    from_file = [
        "requests={file: ./requests.csv, count: 2, prompt: null, output: null}",
        "requests.arrivals.process=file",
    ]
    assert prepare(path, from_file).config.requests.arrivals.process == "file"
    with pytest.raises(InputError, match=r"unknown key 'scheduler\.chnk'; did you mean 'chunk'"):
        prepare(path, ["scheduler={name: sarathi, chnk: 7}"])
    with pytest.raises(InputError, match=r"unknown key 'scheduler\.chunk'"):
        prepare(path, ["scheduler={chunk: 7}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cache.blocks=1073741824", "cache.blocks: found 1073741824; allowed: at least 1"),
        ("replicas.count=10000", r"cache.blocks: 20,000 of 10,000 replicas are 200,000,000"),
        ("speculation={drafts: 3, accept: 99999999999999999999999}", "speculation.accept"),
    ],
)
def test_what_no_memory_or_word_holds_is_refused(
    service: Path, override: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(service, ["cache.blocks=20000", override])


def test_a_service_that_goes_on_for_years_is_told(service: Path) -> None:
    slow = ["step_time.profile=null", "step_time.linear={step_us: 1000000000, token_us: 1000000}"]
    (service.parent / "requests.csv").write_text("arrival_us,prompt,output\n0,1,10000\n")
    with pytest.raises(InputError, match=r"passes 9,223,372 s of simulated time"):
        pimsim.serve(service, overrides=[*slow, "cache.blocks=2000"])


def _results(folder: Path) -> dict[str, Any]:
    import pandas

    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    del found["provenance"]["wall_s"]
    for name in ("requests", "steps"):
        table = pandas.read_parquet(folder / f"{name}.parquet").fillna(-1)  # NaN is not itself
        found[name + ".parquet"] = table.to_dict("list")
    return found


def test_what_was_stopped_goes_on_to_the_same_end(service: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    pimsim.serve(service, out=whole)
    with pytest.raises(InputError, match="no service has stopped early there"):
        pimsim.serve(service, out=parts, resume=True)
    pimsim.serve(service, out=parts, max_time="100us")
    with pytest.raises(InputError, match="is of another config"):
        pimsim.serve(service, overrides=["seed=3"], out=parts, resume=True)
    found = pimsim.serve(service, out=parts, resume=True, max_requests=2)
    assert found.to_dict()["requests"]["finished"] == 2
    assert (parts / "state.npz").exists()
    pimsim.serve(service, out=parts, resume=True)
    assert _results(parts) == _results(whole)
    assert not (parts / "state.npz").exists()
    with pytest.raises(InputError, match="or it has ended"):
        pimsim.serve(service, out=parts, resume=True)
    with pytest.raises(InputError, match="which is not given"):
        pimsim.serve(service, resume=True)


@pytest.mark.parametrize("damage", ["cut", "text", "other", "steps"])
def test_a_damaged_state_is_one_line(service: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    pimsim.serve(service, out=out, max_requests=1)
    state = out / "state.npz"
    before = (out / "result.json").read_text()
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:-200])
    elif damage == "text":
        state.write_text("no archive")
    elif damage == "steps":
        (out / "steps.parquet").write_text("no table")
    else:
        with np.load(state) as packed:
            arrays = {name: packed[name] for name in packed.files if name != "gaps"}
        np.savez(state, **arrays)
    with pytest.raises(InputError, match=r"is damaged|no table of steps"):
        pimsim.serve(service, out=out, resume=True)
    assert (out / "result.json").read_text() == before


def test_a_signal_waits_for_the_end_of_a_moment() -> None:
    seen: list[int] = []

    def note(number: int, frame: object) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGTERM, note)
    try:
        with held() as came:
            signal.raise_signal(signal.SIGTERM)
            assert (came, seen) == ([signal.SIGTERM], [])
        assert seen == [signal.SIGTERM]
        with held():
            for _ in range(2):  # whoever asks twice does not wait
                signal.raise_signal(signal.SIGTERM)
            assert seen == [signal.SIGTERM] * 2
    finally:
        signal.signal(signal.SIGTERM, before)


def test_steps_are_kept_for_machines_that_do_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name tells nothing of what steps take, a key does."""
    monkeypatch.setenv("PIMSIM_CACHE_DIR", str(tmp_path))
    config = NpuOnly()

    def kept(**values: Any) -> Path | None:
        machine: Any = SimpleNamespace(config=config.model_copy(update=values))
        service: Any = SimpleNamespace(
            interpolated=True, machine=SimpleNamespace(workload=SimpleNamespace())
        )
        monkeypatch.setattr(services, "model_hashes", lambda _: {})
        return services._Anchors(service, machine)._path

    usual = kept()
    assert usual is not None and usual == kept(name="other", description="told otherwise")
    assert usual != kept(lanes=3)


class NpuOnly(BaseModel):
    name: str = "usual"
    description: str = ""
    lanes: int = 2


def test_a_service_that_begins_anew_closes_its_table_of_steps(
    service: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where its steps were told with too large an error."""
    closed = []

    class Table(services.StepsFile):
        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr(services, "StepsFile", Table)
    with ServiceRun(prepare(str(service)), tmp_path / "out") as running:
        first = running._steps
        assert not closed
        running._begin_log()
        assert closed == [first] and running._steps is not first
