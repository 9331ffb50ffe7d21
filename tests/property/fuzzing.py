"""Bad inputs by the hundred: how they are drawn, how they are given to the program, what holds."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CASES = int(os.environ.get("PIMSIM_FUZZ", "12"))
"""Cases of each kind: a few in CI, as many as wanted by the environment variable."""

HEAVY = (
    "pimsim.engine.iteration.run_iteration",
    "pimsim.engine.gemm.run_gemm",
    "pimsim.engine.attention.run_attention",
    "pimsim.engine.xpu_machine.run_xpu_devices",
    "pimsim.hardware.dram.replay.replay",
    "pimsim.hardware.pim.stream.run_stream",
)
"""What takes its time once an input is accepted; the fuzzer stops there."""


class AcceptedInput(BaseException):
    """The input was taken, and work would begin."""


def stop_before_work(patch: pytest.MonkeyPatch) -> None:
    """Let commands end where simulation would start."""

    def stop(*_: object, **__: object) -> None:
        raise AcceptedInput

    for place in HEAVY:
        module, _, name = place.rpartition(".")
        patch.setattr(importlib.import_module(module), name, stop)


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int | None
    """None: it took its input, and would have begun to work."""
    out: str
    err: str


def call(arguments: list[str]) -> Answer:
    """Run the command line in this process."""
    from pimsim.cli.edge import exit_code

    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["pimsim", *arguments]
    code: int | None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = exit_code()
            except AcceptedInput:
                code = None
    finally:
        sys.argv = before
    return Answer(code, out.getvalue(), err.getvalue())


def check(arguments: list[str], folder: Path) -> bool:
    """Give the arguments to the program in ``folder``: whether they were refused, which must be
    one line on stderr, exit code 2 and nothing written."""
    before = sorted(folder.rglob("*"))
    try:
        answer = call(arguments)
    except Exception as error:
        raise AssertionError(f"{arguments!a}: {type(error).__name__}: {error}") from error
    if answer.code == 2:
        assert answer.err.startswith("error: "), (arguments, answer)
        assert answer.err.count("\n") == 1, (arguments, answer)
        assert answer.out == "", (arguments, answer)
        assert sorted(folder.rglob("*")) == before, arguments
        return True
    assert answer.code in (None, 0, 1), (arguments, answer)
    assert "Traceback" not in answer.err, (arguments, answer)
    return False


# what is drawn ------------------------------------------------------------------------------------

Draw = Callable[[random.Random], object]
WORDS = (
    "", "~", "null", "true", "x", "nan", ".inf", "-1", "0", "-0.0", "1e400", "1" + "0" * 30,
    str(2**63), str(-(2**63)), "9" * 400, "0x1f", "1.5", "1e-300", "1e300", "[]", "{}", "[1, 2]",
    "{a: 1}", "'", '"', "&a *a", "*b", "!!python/object:os.system x", "1 GHz", "3XB", "1e5MiB",
    "0B", "0ns", "-1ns", "1s", "12:30", "ä" * 300, "\x00", "\udcff", "\u202e", "a.b.c", "../..",
    "/", "/dev/zero", "/dev/null", "~nosuchuser/x.yaml", "none.yaml", "x" * 300 + ".yaml",
    "a" * 5000, "[" * 2000, "{" * 50, "- " * 40, "hbm2", "neupims", "aim", "llama-3-8b",
)  # fmt: skip
"""Values that have broken something somewhere."""


def mutated(content: bytes, draw: random.Random) -> bytes:
    """The bytes with a few of them changed, lost, repeated or made up."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(data) + 1)
        end = min(len(data), at + draw.choice((1, 1, 2, 8, 64)))
        kind = draw.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[at:end] * draw.choice((1, 2, 100))
        elif kind == 3:
            data[at:end] = draw.randbytes(end - at)
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            data[at:end] = str(draw.choice((-1, 0, 2**31, 2**63, 10**30, 1.5))).encode()
        else:
            data[at:end] = draw.choice(WORDS).encode("utf-8", "surrogateescape")[:200]
    return bytes(data)


def mutated_lines(content: str, draw: random.Random) -> str:
    """Text with a word, a line or a field changed: nearer to what people do wrong."""
    lines = content.split("\n")
    for _ in range(draw.randint(1, 3)):
        at = draw.randrange(len(lines))
        line, kind = lines[at], draw.randrange(5)
        head, colon, _ = line.partition(":")
        if kind == 0:
            lines[at] = ""
        elif kind == 1:
            lines[at] = line + line
        elif kind == 2 and colon:
            lines[at] = f"{head}: {draw.choice(WORDS)}"
        elif kind == 3:
            words = line.replace(",", " ").split() or [""]
            lines[at] = line.replace(draw.choice(words) or "x", draw.choice(WORDS), 1)
        else:
            lines.insert(at, draw.choice(lines))
    return "\n".join(lines)


def seeds(kind: str) -> Iterator[random.Random]:
    """A generator for each case of a kind, the same in every run."""
    for number in range(CASES):
        yield random.Random(f"{kind} {number}")
