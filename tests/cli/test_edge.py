"""The edge to the system: streams, signals, disks and memory, for every command."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pimsim.cli import edge
from pimsim.cli.edge import WORDS, exit_code
from pimsim.config import files
from pimsim.config.errors import CheckFailed, InputError, reason
from pimsim.config.files import make_folder, write_whole
from pimsim.explore.pool import _deaf, _LocalPool

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and streams of POSIX")


def raising(error: BaseException) -> Callable[[], object]:
    def run() -> object:
        raise error

    return run


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("what\nis wrong"), 2, "error: what is wrong"),
        (CheckFailed("a bound"), 1, "check failed: a bound"),
        (OSError(28, "No space left", "a.html"), 2, "error: a.html: No space left"),
        (PermissionError(13, "denied", b"a\xff"), 2, "error: a\\udcff: denied"),
        (OSError("said by\na library"), 2, "error: said by a library"),
        (OSError(), 2, "error: OSError"),
        (OSError(12, "Cannot allocate memory"), 2, "error: not enough memory"),
        (MemoryError(), 2, "error: not enough memory"),
        (RuntimeError("can't start new thread"), 2, "error: not enough memory"),
        (
            ImportError("x.so: failed to map segment from shared object"),
            2,
            "error: not enough memory",
        ),
        (caused(OSError("libllvm.so"), OSError("x: failed to map segment")), 2,
         "error: not enough memory"),
        (caused(RuntimeError("a compiler's"), MemoryError()), 2, "error: not enough memory"),
        (
            ModuleNotFoundError("No module named 'concurrent.futures'"),
            2,
            "error: a part of the installation cannot be loaded: "
            "No module named 'concurrent.futures'",
        ),
        (SystemExit(3), 3, ""),
        (SystemExit(), 0, ""),
        (SystemExit("words"), 1, ""),
    ],
)  # fmt: skip
def test_what_is_foreseen_is_one_line_and_a_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(raising(error)) == code
    assert capsys.readouterr() == ("", f"{line}\n" if line else "")


def test_a_bug_is_a_traceback() -> None:
    with pytest.raises(KeyError):
        exit_code(raising(KeyError("act")))


def test_done_is_0_and_a_number_is_the_code() -> None:
    assert exit_code(lambda: None) == 0
    assert exit_code(lambda: "words") == 0
    assert exit_code(lambda: 3) == 3


# signals


def _stop_with(name: str) -> None:
    os.kill(os.getpid(), getattr(signal, name))


@pytest.fixture
def stopped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[Callable[[], object]], tuple[int, str]]]:
    """Exit code and line of work that a signal stops; handlers are as before."""
    monkeypatch.setattr(edge, "AGAIN_S", 0.05)
    # a shell's background ignores some
    before_test = {name: signal.signal(getattr(signal, name), signal.SIG_DFL) for name in WORDS}
    watched = (*WORDS, "SIGALRM")

    def handlers() -> list[object]:
        return [signal.getsignal(getattr(signal, name)) for name in watched]

    def run(work: Callable[[], object]) -> tuple[int, str]:
        before = handlers(), sys.unraisablehook
        code = exit_code(work)
        assert (handlers(), sys.unraisablehook) == before
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
        out, err = capsys.readouterr()
        assert out == ""
        return code, err

    yield run
    for name, handler in before_test.items():
        signal.signal(getattr(signal, name), handler)


Stopped = Callable[[Callable[[], object]], tuple[int, str]]


@pytest.mark.parametrize(("name", "words"), WORDS.items())
def test_a_signal_ends_the_work_with_its_code(name: str, words: str, stopped: Stopped) -> None:
    assert stopped(lambda: _stop_with(name)) == (128 + getattr(signal, name), f"{words}\n")


def _wait(done: list[str]) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.01)
    done.append("waited")


class _Dropping:
    def __del__(self) -> None:
        _stop_with("SIGTERM")


def _dropped_by_python() -> None:
    one = _Dropping()
    del one


def _dropped_by_a_library() -> None:
    with suppress(BaseException):
        _stop_with("SIGTERM")


@pytest.mark.parametrize("drop", [_dropped_by_python, _dropped_by_a_library])
def test_a_signal_whose_exception_is_lost_comes_again(
    drop: Callable[[], None], stopped: Stopped
) -> None:
    done: list[str] = []

    def work() -> None:
        drop()
        done.append("went on")
        _wait(done)

    assert stopped(work) == (143, "terminated\n")
    assert done == ["went on"]


def test_a_lost_signal_never_is_a_success(stopped: Stopped) -> None:
    """Nothing but the end came after it."""
    assert stopped(_dropped_by_a_library) == (143, "terminated\n")


def test_who_tidies_up_is_not_stopped_again(stopped: Stopped) -> None:
    done: list[str] = []

    def work() -> None:
        try:
            _stop_with("SIGINT")
        finally:
            with suppress(KeyError):
                {}["a"]  # an error of its own does not hide the signal
            time.sleep(0.3)
            done.append("tidied")

    assert stopped(work) == (130, "interrupted\n")
    assert done == ["tidied"]


def test_an_error_that_a_signal_caused_is_the_signal(stopped: Stopped) -> None:
    def work() -> None:
        try:
            _stop_with("SIGINT")
        finally:
            raise OSError("a pipe of a worker is gone")

    assert stopped(work) == (130, "interrupted\n")


def test_a_signal_that_is_ignored_stays_ignored(stopped: Stopped) -> None:
    """``nohup``, and what a shell puts in the background."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert stopped(lambda: _stop_with("SIGHUP")) == (0, "")


