"""``pimsim kernel gemm``: one matrix product, on the arrays alone or with its traffic."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pimsim.cli.memories import read_memory
from pimsim.cli.tables import print_table

if TYPE_CHECKING:
    from pimsim.config.npu import NpuConfig, SystolicConfig
    from pimsim.engine.gemm import GemmRun
    from pimsim.hardware.npu.search import CoreTiling, Cut

__all__ = ["gemm_command"]

_TILINGS = ("least-traffic", "least-time", "gemmini")


def gemm_command(
    m: Annotated[int, typer.Argument(metavar="M", help="Rows of the activations (tokens).")],
    n: Annotated[int, typer.Argument(metavar="N", help="Columns of the weights (outputs).")],
    k: Annotated[int, typer.Argument(metavar="K", help="The dimension summed over.")],
    npu: Annotated[
        str, typer.Option(metavar="NAME", help="Hardware preset or YAML that has the arrays.")
    ] = "neupims",
    array: Annotated[
        str | None, typer.Option(metavar="RxC", help="Rows and columns of an array.")
    ] = None,
    arrays: Annotated[
        int | None, typer.Option(metavar="N", help="Arrays that share the product.")
    ] = None,
    dataflow: Annotated[
        str | None, typer.Option(metavar="ws|os|is", help="Weights, outputs or inputs stay.")
    ] = None,
    preload: Annotated[
        str | None,
        typer.Option(
            metavar="exposed|hidden",
            help="exposed: SCALE-Sim's closed form. hidden: the next operand loads meanwhile.",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Move the operands over this memory: a preset, our YAML, or a DRAMsim3 .ini.",
        ),
    ] = None,
    cores: Annotated[
        int | None,
        typer.Option(metavar="N", help="Cores that share the memory, each with the arrays."),
    ] = None,
    tiling: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(_TILINGS),
            help="How the product is cut; least-time unless the preset says otherwise.",
        ),
    ] = None,
    element_bytes: Annotated[
        int, typer.Option("--element-bytes", metavar="B", min=1, max=8, help="Of each operand.")
    ] = 2,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the preset; may be repeated."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Run one matrix product C[M,N] = A[M,K] B[K,N] on the systolic arrays.

    Compute only; with --memory also its loads and stores, tile by tile, and why these tiles.

    Example: pimsim kernel gemm 64 4096 4096 --npu neupims --memory hbm2-neupims
    """
    from pimsim.config.loader import load_run
    from pimsim.config.plugins import module_names

    rows, cols = _array(array) if array is not None else (None, None)
    options = {
        "rows": rows,
        "cols": cols,
        "arrays": arrays,
        "dataflow": _one_of("--dataflow", dataflow, module_names("dataflow")),
        "preload": _one_of("--preload", preload, ("exposed", "hidden")),
    }
    preset = load_run(npu, overrides or []).config
    systolic = _systolic(preset.npu.systolic, options)
    chosen = {"cores": cores, "tiling": _one_of("--tiling", tiling, _TILINGS)}
    if memory is None:
        _refuse_without_memory({**chosen, "element-bytes": element_bytes != 2 or None})
        _compute_only(m, n, k, systolic, as_json)
        return
    from pimsim.engine.gemm import run_gemm

    chosen["tiling"] = chosen["tiling"] or _preset_tiling(preset.npu)
    config = _npu(preset.npu, systolic, chosen)
    dram = read_memory(memory, [])
    run = run_gemm(m, n, k, config, dram, element_bytes, explain=True)
    report = _report(run, config, memory=dram.name, elements=(m, n, k))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _print_run(report, run, config, (m, n, k))


