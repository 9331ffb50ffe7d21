"""``pimsim init``: a commented file to start from."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["init_command"]


def init_command(
    kind: Annotated[
        str,
        typer.Argument(metavar="KIND", help="run, sweep, search, service, pim, prices or golden."),
    ],
    out: Annotated[
        str | None, typer.Option("--out", metavar="FILE", help="The file; KIND.yaml by default.")
    ] = None,
) -> None:
    """Write a commented run, sweep, search, service, PIM design, prices or golden file, and
    say what to type next.

    Example: pimsim init run && pimsim run run.yaml
    """
    from pimsim.config.errors import InputError, near_miss
    from pimsim.config.files import write_whole
    from pimsim.config.paths import given_path
    from pimsim.config.resources import data_dir

    starts = {path.stem: path for path in sorted((data_dir("configs") / "start").glob("*.yaml"))}
    if kind not in starts:
        raise InputError(
            f"nothing to start {kind!r} from{near_miss(kind, starts)}; there are: "
            f"{', '.join(starts)}"
        )
    path = given_path(f"{kind}.yaml" if out is None else out)
    if path.exists():
        raise InputError(f"{path} is there already; --out names another file")
    text = starts[kind].read_text()
    written = write_whole(path, text.replace(f" {kind}.yaml", f" {path.name}").encode())
    typer.echo(f"{written} is written. Next:")
    for line in next_commands(written.read_text()):
        typer.echo(f"  {line}")


def next_commands(text: str) -> list[str]:
    """The commands that a start's first comment gives.

    Parameters
    ----------
    text
        Of the file.
    """
    lines = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    return [line for line in lines if line.startswith("pimsim ")]
