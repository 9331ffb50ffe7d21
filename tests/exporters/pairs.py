"""All pairs of architecture, exporter and precision, held to the law, as a table for the docs.

``python -m tests.exporters.pairs OUT --optimum OPT/bin/python`` writes graphs into ``OUT``, reads
each, compares its trace with the export of the same folder, and writes the table of
``docs/onnx.md``. Optimum's exporter needs older transformers, in an environment of its own:

    python -m venv OPT
    OPT/bin/pip install optimum-onnx 'transformers==4.55.4' torch accelerate

Graphs that ``OUT`` has are not written again, so that it goes on where it was stopped. ``--only
NAME`` (repeated) writes some architectures, ``--no-torch`` and no ``--optimum`` leave exporters
out; the table is of all that was ever written into ``OUT``. Exit 1 where a pair differs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.exporters.decoders import ARCHITECTURES
from tests.exporters.genai import PRECISIONS
from tests.exporters.law import differences
from tests.exporters.written import BUILDER, folder_as_written

from pimsim.workload.trace import OperatorTrace

__all__ = ["Pair", "build_pairs", "compare", "table", "versions"]

TORCH = ("f32", "f32 with a cache")
WRITTEN, OPTIMUM = "written.json", "optimum.json"
BEGIN, END = "<!-- exporters: begin -->", "<!-- exporters: end -->"
_DOCS = Path(__file__).resolve().parents[2] / "docs" / "onnx.md"
_TIED_TWICE = {"int8", "int8-asymmetric"}

Row = dict[str, Any]
Pair = tuple[str, str]
"""Architecture, precision."""


def versions() -> dict[str, str]:
    """Of the exporters that are installed."""
    found = {}
    for name in ("onnxruntime-genai", "onnxruntime", "torch", "transformers", "onnx", "onnxscript"):
        try:
            found[name] = importlib.metadata.version(name).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def build_pairs(out: Path, pairs: Sequence[Pair]) -> dict[Pair, str]:
    """Have the builder write these, in a process of its own; what it says where it cannot."""
    wanted = [f"{name}:{precision}" for name, precision in pairs]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.exporters.genai", str(out), *wanted],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the builder's process failed: {done.stderr[-2000:]}")
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {(row["model"], row["precision"]): row["problem"] for row in rows}


def compare(graph: Path, folder: Path, precision: str, longest: bool = True) -> list[str]:
    """What differs between a graph's trace and the export of its folder; the first is a refusal's
    line where the graph is not read."""
    from pimsim.config.errors import InputError
    from pimsim.workload.onnx_import.importing import import_onnx

    try:
        found = import_onnx(graph)
    except InputError as error:
        return [f"refused: {str(error).removeprefix(f'{graph}: ')}"]
    if found.unknown:
        return [f"unknown: {found.unknown[0].op_type}"]
    export = _export(folder)
    config = json.loads((folder / "config.json").read_text())
    # a table that is shared is kept twice where only one use of it is quantised
    twice = bool(config.get("tie_word_embeddings")) and precision in _TIED_TWICE
    copies = export.facts.vocab * export.facts.hidden if twice else 0
    return differences(found.trace, export, copies, longest)


@lru_cache(maxsize=4)
def _export(folder: Path) -> OperatorTrace:
    from pimsim.capture.export import export_trace
    from pimsim.capture.loading import load_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return export_trace(load_model(str(folder), weights=False)).trace


def _torch(out: Path, name: str, cache: bool) -> str:
    import torch
    import transformers
    from tests.exporters.torch_dynamo import export_decoder

    path = out / f"{name}_torch{'_cache' if cache else ''}"
    if (path / "model.onnx").is_file():
        return ""
    path.mkdir(parents=True, exist_ok=True)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            out / name, dtype=torch.float32, local_files_only=True
        )
        export_decoder(model, path / "model.onnx", cache=cache)
    except Exception as error:  # the exporter's own ways to say that it cannot
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def write_all(out: Path, names: Iterable[str], torch_too: bool) -> None:
    """Have all pairs written; ``written.json`` says of each what its exporter's problem is."""
    for name in names:
        built = build_pairs(out, [(name, precision) for precision in PRECISIONS])
        rows = [
            _written(out, name, "onnxruntime-genai", precision, problem)
            for (_, precision), problem in built.items()
        ]
        for precision in TORCH if torch_too else ():
            problem = _torch(out, name, precision.endswith("cache"))
            rows.append(_written(out, name, "torch.onnx.export", precision, problem))
        print(name, sum(not row["problem"] for row in rows), "of", len(rows), "written", flush=True)
        new = {(row["model"], row["exporter"]) for row in rows}
        kept = [r for r in _rows(out / WRITTEN) if (r["model"], r["exporter"]) not in new]
        (out / WRITTEN).write_text(json.dumps(kept + rows, indent=1))


