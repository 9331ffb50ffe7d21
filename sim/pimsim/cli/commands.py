"""The command line: every command by its name.

A command's module is imported when the command is named, and what the command runs inside the
command: ``pimsim --help`` imports neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from pimsim import __version__

__all__ = ["COMMANDS", "CommandPlace", "UsageError", "app", "usage"]

# typer exports only its subclass, and newer versions carry a click of their own
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


@dataclass(frozen=True)
class CommandPlace:
    """Where a command is declared, and what the list of commands says of it."""

    module: str
    """Below ``pimsim.cli``."""
    name: str
    """Of a function, or of a typer app with commands of its own."""
    summary: str
    """In a few words; the command's own help says more."""
    hidden: bool = False
    texts_only: bool = False
    """Whether all that it takes is texts and flags, which nobody has to convert."""


COMMANDS: Mapping[str, CommandPlace] = {
    "run": CommandPlace("run", "run_command", "Simulate a step of a batch, or several."),
    "compare": CommandPlace("run", "compare_command", "Runs or sweeps side by side, with causes."),
    "serve": CommandPlace("serve", "serve_command", "Serve requests: throughput, TTFT, TPOT, SLO."),
    "rates": CommandPlace("rates", "rates_command", "The highest rate that keeps an SLO."),
    "kernel": CommandPlace("kernel", "kernel_app", "Run one timing model alone."),
    "system": CommandPlace("system", "system_command", "Retired: run does it.", hidden=True),
    "calibrate": CommandPlace("calibrate", "calibrate_command", "Measure what fast runs go by."),
    "calibrate-nccl": CommandPlace(
        "calibrate_nccl", "calibrate_nccl_command", "Constants of NCCL from rows of two GPUs."
    ),
    "check": CommandPlace("check", "check_command", "Compare cycles of golden cases, exactly."),
    "validate": CommandPlace(
        "validate", "validate_command", "Hold the models against simulators, papers and silicon."
    ),
    "sweep": CommandPlace("sweep", "sweep_command", "Simulate every point of a sweep, once."),
    "designs": CommandPlace("designs", "designs_command", "Hold PIM designs against each other."),
    "study": CommandPlace("study", "study_app", "Hold techniques against machines without one."),
    "search": CommandPlace("search", "search_command", "Search configs for several objectives."),
    "report": CommandPlace(
        "report", "report_command", "A page of a run, sweep, search or service."
    ),
    "card": CommandPlace("card", "card_command", "A model's card from its config.json."),
    "export": CommandPlace("export", "export_command", "Trace the operators of a real decoder."),
    "import-onnx": CommandPlace(
        "import_onnx", "import_onnx_command", "Read a decoder's ONNX graph."
    ),
    "import-routing": CommandPlace(
        "import_routing", "import_routing_command", "Read the experts that a server recorded."
    ),
    "measure": CommandPlace(
        "measure", "measure_command", "What a technique does to a real model's text."
    ),
    "numerics": CommandPlace(
        "numerics", "numerics_command", "A model's tensors through the hardware's arithmetic."
    ),
    "routing": CommandPlace("routing", "routing_command", "The load of experts in routing traces."),
    "sparsity": CommandPlace("sparsity", "sparsity_app", "Sparse activations: show or measure."),
    "init": CommandPlace("init", "init_command", "Write a commented file to start from."),
    "schema": CommandPlace("schema", "schema_command", "The JSON Schema of a kind of file."),
    "list": CommandPlace(
        "show", "list_command", "List the presets that ship with pimsim.", texts_only=True
    ),
    "show": CommandPlace("show", "show_command", "Print a preset resolved, with origins."),
}


class _Loaded(MutableMapping[str, Any]):
    """Commands by name, each imported when it is asked for."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _command(name, COMMANDS[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS


def _command(name: str, place: CommandPlace) -> Any:
    """The command line library's own command of that place."""
    declared = getattr(import_module(f"pimsim.cli.{place.module}"), place.name)
    alone = typer.Typer(rich_markup_mode=None)
    if isinstance(declared, typer.Typer):
        alone.add_typer(declared, name=name)
    else:
        kind = _TextsOnly if place.texts_only else typer.core.TyperCommand
        alone.command(name, hidden=place.hidden, cls=kind)(declared)
    return typer.main.get_group(alone).commands[name]


def _taken_as_given(parameters: list[Any]) -> list[Any]:
    """The same that let texts, flags and what is not given pass as they are. Newer versions of
    typer have pydantic convert each, which is half of the time of a command that does without."""
    for parameter in parameters:
        if not parameter.required and not isinstance(parameter.process_value, partial):
            parameter.process_value = partial(_as_given, parameter, parameter.process_value)
    return parameters


class _TextsOnly(typer.core.TyperCommand):
    """A command that takes nothing but texts and flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """What it takes, ``--help`` included."""
        return _taken_as_given(super().get_params(ctx))


def _as_given(parameter: Any, convert: Callable[[Any, Any], Any], context: Any, value: Any) -> Any:
    if value is not None and type(value) not in (str, bool):
        return convert(context, value)
    return parameter.callback(context, parameter, value) if parameter.callback else value


class _Commands(typer.core.TyperGroup):
    """All commands, none of which is imported for the list of them."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands = _Loaded()

    def get_params(self, ctx: Any) -> list[Any]:
        """Options before the command, which are flags."""
        return _taken_as_given(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of all commands, in the order in which they are listed."""
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, each.summary) for name, each in COMMANDS.items() if not each.hidden]
            )


app = typer.Typer(
    name="pimsim",
    cls=_Commands,
    help="Simulate decoder LLMs on an NPU beside DRAM whose banks can multiply (PIM).",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pimsim {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options before the command; without a command, the help."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def usage(error: Exception) -> str:
    """One line for a wrong option or argument, with the command whose help says more.

    Parameters
    ----------
    error
        Of the command line's library.
    """
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "pimsim"
    if type(error).__name__ == "NoArgsIsHelpError":
        return f"{command} needs a command or arguments; see {command} --help"
    text: str = getattr(error, "format_message", error.__str__)()
    message = " ".join(text.split())
    return f"{message.rstrip('.')}; see {command} --help"
