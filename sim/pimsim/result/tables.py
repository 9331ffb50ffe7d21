"""Results as tables for a terminal (rich), and what holds a run back, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import chain
from math import isnan
from typing import TYPE_CHECKING

from pimsim.result.bottleneck import bottleneck, compute_name, main_cause
from pimsim.result.cells import add_rows, duration, new_table, percent
from pimsim.result.compare import comparison_rows
from pimsim.result.cost import Priced, cost_words, priced_metrics
from pimsim.result.metrics import METRICS
from pimsim.result.steps import batch_words, step_table
from pimsim.result.types import Decoding, Energy, Experts, KvCacheUse, Result, Utilisation
from pimsim.result.words import cause_words, ordered_causes, throughput_words, unit_words

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from pimsim.config.prices import Prices

__all__ = [
    "compare_table",
    "cost_table",
    "cycle_stack_table",
    "energy_table",
    "headline_table",
    "operator_table",
    "pipeline_table",
    "result_view",
    "stage_table",
    "static_table",
    "summary_view",
    "titled",
    "utilisation_table",
]


def _experts(experts: Experts) -> list[tuple[str, str]]:
    """Rows of the headline: who was hit, and where they ran."""
    found = (
        f"{experts.hit_mean:.1f} hit a block, {experts.tokens_mean:.1f} tokens each, most "
        f"{experts.tokens_max}"
    )
    if experts.dropped:
        found += f"; {experts.dropped} pairs of token and expert dropped"
    rows = [("experts", found)]
    share = f"{percent(experts.on_pim_share)} of the pairs of token and expert"
    if experts.on_pim_share:
        share += f", experts of up to {experts.threshold_max} tokens"
    rows.append(("experts on PIM", share))
    if experts.device_imbalance > 1:
        rows.append(
            ("fullest device", f"has {experts.device_imbalance:.2f} times the mean of the pairs")
        )
    return rows


def _kv_cache(use: KvCacheUse) -> str:
    """Rows or bursts of the simulated blocks, and how full they are."""
    if use.bursts:
        return f"{use.bursts:,} bursts in the simulated blocks, {percent(use.filled)} filled"
    return (
        f"{use.rows:,} rows of the banks in the simulated blocks, {percent(use.filled)} filled: "
        f"keys {percent(use.keys_filled)}, values {percent(use.values_filled)}"
    )


def _decoding(decoding: Decoding) -> list[tuple[str, str]]:
    """Rows of the headline: what a round makes, of what it consists, and who computes."""
    made = f"{decoding.rows:,} tokens of a request verified, {decoding.tokens_a_step:.3g} made"
    drafts = f"drafts {duration(decoding.draft_s)}"
    if decoding.draft_model:
        drafts += f" ({decoding.draft_model})"
    host = f"host {duration(decoding.host_s)}"
    if decoding.host_overlapped:
        host += " beside them"
    shares = (f"{unit_words(u)} {percent(share)}" for u, share in decoding.flops_share.items())
    return [
        ("decoding", f"{decoding.strategy}: {made}"),
        ("rounds", f"verify {duration(decoding.verify_s)}, {drafts}, {host}"),
        ("arithmetic", ", ".join(shares)),
        ("added weights", f"{decoding.added_bytes / 1e6:,.1f} MB"),
    ]


def result_view(result: Result, operators: int = 12) -> Group:
    """Everything an architect reads after a run.

    Parameters
    ----------
    result
        Of the run.
    operators
        Kinds of operator that have a row, the longest ones.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[Table | Text] = [
        headline_table(result),
        stage_table(result),
        operator_table(result, operators),
        utilisation_table(result),
        cycle_stack_table(result),
        Text(f"{titled('What holds it back', result)}: {bottleneck(result)}."),
        energy_table(result),
    ]
    if len(result.steps) > 1:
        parts.insert(1, step_table(result))
    if result.pipeline:
        parts.insert(1, pipeline_table(result))
    if result.static_w:
        parts.append(static_table(result))
    parts += [Text(f"note: {warning}") for warning in result.warnings]
    return Group(*parts)