# every command with every stream

FORKS = """
import gc, json, os, sys
import typer.main
from pimsim.cli.commands import app
from pimsim.cli.edge import end, exit_code

command = typer.main.get_command(app)  # made once, not in every child
gc.freeze()
null = os.open(os.devnull, os.O_WRONLY)

def paths(command, path=()):
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from paths(child, (*path, name))

def run(arguments, closed, full):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(null, 1)
        os.dup2(write, 2)
        for number in closed:
            os.close(number)
            name = ("stdin", "stdout", "stderr")[number]
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
        for number in full:
            os.dup2(os.open("/dev/full", os.O_WRONLY), number)
        sys.argv = ["pimsim", *arguments]
        end(exit_code(lambda: command(prog_name="pimsim", standalone_mode=False)))
    os.close(write)
    said = os.fdopen(read).read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said

found = []
cases = json.loads(sys.argv[1])
for number, path in enumerate(paths(command)):
    # what fails and what succeeds, each command in some of the cases
    for words, at in (("--help", number), ("--no-such-option", number + 1)):
        closed, full = cases[at % len(cases)]
        found.append((*path, words, closed, full, *run([*path, words], closed, full)))
sys.stdout.write(json.dumps(found))
"""
STREAMS: dict[str, tuple[list[int], list[int]]] = {
    "output full": ([], [1]), "no input": ([0], []), "no output": ([1], []), "no errors": ([2], []),
    "none": ([0, 1, 2], []), "errors full": ([], [2]),
}  # fmt: skip
"""Standard streams that are closed, and that lead to a full disk."""


def test_every_command_with_any_stream_missing_or_full() -> None:
    """One process that forks: a start each would take minutes."""
    done = subprocess.run(
        [sys.executable, "-c", FORKS, json.dumps(list(STREAMS.values()))],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    answers = json.loads(done.stdout)
    assert len(answers) > 2 * 20
    for *path, words, closed, full, code, said in answers:
        where = (path, words, closed, full, code, said)
        if words == "--no-such-option":
            assert code == 2, where
            lines = 0 if 2 in closed + full else 1
        else:
            assert code == (2 if full == [1] else 0), where
            lines = int(full == [1])
            assert not lines or said == "error: standard output: No space left on device\n", where
        assert said.count("\n") == lines, where
        assert not lines or said.startswith("error: "), where


def test_reading_a_closed_standard_input_is_one_line(tmp_path: Path) -> None:
    """Nor is a file read that has got its number."""
    done = subprocess.run(
        ["sh", "-c", '"$0" -m pimsim.cli.main kernel dram - --memory hbm2 <&-', sys.executable],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: standard input cannot be read: Bad file descriptor\n"


# the one writer

WRITES = re.compile(
    r"""\.write_text\(|\.write_bytes\(|\.savefig\((?!content)|write_table\([^)]*path"""
    r"""|open\([^)\n]*["'][wax]b?["']|to_(csv|parquet|json)\([^)]*path"""
)
OWN = {
    "config/files.py": "the writer",
    "cli/edge.py": "/dev/null in place of a stream",
    "hardware/compiled.py": "its cache, renamed into place",
    "result/store.py": "a whole folder, renamed into place",
    "explore/search.py": "a lock, which holds nothing",
    "explore/results.py": "an example in a docstring",
}
"""Modules that write by themselves, and what."""


def test_all_output_goes_through_the_one_writer(repo_dir: Path) -> None:
    package = repo_dir / "sim" / "pimsim"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if WRITES.search(path.read_text())
    }
    assert found == set(OWN)


def test_a_file_is_written_whole_or_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.html"
    assert write_whole(path, b"old") == path
    path.chmod(0o640)

    class _Full:
        def __enter__(self) -> _Full:
            return self

        def __exit__(self, *_: object) -> None: ...

        def write(self, content: bytes) -> None:
            raise OSError(28, "No space left on device")

    def full(handle: int, mode: str) -> _Full:
        os.write(handle, b"ne")
        os.close(handle)
        return _Full()

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fdopen", full)
        with pytest.raises(InputError, match=r"a\.html: cannot be written: No space left on"):
            write_whole(path, b"new")
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])
    write_whole(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"new", 0o640)


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write_whole(path, b"a")
    assert path.read_bytes() == b"a"


