"""All pairs of architecture, exporter and precision, held to the law, as a table for the docs.

``python -m tests.exporters.pairs OUT`` writes graphs into ``OUT``, reads each, compares its trace
with the export of the same folder, and writes the table of ``docs/onnx.md``; ``--only NAME``
(repeated) takes some architectures, ``--table RESULTS.json`` writes the table from earlier results.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.exporters.decoders import ARCHITECTURES
from tests.exporters.genai import PRECISIONS
from tests.exporters.law import differences

__all__ = ["EXPECTED", "Pair", "build_pairs", "compare", "table", "versions"]

TORCH = ("f32", "f32 with a cache")
BEGIN, END = "<!-- exporters: begin -->", "<!-- exporters: end -->"
_DOCS = Path(__file__).resolve().parents[2] / "docs" / "onnx.md"
_TIED_TWICE = {"int8", "int8-asymmetric"}

EXPECTED = {
    "olmo": "the builder writes RMS norms with gains of ones for norms without parameters",
    "mistral-window": "the builder leaves the window out",
    "smollm3": "the builder turns heads in blocks without rotary positions, or fails",
}
"""Where an exporter's graph computes another thing than the folder: read as it is."""

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
    from pimsim.capture.export import export_trace
    from pimsim.capture.loading import load_model
    from pimsim.config.errors import InputError
    from pimsim.workload.onnx_import.importing import import_onnx

    try:
        found = import_onnx(graph)
    except InputError as error:
        return [f"refused: {str(error).removeprefix(f'{graph}: ')}"]
    if found.unknown:
        return [f"unknown: {found.unknown[0].op_type}"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export = export_trace(load_model(str(folder), weights=False)).trace
    config = json.loads((folder / "config.json").read_text())
    # a table that is shared is kept twice where only one use of it is quantised
    twice = bool(config.get("tie_word_embeddings")) and precision in _TIED_TWICE
    copies = export.facts.vocab * export.facts.hidden if twice else 0
    return differences(found.trace, export, copies, longest)


def _torch(out: Path, name: str, cache: bool) -> str:
    import torch
    import transformers
    from tests.exporters.torch_dynamo import export_decoder

    path = out / f"{name}_torch{'_cache' if cache else ''}"
    path.mkdir(parents=True, exist_ok=True)
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            out / name, dtype=torch.float32, local_files_only=True
        )
        export_decoder(model, path / "model.onnx", cache=cache)
    except Exception as error:  # the exporter's own ways to say that it cannot
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def results(out: Path, names: Iterable[str], torch_too: bool) -> list[dict[str, Any]]:
    """A row a pair: what came of it."""
    rows = []
    for name in names:
        built = build_pairs(out, [(name, precision) for precision in PRECISIONS])
        for (_, precision), problem in built.items():
            rows.append(_row(out, name, "onnxruntime-genai", precision, problem))
        for precision in TORCH if torch_too else ():
            problem = _torch(out, name, precision.endswith("cache"))
            rows.append(_row(out, name, "torch.onnx.export", precision, problem))
        print(name, sum(row["state"] == "equal" for row in rows), len(rows), flush=True)
    return rows


def _row(out: Path, name: str, exporter: str, precision: str, problem: str) -> dict[str, Any]:
    row = {"model": name, "exporter": exporter, "precision": precision}
    if problem:
        return row | {"state": "not written", "reason": problem.replace(str(out), "OUT")[:160]}
    kind = precision
    if exporter.startswith("torch"):
        kind = "torch_cache" if precision.endswith("cache") else "torch"
    found = compare(out / f"{name}_{kind}" / "model.onnx", out / name, precision,
                    not exporter.startswith("torch"))  # fmt: skip
    if not found:
        return row | {"state": "equal", "reason": ""}
    if found[0].startswith(("refused", "unknown")):
        return row | {"state": "refused", "reason": found[0][:160]}
    said = found[0][:160] if exporter.startswith("torch") else EXPECTED.get(name, found[0][:160])
    return row | {"state": "differs", "reason": said}


def table(rows: Sequence[dict[str, Any]], made_with: dict[str, str]) -> str:
    """The rows as Markdown: per architecture and exporter what is equal, and what else is."""
    if any(row["exporter"] == "optimum" for row in rows):
        made_with = made_with | {"optimum-onnx": "0.1.0 (with transformers 4.55.4)"}
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
                if row["state"] != "equal":
                    said = f"{row['state']}: {row['reason']}".replace("|", "\\|")
                    other.setdefault(said, []).append(row["precision"])
            rest = "; ".join(f"{', '.join(which)} {said}" for said, which in other.items())
            lines.append(f"| {name} | {exporter} | {', '.join(equal) or '-'} | {rest or '-'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", action="append")
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--table", type=Path)
    given = parser.parse_args()
    if given.table:
        rows = json.loads(given.table.read_text())
    else:
        given.out.mkdir(parents=True, exist_ok=True)
        rows = results(given.out, given.only or ARCHITECTURES, not given.no_torch)
        other = given.out / "optimum.json"  # of tests.exporters.optimum_export
        rows += json.loads(other.read_text()) if other.is_file() else []
        (given.out / "results.json").write_text(json.dumps(rows, indent=1))
    text = _DOCS.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    _DOCS.write_text(f"{before}{BEGIN}\n{table(rows, versions())}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
