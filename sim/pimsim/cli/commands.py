"""The command line: every command by its name.

Commands are declared in modules that import only typer at the top; what they run is imported
inside them, so that ``pimsim --help`` is quick.
"""

from __future__ import annotations

from typing import Annotated

import typer

from pimsim import __version__
from pimsim.cli.calibrate import calibrate_command
from pimsim.cli.calibrate_nccl import calibrate_nccl_command
from pimsim.cli.card import card_command
from pimsim.cli.check import check_command
from pimsim.cli.designs import designs_command
from pimsim.cli.export import export_command
from pimsim.cli.import_onnx import import_onnx_command
from pimsim.cli.import_routing import import_routing_command
from pimsim.cli.init import init_command
from pimsim.cli.kernel import kernel_app
from pimsim.cli.numerics import numerics_command
from pimsim.cli.rates import rates_command
from pimsim.cli.report import report_command
from pimsim.cli.routing import routing_command
from pimsim.cli.run import compare_command, run_command
from pimsim.cli.schema import schema_command
from pimsim.cli.search import search_command
from pimsim.cli.serve import serve_command
from pimsim.cli.show import list_command, show_command
from pimsim.cli.sparsity import sparsity_app
from pimsim.cli.sweep import sweep_command
from pimsim.cli.system import system_command
from pimsim.cli.validate import validate_command

__all__ = ["UsageError", "app", "usage"]

# typer exports only its subclass, and newer versions carry a click of their own
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="pimsim",
    help="Simulate decoder LLMs on an NPU beside DRAM whose banks can multiply (PIM).",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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


app.command("run")(run_command)
app.command("compare")(compare_command)
app.command("serve")(serve_command)
app.command("rates")(rates_command)
app.add_typer(kernel_app, name="kernel")
app.command("system", hidden=True)(system_command)
app.command("calibrate")(calibrate_command)
app.command("calibrate-nccl")(calibrate_nccl_command)
app.command("check")(check_command)
app.command("validate")(validate_command)
app.command("sweep")(sweep_command)
app.command("designs")(designs_command)
app.command("search")(search_command)
app.command("report")(report_command)
app.command("card")(card_command)
app.command("export")(export_command)
app.command("import-onnx")(import_onnx_command)
app.command("import-routing")(import_routing_command)
app.command("numerics")(numerics_command)
app.command("routing")(routing_command)
app.add_typer(sparsity_app, name="sparsity")
app.command("init")(init_command)
app.command("schema")(schema_command)
app.command("list")(list_command)
app.command("show")(show_command)


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
