"""The report of a search: its front, how it got there, and which key matters."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from pimsim.explore.search import SEARCH_FILE, SearchOutcome, Trial, read_outcome
from pimsim.explore.search_spec import SearchSpec
from pimsim.report.charts import Chart, Facts, LaneChart, Line, Point, PointSeries, Span, XYChart
from pimsim.report.page import Section, TableData, render_page
from pimsim.report.palette import SERIES_COLOURS
from pimsim.result.metrics import METRICS

__all__ = ["Search", "read_found", "search_page"]

_GREY = "#999999"
_TOGETHER = "in combination"


@dataclass(frozen=True)
class Search:
    """What a search asked for, and what it found."""

    spec: SearchSpec
    outcome: SearchOutcome
    text: str
    """Of its YAML."""

    @cached_property
    def front(self) -> list[Trial]:
        """Trials that no other beats."""
        numbers = set(self.outcome.front)
        return [trial for trial in self.outcome.trials if trial.number in numbers]

    @cached_property
    def charts(self) -> list[Chart]:
        """The front of the first two objectives, the best of each over the trials, and shares of
        keys."""
        return list(_charts(self.spec, self.outcome))


def read_found(folder: str | Path) -> Search:
    """What a search has found so far.

    Parameters
    ----------
    folder
        Of the search.

    Raises
    ------
    InputError
        For what is no search's folder.
    """
    path = Path(folder)
    return Search(*read_outcome(path), (path / SEARCH_FILE).read_text(encoding="utf-8"))


def _charts(spec: SearchSpec, outcome: SearchOutcome) -> Iterator[Chart]:
    known = [trial for trial in outcome.trials if trial.values and trial.same_as is None]
    if len(spec.objectives) > 1:
        yield _front(spec, known, set(outcome.front))
    for at in range(len(spec.objectives)):
        yield _progress(spec, known, at)
    if any(outcome.importance.values()):
        yield _shares(spec, outcome)


def search_page(search: Search) -> str:
    """The report as HTML.

    Parameters
    ----------
    search
        Of ``read_found``.
    """
    spec, outcome = search.spec, search.outcome
    sections = [Section(chart.key, chart.title, chart) for chart in search.charts]
    columns = (
        "trial", *spec.space, *(_label(each.metric) for each in spec.objectives), "fidelity"
    )  # fmt: skip
    front = sorted(search.front, key=lambda trial: trial.values)
    shown = TableData("The front", columns, tuple(_row(spec, t) for t in front), folded=False)
    sections.insert(1 if len(spec.objectives) > 1 else 0, Section("front-table", "The front",
                                                                  tables=(shown,)))  # fmt: skip
    different = [trial for trial in outcome.trials if trial.same_as is None]
    title = f"{len(different):,} different configs of {len(outcome.trials):,} trials"
    unbeaten = set(outcome.front)
    rows = tuple((*_row(spec, trial), _fate(trial, unbeaten)) for trial in different)
    table = TableData(title, (*columns, "what came of it"), rows)
    sections.append(Section("trials", "Trials", tables=(table,)))
    sections.append(Section("config", "Config", texts=((SEARCH_FILE, search.text),)))
    failed = [trial for trial in different if trial.error]
    headline = [
        ("trials", f"{len(outcome.trials):,}"), ("different configs", f"{len(different):,}"),
        ("failed", f"{len(failed):,}"),
        ("not tried (where)", f"{sum(not trial.tried for trial in outcome.trials):,}"),
        ("on the front", f"{len(outcome.front):,}"),
    ]  # fmt: skip
    sentences = [*_best(spec, search.front), *_matters(outcome)]
    return render_page(spec.name, f"search from {spec.base}", headline, sentences, sections)


# words --------------------------------------------------------------------------------------------


def _label(metric: str) -> str:
    return METRICS[metric].label


def _value(metric: str, value: float) -> str:
    return METRICS[metric].number(value)


def _fate(trial: Trial, unbeaten: Container[int]) -> str:
    if trial.error:
        return trial.error
    if not trial.tried:
        return "not tried: it breaks 'where'"
    if not trial.feasible:
        return "breaks a constraint"
    return "on the front" if trial.number in unbeaten else "beaten"


def _row(spec: SearchSpec, trial: Trial) -> tuple[str, ...]:
    values = [_value(o.metric, v) for o, v in zip(spec.objectives, trial.values, strict=False)]
    values += [""] * (len(spec.objectives) - len(values))
    fidelity = "" if trial.fidelity is None else trial.fidelity.words
    return (
        str(trial.number), *(str(trial.point[key]) for key in spec.space), *values, fidelity
    )  # fmt: skip


def _facts(spec: SearchSpec, trial: Trial) -> Facts:
    columns = ("trial", *spec.space, *(_label(each.metric) for each in spec.objectives), "fidelity")
    return tuple(zip(columns, _row(spec, trial), strict=True))


def _best(spec: SearchSpec, front: Sequence[Trial]) -> Iterator[str]:
    """The best of each objective that keeps the constraints."""
    if not front:
        yield "No trial keeps the constraints." if spec.constraints else "No trial has a result."
        return
    for at, objective in enumerate(spec.objectives):
        metric = METRICS[objective.metric]
        best = _better_of(front, at, objective.sought)
        where = ", ".join(f"{key} {best.point[key]}" for key in spec.space)
        words = "highest" if objective.sought == "maximize" else "lowest"
        error = "" if best.fidelity is None else f" ({best.fidelity.words})"
        yield (
            f"The {words} {metric.words} is {metric.text(best.values[at])}{error}: "
            f"trial {best.number}, {where}."
        )


def _better_of(trials: Sequence[Trial], at: int, sought: str) -> Trial:
    choose = max if sought == "maximize" else min
    return choose(trials, key=lambda trial: trial.values[at])


def _matters(outcome: SearchOutcome) -> Iterator[str]:
    for metric, ends in outcome.importance.items():
        if "all" in ends and any(ends["all"].keys.values()):
            key, share = max(ends["all"].keys.items(), key=lambda each: each[1])
            yield (
                f"{key} is {share:.0%} of how {METRICS[metric].words} varies over "
                f"{ends['all'].points} different points."
            )


# charts -------------------------------------------------------------------------------------------


def _front(spec: SearchSpec, known: Sequence[Trial], front: set[int]) -> XYChart:
    (gain, cost) = (0, 1)
    ends = [spec.objectives[at].metric for at in (cost, gain)]

    def points(chosen: Sequence[Trial]) -> tuple[Point, ...]:
        return tuple(Point(t.values[cost], t.values[gain], _facts(spec, t)) for t in chosen)

    own = sorted((t for t in known if t.number in front), key=lambda t: t.values[cost])
    beaten = [t for t in known if t.number not in front and t.feasible]
    broken = [t for t in known if not t.feasible]
    series = [PointSeries("beaten", _GREY, points(beaten))]
    if broken:
        series.append(
            PointSeries("breaks a constraint", SERIES_COLOURS[3], points(broken), "triangle")
        )
    series.append(PointSeries("on the front", SERIES_COLOURS[1], points(own), "diamond"))
    words = [METRICS[each].words for each in ends]
    return XYChart(
        "front", f"{words[1].capitalize()} against {words[0]}",
        "Each point is a different config; nothing beats those on the front in all objectives.",
        _label(ends[0]), _label(ends[1]), tuple(series),
    )  # fmt: skip


def _progress(spec: SearchSpec, known: Sequence[Trial], at: int) -> XYChart:
    """The best value so far; only of trials that keep the constraints."""
    objective = spec.objectives[at]
    kept = [trial for trial in known if trial.feasible]
    best = max if objective.sought == "maximize" else min
    values = [trial.values[at] for trial in kept]
    line = Line(
        "best so far", SERIES_COLOURS[0], tuple(float(trial.number) for trial in kept),
        tuple(accumulate(values, best)), step=True,
    )  # fmt: skip
    points = tuple(
        Point(float(trial.number), trial.values[at], _facts(spec, trial)) for trial in known
    )
    words = METRICS[objective.metric].words
    return XYChart(
        f"progress-{objective.metric}", f"{words.capitalize()} by trial",
        "A line that still rises or falls at its end says that more trials may find more.",
        "trial", _label(objective.metric), (PointSeries("trials", _GREY, points),), (line,),
    )  # fmt: skip


def _shares(spec: SearchSpec, outcome: SearchOutcome) -> LaneChart:
    """What each objective's variance over all points hangs on."""
    keys = [*spec.space, _TOGETHER]
    colours = {key: SERIES_COLOURS[at % len(SERIES_COLOURS)] for at, key in enumerate(keys)}
    lanes, spans = [], []
    for metric, ends in outcome.importance.items():
        for name, words in (("all", "all"), ("good_end", "better half")):
            if name not in ends:
                continue
            lane = f"{METRICS[metric].words}: {words}"
            lanes.append(lane)
            begin = 0.0
            for key, share in (*ends[name].keys.items(), (_TOGETHER, ends[name].together)):
                end = begin + 100 * share
                spans.append(Span(lane, begin, end, key, (("key", key), ("share", f"{share:.0%}"))))
                begin = end
    return LaneChart(
        "importance", "Which key matters",
        "Shares of an objective's variance, over all different points and over the better half.",
        "share of the variance (%)", tuple(lanes), tuple(spans), colours,
    )  # fmt: skip
