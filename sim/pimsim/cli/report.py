"""``pimsim report``: a page and figures from what a run wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pimsim.cli.prices import PricesOption, prices_of
from pimsim.config.errors import InputError
from pimsim.config.paths import given_path

if TYPE_CHECKING:
    from pimsim.config.loader import AnyRun
    from pimsim.config.prices import Prices
    from pimsim.report.charts import Chart
    from pimsim.report.sweep_view import View

__all__ = ["report_command"]


def report_command(
    folders: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...",
            help="Folders that `pimsim run --out` wrote, or stores of sweeps; or one folder of a "
            "search or a service.",
        ),
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
    timeline: Annotated[
        str | None,
        typer.Option(
            "--timeline",
            metavar="FILE",
            help="Simulate the first run again and write its Perfetto trace; a service's is "
            "made from its folder.",
        ),
    ] = None,
    commands: Annotated[
        str | None,
        typer.Option(
            "--commands",
            metavar="CHANNELS",
            help="With every command of these channels, as in 0,1; needs --timeline.",
        ),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="NAMES",
            help="Of a sweep: what is drawn by machine, a chart each, as tokens_per_s,power_w.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="NAME", help="Of a sweep: what the first of these trades off."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="KEY=VALUE,...",
            help="Of a sweep: the machine that figures are divided by.",
        ),
    ] = None,
    prices: PricesOption = None,
    stage: Annotated[
        str | None,
        typer.Option("--stage", metavar="NAME", help="Show who works when in this stage alone."),
    ] = None,
) -> None:
    """One self-contained HTML page of a run, a sweep, a search or a service; of several runs or
    sweeps, what differs between them and what it did.

    Example: pimsim report study --metrics tokens_per_s,power_w --out study.html
    """
    from pimsim.config.errors import near_miss
    from pimsim.config.extras import require_extra
    from pimsim.report.draw import check_formats, write_charts
    from pimsim.report.runs import read_run, run_charts, runs_page
    from pimsim.report.services import is_service
    from pimsim.report.sweep_view import view_of

    if commands is not None and timeline is None:
        raise InputError("--commands goes with --timeline FILE")
    require_extra("report", "bokeh", "jinja2", *(["perfetto"] if timeline is not None else []))
    kinds = [name.strip() for name in formats.split(",")]
    check_formats(kinds)
    view, paid = view_of(metrics, against, baseline), prices_of(prices)
    drawn = any(each is not None for each in (metrics, against, baseline))
    stores = [folder for folder in folders if (given_path(folder) / "store.json").is_file()]
    if stores:
        if timeline is not None or stage is not None:
            raise InputError(f"{stores[0]}: a sweep has no --timeline and no --stage; a run has")
        if len(folders) == 1:
            _study(folders[0], out, figures, kinds, view if drawn else None, paid)
        elif drawn:
            raise InputError("--metrics, --against and --baseline are of one sweep's page")
        else:
            _sweeps(folders, out, figures, kinds, paid)
        return
    if drawn:
        raise InputError(f"{folders[0]}: --metrics, --against and --baseline are of a sweep")
    if len(folders) == 1 and is_service(folders[0]):
        if commands is not None or stage is not None:
            raise InputError(f"{folders[0]}: a service has no --commands and no --stage; a run has")
        if paid is not None:
            raise InputError(f"{folders[0]}: a service has prices in its own YAML, not --prices")
        _service(folders[0], out, figures, kinds, timeline)
        return
    runs = [read_run(folder) for folder in folders]
    if stage is not None:
        stages = list(dict.fromkeys(one.name for one in runs[0].result.stages))
        if stage not in stages:
            raise InputError(
                f"--stage: no stage {stage!r}{near_miss(stage, stages)}; "
                f"{folders[0]} has {', '.join(stages)}"
            )
    channels = _channels(commands, runs[0].config)
    _write_page(runs_page(runs, stage, paid), folders[0], out)
    if figures is not None:
        written = write_charts(run_charts(runs, stage), figures, kinds)
        typer.echo(f"{figures}: {len(written)} files")
    if timeline is not None:
        _write_timeline(folders[0], timeline, channels)


def _write_page(page: str, folder: str, out: str | None) -> None:
    """To ``out``, by default beside ``folder``."""
    from pimsim.config.files import write_whole

    first = given_path(folder).resolve()
    content = page.encode()
    path = write_whole(out or first.with_name(f"{first.name}-report.html"), content)
    typer.echo(f"{path}: {len(content) / 1e6:.1f} MB")


def _study(
    folder: str, out: str | None, figures: str | None, kinds: list[str], view: View | None,
    prices: Prices | None,
) -> None:  # fmt: skip
    """Of a sweep or a search, both of which have a store."""
    from pimsim.explore.search import SEARCH_FILE
    from pimsim.report.draw import write_charts
    from pimsim.report.searches import read_found, search_page
    from pimsim.report.sweeps import read_sweep, sweep_page

    charts: list[Chart]
    if (given_path(folder) / SEARCH_FILE).is_file():
        if view is not None:
            raise InputError(
                f"{folder}: a search draws its objectives; --metrics, --against and --baseline "
                "are of a sweep"
            )
        if prices is not None:
            raise InputError(f"{folder}: a search has prices in its own YAML, not --prices")
        search = read_found(folder)
        page, charts = search_page(search), search.charts
    else:
        sweep = read_sweep(folder, view, prices)
        page, charts = sweep_page(sweep), sweep.charts
    _write_page(page, folder, out)
    if figures is not None:
        written = write_charts(charts, figures, kinds)
        typer.echo(f"{figures}: {len(written)} files")


def _sweeps(
    folders: list[str], out: str | None, figures: str | None, kinds: list[str],
    prices: Prices | None,
) -> None:  # fmt: skip
    """Of sweeps held against the first."""
    from pimsim.explore.comparison import compare_sweeps
    from pimsim.report.comparisons import comparison_charts, comparison_page
    from pimsim.report.draw import write_charts

    found = compare_sweeps([given_path(folder) for folder in folders], folders, prices)
    _write_page(comparison_page(found), folders[0], out)
    if figures is not None:
        written = write_charts(comparison_charts(found), figures, kinds)
        typer.echo(f"{figures}: {len(written)} files")


def _service(
    folder: str, out: str | None, figures: str | None, kinds: list[str], timeline: str | None
) -> None:
    from pimsim.report.draw import write_charts
    from pimsim.report.services import read_service, service_page, service_trace

    found = read_service(folder)
    trace = None if timeline is None else service_trace(found)
    _write_page(service_page(found), folder, out)
    if figures is not None:
        written = write_charts(found.charts, figures, kinds)
        typer.echo(f"{figures}: {len(written)} files")
    if timeline is not None and trace is not None:
        _write_trace(timeline, trace)


def _write_trace(file: str, content: bytes) -> None:
    from pimsim.config.files import write_whole

    path = write_whole(file, content)
    typer.echo(f"{path}: {len(content) / 1e6:.1f} MB, open it at ui.perfetto.dev")


def _channels(text: str | None, config: AnyRun) -> list[int]:
    """Numbers of the channels whose commands are wanted."""
    from pimsim.config.system import SystemConfig

    if text is None:
        return []
    if isinstance(config, SystemConfig):
        raise InputError(f"--commands {text}: {config.name} are GPUs, whose memory has none here")
    last = config.memory.organization.channels - 1
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not (part.isascii() and part.isdigit() and int(part) <= last):
            raise InputError(f"--commands: {part!r} is no channel; the memory has 0 to {last}")
    return [int(part) for part in parts]


def _write_timeline(folder: str, file: str, channels: list[int]) -> None:
    from pimsim.config.system import SystemConfig
    from pimsim.hardware.dram.layout import MAX_LOG
    from pimsim.report.timeline import timeline
    from pimsim.result.store import CONFIG_FILE
    from pimsim.simulate import observe, observe_xpu, resolve

    resolved = resolve(given_path(folder) / CONFIG_FILE)
    if isinstance(resolved.config, SystemConfig):
        _write_trace(file, timeline(*observe_xpu(resolved)))
        return
    outcome, result = observe(resolved, log_entries=MAX_LOG if channels else 0)
    content = timeline(outcome, result, channels)
    _write_trace(file, content)
    issued = int(outcome.board["logged"][0]) if channels else 0
    if issued > MAX_LOG:
        until = int(outcome.board["log"][0, MAX_LOG - 1, 0] * float(outcome.system.cycle_ps))
        typer.echo(
            f"note: commands of the first {until / 1e6:,.1f} us alone ({MAX_LOG:,} of all "
            f"channels' {issued:,})"
        )
