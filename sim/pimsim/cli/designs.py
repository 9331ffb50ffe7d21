"""``pimsim designs``: a study of many designs, resumable, and its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from pimsim.explore.designs import DesignStudy, Selection
    from pimsim.explore.store import Store

__all__ = ["designs_command", "names_of", "numbers_of", "run_told"]


def designs_command(
    out: Annotated[
        str,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Of designs.md, designs.csv and the store of simulations; an earlier one goes on.",
        ),
    ],
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="FILE", help="A study's YAML in place of ours."),
    ] = None,
    models: Annotated[
        str | None,
        typer.Option("--models", metavar="LIST", help="Simulate these of the study's alone."),
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
    """Hold designs against each other: models, batches and contexts on each, as one page.

    What is known already is not simulated again. The page has all of the study, and says what was
    not run.

    Example: pimsim designs --out designs --batches 1,64 --contexts 1k,8k
    """
    from pimsim.config.files import make_folder
    from pimsim.config.paths import given_path
    from pimsim.explore.designs import (
        Selection,
        places_of,
        read_study,
        shipped_study,
    )
    from pimsim.report.designs import write_study

    asked = read_study(shipped_study() if study is None else given_path(study))
    selection = Selection(names_of(models), numbers_of(batches), names_of(contexts))
    list(places_of(asked, selection))  # what is wrong in it is said before anything is made
    folder = make_folder(out)
    options = {"--out": out, "--study": study, "--models": models, "--batches": batches,
               "--contexts": contexts}  # fmt: skip
    given = {key: value for key, value in options.items() if value is not None}
    store = run_told(asked, folder, selection, workers, "designs", given)
    typer.echo(f"{write_study(asked, store, folder)}")


def run_told(
    study: DesignStudy, folder: Path, selection: Selection, workers: int | None, command: str,
    given: Mapping[str, str],
) -> Store:  # fmt: skip
    """Simulate a study, tell how far it is, and how to go on where it is stopped.

    Parameters
    ----------
    study, folder, selection, workers
        As ``run_study`` takes them.
    command
        That the user typed, behind ``pimsim``.
    given
        Its options as they were given, ``--out`` first.
    """
    from pimsim.cli.progress import says_how_to_go_on, status_line
    from pimsim.explore.designs import run_study
    from pimsim.explore.sweep import Progress

    options = [word for option in given.items() for word in option]
    again = ["pimsim", *command.split(), *options]
    with (
        says_how_to_go_on(lambda: f"points that are done are kept in {given['--out']}", again),
        status_line(command.split()[-1]) as tell,
    ):

        def on_progress(name: str, progress: Progress) -> None:
            if tell is not None:
                tell(f"{name}, {progress.done} of {progress.total}, {progress.failed} cannot be")

        return run_study(study, folder, selection, workers, on_progress)


def names_of(text: str | None) -> tuple[str, ...]:
    """Names of an option that takes a list.

    Parameters
    ----------
    text
        As it was given; None: it was not.
    """
    return () if text is None else tuple(each.strip() for each in text.split(","))


def numbers_of(text: str | None) -> tuple[int, ...]:
    """The same of whole numbers.

    Parameters
    ----------
    text
        As it was given; None: it was not.

    Raises
    ------
    InputError
        For what is no number.
    """
    from pimsim.config.errors import InputError

    try:
        return tuple(int(each) for each in names_of(text))
    except ValueError:
        raise InputError(f"--batches: whole numbers such as 1,64, found {text!r}") from None
