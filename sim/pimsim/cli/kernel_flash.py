"""``pimsim kernel attention --gpu``: fused attention of several new tokens, on a GPU alone."""

from __future__ import annotations

import json

import typer

from pimsim.cli.tables import print_table

__all__ = ["flash_attention"]


def flash_attention(
    gpu: str, overrides: list[str], heads: int, kv_heads: int, head_dim: int,
    contexts: list[int], new_tokens: int, window: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Requests in one launch, elements of two bytes; prints time, bound, FLOPs, bytes and energy.

    Parameters
    ----------
    gpu
        A preset of kind ``xpu``.
    overrides
        ``key.of.it=value``, applied in order.
    heads
        Of queries.
    kv_heads
        Of keys and values.
    head_dim
        Elements of a head.
    contexts
        Tokens of each request.
    new_tokens
        Queries of each request.
    window
        Tokens that a query sees at most; None: all before it.
    as_json
        Whether one JSON object is printed.

    Raises
    ------
    InputError
        For heads that do not share those of keys evenly.
    """
    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_preset
    from pimsim.hardware.xpu.flash import FlashAttention, flash_tile, flash_work
    from pimsim.hardware.xpu.kernels import gpu_kernels
    from pimsim.mapping.kernels import flash_parts
    from pimsim.workload.requests import Request
    from pimsim.workload.step import StepEntry

    if heads % kv_heads:
        raise InputError(f"--kv-heads {kv_heads}: {heads} heads cannot share them evenly")
    xpu = load_preset("xpu", gpu, overrides).config
    entries = [
        StepEntry(Request(at, 0.0, context, 1, 0), new_tokens, context)
        for at, context in enumerate(contexts)
    ]
    work = FlashAttention(
        flash_parts(entries, window), heads, kv_heads, head_dim, head_dim, window, 2, 4 * head_dim
    )
    cost, done = gpu_kernels(xpu).flash(work, xpu), flash_work(work, xpu)
    rows, keys = flash_tile(work, xpu)
    report = {
        "time_s": cost.time_s,
        "bound": cost.bound,
        "flops": 2 * work.macs,
        "executed_flops": 2 * done.pairs * 2 * head_dim,
        "blocks": done.blocks,
        "tile": [rows, keys],
        "memory_bytes": done.memory_bytes,
        "energy_j": cost.energy_pj * 1e-12,
        "gpu": xpu.name,
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    plural = "" if len(contexts) == 1 else "s"
    print_table(
        f"{len(contexts)} request{plural}, {heads} heads of {head_dim}, {new_tokens} new tokens "
        f"each, on {xpu.name}",
        {
            "attention": f"{1e6 * cost.time_s:,.3f} us, bound by {cost.bound}",
            "FLOPs": f"{report['flops']:,} needed, {report['executed_flops']:,} done",
            "thread blocks": f"{done.blocks:,}, tiles of {rows} queries and {keys} keys",
            "moved": f"{done.memory_bytes:,} B to and from memory",
            "energy": f"{1e-12 * cost.energy_pj:.6f} J",
        },
    )
