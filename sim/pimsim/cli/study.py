"""``pimsim study``: what techniques buy on machines, resumable, and its page."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["study_app"]

study_app = typer.Typer(
    help="Studies of many points on many machines, each a page.", rich_markup_mode=None,
    no_args_is_help=True,
)  # fmt: skip


@study_app.callback()
def _studies() -> None:
    """Studies of many points on many machines, each a page."""


@study_app.command("techniques")
def techniques_command(
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Of the page, its table and the store of simulations; an earlier one goes on.",
        ),
    ],
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="FILE", help="A study's YAML in place of ours."),
    ] = None,
    machines: Annotated[
        str | None,
        typer.Option("--machines", metavar="LIST", help="Simulate these of the study's alone."),
    ] = None,
    techniques: Annotated[
        str | None, typer.Option("--techniques", metavar="LIST", help="The same of techniques.")
    ] = None,
    batches: Annotated[
        str | None, typer.Option("--batches", metavar="LIST", help="The same of batches.")
    ] = None,
    contexts: Annotated[
        str | None, typer.Option("--contexts", metavar="LIST", help="The same of contexts.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, max=256, help="Local processes.")
    ] = None,
) -> None:
    """Hold every technique against the same machine without one, as one page and a heat map.

    What is known already is not simulated again. The page has all of the study, and says what was
    not run.

    Example: pimsim study techniques --out techniques --batches 1,64 --contexts 1k
    """
    from pimsim.cli.designs import names_of, numbers_of, run_told
    from pimsim.config.files import make_folder
    from pimsim.config.paths import given_path
    from pimsim.explore.designs import Selection, places_of
    from pimsim.explore.techniques import as_designs, read_techniques, shipped_techniques
    from pimsim.report.techniques import write_techniques

    asked = read_techniques(shipped_techniques() if study is None else given_path(study))
    chosen = as_designs(asked, names_of(machines), names_of(techniques))
    selection = Selection((), numbers_of(batches), names_of(contexts))
    list(places_of(chosen, selection))  # what is wrong in it is said before anything is made
    folder = make_folder(out)
    options = {"--out": out, "--study": study, "--machines": machines, "--techniques": techniques,
               "--batches": batches, "--contexts": contexts}  # fmt: skip
    given = {key: value for key, value in options.items() if value is not None}
    store = run_told(chosen, folder, selection, workers, "study techniques", given)
    typer.echo(f"{write_techniques(as_designs(asked), store, folder)}")
