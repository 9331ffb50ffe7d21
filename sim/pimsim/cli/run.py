"""``pimsim run`` and ``pimsim compare``."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.cli.completion import presets_of
from pimsim.cli.prices import PricesOption, prices_of
from pimsim.config.errors import InputError

if TYPE_CHECKING:
    from pimsim.config.differences import Difference
    from pimsim.config.loader import ResolvedAny
    from pimsim.config.prices import Prices
    from pimsim.engine.iteration import Progress
    from pimsim.explore.whatif import WhatIf
    from pimsim.result.types import Result

__all__ = ["compare_command", "run_command", "stage_line"]

RunArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A preset's name or a YAML path.",
        autocompletion=presets_of("hardware", "system"),
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A model card's name or YAML path.",
        autocompletion=presets_of("model"),
    ),
]
RequestsOption = Annotated[
    str | None,
    typer.Option(
        "--requests",
        metavar="FILE",
        help="A request trace: a name, our CSV or the NeuPIMs artifact's.",
    ),
]
_MOST_LAYERS = 10_000


def _layers(text: str) -> int | str:
    """What ``workload.layers`` takes."""
    if text == "auto":
        return text
    is_number = text.isascii() and text.isdigit() and len(text) < 9
    if not is_number or not 1 <= int(text) <= _MOST_LAYERS:
        raise typer.BadParameter(f"found {text!r}; allowed: auto, or 1 to {_MOST_LAYERS:,}")
    return int(text)


LayersOption = Annotated[
    str | None,  # typer has no unions: what the parser makes is a number, too
    typer.Option(
        "--layers",
        metavar="N|auto",
        parser=_layers,
        help="Decoder blocks to simulate; rates are of all the model's.",
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch",
        metavar="N",
        min=1,
        max=1_000_000,
        help="Take N requests from the front of the trace.",
    ),
]
TraceOption = Annotated[
    str | None,
    typer.Option(
        "--trace", metavar="NAME", help="An operator trace's name or JSON path, instead of a card."
    ),
]
RoutingOption = Annotated[
    str | None,
    typer.Option(
        "--routing",
        metavar="SPEC",
        help="Where tokens go in a mixture of experts: uniform, zipf:A, token-id, or a file.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
]
FidelityOption = Annotated[
    str | None, typer.Option("--fidelity", metavar="command|fast", help="How exact.")
]
MaxErrorOption = Annotated[
    str | None,
    typer.Option(
        "--max-error",
        metavar="SHARE",
        help="With fast: phases that are off by more (2%) are simulated at command fidelity.",
    ),
]
PhaseOption = Annotated[
    str | None,
    typer.Option(
        "--phase",
        metavar="decode|prefill",
        help="What each request is asked: one new token, or its whole prompt.",
    ),
]
ChunkOption = Annotated[
    int | None,
    typer.Option(
        "--chunk",
        metavar="N",
        min=1,
        max=1_000_000,
        help="At most N new tokens of a request in a step; more steps.",
    ),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        min=1,
        max=100_000,
        help="Run N steps, contexts growing; a request that is fed goes on with a token a step.",
    ),
]


@dataclass(frozen=True)
class Stored:
    """A run that a folder has."""

    folder: str
    result: Result


JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


def run_command(
    run: RunArgument = "neupims",
    model: ModelOption = None,
    requests: RequestsOption = None,
    layers: LayersOption = None,
    batch: BatchOption = None,
    trace: TraceOption = None,
    routing: RoutingOption = None,
    overrides: SetOption = None,
    fidelity: FidelityOption = None,
    max_error: MaxErrorOption = None,
    phase: PhaseOption = None,
    chunk: ChunkOption = None,
    steps: StepsOption = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", help="Write config, result and tables (Parquet) there."
        ),
    ] = None,
    whatif: Annotated[
        bool,
        typer.Option(
            "--whatif",
            help="What a tenth more of each resource would give: by bounds and stacks, and by a "
            "fast run of each.",
        ),
    ] = False,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate a step of a batch, or several: throughput, energy, and what holds it back.

    Example: pimsim run neupims --model llama-3-8b --batch 64 --set npu.frequency=1.2GHz
    """
    from pimsim.simulate import overrides_of, resolve

    options = overrides_of(
        model, requests, layers, batch, fidelity, trace, routing, max_error, phase, chunk, steps
    )
    resolved = resolve(run, [*options, *(overrides or [])])
    paid = prices_of(prices)
    if out is not None:
        from pimsim.result.store import check_writable

        check_writable(out)
    result = _simulate(resolved)
    given = [*options, *(overrides or [])]
    sensitivity = list(_what_if(run, given, resolved, result)) if whatif else []
    if out is not None:
        from pimsim.config.paths import given_path
        from pimsim.result.store import save

        save(result, resolved.to_yaml(folder=given_path(out)), out)
    if as_json:
        figures = result.to_dict()
        if whatif:
            figures["whatif"] = [_sensitivity(each) for each in sensitivity]
        if paid is not None:
            figures["cost"] = _cost(result, paid)
        typer.echo(json.dumps(figures, indent=1, allow_nan=False))
        return
    from pimsim.result.tables import result_view

    _print(result_view(result))
    if paid is not None:
        from pimsim.result.tables import cost_table

        _print(cost_table(result, paid))
    if whatif:
        from pimsim.cli.whatif import whatif_table

        _print(whatif_table(sensitivity))


