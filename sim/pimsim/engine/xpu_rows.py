"""The kernels of a block in time: one after the other, but for what overlaps attention on PIM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import fsum

from pimsim.config.system import SystemConfig
from pimsim.engine.xpu_attention import AttentionCost
from pimsim.engine.xpu_products import FixedCosts, Gemm, KernelTime, pim_bandwidth
from pimsim.engine.xpu_rules import cost_rules
from pimsim.hardware.xpu import roofline
from pimsim.mapping.kernels import BlockKernels
from pimsim.workload.operators import OperatorKind

__all__ = ["kernel_rows", "product_rows"]


def kernel_rows(
    block: BlockKernels, attention: AttentionCost, fixed: FixedCosts, attending_s: float,
    config: SystemConfig,
) -> tuple[KernelTime, ...]:  # fmt: skip
    """Kernels by their start.

    Parameters
    ----------
    block
        What is launched.
    attention, fixed
        What it takes.
    attending_s
        From the block's begin until attention and projections are done. Where that is less than
        their sum, those behind attention end with it and those before it begin with the block.
    config
        The machine.
    """
    place = {name: at for at, name in enumerate(block.order)}
    scored = place.get("score", min((place[n] for n in place if n.startswith("score")), default=0))
    around = [(place.get(each.name, 0), product_rows(each, 0.0, config)) for each in
              fixed.projections]  # fmt: skip
    before = [row for at, rows in around if at <= scored for row in rows]
    after = [row for at, rows in around if at > scored for row in rows]
    attends = list(_attention(block, attention, config))
    sent = [row for row in attends if row.unit == "link"]
    attends = [row for row in attends if row.unit != "link"]
    sum_s = fsum(row.time_s for row in (*before, *sent, *attends, *after))
    rows: list[KernelTime] = []
    if sum_s <= attending_s * (1 + 1e-12):
        rows += _in_turn([*before, *sent, *attends, *after], 0.0)
    else:
        rows += _in_turn(before, 0.0)
        rows += _in_turn(sent, 0.0)
        rows += _in_turn(attends, attending_s - fsum(row.time_s for row in attends))
        rows += _in_turn(after, attending_s - fsum(row.time_s for row in after))
    now = attending_s
    for group in _behind(block, fixed, place, config):
        rows += [replace(row, start_s=now) for row in group]
        now += max(row.time_s for row in group)
    return tuple(sorted(rows, key=lambda row: row.start_s))


def _in_turn(rows: list[KernelTime], start_s: float) -> Iterator[KernelTime]:
    for row in rows:
        yield replace(row, start_s=max(start_s, 0.0))
        start_s += row.time_s


def _behind(
    block: BlockKernels, fixed: FixedCosts, place: dict[str, int], config: SystemConfig
) -> list[tuple[KernelTime, ...]]:
    """All but attention and projections, in the block's order; those of a group at once."""
    found: list[tuple[int, tuple[KernelTime, ...]]] = []

    def add(name: str, rows: tuple[KernelTime, ...]) -> None:
        key = name.partition("+")[0]
        at = place.get(key, place.get(key.replace("gate", "fc1").replace("up", "fc1"), 0))
        if rows:
            found.append((at, rows))

    for gemm in fixed.ffn:
        add(gemm.name, product_rows(gemm, 0.0, config))
    for stream, kernel, cost in fixed.elementwise:
        moved = stream.moved_bytes if kernel.bandwidth_share <= 1 else 0  # else in L2
        kind = OperatorKind.ACTIVATION if stream in block.activations else OperatorKind.ELEMENTWISE
        row = KernelTime(stream.name, "xpu", cost.time_s, cost.bound, kind, moved_bytes=moved)
        add(stream.name, (row,))
    if fixed.experts is not None:
        work, cost = fixed.experts
        peak = roofline.peak_flops(config.xpu, work.element_bytes)
        least_s = max(2 * work.macs / peak, work.stored_bytes / roofline.bandwidth(config.xpu))
        add(
            "expert_fc1",
            (
                KernelTime(
                    "experts", "xpu", cost.time_s, cost.bound, OperatorKind.EXPERT_GEMM,
                    macs=work.macs, moved_bytes=work.stored_bytes, least_s=least_s,
                ),
            ),
        )  # fmt: skip
    sums = [name for name in block.order if name.startswith("allreduce")]
    for number, (time_s, size) in enumerate(fixed.reduced):
        name = sums[number] if number < len(sums) else f"allreduce{number + 1}"
        row = KernelTime(
            name, "link", time_s, "link", OperatorKind.COLLECTIVE, moved_bytes=size, least_s=time_s
        )
        if time_s:
            add(name, (row,))
    return [rows for _, rows in sorted(found, key=lambda each: each[0])]


def product_rows(gemm: Gemm, start_s: float, config: SystemConfig) -> tuple[KernelTime, ...]:
    """A product on the device and, where PIM has a part of its weights, on PIM at the same time.

    Parameters
    ----------
    gemm
        The product, with the device's share of its weights.
    start_s
        When both begin, in seconds from the start of the block.
    config
        Of the server.

    Returns
    -------
    tuple[KernelTime, ...]
        One row for each unit that has a part.
    """
    product, share = gemm.product, gemm.share
    peak = roofline.peak_flops(config.xpu, product.element_bytes)
    rows = [
        KernelTime(
            gemm.name, "xpu", gemm.cost.time_s * share, gemm.cost.bound, OperatorKind.GEMM,
            start_s, round(share * product.macs), round(share * product.least_bytes),
            max(2 * share * product.macs / peak,
                share * gemm.weight_bytes / roofline.bandwidth(config.xpu)),
        )
    ]  # fmt: skip
    if share < 1:
        rows.append(
            KernelTime(
                gemm.name, "pim", gemm.pim_s, "memory", OperatorKind.GEMM, start_s,
                product.macs - rows[0].macs, round(gemm.pim_bytes),
                gemm.pim_s,
            )
        )  # fmt: skip
    return tuple(rows)


def _attention(
    block: BlockKernels, attention: AttentionCost, config: SystemConfig
) -> Iterator[KernelTime]:
    """What is sent to who does it, and its kernels."""
    if attention.transfer_s:
        yield KernelTime(
            "transfers", "link", attention.transfer_s, "link", OperatorKind.COLLECTIVE,
            moved_bytes=attention.link_bytes, least_s=attention.transfer_s,
        )  # fmt: skip
    read, unit = block.kv_bytes, config.attention
    if unit == "pim":
        least_s = read / pim_bandwidth(config, at_commands=True)
    elif unit == "host":
        assert config.host is not None
        read = round(cost_rules(config).host_shares(config) * read)
        least_s = read / roofline.bandwidth(config.host)
    else:
        work = (
            block.attention.score.element_bytes if block.attention else block.flash[0].element_bytes
        )
        peak = roofline.peak_flops(config.xpu, work)
        least_s = max(2 * block.attention_macs / peak, read / roofline.bandwidth(config.xpu))
    yield KernelTime(
        "attention", unit, attention.attention_s, attention.bound, OperatorKind.ATTENTION_SCORE,
        macs=block.attention_macs, moved_bytes=block.kv_bytes,
        least_s=least_s,
    )  # fmt: skip
    if attention.softmax_s:
        yield KernelTime("softmax", unit, attention.softmax_s, "memory", OperatorKind.SOFTMAX)
