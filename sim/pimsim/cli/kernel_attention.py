"""``pimsim kernel attention``: attention alone, on PIM, on the NPU or on a GPU."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from pimsim.cli.kernel_flash import flash_attention
from pimsim.cli.kernel_pim import stream_attention
from pimsim.cli.memories import read_memory
from pimsim.cli.tables import print_table

__all__ = ["attention_command"]

_MAX_SIZE = 2**31 - 1


def attention_command(
    heads: Annotated[int, typer.Option(metavar="H", min=1, max=_MAX_SIZE, help="Heads.")],
    head_dim: Annotated[
        int, typer.Option(metavar="D", min=1, max=_MAX_SIZE, help="Dimension of a head.")
    ],
    context: Annotated[
        list[int],
        typer.Option(
            metavar="L",
            min=1,
            max=_MAX_SIZE,
            help="Tokens of one request, its new ones among them; once for each request.",
        ),
    ],
    pim: Annotated[
        str | None, typer.Option(metavar="NAME", help="On PIM: a preset or YAML.")
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="On the NPU of a hardware preset or run's YAML."),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="On a GPU, fused: an xpu preset or YAML."),
    ] = None,
    new_tokens: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, max=_MAX_SIZE, help="New tokens of each request: 1 is decode."
        ),
    ] = 1,
    window: Annotated[
        int | None,
        typer.Option(metavar="W", min=1, max=_MAX_SIZE, help="A token sees so many last ones."),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A preset, our YAML, or a DRAMsim3 .ini; without it that of the PIM's 'device'. "
            "Not for a PIM that brings its own.",
        ),
    ] = None,
    kv_heads: Annotated[
        int | None,
        typer.Option(
            metavar="H", min=1, max=_MAX_SIZE, help="Heads of K and V; without it as many as heads."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a value of the PIM, the hardware or the GPU; repeatable.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Attention of requests, with no other traffic: on PIM, or in tiles on an NPU or a GPU.

    A PIM on the memory's controller: on one channel, several new tokens one after the other.
    One with a controller of its own: on all its channels, one request.
    The NPU: on all its arrays. A GPU: in one launch.

    Example: pimsim kernel attention --pim newton --heads 32 --head-dim 128 --context 4096
    """
    from pimsim.config.errors import InputError

    places = {"--pim": pim, "--hardware": hardware, "--gpu": gpu}
    given = [f"{option} {name}" for option, name in places.items() if name is not None]
    if len(given) != 1:
        raise InputError(
            "attention runs on --pim, on the NPU of --hardware or on --gpu, found "
            f"{' and '.join(given) or 'neither'}"
        )
    for tokens in context:
        if tokens < new_tokens:
            raise InputError(
                f"--new-tokens {new_tokens}: a context of {tokens} tokens has fewer; allowed: 1 "
                f"to {tokens}"
            )
    if gpu is not None:
        if memory is not None:
            raise InputError(f"--memory {memory}: --gpu {gpu} brings its own")
        flash_attention(
            gpu, overrides or [], heads, kv_heads or heads, head_dim, context, new_tokens, window,
            as_json,
        )  # fmt: skip
        return
    if hardware is not None:
        if memory is not None:
            raise InputError(
                f"--memory {memory}: --hardware {hardware} has one (--set memory=NAME)"
            )
        _on_npu(
            hardware, overrides or [], heads, kv_heads or heads, head_dim, context, new_tokens,
            window, as_json,
        )  # fmt: skip
        return
    assert pim is not None
    if window is not None:
        raise InputError(
            f"--window {window}: it is for --hardware and --gpu; on PIM give the tokens seen"
        )
    _on_pim(pim, overrides or [], heads, kv_heads, head_dim, context, new_tokens, memory, as_json)


def _on_npu(
    hardware: str, overrides: list[str], heads: int, kv_heads: int, head_dim: int,
    contexts: list[int], new_tokens: int, window: int | None, as_json: bool,
) -> None:  # fmt: skip
    from pimsim.config.loader import load_run
    from pimsim.engine.npu_attention import run_npu_attention

    config = load_run(hardware, overrides).config
    result = run_npu_attention(config, heads, kv_heads, head_dim, contexts, new_tokens, window)
    if as_json:
        report = {**asdict(result), "hardware": config.name, "memory": config.memory.name}
        typer.echo(json.dumps(report, indent=2))
        return
    plural = "" if len(contexts) == 1 else "s"
    print_table(
        f"{len(contexts)} request{plural}, {heads} heads of {head_dim}, {new_tokens} new tokens "
        f"each, on the NPU of {config.name}",
        {
            "attention": f"{result.cycles:,} cycles",
            "arrays alone": f"{result.array_cycles:,} cycles",
            "vector units alone": f"{result.vector_cycles:,} cycles",
            "memory alone": f"{result.memory_cycles:,} cycles",
            "FLOPs": f"{result.flops:,} needed, {result.executed_flops:,} done",
            "moved": f"{result.read_bytes:,} B read, {result.written_bytes:,} B written",
            "cycles": ", ".join(f"{cause} {cycles:,}" for cause, cycles in result.causes.items()),
        },
    )


def _on_pim(
    pim: str, overrides: list[str], heads: int, kv_heads: int | None, head_dim: int,
    contexts: list[int], new_tokens: int, memory: str | None, as_json: bool,
) -> None:  # fmt: skip
    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_pim, load_run

    design = load_pim(pim, overrides).config
    if design.controller is not None:
        if memory is not None:
            raise InputError(f"--memory {memory}: {pim} brings its own memory")
        if len(contexts) != 1:
            raise InputError(f"--context: {pim} takes one request, found {len(contexts)}")
        if new_tokens != 1:
            raise InputError(f"--new-tokens {new_tokens}: {pim} takes one token at a time")
        stream_attention(pim, overrides, heads, kv_heads or heads, head_dim, contexts[0], as_json)
        return
    if kv_heads not in (None, heads):
        raise InputError(f"--kv-heads {kv_heads}: {pim} has every head's K and V to itself")
    try:
        device = load_run(design.device).config
    except InputError as error:
        raise InputError(f"{pim}: device: {error}") from None
    config = design.memory
    if memory is not None:
        config = read_memory(memory, [])
        try:
            design.check_beside(config)
        except ValueError as error:
            raise InputError(f"--memory {memory}, pim {design.name}: {error}") from None
    from pimsim.engine.attention import run_attention

    result = run_attention(config, design, heads, head_dim, contexts, device.npu.vector, new_tokens)
    report = {
        "score_cycles": result.score_cycles,
        "value_cycles": result.value_cycles,
        "softmax_cycles": result.softmax_cycles,
        "commands": dict(result.commands),
        "pim_stack": dict(result.pim_stack),
        "pim": design.name,
        "memory": config.name,
    }
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    commands = {name: count for name, count in result.commands.items() if count}
    plural = "" if len(contexts) == 1 else "s"
    stack = {cause: cycles for cause, cycles in result.pim_stack.items() if cycles}
    print_table(
        f"{len(contexts)} request{plural}, {heads} heads of {head_dim}, on {design.name}",
        {
            "score": f"{result.score_cycles:,} cycles",
            "value": f"{result.value_cycles:,} cycles",
            "softmax": f"{result.softmax_cycles:,} cycles",
            "commands": ", ".join(f"{name} {count:,}" for name, count in commands.items()),
            "PIM cycles": ", ".join(f"{cause} {cycles:,}" for cause, cycles in stack.items()),
        },
    )