def summary_view(result: Result) -> list[Table | Text]:
    """What is read of a run first: the headline, its causes, and what holds it back.

    Parameters
    ----------
    result
        Of the run.
    """
    from rich.text import Text

    holds = f"{titled('What holds it back', result)}: {bottleneck(result)}."
    return [headline_table(result), cycle_stack_table(result), Text(holds)]


def _throughput(result: Result) -> str:
    """The same with the fidelity."""
    text = throughput_words(result)
    return f"{text}; {result.fidelity.words}" if result.fidelity.mode == "fast" else text


def _cost(result: Result) -> str:
    """By how much more blocks that differ cost than the two that equal ones need."""
    from pimsim.config.run import EQUAL_BLOCKS

    if result.block_spread is None or result.layers_simulated <= EQUAL_BLOCKS:
        return ""
    times = result.layers_simulated / EQUAL_BLOCKS
    return f" as they differ ({times:.3g} times the simulation of {EQUAL_BLOCKS} equal ones)"


def titled(title: str, result: Result) -> str:
    """A table's title; at fast fidelity with the error of its figures.

    Parameters
    ----------
    title
        Of the table.
    result
        Of the run that it is of.
    """
    return f"{title} ({result.fidelity.words})" if result.fidelity.mode == "fast" else title


def headline_table(result: Result) -> Table:
    """Throughput, time, energy.

    Parameters
    ----------
    result
        Of a run.
    """
    table = new_table(result.name or "run", "", "")
    add_rows(
        table,
        (METRICS["tokens_per_s"].words, _throughput(result)),
        (
            "cycles",
            f"{result.cycles:,} of the {compute_name(result)} clock, {duration(result.time_s)}",
        ),
    )
    if result.layers_model:
        add_rows(
            table,
            ("batch", f"{batch_words(result)}, {result.model}"),
            (
                "blocks",
                f"{result.layers_simulated} simulated of {result.layers_model}{_cost(result)}; "
                f"{'all steps take' if len(result.steps) > 1 else 'one iteration takes'} "
                f"{duration(result.iteration_s)}",
            ),
            ("devices", f"{result.devices}, one simulated"),
        )
    if result.decoding is not None:
        add_rows(table, *_decoding(result.decoding))
    if result.area_mm2:
        area, total = METRICS["area_mm2"], result.area_mm2["total"]
        silicon = (
            f"{area.text(total)} of all devices, {result.tokens_per_s / total:,.2f} "
            f"{METRICS['tokens_per_s'].unit}/{area.unit}"
        )
        add_rows(table, (area.words, silicon))
        if "logic_dies" in result.area_mm2:
            add_rows(table, *_dies(result))
    if result.experts is not None:
        add_rows(table, *_experts(result.experts))
    if result.kv_cache is not None:
        add_rows(table, ("KV cache", _kv_cache(result.kv_cache)))
    joule = f"{result.energy_j.total:.4g} J of one device, "
    joule += METRICS["tokens_per_j"].text(result.tokens_per_j)
    add_rows(table, (METRICS["mj_per_token"].words, joule))
    if result.power_w:
        watt = f"{result.power_w['total']:,.1f} W of one device"
        watt += f", {result.static_w['total']:,.1f} W static, {result.idle_w:,.1f} W idle"
        if result.tdp_w is not None:
            share = percent(result.power_w["total"] / result.tdp_w)
            watt += f", {share} of its TDP of {result.tdp_w:,.0f} W"
        if result.stack_w is not None:
            watt += f"; {result.stack_w:,.1f} W in each of {_stacks(result.stacks)}"
        add_rows(table, ("power", watt))
    delay = METRICS["energy_delay_js"]
    add_rows(table, (delay.words, f"{delay.text(delay.of(result))} of an iteration, all devices"))
    if result.latency_s is not None:
        for name in ("ttft", "tpot", "e2e"):
            spread = getattr(result.latency_s, name)
            add_rows(
                table,
                (
                    name,
                    f"mean {duration(spread.mean)}, p50 {duration(spread.p50)}, "
                    f"p90 {duration(spread.p90)}, p99 {duration(spread.p99)}",
                ),
            )
    fidelity = result.fidelity.words
    if result.fidelity.mode == "fast":
        fidelity += f" over {result.fidelity.sampled_phases} phases"
    simulated = f"{result.provenance.wall_s:.2f} s, {result.provenance.peak_rss_mb:.0f} MB"
    add_rows(table, ("fidelity", fidelity), ("simulated in", simulated))
    return table


