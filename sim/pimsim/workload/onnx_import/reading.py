"""A graph from a file, without its weights: only their shapes are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pimsim.config.errors import InputError
from pimsim.config.reading import open_input
from pimsim.workload.onnx_import.formats import DTYPES

__all__ = ["LoadedGraph", "count_elements", "read_graph"]

_MOST_NODES = 2_000_000
_DEEPEST = 100
_MOST_DIMS = 16
_LONGEST_DIM = 2**32
_MOST_ELEMENTS = 2**44


@dataclass(frozen=True)
class LoadedGraph:
    """A model's main graph with local functions inlined."""

    path: Path
    graph: Any
    opset: dict[str, int]
    producer: str
    weights: dict[str, tuple[tuple[int, ...], int]]
    """Initializers: shape and ONNX element type."""


def count_elements(shape: tuple[int, ...]) -> int:
    """Numbers in a tensor of that shape.

    Parameters
    ----------
    shape
        1 for one without dimensions.
    """
    count = 1
    for size in shape:
        count *= size
    return count


def read_graph(path: Path) -> LoadedGraph:
    """Read and check a model. External data are not opened; where they are said to lie is checked.

    Parameters
    ----------
    path
        Of the file.

    Raises
    ------
    InputError
        One line, for what is no ONNX model, a truncated file, external data outside of the file's
        folder, a cyclic graph, or shapes and types that make no sense.
    """
    import onnx

    with open_input(path, "an ONNX graph") as stream:
        try:
            model = onnx.load_model_from_string(stream.read())
        except Exception as error:  # protobuf raises its own kinds
            raise InputError(
                f"{path}: no ONNX model, or a truncated one ({error})".splitlines()[0]
            ) from error
    if not model.graph.node:
        raise InputError(f"{path}: no ONNX model: its graph has no nodes")
    _check_text(path, model)
    opset = {each.domain or "ai.onnx": int(each.version) for each in model.opset_import}
    if "ai.onnx" not in opset:
        raise InputError(f"{path}: its opset_import names no version of ai.onnx")
    model = _inlined(path, model)
    graph = model.graph
    if len(graph.node) > _MOST_NODES:
        raise InputError(f"{path}: {len(graph.node):,} nodes; {_MOST_NODES:,} are allowed")
    weights = {}
    for tensor in graph.initializer:
        _check_external(path, tensor)
        weights[tensor.name] = _shape_of(path, tensor), int(tensor.data_type)
    for each in graph.input:
        _check_input(path, each)
    _check_order(path, graph)
    _check_counts(path, graph, opset)
    producer = f"{model.producer_name or 'unknown'} {model.producer_version}".strip()
    return LoadedGraph(path, graph, opset, producer, weights)


def _inlined(path: Path, model: Any) -> Any:
    if not model.functions:
        return model
    from onnx.inliner import inline_local_functions

    count = _inlined_nodes(path, model)
    if count > _MOST_NODES:
        raise InputError(
            f"{path}: {count:,} nodes with its local functions inlined; {_MOST_NODES:,} are allowed"
        )
    try:
        return inline_local_functions(model)
    except Exception as error:  # a function without a body, that calls itself, of another opset
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: its local functions cannot be inlined ({said})") from error


