"""What the free dimensions of a graph's inputs stand for: requests, new tokens, cached tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from pimsim.config.errors import InputError
from pimsim.workload.onnx_import.reading import LoadedGraph

__all__ = ["InputSizes", "Sample"]

_INTEGERS = (6, 7)
_FLOATS = (1, 10, 16, 11, 3, 2, 17, 18, 19, 20)
_PAGE = 16


class Sample(NamedTuple):
    """Sizes that a graph is looked at with."""

    requests: int
    new: int
    cached: int


@dataclass(frozen=True)
class InputSizes:
    """The inputs, and which of them are token ids and the KV cache."""

    inputs: tuple[tuple[str, tuple[Any, ...], int], ...]
    """Name, dimensions (number or name), element type."""
    ids: str
    pasts: frozenset[str]
    flat: bool
    """All requests' tokens are one list (paged attention)."""

    @classmethod
    def of(cls, loaded: LoadedGraph) -> InputSizes:
        """Raises ``InputError`` where there are no token ids, or their sizes are fixed."""
        inputs = []
        for each in loaded.graph.input:
            if each.name in loaded.weights:
                continue
            tensor = each.type.tensor_type
            dims = tuple(
                dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or "?")
                for dim in tensor.shape.dim
            )
            inputs.append((each.name, dims, int(tensor.elem_type)))
        ids = _token_ids(inputs)
        if not ids:
            names = ", ".join(name for name, _, _ in inputs[:8]) or "none"
            raise InputError(
                f"{loaded.path}: no decoder: none of its inputs ({names}) is input_ids, shape "
                "(requests, tokens)"
            )
        name, dims, _ = ids
        if isinstance(dims[-1], int):
            raise InputError(
                f"{loaded.path}: its number of tokens is fixed ({dims[-1]}); export it with "
                "dynamic axes, so that sizes can be told from constants"
            )
        pasts = frozenset(
            name for name, dims, kind in inputs if len(dims) in (4, 5) and kind in _FLOATS
        )
        return cls(tuple(inputs), name, pasts, len(dims) == 1)

    def bound(self, sample: Sample) -> dict[str, tuple[int, ...]]:
        """Shapes of all inputs for requests, new tokens and cached tokens."""
        requests, new, cached = sample
        known: dict[str, int] = {}
        for name, dims, _ in self.inputs:
            if name == self.ids:
                sizes = (requests * new,) if self.flat else (requests, new)
                known |= {
                    dim: size for dim, size in zip(dims, sizes, strict=True)
                    if isinstance(dim, str)
                }  # fmt: skip
        for name, dims, _ in self.inputs:
            if name in self.pasts and not self.flat:
                for axis, size in ((0, requests), (2, cached)):
                    if isinstance(dims[axis], str):
                        known.setdefault(dims[axis], size)
        return {
            name: tuple(self._size(dim, axis, known, sample, name) for axis, dim in enumerate(dims))
            for name, dims, _ in self.inputs
        }

    def _size(self, dim: Any, axis: int, known: dict[str, int], sample: Sample, name: str) -> int:
        if isinstance(dim, int):
            return dim
        if dim in known:
            return known[dim]
        if self.flat:
            return _PAGE if name in self.pasts else sample.requests
        # a mask's length: all tokens
        return sample.requests if axis == 0 else sample.new + sample.cached


def _token_ids(inputs: list[tuple[str, tuple[Any, ...], int]]) -> Any:
    """The input of token ids: whole numbers under one of the names that exporters use."""
    for name, dims, kind in inputs:
        known = "input_ids" in name or name in ("ids", "tokens", "input")
        if known and kind in _INTEGERS and len(dims) in (1, 2):
            return name, dims, kind
    return None
