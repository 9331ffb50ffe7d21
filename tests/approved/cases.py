"""The cases whose outputs are approved: command lines from ``commands/*.yaml``, and what a
function of ``values_*.py`` tells of things that no command prints.

A case of a YAML file is the files that it needs and the commands that are run one after the other
in an empty folder. Its text is all that a user sees: what is printed, what is said on standard
error, the exit code, and every file that is written. A case that says ``fresh`` begins as a new
process does, with no rates of a memory at hand.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

from facts import facts, normalised  # noqa: E402

__all__ = ["ROOT", "Case", "all_cases", "expected_file", "values"]

Lines = Callable[[], Iterator[str]]
_VALUES: dict[str, tuple[Lines, tuple[str, ...]]] = {}
_MODULES = tuple(sorted(path.stem for path in HERE.glob("values_*.py")))
LONGEST = 1500
"""Lines of a file or an output that are kept; of a longer one the first."""

MOST_PACKETS = 300
"""Of a timeline, packets that are kept."""


@dataclass(frozen=True)
class Case:
    """One approved output. ``needs``: modules without which it is skipped."""

    name: str
    text: Callable[[], str]
    needs: tuple[str, ...] = field(default=())


def values(name: str, *needs: str) -> Callable[[Lines], Lines]:
    """Register a function that yields the lines of case ``name``."""

    def register(lines: Lines) -> Lines:
        _VALUES[name] = lines, needs
        return lines

    return register


def all_cases() -> list[Case]:
    """Every case, in the order of files."""
    found = []
    for path in sorted((HERE / "commands").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        shared = content.get("files", {})
        for name, given in content["cases"].items():
            case = {"commands": given} if isinstance(given, list) else given
            case = {key: content[key] for key in ("without",) if key in content} | case
            files = shared | case.get("files", {})
            found.append(
                Case(
                    f"{path.stem}/{name}",
                    lambda case=case, files=files: _commands_text(case, files),
                    tuple(case.get("needs", content.get("needs", ()))),
                )
            )
    for module in _MODULES:
        import_module(module)
    for name, (lines, needs) in _VALUES.items():
        found.append(Case(name, lambda lines=lines: _values_text(lines), needs))
    return found


def expected_file(name: str) -> Path:
    """Where the approved text of a case lies."""
    return HERE / "expected" / f"{name}.txt"


def _values_text(lines: Lines) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return normalised("\n".join(lines()) + "\n")


def _commands_text(case: dict[str, Any], files: dict[str, Any]) -> str:
    folder = Path(tempfile.mkdtemp(prefix="approved-")).resolve()
    before = Path.cwd()
    environment = dict(os.environ)
    os.environ.update(COLUMNS="120", PIMSIM_CACHE_DIR=str(folder / ".cache"), TERM="dumb")
    os.environ.pop("FORCE_COLOR", None)
    if case.get("fresh", False):
        _forget_rates()
    try:
        os.chdir(folder)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, dict):
                _made(path, content)
            else:
                path.write_text(content)
        given = _contents(folder)
        parts = []
        for command in case["commands"]:
            parts.append(_command_text(command))
        after = _contents(folder)
        skipped = re.compile(case["without"]) if "without" in case else None
        for name in sorted(after):
            if given.get(name) != after[name] and not (skipped and skipped.search(name)):
                parts.append(f"--- file {name}\n" + _file_text(folder / name))
        return normalised("".join(parts), folder)
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)
        shutil.rmtree(folder, ignore_errors=True)


def _forget_rates() -> None:
    from pimsim.hardware.dram.fast import calibration

    calibration._probes.clear()


def _made(path: Path, content: dict[str, Any]) -> None:
    """A file that is no text: of ``base64``, of a Parquet ``table`` (columns) or a ``copy`` of a
    file of the checkout."""
    if "copy" in content:
        shutil.copyfile(ROOT / content["copy"], path)
    elif "gzip" in content:
        import gzip

        path.write_bytes(gzip.compress(content["gzip"].encode(), mtime=0))
    elif "made" in content:
        module, _, function = content["made"].partition(":")
        getattr(import_module(module), function)(path)
    else:
        raise ValueError(f"{path}: {sorted(content)}")


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".cache" not in path.parts
    }


def _command_text(command: str) -> str:
    """What is printed, said, and the exit code."""
    from pimsim.cli.commands import app
    from pimsim.cli.edge import exit_code

    words = shlex.split(command)
    out, err = io.StringIO(), io.StringIO()
    argv = sys.argv
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        sys.argv = ["pimsim", *words]
        try:
            code = exit_code(lambda: app(words, prog_name="pimsim", standalone_mode=False))
        finally:
            sys.argv = argv
    printed = out.getvalue()
    if "--json" in words and printed.startswith(("{", "[")):
        printed = "\n".join(facts(json.loads(printed))) + "\n"
    parts = [f"$ pimsim {command}\n", _shortened(printed)]
    if err.getvalue():
        parts.append("--- stderr\n" + err.getvalue())
    if code:
        parts.append(f"--- exit code {code}\n")
    return "".join(parts)


def _shortened(text: str) -> str:
    lines = text.splitlines()
    if len(lines) <= LONGEST:
        return text if not text or text.endswith("\n") else text + "\n"
    return "\n".join([*lines[:LONGEST], f"... {len(lines)} lines in all"]) + "\n"


def _file_text(path: Path) -> str:
    if path.suffix == ".parquet":
        return "\n".join(_parquet(path)) + "\n"
    if path.suffix == ".json":
        try:
            return _shortened("\n".join(facts(json.loads(path.read_text()))) + "\n")
        except ValueError:
            return _shortened(path.read_text())
    if path.suffix == ".html":
        return _shortened(_page(path.read_text()))
    if path.suffix == ".gz":
        import gzip

        return _shortened(gzip.decompress(path.read_bytes()).decode())
    if path.suffix in (".pftrace", ".perfetto-trace"):
        return _shortened("\n".join(_perfetto(path)) + "\n")
    if path.suffix == ".svg":
        return _shortened("\n".join(_drawn(path.read_text())) + "\n")
    try:
        return _shortened(path.read_text())
    except UnicodeDecodeError:
        return "<bytes>\n"


def _parquet(path: Path) -> Iterator[str]:
    import pyarrow.parquet as parquet

    table = parquet.read_table(path)
    for each in table.schema:
        yield f"column {each.name}: {each.type}"
    kept = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    for key, value in sorted(kept.items()):
        if key not in ("pandas", "ARROW:schema"):
            yield f"metadata {key} = {value}"
    yield from facts(table.to_pylist(), "rows")


def _page(text: str) -> str:
    """The data and words of a report's page, without libraries and styles."""
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    found = []
    for script in re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.DOTALL):
        if "docs_json" in script[:20000] or '"roots"' in script:
            found.extend(_chart_data(script))
    words = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    words = re.sub(r"data:image/[^\"']*", "<picture>", words)
    words = re.sub(r"<[^>]*>", "\n", words)
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    lines = ["<time>" if re.fullmatch(r"\d+\.\d\d s|[\d,]+ MB", line) else line for line in lines]
    return "\n".join([*lines, *found]) + "\n"