def _compute_only(m: int, n: int, k: int, systolic: SystolicConfig, as_json: bool) -> None:
    """The arrays alone, one product, no memory."""
    from pimsim.hardware.npu.gemm import plan_gemm, utilisation

    plan = plan_gemm(m, n, k, systolic)
    report = {
        "cycles": plan.cycles,
        "utilisation": utilisation(plan, systolic),
        "folds": plan.folds,
        "macs": plan.macs,
        "systolic": systolic.model_dump(mode="json"),
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return

    print_table(
        f"{m} x {n} x {k} on {systolic.arrays} of {systolic.rows}x{systolic.cols}, "
        f"{systolic.dataflow}, preload {systolic.preload}",
        {
            "cycles": f"{plan.cycles:,}",
            "utilisation": f"{report['utilisation']:.2%}",
            "folds": f"{plan.folds:,}",
            "multiply-accumulates": f"{plan.macs:,}",
        },
    )


def _report(
    run: GemmRun, npu: NpuConfig, memory: str, elements: tuple[int, int, int]
) -> dict[str, Any]:
    """The run as JSON; cycles are NPU cycles, sizes are in m, n, k."""
    systolic = npu.systolic
    multipliers = npu.cores * systolic.arrays * systolic.rows * systolic.cols
    moved = run.read_bytes + run.written_bytes
    m, n, k = elements
    tiling = run.tiling
    return {
        "cycles": run.cycles,
        "compute_cycles": run.compute_cycles,
        "memory_cycles": run.memory_cycles,
        "bound": tiling.cut.bound,
        "utilisation": run.macs / (multipliers * run.cycles),
        "bandwidth_gbps": moved * npu.frequency / run.cycles / 1e9,
        "traffic_bytes": {
            "read": run.read_bytes,
            "written": run.written_bytes,
            "least": (m * k + n * k + m * n) * run.element_bytes,
        },
        "causes": run.causes,
        "core_folds": list(run.core_folds),
        "tiling": {
            "policy": tiling.policy,
            "why": _why(tiling),
            "candidates": tiling.candidates,
            "chosen": _cut(tiling.cut),
            "others": [_cut(cut) for cut in tiling.others],
        },
        "memory": memory,
        "cores": npu.cores,
        "systolic": systolic.model_dump(mode="json"),
    }


def _cut(cut: Cut) -> dict[str, Any]:
    return {
        "tile": list(cut.sizes),
        "order": cut.order,
        "tiles": cut.tiles,
        "estimated_cycles": cut.cycles,
        "compute_cycles": cut.compute_cycles,
        "memory_cycles": cut.memory_cycles,
        "turnover_cycles": cut.turnover_cycles,
        "exposed_cycles": cut.exposed_cycles,
        "traffic_bytes": cut.traffic_bytes,
    }


def _why(tiling: CoreTiling) -> str:
    """One sentence: the rule, what bounds the chosen cut, what the best other would take."""
    rules = {
        "least-time": "least estimated time",
        "least-traffic": "fewest bytes moved",
        "gemmini": "Gemmini's rule: square output tiles that fill the accumulator",
    }
    cut = tiling.cut
    text = f"{rules[tiling.policy]}; {cut.bound} bounds it"
    if tiling.others:
        best = tiling.others[0]
        size = "x".join(map(str, best.sizes))
        text += (
            f"; of {tiling.candidates} cuts that fit, the best other size is {size}, "
            f"{best.cycles - cut.cycles:+,} cycles, {best.traffic_bytes - cut.traffic_bytes:+,} B"
        )
    return text


def _print_run(
    report: Mapping[str, Any], run: GemmRun, npu: NpuConfig, dims: tuple[int, int, int]
) -> None:
    from rich.console import Console
    from rich.table import Table

    systolic, traffic = npu.systolic, report["traffic_bytes"]
    causes = ", ".join(f"{cause} {cycles:,}" for cause, cycles in run.causes.items())
    plural = "" if npu.cores == 1 else "s"
    print_table(
        "{} x {} x {}".format(*dims) + f" on {npu.cores} core{plural} of {systolic.arrays} "
        f"{systolic.rows}x{systolic.cols}, {systolic.dataflow}, over {report['memory']}",
        {
            "cycles": f"{run.cycles:,}",
            "computing": f"{run.compute_cycles:,} cycles, the busiest core",
            "moving": f"{run.memory_cycles:,} cycles at the memory's full rate",
            "traffic": f"{traffic['read']:,} B read, {traffic['written']:,} B written; "
            f"{traffic['least']:,} B if each operand moves once",
            "bandwidth": f"{report['bandwidth_gbps']:.1f} GB/s",
            "utilisation": f"{report['utilisation']:.2%}",
            "cycles by cause": causes,
            "folds by core": ", ".join(f"{folds:,}" for folds in run.core_folds),
            "why these tiles": report["tiling"]["why"],
        },
    )
    table = Table(title="Tiles m x n x k: estimates", title_justify="left")
    names = ("tile", "loops", "tiles", "computing", "moving", "turnover", "exposed")
    for name in (*names, "cycles", "bytes"):
        table.add_column(name, justify="right")
    for cut in (run.tiling.cut, *run.tiling.others):
        table.add_row(
            "x".join(map(str, cut.sizes)), cut.order,
            *(
                f"{value:,}"
                for value in (
                    cut.tiles, cut.compute_cycles, cut.memory_cycles, cut.turnover_cycles,
                    cut.exposed_cycles, cut.cycles, cut.traffic_bytes,
                )
            ),
        )  # fmt: skip
    Console(highlight=False).print(table)


def _refuse_without_memory(options: Mapping[str, object]) -> None:
    from pimsim.config.errors import InputError

    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name} needs --memory: without it the product is compute only")


