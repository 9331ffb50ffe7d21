"""A graph from a file, without its weights: only their shapes are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pimsim.config.errors import InputError

__all__ = ["LoadedGraph", "read_graph"]

_MOST_NODES = 2_000_000


@dataclass(frozen=True)
class LoadedGraph:
    """A model's main graph with local functions inlined."""

    path: Path
    graph: Any
    opset: dict[str, int]
    producer: str
    weights: dict[str, tuple[tuple[int, ...], int]]
    """Initializers: shape and ONNX element type."""


def read_graph(path: Path) -> LoadedGraph:
    """Read and check a model. External data are not opened; where they are said to lie is checked.

    Raises ``InputError``, one line, for what is no ONNX model, a truncated file, external data
    outside of the file's folder, a cyclic graph or sizes that make no sense.
    """
    import onnx

    try:
        model = onnx.load_model(str(path), load_external_data=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except Exception as error:  # protobuf raises its own kinds
        raise InputError(
            f"{path}: no ONNX model, or a truncated one ({error})".splitlines()[0]
        ) from error
    if not model.graph.node:
        raise InputError(f"{path}: no ONNX model: its graph has no nodes")
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    graph = model.graph
    if len(graph.node) > _MOST_NODES:
        raise InputError(f"{path}: {len(graph.node):,} nodes; {_MOST_NODES:,} are allowed")
    weights = {}
    for tensor in graph.initializer:
        _check_external(path, tensor)
        shape = tuple(int(dim) for dim in tensor.dims)
        if any(dim < 0 or dim > 2**40 for dim in shape):
            raise InputError(f"{path}: initializer {tensor.name!r} has the shape {shape}")
        weights[tensor.name] = (shape, int(tensor.data_type))
    _check_order(path, graph)
    opset = {each.domain or "ai.onnx": int(each.version) for each in model.opset_import}
    producer = f"{model.producer_name or 'unknown'} {model.producer_version}".strip()
    return LoadedGraph(path, graph, opset, producer, weights)


def _check_external(path: Path, tensor: Any) -> None:
    """External data must lie in the model's own folder (CVE-2022-25882 and its kin)."""
    for entry in tensor.external_data:
        if entry.key != "location":
            continue
        folder = path.resolve().parent
        target = folder / entry.value
        inside = folder in target.resolve().parents
        if Path(entry.value).is_absolute() or ".." in Path(entry.value).parts or not inside:
            raise InputError(
                f"{path}: initializer {tensor.name!r} keeps its data at {entry.value!r}, outside "
                "of the file's folder"
            )


def _check_order(path: Path, graph: Any) -> None:
    """Nodes come after what they use, which a cycle cannot."""
    known = {each.name for each in graph.input} | {each.name for each in graph.initializer}
    known |= {each.values.name for each in graph.sparse_initializer}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                raise InputError(
                    f"{path}: node {node.name or node.op_type!r} uses {name!r}, which nothing "
                    "before it makes: the graph has a cycle or is not sorted"
                )
        known |= set(node.output)
