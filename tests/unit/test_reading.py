"""The one reader of input files, and that every kind of input goes through it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pimsim.config.errors import InputError
from pimsim.config.loader import load_memory, load_run, load_stream_pim
from pimsim.config.paths import given_path
from pimsim.config.reading import open_input, parse_json, read_bytes, read_text
from pimsim.hardware.dram.address import AddressMap
from pimsim.hardware.dram.command_trace import read_command_trace
from pimsim.hardware.dram.dramsim3_ini import read_dramsim3_ini
from pimsim.hardware.dram.trace_file import read_trace
from pimsim.hardware.pim.aim_isr import read_isr_trace
from pimsim.result.golden import read_golden
from pimsim.workload.requests import load_requests
from pimsim.workload.routing.file import read_routing
from pimsim.workload.sparsity.file import read_sparsity
from pimsim.workload.trace import load_trace

MEMORY = load_memory("hbm2").config
READERS: dict[str, Callable[[Path], object]] = {
    "config": lambda path: load_run(f"{path}/"[:-1] if path.suffix else f"./{path}"),
    "golden": read_golden,
    "requests": load_requests,
    "operators": load_trace,
    "routing": read_routing,
    "sparsity": read_sparsity,
    "dram": lambda path: read_trace(
        path, 2**30, AddressMap.parse(MEMORY.address_map, MEMORY.organization)
    ),
    "commands": lambda path: read_command_trace(path, MEMORY),
    "ini": read_dramsim3_ini,
    "isr": lambda path: read_isr_trace(path, load_stream_pim("aim").config),
}


@pytest.fixture(params=READERS)
def refused(request: pytest.FixtureRequest) -> Callable[[Path], str]:
    """The one line that a reader answers a path with."""

    def read(path: Path) -> str:
        with pytest.raises(InputError) as error:
            READERS[request.param](path)
        return str(error.value)

    return read


def test_what_is_no_file_is_refused_by_every_reader(
    refused: Callable[[Path], str], tmp_path: Path
) -> None:
    """A pipe without a writer would wait for ever, a device never end."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    assert "is a pipe" in refused(pipe)
    device = tmp_path / "zero.yaml"
    device.symlink_to("/dev/zero")
    assert "is a device" in refused(device)
    (tmp_path / "folder.yaml").mkdir()
    assert "is a directory" in refused(tmp_path / "folder.yaml")
    assert "no such file" in refused(tmp_path / "none.yaml")


def test_impossible_names_are_refused_by_every_reader(refused: Callable[[Path], str]) -> None:
    assert "300 bytes" in refused(Path("/tmp/" + "x" * 300))
    assert "zero byte" in refused(Path("/tmp/a\0.yaml"))
    assert "UTF-8" in refused(Path("/tmp/a\udcff.yaml"))


def test_damaged_content_is_refused_by_every_reader(
    refused: Callable[[Path], str], tmp_path: Path
) -> None:
    """Bytes of no kind: one line that names the file."""
    for number, content in enumerate((b"\xff\xfe\0\0", b"\x1f\x8b\x08\0garbage", b"PAR1" * 9)):
        path = tmp_path / f"case{number}.yaml"
        path.write_bytes(content)
        line = refused(path)
        assert path.name in line
        assert "\n" not in line


def test_a_home_of_nobody_is_no_path() -> None:
    with pytest.raises(InputError, match="no user 'nosuchuser'"):
        given_path("~nosuchuser/x.yaml")
    assert given_path("~") == Path.home()


def test_a_name_is_as_long_as_a_file_system_takes(tmp_path: Path) -> None:
    """255 bytes, not letters."""
    longest = tmp_path / ("x" * 255)
    longest.write_text("a")
    assert read_text(longest) == "a"
    with pytest.raises(InputError, match="256 bytes"):
        given_path(tmp_path / ("ä" * 128))
    with pytest.raises(InputError, match="empty name"):
        given_path("")


def test_the_limit_of_a_size_is_allowed_and_one_more_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    assert read_bytes(path, max_bytes=5) == b"12345"
    with pytest.raises(InputError, match="larger than 4 bytes"):
        read_bytes(path, max_bytes=4)
    with open_input(path, max_bytes=None) as stream:
        assert stream.read() == b"12345"


def test_a_file_that_says_it_is_empty_is_limited_too() -> None:
    with pytest.raises(InputError, match="larger than 10 bytes"):
        read_bytes("/proc/self/status", max_bytes=10)


def test_a_pipe_with_a_writer_is_refused_too(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"never read"))
    writer.start()
    with pytest.raises(InputError, match="is a pipe"):
        read_bytes(pipe)
    writer.join()
    os.close(reader)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ("{", "line 1"),
        ("[1" + "0" * 5000 + "]", "no JSON"),
        (b"\xff", "UTF-8"),
    ],
)
def test_json_that_is_none_is_one_line(content: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_json(content, "x.json")


@pytest.mark.parametrize("kind", ["list", "struct", "null", "binary", "text", "float", "holes"])
@pytest.mark.parametrize("column", ["layer", "index", "token", "mask"])
def test_columns_of_another_type_are_refused(column: str, kind: str, tmp_path: Path) -> None:
    """Sparsity traces whose columns hold anything else."""
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    values = {
        "list": pa.array([[0]], pa.list_(pa.int64())),
        "struct": pa.array([{"a": 0}]),
        "null": pa.nulls(1),
        "binary": pa.array([b"0"], pa.binary()),
        "text": pa.array(["0"]),
        "float": pa.array([0.5]),
        "holes": pa.array([None], pa.int64() if column != "mask" else pa.binary(1)),
    }
    columns: dict[str, object] = {
        "layer": np.array([0]), "index": np.array([0]), "token": np.array([0]),
        "mask": pa.array([b"\x80"], pa.binary(1)),
    }  # fmt: skip
    meta = {
        "format": "pimsim-sparsity", "version": 1, "model": "m", "layers": 1, "ffn": 8,
        "source": "s",
    }  # fmt: skip
    path = tmp_path / "a.sparsity.parquet"

    def write() -> None:
        table = pa.table(columns).replace_schema_metadata({"pimsim": json.dumps(meta)})
        pq.write_table(table, path)

    write()
    assert read_sparsity(path).active.tolist() == [[[True] + 7 * [False]]]
    columns[column] = values[kind]
    write()
    with pytest.raises(InputError, match=r"a\.sparsity\.parquet: "):
        read_sparsity(path)


def test_a_parquet_file_damaged_anywhere_is_one_line(tmp_path: Path) -> None:
    """Bytes changed all over a routing trace: refused, or not used."""
    from pimsim.config.resources import preset_names, preset_path

    source = preset_path("routing", preset_names("routing")[0]).read_bytes()
    random = np.random.default_rng(5)
    path = tmp_path / "a.parquet"
    for place in random.integers(0, len(source), 25).tolist():
        path.write_bytes(source[:place] + bytes([source[place] ^ 0xFF]) + source[place + 1 :])
        try:
            read_routing(path)
        except InputError as error:
            assert "a.parquet" in str(error)
