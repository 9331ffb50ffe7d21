"""Pages that are made from the code when the site is built: YAML keys, the command line.

``docs/build.py`` writes them; ``python docs/generate.py`` prints them.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pimsim.config.meanings import field_meaning

ROOT = Path(__file__).resolve().parents[1]
SECTIONS: tuple[tuple[str, str, str], ...] = (
    ("Run", "pimsim.config.run:RunConfig", "a run; presets in `configs/hardware/`"),
    ("Memory", "pimsim.config.memory:MemoryConfig", "`memory:` of a run"),
    ("PIM design", "pimsim.config.pim:PimDesignConfig", "`pim:` of a run, `--pim`; `configs/pim/`"),
    ("Energy", "pimsim.config.energy:EnergyConfig", "`energy:` of a run; `configs/energy/`"),
    ("NCCL", "pimsim.config.nccl:NcclConfig", "`--nccl`; `configs/nccl/`"),
    ("Area", "pimsim.config.area:AreaConfig", "`configs/area/`"),
    ("GPU", "pimsim.config.xpu:XpuConfig", "`configs/xpu/`"),
    ("System", "pimsim.config.system:SystemConfig", "`pimsim run` on GPUs; `configs/system/`"),
    ("Model card", "pimsim.workload.cards:ModelCard", "`models/`, and `--model FILE`"),
    ("Sweep", "pimsim.explore.spec:SweepSpec", "`pimsim sweep FILE`"),
    ("Search", "pimsim.explore.search:SearchSpec", "`pimsim search FILE`"),
    ("Service", "pimsim.config.service:ServiceConfig", "`pimsim serve FILE`; `configs/service/`"),
    *(
        (
            f"Scheduler {name}",
            f"pimsim.serving.schedulers.{name}:SCHEDULER.Settings",
            "`scheduler:` of a service",
        )
        for name in ("vllm", "vllm_v0", "sarathi", "orca", "lightllm", "static")
    ),
    *(
        (
            f"Arrivals {name}",
            f"pimsim.workload.arrivals.{name}:SETTINGS",
            "`requests.arrivals:` of a service",
        )
        for name in ("poisson", "gamma", "closed", "at_once")
    ),
)  # fmt: skip
"""Title, model, and where it is used."""


def load(name: str) -> Any:
    """What ``module:attribute`` names."""
    from importlib import import_module

    module, _, attributes = name.partition(":")
    return attrgetter(attributes)(import_module(module))


def yaml_pages() -> dict[str, str]:
    """Every key of every YAML file, from the models that read them: a page a section, by path."""
    lines = [
        "# Every YAML key",
        "",
        "Made from the models that check the files. Unknown keys are refused with a near miss;",
        "quantities carry units (`1GHz`, `14ns`, `32MiB`). A key without a default must be given,",
        "there or in the preset that is extended. `pimsim schema KIND` gives editors the same.",
        "",
        "| file or section | what it says | used as |",
        "|---|---|---|",
    ]
    pages = {}
    for title, name, used in SECTIONS:
        model = load(name)
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower())
        lines.append(f"| [{title}](yaml/{slug}.md) | {_text(model)} | {used} |")
        page = [f"# {title}", "", f"{_text(model)} Used as {used}.", ""]
        pages[f"reference/yaml/{slug}.md"] = "\n".join([*page, *_tables(model, "", set())])
    slugs = [path.removeprefix("reference/").removesuffix(".md") for path in pages]
    tree = ["", "```{toctree}", ":hidden:", *slugs, "```", ""]
    return {"reference/yaml.md": "\n".join([*lines, *tree]), **pages}


def _tables(model: type[BaseModel], prefix: str, seen: set[type]) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "|---|---|---|---|"
    inner: list[tuple[str, type[BaseModel]]] = []
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        default = (
            ""
            if field.is_required()
            else f"`{_default(field.get_default(call_default_factory=True))}`"
        )
        parts = list(_models(field.annotation))
        limits = ", ".join(_limits(field.metadata))
        kind = ", ".join(part for part in (_type(field.annotation), limits) if part)
        kind = kind.replace("whole number, a ", "a ")
        meaning = field_meaning(model, name).replace("|", "\\|").replace("``", "`")
        if parts:
            meaning = f"{meaning} {_text(parts[0])}".strip()
        yield f"| `{key}` | {kind} | {default} | {meaning} |"
        suffix = (
            "[]." if "list" in str(field.annotation) or "tuple" in str(field.annotation) else "."
        )
        inner += [(key + suffix, part) for part in parts]
    yield ""
    for path, part in inner:
        if part in seen:
            continue
        yield f"## `{path.rstrip('.')}`"
        yield ""
        yield from _tables(part, path, seen | {model, part})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Config models in a type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)


def _type(annotation: Any) -> str:
    """A type as a reader of YAML sees it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(a) for a in arguments))
    if origin in (list, tuple, set, frozenset):
        return f"list of {_type(arguments[0])}" if arguments else "list"
    if origin in (dict, typing.Mapping) or getattr(origin, "__name__", "") == "Mapping":
        return f"mapping to {_type(arguments[-1])}"
    if hasattr(annotation, "__metadata__"):
        return _type(annotation.__origin__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    names = {"int": "whole number", "float": "number", "str": "text", "bool": "true or false"}
    return names.get(getattr(annotation, "__name__", str(annotation)), str(annotation))


def _limits(metadata: list[Any]) -> Iterator[str]:
    for mark in metadata:
        units = getattr(mark, "units", None)
        if units:
            yield f"{mark.what} (" + ", ".join(f"`{unit}`" for unit, _ in units) + ")"
        if getattr(mark, "kind", None):
            yield "one of " + ", ".join(f"`{one}`" for one in mark.choices)
        for name, words in (
            ("ge", "at least"),
            ("gt", "above"),
            ("le", "at most"),
            ("lt", "below"),
        ):
            bound = getattr(mark, name, None)
            if bound is not None:
                yield f"{words} {bound}"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "its own defaults"
    text = (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
    return text.replace("|", "\\|") if text else '""'


def _text(model: type) -> str:
    """The first sentence of a docstring."""
    text = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0].replace("\n", " ")
    return re.sub(r"``", "`", text)


def cli_reference() -> str:
    """Every command with its arguments and options."""
    import typer.main

    from pimsim.cli.commands import app

    lines = ["# Command line", "", "`pimsim COMMAND --help` says the same.", ""]
    for name, command in _commands(typer.main.get_command(app), "pimsim"):
        lines += [f"## {name}", "", (command.help or "").replace("``", "`"), ""]
        rows = []
        for one in command.params:
            if "--help" in one.opts:
                continue
            shown = ", ".join(f"`{o}`" for o in (*one.opts, *one.secondary_opts))
            if one.param_type_name == "argument":
                shown = f"`{one.metavar or one.human_readable_name}`"
            default = "" if one.default in (None, False, ()) else f"`{one.default}`"
            text = (getattr(one, "help", None) or "").replace("|", "\\|").replace("\n", " ")
            rows.append(f"| {shown} | {default} | {text} |")
        if rows:
            lines += ["| argument or option | default | does |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield name, command
        return
    for child in children:
        yield from _commands(children[child], f"{name} {child}")


BESIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE")
"""Files of the checkout that pages link to."""


def page_of_the_checkout(name: str) -> str:
    """A file beside ``docs/``, its links as the site has them."""
    return re.sub(r"\]\(docs/", "](", (ROOT / name).read_text())


def front_page() -> str:
    """The README, with the site's table of contents."""
    return page_of_the_checkout("README.md") + "\n" + (ROOT / "docs" / "contents.txt").read_text()


def pages() -> dict[str, str]:
    """All pages that are made, by path."""
    beside = {name: page_of_the_checkout(name) for name in BESIDE}
    traces = (ROOT / "traces" / "README.md").read_text()
    return {
        "index.md": front_page(), **yaml_pages(), "reference/cli.md": cli_reference(),
        "traces.md": traces, **beside,
    }  # fmt: skip


if __name__ == "__main__":
    for text in pages().values():
        print(text)