def _inlined_nodes(path: Path, model: Any) -> int:
    """Nodes that inlining makes: a function may call another twice, that another twice, ..."""
    bodies = {(each.domain, each.name): each.node for each in model.functions}
    known: dict[tuple[str, str], int] = {}

    def count(nodes: Any, inside: tuple[tuple[str, str], ...]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            graphs = [each.g.node for each in node.attribute if each.HasField("g")]
            total += sum(count(each, inside) for each in graphs)
            if key not in bodies:
                total += 1
                continue
            if key in inside or len(inside) > _DEEPEST:
                raise InputError(
                    f"{path}: its local function {node.op_type!r} calls itself, or {_DEEPEST} "
                    "others one inside the other"
                )
            if key not in known:
                known[key] = count(bodies[key], (*inside, key))
            total += known[key]
        return total

    return count(model.graph.node, ())


def _shape_of(path: Path, tensor: Any) -> tuple[int, ...]:
    """The shape of an initializer, its type checked."""
    where = f"{path}: initializer {tensor.name!r}"
    if int(tensor.data_type) not in DTYPES:
        raise InputError(f"{where} has the element type {tensor.data_type}, which is not known")
    return _checked(where, tuple(int(dim) for dim in tensor.dims))


def _checked(where: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) > _MOST_DIMS:
        raise InputError(f"{where} has {len(shape):,} dimensions; {_MOST_DIMS} are allowed")
    for dim in shape:
        if not 0 <= dim <= _LONGEST_DIM:
            raise InputError(f"{where} has a dimension of {dim:,}; 0 to 2^32 are allowed")
    if count_elements(shape) > _MOST_ELEMENTS:
        raise InputError(f"{where} has the shape {shape}; 2^44 elements are allowed")
    return shape


def _check_input(path: Path, value: Any) -> None:
    tensor = value.type.tensor_type
    where = f"{path}: input {value.name!r}"
    _checked(where, tuple(int(dim.dim_value) for dim in tensor.shape.dim))
    if int(tensor.elem_type) not in DTYPES:
        raise InputError(f"{where} has the element type {tensor.elem_type}, which is not known")


def _check_text(path: Path, model: Any) -> None:
    """Names are text: protobuf hands on bytes where they are not UTF-8."""
    graph = model.graph
    names = [each.domain for each in model.opset_import] + [each.name for each in graph.input]
    names += [each.name for each in graph.initializer] + [each.name for each in graph.output]
    names += [
        dim.dim_param for each in graph.input for dim in each.type.tensor_type.shape.dim
        if dim.HasField("dim_param")
    ]  # fmt: skip
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [each.name for each in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: no ONNX model, or a damaged one: a name in it is not UTF-8")


def _check_external(path: Path, tensor: Any) -> None:
    """External data must lie in the model's own folder (CVE-2022-25882 and its kin)."""
    for entry in tensor.external_data:
        if entry.key != "location":
            continue
        folder = path.resolve().parent
        try:
            inside = folder in (folder / entry.value).resolve().parents
        except (OSError, ValueError, RuntimeError):  # no path at all, or links in a circle
            inside = False
        if Path(entry.value).is_absolute() or ".." in Path(entry.value).parts or not inside:
            raise InputError(
                f"{path}: initializer {tensor.name!r} keeps its data at {entry.value!r}, outside "
                "of the file's folder"
            )


def _check_order(path: Path, graph: Any) -> None:
    """Nodes come after what they use, which a cycle cannot; each makes something."""
    known = {each.name for each in graph.input} | {each.name for each in graph.initializer}
    known |= {each.values.name for each in graph.sparse_initializer}
    for node in graph.node:
        where = f"{path}: node {node.name or node.op_type!r}"
        if not node.op_type:
            raise InputError(f"{where} has no operator type")
        if not any(node.output):
            raise InputError(f"{where} ({node.op_type}) makes nothing: it has no outputs")
        for name in node.input:
            if name and name not in known:
                raise InputError(
                    f"{where} uses {name!r}, which nothing before it makes: the graph has a cycle "
                    "or is not sorted"
                )
        known |= set(node.output)


_LEAST_INPUTS = {
    "MatMulNBits": 3, "GroupQueryAttention": 1, "MultiHeadAttention": 1, "PagedAttention": 1,
    "GatherBlockQuantized": 2, "MoE": 5, "QMoE": 6, "RotaryEmbedding": 4, "FusedMatMul": 2,
    "SimplifiedLayerNormalization": 2, "SkipSimplifiedLayerNormalization": 3,
    "SkipLayerNormalization": 3, "QuickGelu": 1, "FastGelu": 1, "Gelu": 1, "BiasGelu": 2,
}  # fmt: skip
"""Of operators of com.microsoft (docs/ContribOperators.md); ONNX's own say theirs."""


def _check_counts(path: Path, graph: Any, opset: dict[str, int]) -> None:
    """Each node has as many inputs as its operator needs."""
    known: dict[tuple[str, str], tuple[int, int]] = {}
    for node in graph.node:
        key = (node.domain, node.op_type)
        if key not in known:
            known[key] = _counts(node, opset)
        least, most = known[key]
        given = sum(bool(name) for name in list(node.input)[:least])
        if given < least or len(node.input) > most:
            raise InputError(
                f"{path}: node {node.name or node.op_type!r} ({node.op_type}) has "
                f"{given if given < least else len(node.input)} inputs; {least} to {most} are "
                "allowed"
            )


def _counts(node: Any, opset: dict[str, int]) -> tuple[int, int]:
    """The fewest and the most inputs of an operator."""
    import onnx

    if node.domain in ("", "ai.onnx") and node.op_type not in _LEAST_INPUTS:
        try:
            schema = onnx.defs.get_schema(node.op_type, opset["ai.onnx"], "")
        except Exception:  # not an operator of this version: nobody will know what it does
            return 0, 2**31
        return schema.min_input, schema.max_input
    return _LEAST_INPUTS.get(node.op_type, 0), 2**31