def _cost(result: Result, prices: Prices) -> dict[str, Any]:
    """What the machine costs, by part, and what it does for that."""
    from pimsim.result.cost import Priced
    from pimsim.result.metrics import METRICS

    priced = Priced(result, prices)
    rate = METRICS["tokens_per_s_cost"].of(priced)
    figures = {**priced.cost, "tokens_per_s_cost": rate}
    return {"currency": prices.currency, **{name: _finite(one) for name, one in figures.items()}}


def _what_if(
    run: str, options: list[str], resolved: ResolvedAny, result: Result
) -> Iterator[WhatIf]:
    """A tenth more of each resource, checked by fast runs; GPUs have one fidelity."""
    from pimsim.config.system import SystemConfig
    from pimsim.explore.whatif import what_if
    from pimsim.simulate import resolve

    fast = [] if isinstance(resolved.config, SystemConfig) else ["fidelity=fast"]
    yield from what_if(
        resolved, result, lambda more: _simulate(resolve(run, [*options, *fast, *more]))
    )


def _sensitivity(each: WhatIf) -> dict[str, Any]:
    return {
        "resource": each.resource.words, "key": each.resource.key, "before": each.before,
        "after": each.after, "estimated": each.estimated, "simulated": each.simulated,
        "error": each.error,
    }  # fmt: skip


