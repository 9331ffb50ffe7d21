"""``pimsim sparsity``: what a batch leaves of sparse activations, and how they are measured."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from math import fsum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.config.errors import InputError
from pimsim.config.paths import given_path

if TYPE_CHECKING:
    from pimsim.workload.sparsity.file import SparsityTrace

__all__ = ["sparsity_app"]

sparsity_app = typer.Typer(help="Sparse activations: show a trace, or measure a model.")


@sparsity_app.command("show")
def show_command(
    trace: Annotated[
        str, typer.Argument(metavar="TRACE", help="A shipped name or a Parquet file.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Active features by layer, the union over a batch, and what hardware can skip of it.

    Example: pimsim sparsity show smollm2-135m
    """
    from pimsim.config.resources import find_source
    from pimsim.workload.sparsity.file import read_sparsity

    report = _report(read_sparsity(find_source("sparsity", trace)))
    if as_json:
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
        return
    _print(report)


@sparsity_app.command("measure")
def measure_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As `pimsim export` takes it.")],
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The trace (Parquet).")],
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="FILE", help="Chosen on its first part, told on its second; "
                     "Python's docstrings by default."),
    ] = None,
    tokens: Annotated[
        int, typer.Option("--tokens", min=64, max=1_000_000, help="Tokens of each part.")
    ] = 512,
    masks: Annotated[
        int, typer.Option("--masks", min=1, max=1_000_000, help="Tokens whose masks are kept.")
    ] = 32,
    percent: Annotated[
        list[float] | None,
        typer.Option(
            "--percent", min=0.0, max=1000.0, help="Allowed rise of perplexity; may be repeated."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:  # fmt: skip
    """PPL-p % sparsity of a real model (Sparsing Law): thresholds by CETT, chosen on one text and
    reported on another.

    Example: pimsim sparsity measure smollm2 --out mine.sparsity.parquet
    """
    from pimsim.capture.loading import load_model, require_torch

    require_torch()
    percents = percent or [1.0, 5.0]
    if any(not 0 < each <= 100 for each in percents):
        raise InputError(f"--percent is {percents}; above 0 to 100 is allowed")
    from pimsim.capture.text import read_text, token_ids
    from pimsim.workload.sparsity.file import write_sparsity

    measured_text = read_text(text)
    loaded = load_model(model)
    if not loaded.real:
        raise InputError(f"model {loaded.name}: it has no weights to measure")
    import torch

    from pimsim.capture.sparsity import measure_sparsity

    width = min(256, tokens)
    count = tokens // width * width
    ids = torch.tensor(token_ids(loaded, measured_text.content, 2 * count)).view(2, -1, width)
    source = (
        f"{loaded.origin}; chosen on {count} tokens of {measured_text.name}, told on the next "
        f"{count}, sequences of {width}"
    )
    trace, measured = measure_sparsity(
        loaded, ids[0], ids[1], percents, min(masks, count), source, _say
    )
    write_sparsity(trace, given_path(out))
    if as_json:
        rows = [asdict(each) | {"rise_percent": each.rise} for each in measured]
        typer.echo(json.dumps({"trace": out, "source": source, "measured": rows}, indent=1))
        return
    for each in measured:
        low, high = min(each.layer_ratio), max(each.layer_ratio)
        typer.echo(
            f"PPL-{each.percent:g} %: CETT {each.cett:.3f}, {each.ratio:.1%} of the features "
            f"active (layers {low:.1%} to {high:.1%}), perplexity {each.ppl_dense:.2f} to "
            f"{each.ppl_sparse:.2f} ({each.rise:+.2f} %) on the text that it was not chosen on"
        )
    typer.echo(f"{out}: masks of {trace.active.shape[1]} tokens")


def _say(what: str) -> None:
    if sys.stderr.isatty():
        typer.echo(what, err=True)


def _report(trace: SparsityTrace) -> dict[str, Any]:
    import numpy as np

    from pimsim.workload.draws import RandomStream
    from pimsim.workload.sparsity.union import (
        GRANULARITIES,
        by_popularity,
        kept,
        neighbours,
        unions,
    )

    rows = unions(trace)
    random = RandomStream(0)
    machine: dict[str, dict[str, list[float]]] = {}
    for order in ("as-trained", "popularity"):
        machine[order] = {}
        for name, granularity in GRANULARITIES.items():
            shares = []
            for row in rows:
                found = []
                for active in trace.active:
                    at = random.subsets(1, len(active), row.batch)[0]
                    mask = active[at].any(axis=0)
                    if order == "popularity":
                        mask = mask[by_popularity(active)]
                    found.append(kept(mask, granularity).mean())
                shares.append(float(np.mean(found)))
            machine[order][name] = shares
    return {
        "model": trace.model, "source": trace.source, "ffn": trace.ffn,
        "tokens": int(trace.active.shape[1]), "measured": dict(trace.measured),
        "layer_ratio": [float(each) for each in trace.ratio],
        "neighbours_jaccard": neighbours(trace) if trace.active.shape[1] > 1 else None,
        "unions": [asdict(row) for row in rows], "kept": machine,
    }  # fmt: skip


def _print(report: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    ratios = report["layer_ratio"]
    console.print(Text(f"{report['model']}: {report['source']}"))
    console.print(
        Text(
            f"{fsum(ratios) / len(ratios):.1%} of {report['ffn']:,} features active, "
            f"layers {min(ratios):.1%} to {max(ratios):.1%}"
        )
    )
    if report["neighbours_jaccard"] is not None:
        console.print(
            Text(
                f"tokens that follow each other share {report['neighbours_jaccard']:.2f} (Jaccard)"
            )
        )
    table = Table(title="share at work, by batch", box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("")
    for row in report["unions"]:
        table.add_column(str(row["batch"]), justify="right")
    for key, label in (("random", "union, tokens from anywhere"),
                       ("consecutive", "union, tokens that follow each other"),
                       ("independent", "if tokens chose independently")):  # fmt: skip
        table.add_row(label, *(f"{row[key]:.2f}" for row in report["unions"]))
    for order, by_size in report["kept"].items():
        for name, shares in by_size.items():
            label = f"hardware that skips by {name}, features {order}"
            table.add_row(label, *(f"{share:.2f}" for share in shares))
    console.print(table)
