"""Schedules of vLLM and Vidur, met row by row and step by step.

The tables (``serving/`` of ``--reference DIR``) were made by those projects' own schedulers with
the model's run replaced by a clock in whole microseconds, so that every column of every row is
exact. They do not ship.

A measured server (``requests/``, an RTX 4090 under vLLM 0.19) is served with the profile of its
layers as it is (``gpu/``), nothing fitted: what its means are off by is the profile's and the
rules' own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pimsim.config.errors import InputError, near_miss
from pimsim.serving.records import Records
from pimsim.serving.routers import load_router
from pimsim.serving.schedulers import Batch, Scheduler
from pimsim.serving.schedulers.vllm import Vllm, VllmSettings
from pimsim.serving.service import Fleet, Service
from pimsim.serving.step_times import StepTime
from pimsim.serving.step_times.profile import load_profile
from pimsim.validate.serving_files import (
    FOLDER,
    PS_PER_US,
    prefixes_of,
    scenario_fleet,
    scenarios_of,
    steps_of,
    traffic_of,
)
from pimsim.validate.types import ReferenceLine, References, Row, read_lines

__all__ = ["MEASURED_CASE", "measured_means", "measured_rows", "rows"]

_TABLES = (
    ("serving.csv", "serving_scenarios.json"), ("speculation.csv", "speculation_scenarios.json"),
)  # fmt: skip
_REQUEST_COLUMNS: Mapping[str, str] = {
    "replica": "replica", "first_scheduled_us": "first_scheduled_ps",
    "first_scheduled_step": "first_scheduled_step", "first_token_us": "first_token_ps",
    "first_token_step": "first_token_step", "finish_us": "finish_ps",
    "finish_step": "finish_step", "preemptions": "preemptions", "cached_tokens": "cached",
    "verifications": "verifications", "accepted_drafts": "accepted",
}  # fmt: skip
"""Columns of the tables, and where our requests have them."""


class _Steps:
    """Every step as the tables have it."""

    def __init__(self) -> None:
        self.found: list[dict[str, Any]] = []

    def made(self, replica: int, batch: Batch, scheduler: Scheduler) -> None:
        """Keep a step; who ends with it is not known yet."""
        self.found.append({
            "step": batch.number, "start_us": batch.start_ps / PS_PER_US,
            "end_us": batch.end_ps / PS_PER_US, "tokens": batch.tokens,
            "scheduled_requests": batch.requests, "running": scheduler.running,
            "waiting": scheduler.waiting, "free_blocks_before_results": scheduler.cache.free,
            "preempted_ids": " ".join(map(str, batch.preempted)),
        })  # fmt: skip

    def ended(self, requests: Records) -> list[dict[str, Any]]:
        """The steps; those that ended with one run no longer, as the table counts."""
        for step in requests["finish_step"].tolist():
            self.found[step - 1]["running"] -= 1
        return self.found


def rows(references: References) -> Iterator[Row]:
    """Each column of each request and step; none without the folder.

    Parameters
    ----------
    references
        With the tables, of ``--reference``.

    Raises
    ------
    InputError
        For a scenario that is not known.
    """
    if references.folder is None:
        return
    yield from measured_rows(references)
    prefixes = prefixes_of(references)
    steps = _by_scenario(steps_of(references))
    for table, scenarios in _TABLES:
        known = scenarios_of(references, scenarios)
        path = references.file(FOLDER + table)
        assert path is not None
        for name, lines in _by_scenario(read_lines(path)).items():
            if name not in known:
                raise InputError(f"{lines[0].where}: no scenario {name!r}{near_miss(name, known)}")
            yield from _scenario(
                name, known[name], lines, prefixes.get(name, {}), steps.get(name, [])
            )


def _scenario(
    name: str, scenario: Mapping[str, Any], lines: Sequence[ReferenceLine],
    prefixes: Mapping[int, Sequence[int]], steps: Sequence[ReferenceLine],
) -> Iterator[Row]:  # fmt: skip
    fleet = scenario_fleet(scenario, name, lines[0]["engine"])
    service = Service(traffic_of(lines, prefixes, fleet.block_tokens), fleet)
    watcher = _Steps()
    service.run([watcher])
    group = "serving.speculation" if scenario.get("k") else f"serving.{scenario['engine']}"
    for line, ours in zip(lines, service.requests, strict=True):
        for column, field in _REQUEST_COLUMNS.items():
            if line.get(column):
                scale = PS_PER_US if field.endswith("_ps") else 1
                value = ours[field] / scale
                yield Row(group, f"{name}/{line['id']}", column, line.whole(column), value)
    if steps:
        found = watcher.ended(service.requests)
        yield Row("serving.steps", name, "steps", len(steps), len(found))
        for line, one in zip(steps, found, strict=False):
            for column, value in one.items():
                if column == "preempted_ids":  # their number, and whether they are the same
                    wanted, given = len(line[column].split()), len(value.split())
                    same = line[column] == value
                    yield Row("serving.steps", f"{name}/{line['step']}", column, wanted, given)
                    if wanted == given and not same:
                        yield Row("serving.steps", f"{name}/{line['step']}", "order", 1, 0)
                else:
                    case = f"{name}/{line['step']}"
                    yield Row("serving.steps", case, column, line.whole(column), value)


def measured_rows(references: References) -> Iterator[Row]:
    """Means of a measured run, served with the profile of its layers.

    Parameters
    ----------
    references
        With the tables, of ``--reference``.

    Raises
    ------
    InputError
        Where no request has more than one token.
    """
    profile = references.file(f"{_PROFILE}/attention.csv")
    assert profile is not None
    steps = load_profile(profile.parent, _MEASURED_LAYERS)
    for metric, reference, found in measured_means(references, steps):
        yield Row("serving.measured_rtx4090", MEASURED_CASE, metric, reference, found)


def measured_means(references: References, steps: StepTime) -> Iterator[tuple[str, float, float]]:
    """Means of a measured run, as it was and as it is served with steps that take so long.

    Parameters
    ----------
    references
        With the table, of ``--reference``.
    steps
        What each takes.

    Yields
    ------
    tuple of str, float and float
        A metric, and in microseconds what was measured and ours.

    Raises
    ------
    InputError
        Where no request has more than one token.
    """
    path = references.file(_MEASURED)
    assert path is not None
    lines = list(read_lines(path))
    if not any(line.whole("output") > 1 for line in lines):
        raise InputError(f"{path}: no request of more than one token")
    wanted = {
        name: np.array([line.whole(f"{name}_us") for line in lines])
        for name in ("arrival", "first_token", "finish")
    }
    settings = VllmSettings(name="vllm", version="0.19", **_MEASURED_SETTINGS)
    fleet = Fleet(Vllm, settings, steps, _MEASURED_BLOCKS, 16, load_router("round_robin"))
    service = Service(traffic_of(lines, {}, 16), fleet)
    service.run()
    ours = {
        name: service.requests[f"{name}_ps"] / PS_PER_US
        for name in ("arrival", "first_token", "finish")
    }
    output = np.array([line.whole("output") for line in lines])
    for metric, figure in _MEANS.items():
        reference, found = (float(figure(times, output)) for times in (wanted, ours))
        yield metric, reference, found


def _tpot_us(times: Mapping[str, Any], output: Any) -> Any:
    made = (times["finish"] - times["first_token"])[output > 1]
    return (made / (output[output > 1] - 1)).mean()


_MEANS: Mapping[str, Callable[[Mapping[str, Any], Any], Any]] = {
    "mean_ttft_us": lambda times, output: (times["first_token"] - times["arrival"]).mean(),
    "mean_tpot_us": _tpot_us,
    "mean_latency_us": lambda times, output: (times["finish"] - times["arrival"]).mean(),
}
MEASURED_CASE = "300 ShareGPT requests"
_MEASURED = "requests/vllm019_measured_RTX4090_Llama-3.1-8B.csv"
_PROFILE = "gpu/rtx4090_llama31_8b_profile"
_MEASURED_LAYERS = 32
"""Of Llama 3.1 8B; the profile has one."""
_MEASURED_BLOCKS = 2588
_MEASURED_SETTINGS: Mapping[str, Any] = {
    "max_num_seqs": 256, "max_num_batched_tokens": 2048, "reserve_full_isl": True,
}  # fmt: skip
"""As that server was started; the last is vLLM's default."""


def _by_scenario(lines: Iterator[ReferenceLine]) -> dict[str, list[ReferenceLine]]:
    found: dict[str, list[ReferenceLine]] = defaultdict(list)
    for line in lines:
        found[line["scenario"]].append(line)
    return found