def compare_command(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|DIR...",
            autocompletion=presets_of("hardware", "system"),
            help="Presets, YAML paths, or folders that --out wrote; or stores of sweeps.",
        ),
    ],
    model: ModelOption = None,
    requests: RequestsOption = None,
    layers: LayersOption = None,
    batch: BatchOption = None,
    trace: TraceOption = None,
    routing: RoutingOption = None,
    overrides: SetOption = None,
    fidelity: FidelityOption = None,
    max_error: MaxErrorOption = None,
    phase: PhaseOption = None,
    chunk: ChunkOption = None,
    steps: StepsOption = None,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Runs side by side: in what their configs differ, ratios to the first, and what holds each
    back; or sweeps, point by point.

    Example: pimsim compare npu-only npu-pim neupims --batch 64
    """
    from pimsim.simulate import overrides_of, resolve

    options = [
        *overrides_of(
            model, requests, layers, batch, fidelity, trace, routing, max_error, phase, chunk, steps
        ),
        *(overrides or []),
    ]
    paid = prices_of(prices)
    if len(runs) < 2:
        raise InputError(f"compare needs two or more runs or folders, found {runs[0]!r} alone")
    if any(os.path.isfile(os.path.join(run, "store.json")) for run in runs):
        if options:
            raise InputError(f"a sweep is compared as it was simulated: leave out {options[0]}")
        from pimsim.cli.compare_sweeps import print_sweeps

        print_sweeps(runs, as_json, paid)
        return
    # every name, file and folder is looked at before the first simulation starts
    ready = [_stored(run) if os.path.isdir(run) else resolve(run, options) for run in runs]
    results = [_simulated(each) for each in ready]
    notes = list(_differences(runs, results))
    apart, unread = _apart(ready)
    notes += unread
    if as_json:
        from dataclasses import asdict

        from pimsim.result.bottleneck import main_cause
        from pimsim.result.compare import causes, comparison_rows
        from pimsim.result.work_shown import work_of

        first = results[0]

        rows: list[dict[str, Any]] = [
            {key: _finite(value) for key, value in row.items()}
            | {
                "holds_back": main_cause(result),
                "cycle_stack": result.to_dict()["cycle_stack"],
                "work": asdict(work_of(result)),
                **({} if paid is None else {"cost": _cost(result, paid)}),
                "moved": [asdict(each) | {"words": each.words()} for each in causes(first, result)],
            }
            for row, result in zip(comparison_rows(results, runs), results, strict=True)
        ]
        differ = [{"key": each.key, "values": each.values} for each in apart]
        report = {"differences": differ, "runs": rows, "notes": notes}
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
        return
    from rich.console import Group
    from rich.text import Text

    from pimsim.cli.tables import differences_table
    from pimsim.config.differences import labels_of
    from pimsim.result.tables import compare_table

    labels = labels_of(runs, apart)
    moved = [Text(line) for line in (*_work(labels, results), *_moved(labels, results))]
    _print(
        Group(
            *differences_table(apart, runs), compare_table(results, labels, paid), *moved,
            *(Text(f"note: {n}") for n in notes),
        )
    )  # fmt: skip


def _stored(folder: str) -> Stored:
    from pimsim.result.store import load

    return Stored(folder, load(folder))


def _apart(ready: Sequence[ResolvedAny | Stored]) -> tuple[list[Difference], list[str]]:
    """In what the configs differ, and a note where one of them cannot be read any more."""
    from pimsim.config.differences import differences
    from pimsim.config.loader import load_any_run
    from pimsim.result.store import CONFIG_FILE

    configs: list[ResolvedAny] = []
    for each in ready:
        try:
            configs.append(
                load_any_run(os.path.join(each.folder, CONFIG_FILE))
                if isinstance(each, Stored)
                else each
            )
        except InputError as error:
            return [], [f"what differs in the configs is not known: {error}"]
    return differences(configs), []


def _work(names: Sequence[str], results: Sequence[Result]) -> Iterator[str]:
    """A line for each run: what it moves where, and what runs where."""
    from pimsim.result.work_shown import work_of

    for name, result in zip(names, results, strict=True):
        yield f"{name}: {work_of(result).words()}"


def _moved(names: Sequence[str], results: Sequence[Result]) -> Iterator[str]:
    """A line for each run but the first: the three largest causes of its difference."""
    from pimsim.result.compare import causes

    for name, result in zip(names[1:], results[1:], strict=True):
        found = [each.words() for each in causes(results[0], result)]
        said = " against ".join(
            f"{run} ({each.fidelity.words})" if each.fidelity.mode == "fast" else run
            for run, each in ((name, result), (names[0], results[0]))
        )
        yield f"{said}: {'; '.join(found) if found else 'nothing moved'}"


def _simulated(each: ResolvedAny | Stored) -> Result:
    return each.result if isinstance(each, Stored) else _simulate(each)


def _simulate(resolved: ResolvedAny) -> Result:
    from pimsim.simulate import simulate

    with stage_line(resolved.config.name) as on_stage:
        return simulate(resolved, on_stage)


@contextmanager
def stage_line(name: str) -> Iterator[Callable[[Progress], None] | None]:
    """Say on stderr which block and stage of a run is under way, and the time that is left.

    Parameters
    ----------
    name
        Of the run.

    Yields
    ------
    Callable[[Progress], None] | None
        Hears of stages; None where stderr is no terminal.
    """
    from pimsim.cli.progress import status_line, time_left

    with status_line(name) as tell:
        if tell is None:
            yield None
            return
        count, start = 0, time.monotonic()

        def on_stage(now: Progress) -> None:
            nonlocal count
            count += 1
            left = time_left(time.monotonic() - start, now.blocks_begun - 1, now.blocks)
            place = f"block {now.blocks_begun} of {now.blocks}, stage {count} ({now.stage})"
            tell(f"{place}, {left}" if left else place)

        yield on_stage


def _differences(names: Sequence[str], results: Sequence[Result]) -> Iterator[str]:
    """What makes the runs hard to compare."""
    first = results[0]
    for name, result in zip(names[1:], results[1:], strict=True):
        if not _same_work(result, first):
            yield f"{name} and {names[0]} do not run the same model on the same requests"
        if result.layers_simulated != first.layers_simulated:
            yield f"cycles and energy of {name} and {names[0]} are of different numbers of blocks"


def _same_work(one: Result, other: Result) -> bool:
    """Whether both run the same model on the same requests. What a decoding strategy reads beside
    them, and how many tokens it feeds, are its own matter."""
    if one.model != other.model:
        return False
    if one.decoding is None and other.decoding is None:
        return (one.tokens, one.provenance.trace_sha256) == (
            other.tokens, other.provenance.trace_sha256,
        )  # fmt: skip
    first, second = ([request.id for request in each.requests] for each in (one, other))
    return first == second


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(what: Any) -> None:
    """Tables as wide as they need to be where nothing but a file limits the width."""
    from rich.console import Console

    from pimsim.cli.tables import output_width

    Console(width=output_width(), highlight=False).print(what)