@pytest.mark.parametrize("write", [make_folder, lambda path: write_whole(path, b"a")])
def test_what_cannot_be_written_is_named(write: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, why in (
        (tmp_path / "file" / "below", "Not a directory"),
        (tmp_path / ("x" * 256), "256 bytes"),
        (Path("a\udcff"), "UTF-8"),
    ):
        with pytest.raises(InputError, match=why):
            write(path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_device_is_written_to_and_a_full_one_named() -> None:
    write_whole("/dev/null", b"a")
    with pytest.raises(InputError, match=r"^/dev/full: cannot be written: No space left"):
        write_whole("/dev/full", b"a")


def test_the_reason_of_an_error_without_a_number() -> None:
    assert reason(OSError(2, "No such file")) == "No such file"
    assert reason(OSError("two\nlines")) == "two lines"
    assert reason(OSError()) == "OSError"


# whole runs

TINY = ("--model", "smollm2-135m", "--layers", "1", "--batch", "4", "--set", "parallel.tp=1")


def _run(
    folder: Path, limit: tuple[int, int], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A run in a process with a limit of the system's."""
    return subprocess.run(
        [sys.executable, "-m", "pimsim.cli.main", *arguments], cwd=folder, capture_output=True,
        text=True, check=False, env={**os.environ, **environment},
        preexec_fn=lambda: resource.setrlimit(limit[0], (limit[1], limit[1])),
    )  # fmt: skip


def test_without_room_nothing_is_kept_and_nothing_half_written(tmp_path: Path) -> None:
    """As on a full disk: no byte can be written to any file. Rates go to the cache."""
    cache = tmp_path / "cache"
    limit = resource.RLIMIT_FSIZE, 0
    environment = {"PIMSIM_CACHE_DIR": str(cache)}
    done = _run(tmp_path, limit, "run", *TINY, "--fidelity", "fast", "--json", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["cycles"] > 0
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    done = _run(tmp_path, limit, "run", *TINY, "--out", "out", **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --out out: cannot be written (File too large)\n"
    assert list(tmp_path.iterdir()) in ([], [cache])


LITTLE = """
import resource, sys
import numba, numpy, pyarrow
from pimsim.cli.main import main
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.argv = ["pimsim", *sys.argv[1:]]
main()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_too_little_memory_is_one_line(tmp_path: Path) -> None:
    """200 MB more than what the libraries take: a device's channels alone are more."""
    done = subprocess.run(
        [sys.executable, "-c", LITTLE, "run", *TINY, "--out", "out"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: not enough memory\n")
    assert list(tmp_path.iterdir()) == []


def test_libraries_say_nothing_of_caches_that_they_cannot_keep(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    home = str(tmp_path / "file" / "below")
    environment = {key: value for key, value in os.environ.items() if key[:3] not in ("MPL", "XDG")}
    code = "from pimsim.validate.figures import new_figure; new_figure(1, 1)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env={**environment, "HOME": home},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# workers


def test_workers_do_not_hear_what_a_terminal_sends_to_all() -> None:
    """They would each print a traceback."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    pool = _LocalPool(1)
    try:
        assert pool.submit(()).result() == []
        (worker,) = pool._executor._processes
        status = Path(f"/proc/{worker}/status").read_text()
        blocked = int(re.findall(r"SigBlk:\s*(\w+)", status)[0], 16)
        assert blocked >> (signal.SIGINT - 1) & 1
        assert not blocked >> (signal.SIGTERM - 1) & 1
    finally:
        pool.end(finished=True)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_signal_that_comes_while_workers_start_is_not_lost(stopped: Stopped) -> None:
    done: list[str] = []

    def work() -> None:
        with _deaf():
            # to this thread: another one, of pytest's, would take it at once
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            done.append("started")
        done.append("never")

    assert stopped(work) == (130, "interrupted\n")
    assert done == ["started"]
