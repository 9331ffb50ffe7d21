"""Products of a quantised graph: what onnxruntime computes against our reading of its formats.

Each product with packed weights is run alone, on the weights of the file and random inputs, and
compared with float64 arithmetic on the numbers that ``formats`` says the file holds: elements low
bits first, in blocks along K, each block with a scale and a zero point (2^(bits - 1) where there is
none) (onnxruntime, docs/ContribOperators.md, MatMulNBits; ONNX, DequantizeLinear).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.workload.draws import RandomStream
from pimsim.workload.onnx_import.reading import read_graph
from pimsim.workload.onnx_import.shapes import attributes_of

__all__ = ["ProductError", "packed_matrix", "product_errors"]

Array = NDArray[np.float64]
_ROWS = 8
_MOST_BYTES = 4 * 2**30


@dataclass(frozen=True)
class ProductError:
    """One product of a graph."""

    node: str
    datapath: str
    """``f32``, ``f16``, or ``int8`` where inputs may be rounded to int8 (accuracy level 4)."""
    bits: int
    block: int
    zero_points: bool
    relative_rms: float


def packed_matrix(
    data: NDArray[Any], scales: NDArray[Any], zeros: NDArray[Any] | None, bits: int, block: int,
    depth: int,
) -> Array:  # fmt: skip
    """The N x K numbers of a ``MatMulNBits`` weight.

    Parameters
    ----------
    data
        (N, blocks, bytes), ``bits`` an element, the first in the lowest bits of a byte.
    scales
        N x blocks, in any shape.
    zeros
        Packed like the data along the blocks of a row, or one number a block; None: 2^(bits-1).
    bits
        Of an element, 2 to 8.
    block
        Elements that share a scale.
    depth
        K; the last block is filled up beyond it.
    """
    width = data.shape[0]
    per_byte = 8 // bits
    shifts = (np.arange(per_byte) * bits).astype(np.uint8)
    mask = np.uint8(2**bits - 1)

    def unpacked(packed: NDArray[Any]) -> NDArray[Any]:
        parts = (packed[..., None] >> shifts) & mask
        return parts.reshape(*packed.shape[:-1], packed.shape[-1] * per_byte)

    blocks = -(-depth // block)
    elements = unpacked(data).reshape(width, blocks, block).astype(np.float64)
    if zeros is None:
        zero: Any = float(2 ** (bits - 1))
    elif zeros.dtype == np.uint8:
        zero = unpacked(zeros.reshape(width, -1))[:, :blocks, None].astype(np.float64)
    else:
        zero = zeros.reshape(width, blocks, 1).astype(np.float64)
    scaled = (elements - zero) * scales.reshape(width, blocks, 1).astype(np.float64)
    return np.asarray(scaled.reshape(width, blocks * block)[:, :depth])


def product_errors(path: Path, seed: int = 0) -> list[ProductError]:
    """Every product with packed weights in a graph, run by onnxruntime.

    Parameters
    ----------
    path
        Of the ``.onnx``, its weights beside it.
    seed
        Of the activations.

    Returns
    -------
    list[ProductError]
        One for each product, in the graph's order.

    Raises
    ------
    InputError
        Where onnxruntime is absent, the weights are not there, or no product is packed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError(
            f"{path}: products of a graph need onnxruntime: pip install onnxruntime"
        ) from None
    read_graph(path)  # says what is wrong in our words
    size = sum(each.stat().st_size for each in path.parent.glob(f"{path.name}*"))
    if size > _MOST_BYTES:
        raise InputError(f"{path}: {size / 2**30:.1f} GiB of weights; 4 GiB are allowed here")
    import onnx

    try:
        model = onnx.load_model(str(path))
    except Exception as error:  # onnx raises its own kinds for data that are not there
        said = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: its weights cannot be read ({said})") from error
    tensors = {each.name: each for each in model.graph.initializer}
    onnxruntime.set_default_logger_severity(3)
    found = list(_errors(onnxruntime, model, tensors, RandomStream(seed)))
    if not found:
        raise InputError(f"{path}: no product in it has packed weights (MatMulNBits)")
    return found


def _errors(
    runtime: Any, model: Any, tensors: dict[str, Any], draw: RandomStream
) -> Iterator[ProductError]:
    from onnx import numpy_helper

    for node in model.graph.node:
        if node.op_type != "MatMulNBits":
            continue
        given = attributes_of(node)
        arrays = [numpy_helper.to_array(tensors[name]) if name else None for name in node.input[1:]]
        data, scales = arrays[0], arrays[1]
        zeros = arrays[2] if len(arrays) > 2 else None
        assert data is not None and scales is not None
        bits, block = int(given.get("bits", 4)), int(given["block_size"])
        weight = packed_matrix(data, scales, zeros, bits, block, int(given["K"]))
        kind = scales.dtype if scales.dtype in (np.float32, np.float16) else np.dtype(np.float32)
        inputs = draw.normal(_ROWS, int(given["K"])).astype(kind)
        ours = inputs.astype(np.float64) @ weight.T
        theirs = _run(runtime, model, node, tensors, inputs)
        rms = float(np.sqrt(np.mean((theirs - ours) ** 2) / np.mean(ours**2)))
        level = int(given.get("accuracy_level", 0))
        path = "int8" if level == 4 else "f16" if kind == np.float16 else "f32"
        yield ProductError(node.name, path, bits, block, zeros is not None, rms)


def _run(
    runtime: Any, model: Any, node: Any, tensors: dict[str, Any], inputs: NDArray[Any]
) -> Array:
    """One node alone, on onnxruntime's CPU."""
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(inputs.dtype)
    graph = helper.make_graph(
        [node], "product",
        [helper.make_tensor_value_info(node.input[0], kind, list(inputs.shape))],
        [helper.make_tensor_value_info(node.output[0], kind, None)],
        [tensors[name] for name in node.input[1:] if name],
    )  # fmt: skip
    alone = helper.make_model(graph, opset_imports=list(model.opset_import))
    alone.ir_version = min(model.ir_version, 10)
    session = runtime.InferenceSession(
        alone.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {node.input[0]: inputs})[0], dtype=np.float64)
