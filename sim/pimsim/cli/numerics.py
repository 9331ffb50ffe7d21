"""``pimsim numerics``: datapaths of PIM and NPU against float64 and PyTorch."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from pimsim.config.errors import CheckFailed, InputError

__all__ = ["numerics_command"]


def numerics_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="With weights, as `pimsim export` takes it; or an .onnx."
        ),
    ],
    tokens: Annotated[
        int, typer.Option("--tokens", metavar="N", min=16, max=4096, help="Tokens of text.")
    ] = 512,
    text: Annotated[
        str | None,
        typer.Option("--text", metavar="FILE", help="Python's held-out docstrings by default."),
    ] = None,
    run: Annotated[
        str, typer.Option("--run", metavar="RUN", help="Whose PIM and memory lay out the cache.")
    ] = "neupims",
    datapath: Annotated[
        list[str] | None,
        typer.Option("--datapath", metavar="NAME", help="Of the table; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run a model's tensors through the hardware's arithmetic and through the rows of the banks
    that the timing model maps; exit 1 where an error exceeds its limit.

    Example: pimsim numerics path/to/model --datapath bf16-16 --tokens 256
    """
    if model.endswith(".onnx"):
        _graph(model, as_json)
        return
    from pimsim.capture.loading import load_model, require_torch

    require_torch()
    from pimsim.capture.text import read_text, token_ids
    from pimsim.reference.datapaths import chosen
    from pimsim.reference.limits import load_limits, over_limit

    paths = chosen(datapath)
    limits = load_limits()
    from pimsim.simulate import on_npu, resolve

    config = on_npu(resolve(run), "numerics").config
    measured_text = read_text(text)
    loaded = load_model(model)
    if not loaded.real:
        raise InputError(f"model {loaded.name}: it has no weights to compute with")
    import torch

    from pimsim.reference.measure import bank_errors, model_errors, operator_errors

    ids = torch.tensor([token_ids(loaded, measured_text.content, tokens)])
    whole = model_errors(loaded.model, ids, paths, _say)
    operators = operator_errors(loaded.model, ids, paths)
    contexts = sorted({min(17, tokens), min(100, tokens), tokens})
    banks = bank_errors(loaded.model, ids, config, contexts)
    failed = over_limit(limits, operators, whole, banks)
    report: dict[str, Any] = {
        "model": loaded.name, "tokens": tokens, "text": measured_text.name, "run": config.name,
        "operators": [asdict(each) for each in operators],
        "whole_model": [asdict(each) for each in whole],
        "banks": [asdict(each) for each in banks], "failed": failed, "passed": not failed,
    }  # fmt: skip
    if as_json:
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        _print(report)
    if failed:
        raise CheckFailed(f"{len(failed)} limits exceeded, the first: {failed[0]}")


def _graph(model: str, as_json: bool) -> None:
    """Products of a quantised graph, by onnxruntime and by our reading of its formats."""
    from pathlib import Path

    from pimsim.reference.graph_products import product_errors
    from pimsim.reference.limits import load_limits, products_over_limit

    products = product_errors(Path(model))
    failed = products_over_limit(load_limits(), products)
    if as_json:
        report = {
            "model": model, "products": [asdict(each) for each in products], "failed": failed,
            "passed": not failed,
        }  # fmt: skip
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        worst = max(products, key=lambda each: each.relative_rms)
        for name in dict.fromkeys((p.datapath, p.bits, p.block) for p in products):
            mine = [p for p in products if (p.datapath, p.bits, p.block) == name]
            typer.echo(
                f"{len(mine)} products, {name[1]} bits in blocks of {name[2]}, computed as "
                f"{name[0]}: worst relative RMS {max(p.relative_rms for p in mine):.2e}"
            )
        typer.echo(f"the worst is {worst.node}; against float64 on the numbers in the file")
        for line in failed:
            typer.echo(f"over its limit: {line}")
    if failed:
        raise CheckFailed(f"{len(failed)} limits exceeded, the first: {failed[0]}")


def _say(what: str) -> None:
    if sys.stderr.isatty():
        typer.echo(what, err=True)


def _print(report: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pimsim.reference.datapaths import DATAPATHS

    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(Text(f"{report['model']}, {report['tokens']} tokens of {report['text']}"))
    table = Table(title="whole model against float64", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("datapath", "KL mean", "KL p99", "top-1 the same", "largest flip (logits)",
                    "perplexity"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "datapath" else "right")
    for row in report["whole_model"]:
        table.add_row(
            DATAPATHS[row["datapath"]].words, f"{row['kl_mean']:.2e}", f"{row['kl_p99']:.2e}",
            f"{row['top1_agreement']:.3f}", f"{row['largest_flip_margin']:.3f}",
            f"{row['perplexity_change']:+.2%}",
        )  # fmt: skip
    console.print(table)
    table = Table(title="operators against float64", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("datapath", "products", "worst relative RMS", "worst over |x| |w|", "where"):
        table.add_column(heading, justify="left" if heading in ("datapath", "where") else "right")
    for name in dict.fromkeys(row["datapath"] for row in report["operators"]):
        mine = [row for row in report["operators"] if row["datapath"] == name]
        worst = max(mine, key=lambda row: row["relative_rms"])
        table.add_row(
            DATAPATHS[name].words, str(len(mine)), f"{worst['relative_rms']:.2e}",
            f"{max(row['scaled'] for row in mine):.2e}", Text(worst["module"]),
        )  # fmt: skip
    console.print(table)
    table = Table(
        title=f"attention through the banks of {report['run']}, by the engine's own programs",
        box=box.SIMPLE_HEAD, title_justify="left",
    )  # fmt: skip
    for heading in ("block", "context", "relative RMS"):
        table.add_column(heading, justify="right")
    for row in report["banks"]:
        table.add_row(str(row["block"]), str(row["context"]), f"{row['relative_rms']:.2e}")
    console.print(table)
    for line in report["failed"]:
        console.print(Text(f"over its limit: {line}"))
    if not report["failed"]:
        console.print("all within the limits of configs/validate/numerics.yaml")
