"""The report of a service, from the folder that ``pimsim serve --out`` wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimsim.config.errors import InputError
from pimsim.config.paths import Pathlike, given_path
from pimsim.config.reading import parse_json, read_text
from pimsim.report.charts import Chart
from pimsim.report.page import Section, TableData, render_page
from pimsim.report.service_charts import phases_of, service_charts
from pimsim.report.service_timeline import service_timeline
from pimsim.result.metrics import METRICS
from pimsim.result.store import CONFIG_FILE, RESULT_FILE, load_config_text

if TYPE_CHECKING:
    import pandas

__all__ = [
    "ServiceFolder", "finding", "is_service", "read_service", "service_page",
    "service_trace",
]  # fmt: skip

_MOST_BYTES = 2**30
_MOST_ROWS = 200
_SHOWN = ("mean", "p50", "p90", "p99", "max")
_NAMES = {
    "queue": "time to the first step", "ttft": "TTFT", "handover": "handover", "tpot": "TPOT",
    "itl": "gap between tokens", "e2e": "latency",
}  # fmt: skip
_DOING = {
    "waiting": "waiting", "prompt": "feeding its prompt", "handover": "being handed over",
    "tokens": "making its tokens",
}  # fmt: skip


@dataclass(frozen=True)
class ServiceFolder:
    """What ``--out`` wrote."""

    figures: dict[str, Any]
    """``result.json``."""
    requests: pandas.DataFrame
    config_text: str
    path: Path

    @property
    def charts(self) -> list[Chart]:
        """Of its page."""
        return service_charts(self.figures, self.requests)


def is_service(folder: Pathlike) -> bool:
    """Whether a folder holds a service's result.

    Parameters
    ----------
    folder
        That may not be there.

    Raises
    ------
    InputError
        Where its result is no JSON.
    """
    path = given_path(folder) / RESULT_FILE
    if not path.is_file():
        return False
    found = parse_json(read_text(path, "a result's JSON", _MOST_BYTES), str(path))
    return isinstance(found, dict) and "goodput" in found


def read_service(folder: Pathlike) -> ServiceFolder:
    """Read a service's folder.

    Parameters
    ----------
    folder
        That ``pimsim serve --out`` wrote.

    Raises
    ------
    InputError
        Where it is not there or damaged.
    """
    import pandas
    import pyarrow

    path = given_path(folder)
    figures = parse_json(
        read_text(path / RESULT_FILE, "a result's JSON", _MOST_BYTES), str(path / RESULT_FILE)
    )
    try:
        requests = pandas.read_parquet(path / "requests.parquet")
        found = ServiceFolder(figures, requests, load_config_text(path), path)
        for key in ("latency_s", "over_time", "kv", "goodput", "requests", "slo", "queue"):
            figures[key]
        requests["kv_arrived_ps"]
    except (OSError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: not what pimsim serve --out writes: {error}") from None
    return found


def service_trace(service: ServiceFolder) -> bytes:
    """Its Perfetto trace.

    Parameters
    ----------
    service
        As it was read.

    Raises
    ------
    InputError
        Where there is no table of steps, or for more than a browser opens.
    """
    import pandas
    import pyarrow

    path = service.path / "steps.parquet"
    try:
        steps = pandas.read_parquet(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: no table of steps: {error}") from None
    until_ps = round(service.figures["time_s"] * 1e12)
    return service_timeline(service.requests, steps, until_ps)


def finding(figures: dict[str, Any], requests: pandas.DataFrame) -> str:
    """What there is to say of a service, in a sentence: whether it keeps up, else whether it keeps
    its SLO, and where most of a request's time goes.

    Parameters
    ----------
    figures
        As ``result.json`` has them.
    requests
        The rows of ``requests.parquet``.
    """
    queue, good, asked = figures["queue"], figures["goodput"], figures["requests"]
    if not asked["finished"]:
        return "No request has ended"
    phases = {name: float(seconds.mean()) for name, seconds in phases_of(requests).items()}
    total = sum(phases.values())
    most = max(phases, key=lambda name: phases[name])
    where = f"{phases[most] / total:.0%} of a request's {_time(total)} goes into {_DOING[most]}"
    if queue["overloaded"]:
        return (
            f"Overloaded: {queue['offered_per_s']:.3g} requests/s come, "
            f"{queue['carried_per_s']:.3g} are served; {where}"
        )
    if good["share"] is not None:
        return f"{good['share']:.1%} of the requests keep the SLO; {where}"
    return where[0].upper() + where[1:]


def service_page(service: ServiceFolder) -> str:
    """The report as HTML.

    Parameters
    ----------
    service
        As it was read.
    """
    figures, requests = service.figures, service.requests
    asked, latency = figures["requests"], figures["latency_s"]
    tables = {"latencies": (_latency_table(latency),), "requests": (_request_table(requests),)}
    sections = [
        Section(chart.key, chart.title, chart, tables.get(chart.key, ()))
        for chart in service.charts
    ]
    sections.append(Section("config", "Config", texts=((CONFIG_FILE, service.config_text),)))
    tokens = METRICS["tokens_per_s"]
    headline = [
        ("requests that ended", f"{asked['finished']:,} of {asked['asked']:,}"),
        ("simulated", f"{figures['time_s']:,.1f} s"),
        ("served", f"{figures['requests_per_s']:,.2f} requests/s"),
        (tokens.words, tokens.text(figures["tokens_per_s"], 0)),
        ("TTFT, p99", _time(latency["ttft"]["p99"])),
        ("TPOT, p99", _time(latency["tpot"]["p99"])),
        ("gap, p99", _time(latency["itl"]["p99"])),
    ]  # fmt: skip
    good = figures["goodput"]
    if good["share"] is not None:
        headline.append(("goodput", f"{good['requests_per_s']:,.2f} requests/s"))
    subtitle = f"{figures['name']}: scheduler {figures['scheduler']}"
    return render_page(
        finding(figures, requests), subtitle, headline, _sentences(figures), sections
    )


def _sentences(figures: dict[str, Any]) -> list[str]:
    kv, steps, asked = figures["kv"], figures["steps"], figures["requests"]
    found = [
        f"{steps['count']:,} steps fed {steps['tokens']:,} tokens: {steps['mean_requests']:.1f} "
        f"requests and {steps['mean_tokens']:.1f} tokens each.",
        f"The KV cache is full to {kv['used'] / kv['blocks']:.1%} on average and to "
        f"{kv['peak'] / kv['blocks']:.1%} at most; {kv['preemptions']:,} requests were put out of "
        f"it, and {kv['recomputed_tokens']:,} tokens fed again.",
    ]
    if kv["cached_tokens"]:
        found.append(f"{kv['prefix_hits']:.1%} of the prompts' tokens were found in the cache.")
    if figures["links"] is not None:
        links = figures["links"]
        found.append(
            f"{links['bytes'] / 1e9:,.2f} GB of keys and values went over {links['links']:,} "
            f"links, the busiest one for {links['busy']:.1%} of the time."
        )
    if not figures["finished"]:
        found.append(
            f"It was stopped early: {asked['arrived'] - asked['finished']:,} requests had come and "
            "not ended."
        )
    return [*found, *(f"Note: {text}." for text in figures["warnings"])]


def _latency_table(latency: dict[str, dict[str, float | None]]) -> TableData:
    rows = tuple(
        (name, *(_time(latency[key][column]) for column in _SHOWN))
        for key, name in _NAMES.items() if latency[key]["mean"] is not None
    )  # fmt: skip
    return TableData("Percentiles", ("", *_SHOWN), rows, folded=False)


def _request_table(requests: pandas.DataFrame) -> TableData:
    done = requests[requests["finish_ps"] >= 0]
    slow = done.nlargest(_MOST_ROWS, "e2e_s")
    rows = tuple(
        (
            str(one["id"]), f"{one['prompt']:,}", f"{one['output']:,}", f"{one['arrival_s']:,.3f}",
            _time(one["ttft_s"]), _time(one["tpot_s"]), _time(one["longest_gap_s"]),
            _time(one["e2e_s"]), f"{one['preemptions']:,}",
        )
        for one in slow.to_dict("records")
    )  # fmt: skip
    columns = ("request", "prompt", "output", "arrives (s)", "TTFT", "TPOT", "longest gap",
               "latency", "put out")  # fmt: skip
    return TableData(f"The {len(rows):,} slowest of {len(done):,}", columns, rows)


def _time(seconds: float | None) -> str:
    if seconds is None or seconds != seconds:
        return "none"
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{1000 * seconds:,.2f} ms"