def _rows(path: Path) -> list[Row]:
    return list(json.loads(path.read_text())) if path.is_file() else []


def _written(out: Path, name: str, exporter: str, precision: str, problem: str) -> Row:
    plain = re.sub(r"\x1b\[[0-9;]*m", "", problem)  # torch writes in colours
    said = plain.partition(" Next steps:")[0].replace(str(out), "OUT")[:160]
    return {"model": name, "exporter": exporter, "precision": precision, "problem": said}


def write_optimum(out: Path, python: str) -> None:
    """The same of optimum's exporter, by the interpreter of its own environment."""
    script = Path(__file__).with_name("optimum_export.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-W", "ignore", str(script), str(out)], env=environment,
        stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"optimum's process failed: {done.stderr[-2000:]}")


def _place(row: Row) -> tuple[str, str]:
    """Names of a pair's graph and of the folder that it was made from."""
    name, precision = row["model"], row["precision"]
    cached = precision.endswith("cache")
    if row["exporter"] == "optimum":
        return f"{name}-optimum_{'cache' if cached else 'plain'}", f"{name}-optimum"
    if row["exporter"].startswith("torch"):
        return f"{name}_torch{'_cache' if cached else ''}", name
    return f"{name}_{precision}", name


def outcome(out: Path, row: Row) -> Row:
    """What came of a pair: its ``state``, and the ``reason`` where it is not plainly equal."""
    if row["problem"]:
        return row | {"state": "not written", "reason": row["problem"]}
    graph, source = _place(row)
    folder, why = out / source, ""
    builder = row["exporter"] == "onnxruntime-genai"
    if builder and row["model"] in BUILDER:
        written = BUILDER[row["model"]]
        folder, why = folder_as_written(folder, written), written.why
    # other exporters compute angles: their graphs say no longest context
    found = compare(out / graph / "model.onnx", folder, row["precision"], longest=builder)
    if not found:
        return row | {"state": "equal", "reason": why}
    refused = found[0].startswith(("refused", "unknown"))
    return row | {"state": "refused" if refused else "differs", "reason": found[0][:160]}


def table(rows: Sequence[dict[str, Any]], made_with: dict[str, str]) -> str:
    """The rows as Markdown: per architecture and exporter what is equal, and what else is."""
    for of_optimum in dict.fromkeys(row.get("with", "") for row in rows) if rows else ():
        if of_optimum:
            made_with = made_with | {"optimum-onnx": of_optimum}
    lines = [
        "Made with " + ", ".join(f"{name} {number}" for name, number in made_with.items()) + ".",
        "", "| architecture | exporter | equal to the export of its folder | else |",
        "|---|---|---|---|",
    ]  # fmt: skip
    for name in dict.fromkeys(row["model"] for row in rows):
        for exporter in dict.fromkeys(row["exporter"] for row in rows):
            mine = [r for r in rows if (r["model"], r["exporter"]) == (name, exporter)]
            if not mine:
                continue
            equal = [row["precision"] for row in mine if row["state"] == "equal"]
            other: dict[str, list[str]] = {}
            for row in mine:
                if row["reason"]:
                    state = "equal to what is written" if row["state"] == "equal" else row["state"]
                    said = f"{state}: {row['reason'].removeprefix('refused: ')}"
                    said = said.replace("|", "\\|")
                    other.setdefault(said, []).append(row["precision"])
            rest = "; ".join(f"{', '.join(which)} {said}" for said, which in other.items())
            lines.append(f"| {name} | {exporter} | {', '.join(equal) or '-'} | {rest or '-'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append", metavar="NAME")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--optimum", metavar="PYTHON")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    write_all(given.out, given.only or ARCHITECTURES, not given.no_torch)
    if given.optimum:
        write_optimum(given.out, given.optimum)
    order = list(ARCHITECTURES)
    rows = sorted(_rows(given.out / WRITTEN), key=lambda row: order.index(row["model"]))
    rows = [outcome(given.out, row) for row in [*rows, *_rows(given.out / OPTIMUM)]]
    differ = [row for row in rows if row["state"] == "differs"]
    for row in differ:
        print(*(row[key] for key in ("model", "exporter", "precision", "reason")))
    states = Counter(row["state"] for row in rows)
    print(", ".join(f"{count} {state}" for state, count in states.items()))
    text = _DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    made = f"{before}{BEGIN}\n{table(rows, versions())}{END}{after}"
    _DOCS.write_text(made, encoding="utf-8")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
