"""``pimsim list`` and ``pimsim show``: the presets, and what one of them resolves to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pimsim.config.documents import Resolved

__all__ = ["list_command", "show_command"]


def list_command(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND",
            help="hardware, memory, pim, energy, area, xpu, nccl, system, service, model, trace or "
            "acceptance; all without it.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Names by kind, as JSON.")] = False,
) -> None:
    """List the presets that ship with pimsim.

    Example: pimsim list memory
    """
    from pimsim.config.resources import KINDS, preset_names

    names = {each: preset_names(each) for each in ([kind] if kind is not None else KINDS)}
    if as_json:
        import json

        typer.echo(json.dumps(names, indent=2))
        return
    rows = [("kind", "name", "what")]
    rows += [(each, name, _summary(each, name)) for each in names for name in names[each]]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for first, second, what in rows:
        typer.echo(f"{first:<{widths[0]}}  {second:<{widths[1]}}  {what}".rstrip())


def _summary(kind: str, name: str) -> str:
    """One line on a preset: its description or source, a model's size, or what it extends."""
    import textwrap

    from pimsim.config.resources import preset_path
    from pimsim.config.tree import read_top

    path = preset_path(kind, name)
    if path.suffix != ".yaml":
        return ""
    if kind == "model":
        sizes = ("layers", "hidden", "heads", "kv_heads")
        values = read_top(path, sizes)
        return ", ".join(f"{size} {values.get(size)}" for size in sizes)
    values = read_top(path, ("description", "source"))
    text = values.get("description") or values.get("source")
    if text is None:
        values = read_top(path, ("extends",))
        text = f"extends {values['extends']}" if "extends" in values else ""
    return textwrap.shorten(str(text), 60, placeholder=" ...")


def show_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A preset's name, or a YAML path.")],
    kind: Annotated[
        str | None,
        typer.Option(
            help="hardware, memory, pim, energy, area, xpu, nccl, system, service or model, where "
            "two share a name. "
            "Without it: the first of these that has the name; hardware for a path."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a value; may be repeated."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Config, origins and hash as JSON.")
    ] = False,
) -> None:
    """Print a preset or file fully resolved, each value with where it came from.

    The output is YAML that loads again; the origins are its comments.

    Example: pimsim show neupims --set memory=hbm3
    """
    kind = kind or _kind_of(name)
    resolved = _load(kind, name, overrides or [])
    if as_json:
        import json

        report = {
            "kind": kind,
            "name": name,
            "config": resolved.config.model_dump(mode="json"),
            "origins": dict(resolved.origins),
            "sha256": resolved.sha256,
        }
        typer.echo(json.dumps(report, indent=2))
    else:
        typer.echo(f"# {kind} {name}, sha256 {resolved.sha256}")
        typer.echo(resolved.to_yaml(with_origins=True), nl=False)


def _kind_of(name: str) -> str:
    """The kind of the preset of that name; hardware comes first, and is what a path is."""
    from pimsim.config.errors import InputError, near_miss
    from pimsim.config.resources import all_presets, looks_like_path

    if looks_like_path(name):
        return "hardware"
    presets = all_presets()
    for kind, names in presets.items():
        if name in names:
            return kind
    known = sorted({each for names in presets.values() for each in names})
    raise InputError(f"unknown preset {name!r}{near_miss(name, known)}; see pimsim list")


_SHOWN_BY = {
    "operators": "pimsim run --trace NAME runs it",
    "routing": "pimsim routing NAME shows it",
    "sparsity": "pimsim sparsity show NAME shows it",
    "acceptance": "workload.decoding=STRATEGY:measured=NAME/MODEL takes it",
}
"""What tells of presets that are data."""


def _load(kind: str, name: str, overrides: list[str]) -> Resolved[Any]:
    from pimsim.config import documents, loader
    from pimsim.config.errors import InputError, near_miss
    from pimsim.config.resources import display_path, preset_path

    if kind == "trace":
        raise InputError(
            f"{name!r} is a trace, the CSV file {display_path(preset_path(kind, name))}"
        )
    if kind in _SHOWN_BY:
        path = display_path(preset_path(kind, name))
        raise InputError(f"{name!r} is no config but the file {path}; {_SHOWN_BY[kind]}")
    if kind == "model":
        from pimsim.workload.cards import ModelCard

        return documents.load_document(ModelCard, "model", name, overrides)
    if kind == "service":
        from pimsim.config.service_loader import load_service

        return load_service(name, overrides)
    models = loader.CONFIG_MODELS
    if kind not in models:
        allowed = [*models, "model", "service"]
        raise InputError(
            f"unknown kind of preset {kind!r}{near_miss(kind, allowed)}; "
            f"allowed: {', '.join(allowed)}"
        )
    return loader.load_preset(kind, name, overrides)