def _preset_tiling(npu: NpuConfig) -> str:
    """What the preset asks for; its default, which asks for nothing, becomes least-time, and so
    does a module's own, which is of runs."""
    return npu.tiling if npu.tiling in _TILINGS and npu.tiling != _TILINGS[0] else "least-time"


def _npu(preset: NpuConfig, systolic: SystolicConfig, options: Mapping[str, object]) -> NpuConfig:
    """The preset with the options that were given in place of its fields."""
    from pydantic import ValidationError

    from pimsim.config.errors import InputError
    from pimsim.config.npu import NpuConfig

    given = {field: value for field, value in options.items() if value is not None}
    values = {**preset.model_dump(), "systolic": systolic.model_dump(), **given}
    try:
        return NpuConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = f"--{first['loc'][0]} {first['input']}: " if first["loc"] else "npu."
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(where + (message.lower() if first["loc"] else message)) from None


def _array(text: str) -> tuple[int, int]:
    """Rows and columns of ``RxC``."""
    import re

    from pimsim.config.errors import InputError

    found = re.fullmatch(r"([0-9]{1,9})[xX]([0-9]{1,9})", text, re.ASCII)
    if not found:
        raise InputError(f"--array expects RxC, e.g. 128x128, found {text!r}")
    return int(found[1]), int(found[2])


def _one_of(option: str, found: str | None, allowed: Sequence[str]) -> str | None:
    from pimsim.config.errors import InputError, near_miss

    if found is not None and found not in allowed:
        raise InputError(
            f"{option} {found!r}{near_miss(found, allowed)}; allowed: {', '.join(allowed)}"
        )
    return found


def _systolic(preset: SystolicConfig, options: Mapping[str, object]) -> SystolicConfig:
    """The preset's arrays with the options that were given in place of its fields."""
    from pydantic import ValidationError

    from pimsim.config.errors import InputError
    from pimsim.config.npu import SystolicConfig

    given = {field: value for field, value in options.items() if value is not None}
    try:
        return SystolicConfig.model_validate({**preset.model_dump(), **given})
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:  # of several keys; the message names one
            said = first["msg"].removeprefix("Value error, ")
            raise InputError(f"npu.systolic.{said}") from None
        field = str(first["loc"][0])
        option = {"rows": "--array: rows", "cols": "--array: columns"}.get(field, f"--{field}:")
        raise InputError(f"{option} {first['input']}: {first['msg'].lower()}") from None
