"""``Result.plot``: the report's charts of one run as matplotlib figures; a sweep's trade-off."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pimsim.config.documents import Resolved
from pimsim.config.errors import InputError, near_miss
from pimsim.config.loader import ResolvedAny, load_any_run
from pimsim.report.charts import Line, Point, PointSeries, XYChart
from pimsim.report.draw import PAGE_INCHES, draw
from pimsim.report.palette import SERIES_COLOURS
from pimsim.report.run_charts import (
    energy_chart,
    gantt_chart,
    power_chart,
    roofline_chart,
    stack_chart,
    utilisation_chart,
)
from pimsim.report.sweep_charts import front_of
from pimsim.result import store
from pimsim.result.metrics import METRICS, metric_label
from pimsim.result.types import Result

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

__all__ = ["RunPlots", "plot_trade_off"]

_FIGURES = ("cycle_stack", "energy", "gantt", "power", "roofline", "utilisation")
Run = ResolvedAny | str | os.PathLike[str]


class RunPlots:
    """Figures of one run; each method draws anew, ``width`` in inches."""

    def __init__(self, result: Result) -> None:
        self._result = result

    def __getattr__(self, name: str) -> Any:
        """Only names that are no figure come here."""
        raise AttributeError(
            f"no figure {name!r}{near_miss(name, _FIGURES)}; there are {', '.join(_FIGURES)}"
        )

    def __dir__(self) -> list[str]:
        return list(_FIGURES)

    def cycle_stack(self, width: float = PAGE_INCHES) -> Figure:
        """What each unit's cycles went to, in percent of the run."""
        return draw(stack_chart([self._result], [self._name]), width)

    def energy(self, width: float = PAGE_INCHES) -> Figure:
        """Millijoule a token, by part."""
        return draw(energy_chart([self._result], [self._name]), width)

    def gantt(self, stage: str | None = None, width: float = PAGE_INCHES) -> Figure:
        """Operators over time, of one stage or the run. ``InputError`` for an unknown stage."""
        return draw(gantt_chart(self._result, stage), width)

    def roofline(self, run: Run | None = None, width: float = PAGE_INCHES) -> Figure:
        """Operators under the peaks of the run's own hardware, placement and element sizes.

        ``run``: may say what is thought to have been simulated, as ``pimsim.load_config`` gives
        it, or a preset, a YAML path, or a folder that ``out`` wrote. ``InputError`` where it is
        not the config of this result.
        """
        self._check(run)
        return draw(roofline_chart(self._result), width)

    def utilisation(self, run: Run | None = None, width: float = PAGE_INCHES) -> Figure:
        """Share of each peak over time; ``run`` as for ``roofline``."""
        self._check(run)
        return draw(utilisation_chart(self._result), width)

    def power(self, width: float = PAGE_INCHES) -> Figure:
        """Watt of a device over time, by part."""
        return draw(power_chart(self._result), width)

    @property
    def _name(self) -> str:
        return self._result.name or "run"

    def _check(self, run: Run | None) -> None:
        if run is None:
            return
        if isinstance(run, Resolved):
            same = run.sha256
        elif (Path(run) / store.CONFIG_FILE).is_file():
            # Its config went through YAML and has no overrides left: the result has the hash.
            same = store.load(run).provenance.config_sha256
        else:
            same = load_any_run(os.fspath(run)).sha256
        if same != self._result.provenance.config_sha256:
            raise InputError(
                "plot: this is not the config of the result, whose overrides it may lack; pass "
                "what pimsim.load_config gives for the same name and overrides"
            )


def plot_trade_off(
    table: pandas.DataFrame,
    cost: str = "mj_per_token",
    gain: str = "tokens_per_s",
    width: float = PAGE_INCHES,
) -> Figure:
    """A sweep's points and their Pareto front: most ``gain`` (upward) for least ``cost``.

    Parameters
    ----------
    table
        What ``pimsim.sweep`` or ``pimsim.load`` gives; failed points are left out.
    cost
        A numeric column, or ``mj_per_token``.
    gain
        A numeric column, or ``mj_per_token``.
    width
        Inches.

    Raises
    ------
    InputError
        For other names, and where no point has both figures.

    Examples
    --------
    >>> import pandas, pimsim
    >>> points = {"tokens_per_s": [10.0, 20.0], "tokens_per_j": [2.0, 1.0]}
    >>> figure = pimsim.plot_trade_off(pandas.DataFrame(points))
    >>> figure.axes[0].get_ylabel()
    'throughput (tokens/s)'
    """
    import pandas

    # A sweep in which all points failed has no figures, not even these columns.
    energy = METRICS["mj_per_token"]
    if energy.field in table:
        table = table.assign(**{energy.name: energy.scale / table[energy.field]})
    numeric = [str(c) for c in table.columns if pandas.api.types.is_numeric_dtype(table[c])]
    for name in (cost, gain):
        if name not in numeric:
            raise InputError(
                f"no numeric column {name!r}{near_miss(name, numeric)}; "
                f"there are {', '.join(numeric)}"
            )
    done = table.dropna(subset=[cost, gain])
    if done.empty:
        raise InputError(f"no point of the sweep has both {cost} and {gain}")
    costs = [float(value) for value in done[cost]]
    gains = [float(value) for value in done[gain]]
    front = front_of(gains, costs)
    kept = set(front)
    others = tuple(Point(costs[i], gains[i]) for i in range(len(costs)) if i not in kept)
    best = tuple(Point(costs[i], gains[i]) for i in front)
    colour = SERIES_COLOURS[1]
    x, y = metric_label(cost), metric_label(gain)
    chart = XYChart(
        "trade-off", f"{y.partition(' (')[0].capitalize()} against {x.partition(' (')[0]}",
        "The front has no other point that gains as much for as little.", x, y,
        (PointSeries("other points", "#999999", others),
         PointSeries("on the front", colour, best, "diamond")),
        (Line("front", colour, tuple(p.x for p in best), tuple(p.y for p in best), True),),
    )  # fmt: skip
    return draw(chart, width)
