"""Commands of pimsim, each in a fork of one process that has loaded what most of them load.

A command is a process of its own, with its own streams, folder and exit code, as when a user types
it; only the half second in which Python loads packages is spent once for all. Run as a script, this
file answers requests on its standard input, a JSON object a line: ``arguments``, ``folder``,
``environment``, and ``out`` and ``err``, files for what the command prints. It prints the process
id when a command starts and its exit code when it has ended (as ``subprocess`` gives it).
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

LOADED = ("pimsim.cli.commands", "pimsim.simulate")
"""What is loaded before commands are forked: no module that starts threads."""


class ForkedCommands:
    """The side of the tests."""

    def __init__(self, folder: Path) -> None:
        self._streams = folder / "out", folder / "err"
        self._environment = _environment()
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def serves(self) -> bool:
        """Whether a command would see the environment in which packages were loaded."""
        return self._environment == _environment()

    def run(
        self, arguments: Sequence[str], folder: Path, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``pimsim`` with these arguments. Raises ``subprocess.TimeoutExpired``."""
        out, err = self._streams
        request = {
            "arguments": list(arguments), "folder": str(folder), "environment": dict(os.environ),
            "out": str(out), "err": str(err),
        }  # fmt: skip
        asked, answers = self._server.stdin, self._server.stdout
        assert asked is not None and answers is not None
        asked.write(json.dumps(request) + "\n")
        asked.flush()
        started = int(answers.readline())
        ready, _, _ = select.select([answers], [], [], timeout_s)
        if not ready:
            os.kill(started, signal.SIGKILL)
        code = int(answers.readline())
        if not ready:
            raise subprocess.TimeoutExpired(list(arguments), timeout_s)
        return subprocess.CompletedProcess(
            list(arguments), code, *(each.read_text(encoding="utf-8") for each in self._streams)
        )

    def end(self) -> None:
        """Let the server go."""
        self._server.communicate()


def _environment() -> dict[str, str]:
    """Without what pytest says of the test under way."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def _serve() -> None:
    for name in LOADED:
        import_module(name)
    from pimsim.cli.commands import COMMANDS

    for place in COMMANDS.values():
        import_module(f"pimsim.cli.{place.module}")
    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if child == 0:
            _become_command(json.loads(line))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _become_command(request: dict[str, Any]) -> None:
    """Never returns: the interpreter ends as after ``python -m pimsim.cli.main``."""
    for number, path, flags in (
        (0, os.devnull, os.O_RDONLY),
        (1, request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, request["err"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, flags)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.path[0] = request["folder"]
    main = import_module("pimsim.cli.main")
    sys.argv = [str(main.__file__), *request["arguments"]]
    main.main()


if __name__ == "__main__":
    _serve()
