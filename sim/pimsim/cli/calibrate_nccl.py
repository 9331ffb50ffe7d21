"""``pimsim calibrate-nccl``: NCCL's protocols on a device from measured times."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["calibrate_nccl_command"]


def calibrate_nccl_command(
    table: Annotated[
        str,
        typer.Argument(
            metavar="TABLE",
            help="CSV of measured times: device, op_name, num_gpus, message_size (elements of two "
            "bytes), latency_us.",
        ),
    ],
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="A preset of configs/nccl, or its YAML.")
    ] = "h100",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Print the constants that the rows of two GPUs give, as configs/nccl has them.

    Example: pimsim calibrate-nccl two_devices.csv --device h100
    """
    import json

    from pimsim.config.errors import InputError
    from pimsim.config.loader import load_nccl
    from pimsim.config.paths import given_path
    from pimsim.validate.fabric import DEVICES, measured
    from pimsim.validate.nccl_fit import CALIBRATED_ON, fit_protocols
    from pimsim.validate.types import read_lines

    config = load_nccl(device).config
    own = [
        measured(line)
        for line in read_lines(given_path(table))
        if line.known("device", DEVICES) == config.name
    ]
    if not own:
        raise InputError(f"{table}: no rows of {config.name}")
    fitted = fit_protocols(own, config)
    if as_json:
        typer.echo(json.dumps({str(p): c.model_dump() for p, c in fitted.items()}, indent=2))
        return
    used = sum(row.devices == CALIBRATED_ON for row in own)
    typer.echo(f"# {used} of {len(own)} rows of {config.name}: {CALIBRATED_ON} GPUs")
    for protocol, constants in fitted.items():
        values = ", ".join(f"{key}: {value:g}" for key, value in constants.model_dump().items())
        typer.echo(f"{protocol}: {{{values}}}")
