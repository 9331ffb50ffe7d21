"""The edge between pimsim and the system: whatever goes wrong is one line and an exit code.

0 is done, 1 a check that failed, 2 wrong input or a system that refuses (no room on a disk, too
little memory), 128 + N a process that signal N stopped. Only what nobody foresaw, a bug, is a
traceback.

Nothing but the standard library is imported at the top: signals come while the rest loads, too.
"""

from __future__ import annotations

import gc
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, NoReturn, TextIO

__all__ = ["Stopped", "end", "exit_code"]

EXIT_CHECK_FAILED = 1
EXIT_REFUSED = 2
EXIT_STOPPED = 128
"""And the signal's number."""
WORDS = {"SIGINT": "interrupted", "SIGTERM": "terminated", "SIGHUP": "terminal closed"}
"""What a signal that stops the program is called. A signal that whoever started the program has
ignored (``nohup``, a shell's background) stays ignored."""
AGAIN_S = 0.5
"""A signal whose exception was lost is raised again after so long."""
LOADED_OBJECTS = 200_000
"""More than the modules of any run make, none of which is garbage."""
_OUT_OF_MEMORY = ("cannot allocate memory", "failed to map segment", "can't start new thread")


class Stopped(BaseException):
    """A signal asks the program to end.

    No ``KeyboardInterrupt``, which libraries catch to print lines of their own.
    """


class _Signals:
    """While it is entered, signals of ``WORDS`` raise ``Stopped``."""

    def __init__(self) -> None:
        self.asked = 0
        """Number of the first signal that came."""
        self._before: dict[int, Any] = {}
        self._hook = sys.unraisablehook

    def __enter__(self) -> _Signals:
        sys.unraisablehook = self._dropped
        for number in _numbers():
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self.asked and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook

    def line(self) -> tuple[str, int]:
        """What is said of the signal that came, and the exit code."""
        return WORDS[signal.Signals(self.asked).name], EXIT_STOPPED + self.asked

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        self.asked = self.asked or number
        if hasattr(signal, "setitimer"):
            # what is raised in a finalizer is dropped by Python; a bare except drops it, too
            before = signal.signal(signal.SIGALRM, self._again)
            self._before.setdefault(signal.SIGALRM, before)
            signal.setitimer(signal.ITIMER_REAL, AGAIN_S, AGAIN_S)
        raise Stopped(number)

    def _dropped(self, what: Any) -> None:
        if not isinstance(what.exc_value, Stopped):  # that one comes again
            self._hook(what)

    def _again(self, number: int, frame: FrameType | None) -> None:
        handled = sys.exception()
        while handled is not None:
            if isinstance(handled, Stopped):
                return  # on its way: somebody tidies up
            handled = handled.__context__
        raise Stopped(self.asked)


def exit_code(run: Callable[[], object] | None = None) -> int:
    """Run a command line, say what went wrong in one line, and give the code to exit with.

    Parameters
    ----------
    run
        The work; by default the command that ``sys.argv`` names.

    Returns
    -------
    int
        As the module says.
    """
    _prepare_streams()
    with _Signals() as signals:
        try:
            line, code = _outcome(run or _command)
            if not signals.asked:
                if line:
                    _say(line)
                return _flushed(code)
        except BaseException:
            if not signals.asked:
                raise
        # also where a library made another error of it
        line, code = signals.line()
        _say(line)
    return code


def end(code: int) -> NoReturn:
    """End the process. From here on signals end it at once: nothing is left to be told.

    Parameters
    ----------
    code
        Exit status.
    """
    for number in _numbers():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    sys.exit(code)


def _numbers() -> list[int]:
    """Of the signals that stop the program; Windows has fewer."""
    return [getattr(signal, name) for name in WORDS if hasattr(signal, name)]


def _command() -> object:
    _collect_later()
    from pimsim.cli.commands import app

    return app(prog_name="pimsim", standalone_mode=False)


def _collect_later() -> None:
    """While modules load, nothing is garbage, and looking for it is a twentieth of a small run: the
    first collection comes after ``LOADED_OBJECTS``. All others come as the interpreter means them
    to."""
    usual = gc.get_threshold()

    def collected(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            gc.callbacks.remove(collected)
            gc.set_threshold(*usual)

    gc.callbacks.append(collected)
    gc.set_threshold(LOADED_OBJECTS, *usual[1:])


def _outcome(run: Callable[[], object]) -> tuple[str, int]:
    """A line for standard error, or nothing, and the exit code; a bug is raised."""
    try:
        found = run()
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):
            _discard(sys.stdout)
            return "", 0
        return "", ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BrokenPipeError:  # the reader (``head``) has left
        _discard(sys.stdout)
        return "", 0
    except Exception as error:
        if _is_of_memory(error):
            return "error: not enough memory", EXIT_REFUSED
        told = _told(error)
        if told is None:
            raise
        return told
    return "", found if isinstance(found, int) else 0


def _is_of_memory(error: BaseException | None) -> bool:
    """Whether too little memory is at the bottom of it, as libraries and the loader say it."""
    while error is not None:
        said = str(error).lower()
        if isinstance(error, MemoryError) or any(words in said for words in _OUT_OF_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False


def _told(error: Exception) -> tuple[str, int] | None:
    """Line and code of an error that is foreseen, None of a bug."""
    if isinstance(error, ImportError):
        said = " ".join(str(error).split())
        return f"error: a part of the installation cannot be loaded: {said}", EXIT_REFUSED
    from pimsim.config.errors import CheckFailed, InputError, reason

    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"error: {where}{reason(error)}", EXIT_REFUSED
    if isinstance(error, InputError):
        return f"error: {error}", EXIT_REFUSED
    if isinstance(error, CheckFailed):
        return f"check failed: {error}", EXIT_CHECK_FAILED
    import typer

    from pimsim.cli.commands import UsageError, usage

    if isinstance(error, UsageError):
        return f"error: {usage(error)}", EXIT_REFUSED
    if isinstance(error, typer.Abort):
        return WORDS["SIGINT"], EXIT_STOPPED + signal.SIGINT
    return None


def _say(line: str) -> None:
    """``line`` on standard error, if it can be written."""
    try:
        # names of files may be bytes that are no text
        shown = line.encode(errors="backslashreplace").decode()
        print(shown, file=sys.stderr, flush=True)
    except OSError:
        _discard(sys.stderr)


def _flushed(code: int) -> int:
    """Write out what is buffered while a failure can still be told from a success."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
    except OSError as error:
        _discard(sys.stdout)
        if code == 0:
            line, code = _told(error) or ("", EXIT_REFUSED)
            _say(line)
    return code


def _discard(stream: Any) -> None:
    """Let the interpreter's last flush of ``stream`` succeed."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


class _Named(io.FileIO):
    """A standard stream whose errors say which it is."""

    def __init__(self, stream: TextIO, name: str) -> None:
        super().__init__(stream.fileno(), "w", closefd=False)
        self._called = name

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._called) from None


def _prepare_streams() -> None:
    """Standard streams that were closed: what is written to them is lost, reading is an error.
    Otherwise the next file that is opened has the stream's number and takes what is meant for it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_WRONLY)  # the lowest number that is free: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    out = sys.stdout
    if out is sys.__stdout__ and isinstance(out, io.TextIOWrapper) and sys.platform != "win32":
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Named(out, "standard output")), out.encoding, out.errors,
            line_buffering=out.line_buffering, write_through=out.write_through,
        )  # fmt: skip