def _stacks(count: int) -> str:
    return f"{count} stack{'' if count == 1 else 's'} of DRAM"


def _dies(result: Result) -> list[tuple[str, str]]:
    """Silicon of logic and of DRAM, with tokens a second of each, and what the DRAM holds."""
    found = []
    for area, rate, words in (
        ("logic_mm2", "tokens_per_s_logic_mm2", ""),
        ("dram_mm2", "tokens_per_s_dram_mm2", f" for {result.memory_bytes / 2**30:,.0f} GiB"),
    ):
        mm2, each = METRICS[area], METRICS[rate]
        found.append(
            (mm2.words, f"{mm2.text(mm2.of(result))}{words}, {each.text(each.of(result))}")
        )
    return found


def pipeline_table(result: Result) -> Table:
    """Stages of a pipeline: the slowest sets the rate, the fullest says whether the model fits.

    Parameters
    ----------
    result
        Of a run with several stages.
    """
    table = new_table(
        "pipeline", "stage", "blocks", "time of a batch", "busy", "weights", "KV cache", "energy"
    )
    for number, stage in enumerate(result.pipeline, 1):
        add_rows(
            table,
            (
                f"{number}",
                f"{stage.blocks:,}",
                duration(stage.time_s),
                percent(stage.busy),
                f"{stage.weights_bytes / 2**30:,.2f} GiB",
                f"{stage.kv_bytes / 2**30:,.2f} GiB",
                f"{stage.energy_j:.4g} J",
            ),
        )
    return table


def stage_table(result: Result) -> Table:
    """Stages of one name together, with the shares in which NPU and PIM worked.

    Parameters
    ----------
    result
        Of a run.
    """
    total: dict[str, list[int]] = {}
    for stage in result.stages:
        sums = total.setdefault(stage.name, [0, 0, 0, 0, 0])
        counted = (1, stage.cycles, stage.npu_busy_cycles, stage.pim_busy_cycles)
        for at, amount in enumerate((*counted, stage.bound_cycles)):
            sums[at] += amount
    table = new_table(
        titled("stages", result),
        "stage",
        "count",
        "cycles",
        "share",
        f"{compute_name(result)} busy",
        "PIM busy",
        "bound/cycles",
    )
    for name, (count, cycles, npu, pim, bound) in total.items():
        add_rows(
            table,
            (
                name,
                f"{count:,}",
                f"{cycles:,}",
                _share(cycles, result.cycles),
                _share(npu, cycles),
                _share(pim, cycles),
                _share(bound, cycles) if bound else "",
            ),
        )
    return table


def operator_table(result: Result, limit: int = 12) -> Table:
    """Operators of one name and unit, over layers and sub-batches, the longest first.

    Parameters
    ----------
    result
        Of a run.
    limit
        Rows.
    """
    total: dict[tuple[str, str], list[int]] = {}
    for operator in result.operators:
        sums = total.setdefault((operator.name, operator.unit), [0, 0, 0, 0])
        sums[0] += 1
        sums[1] += operator.cycles
        sums[2] += operator.bytes
        sums[3] += operator.bound_cycles
    ranked = sorted(total.items(), key=lambda item: (-item[1][1], item[0]))
    title = titled("operators", result)
    table = new_table(title, "operator", "unit", "count", "cycles", "bytes", "bound/cycles")
    for (name, unit), (count, cycles, moved, bound) in ranked[:limit]:
        of_bound = _share(bound, cycles) if bound and cycles else ""
        add_rows(
            table, (name, unit_words(unit), f"{count:,}", f"{cycles:,}", f"{moved:,}", of_bound)
        )
    if len(ranked) > limit:
        rest = sum(sums[1] for _, sums in ranked[limit:])
        add_rows(table, (f"{len(ranked) - limit} more", "", "", f"{rest:,}", "", ""))
    return table


