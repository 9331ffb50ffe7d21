"""``pimsim report``: a page and figures from what a run wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pimsim.config.errors import InputError

__all__ = ["report_command"]


def report_command(
    folders: Annotated[
        list[str],
        typer.Argument(metavar="DIR...", help="Folders that `pimsim run --out` wrote."),
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="The page; DIR/../DIR-report.html by default."),
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option("--figures", metavar="DIR", help="Write every chart there, at paper size."),
    ] = None,
    formats: Annotated[
        str, typer.Option("--formats", metavar="LIST", help="Of the figures: png,svg,pdf.")
    ] = "png,svg,pdf",
    stage: Annotated[
        str | None,
        typer.Option("--stage", metavar="NAME", help="Show who works when in this stage alone."),
    ] = None,
) -> None:
    """One self-contained HTML page of a run, or of several side by side."""
    from pimsim.config.errors import near_miss
    from pimsim.config.files import write_whole
    from pimsim.report.draw import check_formats, write_charts
    from pimsim.report.runs import read_run, run_charts, runs_page

    kinds = [name.strip() for name in formats.split(",")]
    check_formats(kinds)
    runs = [read_run(folder) for folder in folders]
    if stage is not None:
        stages = list(dict.fromkeys(one.name for one in runs[0].result.stages))
        if stage not in stages:
            raise InputError(
                f"--stage: no stage {stage!r}{near_miss(stage, stages)}; "
                f"{folders[0]} has {', '.join(stages)}"
            )
    first = Path(folders[0]).resolve()
    path = first.with_name(f"{first.name}-report.html") if out is None else Path(out)
    try:
        write_whole(path, runs_page(runs, stage).encode())
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        if figures is not None:
            written = write_charts(run_charts(runs, stage), Path(figures), kinds)
            typer.echo(f"{figures}: {len(written)} files")
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror})") from error
