"""``pimsim rates``: a service at several rates."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pimsim.cli.completion import presets_of

if TYPE_CHECKING:
    from pimsim.explore.rates import HighestRate, RateStudy

__all__ = ["rates_command"]

_FILE = "rates.json"


def rates_command(
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE",
            help="A preset's name or a YAML path.",
            autocompletion=presets_of("service"),
        ),
    ],
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="R,R,...", help="These rates alone, in requests per second."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
    ] = None,
    share: Annotated[
        str, typer.Option("--share", metavar="SHARE", help="Of requests that keep the SLO.")
    ] = "99%",
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, max=1000, help="Services at each rate.")
    ] = 5,
    tolerance: Annotated[
        str,
        typer.Option("--tolerance", metavar="SHARE", help="Between the highest rate and the next."),
    ] = "2%",
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, max=256, help="Local processes.")
    ] = 1,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="DIR", help="Write rates.json, rates.csv and charts there."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """The highest rate at which a service keeps its SLO, by bisection; or, --at some, its latency
    over its throughput. Ends with 1 where no rate that was tried is kept.

    Example: pimsim rates chat --share 90% --tolerance 10%
    """
    from pimsim.config.paths import given_path
    from pimsim.explore.rates import study_rates
    from pimsim.result.store import check_writable

    folder = None if out is None else given_path(out)
    if folder is not None:
        check_writable(folder / _FILE)
    with _progress(service) as on_run:
        study = study_rates(
            service, _rates(at), overrides=overrides or (), seeds=seeds,
            share=_share("--share", share), tolerance=_share("--tolerance", tolerance),
            workers=workers, on_run=on_run,
        )  # fmt: skip
    if folder is not None:
        _write(study, folder)
    if as_json:
        typer.echo(json.dumps(study.to_dict(), indent=1, allow_nan=False))
    else:
        _print(study)
    if not any(point.keeps for point in study.points):
        raise typer.Exit(1)


def _rates(text: str | None) -> list[float]:
    """Of ``--at``. Raises ``InputError`` for what is no rate."""
    from pimsim.config.errors import InputError

    found = []
    for each in () if text is None else text.split(","):
        try:
            found.append(float(each))
        except ValueError:
            raise InputError(
                f"--at: found {each!r}; allowed: requests per second, as in 1,2.5,4"
            ) from None
    return found


def _share(option: str, text: str) -> float:
    """A part of 1. Raises ``InputError`` for what is none."""
    from pydantic import TypeAdapter, ValidationError

    from pimsim.config.errors import InputError
    from pimsim.config.units import Share

    try:
        return float(TypeAdapter(Share).validate_python(text))
    except ValidationError:
        raise InputError(f"{option}: found {text!r}; allowed: a share (0.02 or 2%)") from None


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, float], None] | None]:
    from pimsim.cli.progress import status_line

    with status_line(name) as tell:
        if tell is None:
            yield None
            return
        yield lambda done, rate: tell(f"{done} services, now at {rate:g} requests/s")


def _write(study: RateStudy, folder: Path) -> None:
    """``rates.json``, a row a rate as CSV, and the charts."""
    import pandas

    from pimsim.config.files import make_folder, write_whole
    from pimsim.report.draw import write_charts
    from pimsim.report.rate_charts import rate_charts

    make_folder(folder)
    found = study.to_dict()
    write_whole(folder / _FILE, f"{json.dumps(found, indent=1, allow_nan=False)}\n".encode())
    text = io.StringIO()
    pandas.json_normalize(found["points"]).to_csv(text, index=False, lineterminator="\n")
    write_whole(folder / "rates.csv", text.getvalue().encode())
    write_charts(rate_charts(study), folder, ("svg", "png"))


def _print(study: RateStudy) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pimsim.cli.tables import output_width
    from pimsim.explore.rates import percent

    console = Console(width=output_width(), highlight=False)
    limits = ", ".join(f"{key} {value:g} s" for key, value in study.slo.items()) or "none"
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    table.title = Text(f"{study.name}: SLO {limits}; {study.seeds} seeds at each rate")
    headings = (
        "requests/s", "end/s", "tokens/s", "TTFT p50", "p99", "TPOT p50", "p99", "keep the SLO",
        "queue grows", "counted", "kept",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right")
    for point in study.points:
        times = (point.latency_s[key][rank] for key in ("ttft", "tpot") for rank in ("p50", "p99"))
        table.add_row(
            f"{point.rate_per_s:g}", f"{point.requests_per_s:.4g}", f"{point.tokens_per_s:,.0f}",
            *("-" if time is None else f"{1000 * time:,.1f} ms" for time in times),
            "-" if point.share is None else percent(point.share, point.share_half_width),
            f"{point.grows} of {study.seeds}", f"{point.requests:,} of {point.of:,}",
            "yes" if point.keeps else "no",
        )  # fmt: skip
    console.print(table)
    if study.highest is not None:
        for line in _highest(study, study.highest):
            console.print(Text(line))
    else:
        for point in study.points:
            if point.why:
                console.print(Text(f"{point.rate_per_s:g} requests/s: {point.why}"))


def _highest(study: RateStudy, found: HighestRate) -> Iterator[str]:
    if found.rate_per_s is None:
        yield f"no rate is kept; the lowest that was tried, {found.next_per_s:g} requests/s: " + (
            found.why
        )
        return
    what = f"{100 * study.share:.4g}% keep the SLO" if study.slo else "the queue does not grow"
    yield f"up to {found.rate_per_s:g} requests/s {what}" + (
        "; none that was tried is too much" if found.next_per_s is None else ""
    )
    if found.interval_per_s is not None:
        low, high = found.interval_per_s
        yield f"of single seeds {low:.4g} to {high:.4g} requests/s (95 % of their mean)"
    if found.next_per_s is not None:
        yield f"the next, {found.next_per_s:g} requests/s: {found.why}"
