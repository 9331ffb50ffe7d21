"""Fixtures for all tests: the reference tables, and the command line as a user runs it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parent))
from forked_commands import ForkedCommands

settings.register_profile("pimsim", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("pimsim")

RunCli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def repo_dir() -> Path:
    """The checkout that the tests belong to."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def reference_dir(repo_dir: Path) -> Path:
    """Tables of other simulators that are read in place; the test is skipped without them."""
    folder = Path(os.environ.get("PIMSIM_REFERENCE", repo_dir.parent / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference tables in {folder}; set PIMSIM_REFERENCE")
    return folder


TINY_CARD = """\
name: tiny
source: made up, so that a run takes milliseconds
layers: 4
hidden: 512
heads: 4
kv_heads: 4
head_dim: 128
ffn_hidden: 1024
ffn_gated: false
activation: gelu
norm: layernorm
bias: true
rope: false
vocab: 1000
tied_embeddings: true
max_context: 2048
dtype_bytes: 2
kv_dtype_bytes: 2
"""


@pytest.fixture(scope="session")
def tiny_card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model card of four small blocks."""
    path = tmp_path_factory.mktemp("card") / "tiny.yaml"
    path.write_text(TINY_CARD)
    return path


@pytest.fixture(scope="session")
def write_trace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[int]], Path]:
    """``write_trace([30, 500])``: a request trace of these contexts."""
    folder = tmp_path_factory.mktemp("traces")
    header = "request_id,arrival_s,prompt_tokens,output_tokens,generated_tokens"

    def write(contexts: Sequence[int]) -> Path:
        path = folder / "requests.csv"
        rows = [f"{i},0,{context},1,0" for i, context in enumerate(contexts)]
        path.write_text("\n".join([header, *rows]) + "\n")
        return path

    return write


@pytest.fixture(scope="session")
def run_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunCli]:
    """``run_cli("show", "neupims", cwd=...)``: pimsim in a process of its own."""
    forks = None
    if hasattr(os, "fork"):
        forks = ForkedCommands(tmp_path_factory.mktemp("streams"))

    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        words = [str(each) for each in arguments]
        if forks is not None and forks.serves():
            return forks.run(words, cwd or Path.cwd(), timeout_s=120)
        return subprocess.run(
            [sys.executable, "-m", "pimsim.cli.main", *words],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    yield run
    if forks is not None:
        forks.end()


class _ThisProcess:
    """In place of worker processes, each of which takes seconds to start."""

    width = 1

    def submit(self, jobs: Any) -> Future[Any]:
        from pimsim.explore.pool import simulate_jobs

        done: Future[Any] = Future()
        done.set_result(simulate_jobs(jobs))
        return done

    def revive(self) -> None:
        raise AssertionError("no worker dies here")


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points of sweeps and searches are simulated in this process: for tests of what is asked,
    kept and told, not of workers."""
    from pimsim.explore import search, sweep

    for module in (search, sweep):
        monkeypatch.setattr(module, "worker_pool", lambda *_: nullcontext(_ThisProcess()))


@pytest.fixture
def refused(run_cli: RunCli, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused: exit 2, one line on stderr, nothing on stdout."""

    def run(*arguments: str | Path) -> str:
        done = run_cli(*arguments, cwd=tmp_path)
        assert done.returncode == 2, (done.returncode, done.stderr)
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A run without the exporters does not pass for one that tested them."""
    if importlib.util.find_spec("onnxruntime_genai") is None:
        terminalreporter.write_line(
            "not tested: graphs of onnxruntime-genai's builder (pip install '.[exporters]')"
        )


CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium, which draws what it is given; skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    service = pytest.importorskip("selenium.webdriver.chrome.service")
    driver_path = shutil.which("chromedriver")
    if driver_path is None or shutil.which("chromium") is None:
        pytest.skip("no chromium and chromedriver on this machine")
    options = webdriver.ChromeOptions()
    for argument in CHROMIUM:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=service.Service(driver_path))
    driver.set_script_timeout(60)
    yield driver
    driver.quit()