def _chart_data(script: str) -> Iterator[str]:
    """What Bokeh draws: the columns of its sources and the words of its axes, without ids."""
    for at in re.findall(r"\{\"[0-9a-f-]{36}\":\{.*\}\}", script):
        with contextlib.suppress(ValueError):
            yield from _bokeh(json.loads(at), "chart")


def _bokeh(value: Any, at: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in (
                "data",
                "text",
                "axis_label",
                "title",
                "factors",
                "start",
                "end",
                "overrides",
            ):
                yield from facts(_without_ids(item), f"{at}.{key}")
            else:
                yield from _bokeh(item, at)
    elif isinstance(value, list):
        for item in value:
            yield from _bokeh(item, at)


def _without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_ids(item) for key, item in value.items() if key != "id"}
    return [_without_ids(item) for item in value] if isinstance(value, list) else value


def _perfetto(path: Path) -> Iterator[str]:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace

    trace = Trace()
    trace.ParseFromString(path.read_bytes())
    step = len(trace.packet) // MOST_PACKETS + 1
    yield f"{len(trace.packet)} packets, every {step}. of them"
    for packet in trace.packet[::step]:
        yield " ".join(str(packet).split())


def _drawn(text: str) -> Iterator[str]:
    """Words and coordinates of a figure."""
    yield from re.findall(r"<!--(.*?)-->", text)
    for path in re.findall(r" d=\"([^\"]*)\"", text):
        yield "path " + " ".join(path.split())