def utilisation_table(result: Result) -> Table:
    """Shares of the run.

    Parameters
    ----------
    result
        Of a run.
    """
    table = new_table(titled("utilisation", result), "unit", "share")
    for item in fields(Utilisation):
        metric = METRICS[item.name]
        if getattr(result.utilisation, item.name) is None:
            continue
        add_rows(table, (metric.words, metric.text(metric.of(result))))
    return table


def cycle_stack_table(result: Result) -> Table:
    """Where each unit's cycles went; every column adds up to the run.

    Parameters
    ----------
    result
        Of a run.
    """
    units = list(result.cycle_stack)
    table = new_table(titled("cycle stack", result), "cause", *map(unit_words, units))
    for cause in ordered_causes(chain.from_iterable(result.cycle_stack.values())):
        counts = [result.cycle_stack[unit].get(cause, 0) for unit in units]
        if any(counts):
            shares = [_share(count, result.cycles) if count else "" for count in counts]
            add_rows(table, (cause_words(cause), *shares))
    return table


_RARE = ("host",)
"""Parts of energy that few runs have."""


def energy_table(result: Result) -> Table:
    """Joule by part, the power of a device, and what a token takes of all devices.

    Parameters
    ----------
    result
        Of a run.
    """
    table = new_table(
        titled("energy", result), "part", "J", "share", "W", METRICS["mj_per_token"].unit, "source"
    )
    for item in fields(Energy):
        joule = getattr(result.energy_j, item.name)
        if not joule and item.name in _RARE:
            continue
        total = result.energy_j.total
        token = result.token_j.get(item.name)
        add_rows(
            table,
            (
                item.name,
                f"{joule:.4g}",
                percent(joule / total) if total else "",
                f"{result.power_w[item.name]:,.2f}" if item.name in result.power_w else "",
                "" if token is None else f"{1e3 * token:,.3f}",
                result.power_sources.get(item.name, ""),
            ),
        )
    return table


def static_table(result: Result) -> Table:
    """Static power of a device by part: its size, what a unit of it draws, and the source.

    Parameters
    ----------
    result
        Of a run whose static power is known.
    """
    table = new_table("static power", "part", "W", "source")
    for part, watt in result.static_w.items():
        add_rows(table, (part, f"{watt:,.2f}", result.power_sources.get(f"static {part}", "")))
    return table


_COMPARED = (
    "tokens_per_s", "speedup", "cycles", "fidelity", "npu", "pim", "dram_bus", "mj_per_token",
    "tokens_per_j", "energy_ratio", "area_mm2",
)  # fmt: skip
_RATIOS = {"speedup": "speed-up", "energy_ratio": "ratio"}


def cost_table(result: Result, prices: Prices) -> Table:
    """What the machine of a run costs, and what it does for that.

    Parameters
    ----------
    result
        Of the run.
    prices
        Of parts and energy.
    """
    table = new_table("at your prices", "", "")
    add_rows(table, *cost_words(result, prices))
    return table


def compare_table(
    results: Sequence[Result], names: Sequence[str], prices: Prices | None = None
) -> Table:
    """Throughput, ratios to the first, utilisation, energy, and what holds each back.

    Parameters
    ----------
    results
        The first is what the others are held against.
    names
        Of each.
    prices
        Of parts and energy; None: no cost is told.
    """
    fast = any(result.fidelity.mode == "fast" for result in results)
    shown = [name for name in _COMPARED if name != "fidelity" or fast]
    shown += priced_metrics(prices)
    headings = [METRICS[name].column if name in METRICS else name for name in shown]
    table = new_table(
        f"compared with {names[0]}" if names else "compare",
        "", *(_RATIOS.get(name, name) for name in headings), "what holds it back",
    )  # fmt: skip
    for row, result in zip(comparison_rows(results, names), results, strict=True):
        source = result if prices is None else Priced(result, prices)
        cells = [
            METRICS[name].number(METRICS[name].of(source)) if name in METRICS
            else _times(float(row[name])) if name in _RATIOS
            else result.fidelity.words
            for name in shown
        ]  # fmt: skip
        add_rows(table, (str(row["name"]), *cells, main_cause(result)))
    return table


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else ""


def _times(ratio: float) -> str:
    return "" if isnan(ratio) else f"{ratio:.2f}x"
