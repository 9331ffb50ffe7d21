"""Watches a forward pass: every operation, the module that did it, and what its operands are.

A ``TorchDispatchMode`` sees what reaches the kernels, after all of Python; hooks tell the module.
Attention and the cache are seen as a whole (``attention``), what they are made of is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["AppendEvent", "AttentionEvent", "OpEvent", "OperationRecorder", "TensorFacts"]


@dataclass(frozen=True)
class TensorFacts:
    """A tensor as an operation saw it."""

    shape: tuple[int, ...]
    dtype: str
    weight: str = ""
    """Name of the parameter or buffer that it is or is a part of."""
    storage: int = 0
    """Tensors of one number share their memory."""

    @property
    def elements(self) -> int:
        """Numbers in it."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class OpEvent:
    """One operation."""

    op: str
    """``mm``, ``add``, ... without its overload."""
    path: str
    """Module that did it, ``model.layers.3.mlp``."""
    owner: str
    """That module's class."""
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]

    @property
    def weights(self) -> tuple[TensorFacts, ...]:
        """Inputs that are parameters."""
        return tuple(each for each in self.inputs if each.weight)

    @property
    def floating(self) -> bool:
        """Whether it makes real numbers."""
        return any(each.dtype in _FLOATS for each in self.outputs)


@dataclass(frozen=True)
class AttentionEvent:
    """One call of attention, seen from outside."""

    path: str
    heads: int
    kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None
    sinks: str
    """Name of the parameter with a learned logit for each head; empty: none."""
    shared: bool
    """Values are a part of the cached keys."""
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    tokens: int
    """New ones, over all requests."""


@dataclass(frozen=True)
class AppendEvent:
    """New keys and values for the cache of one block."""

    path: str
    layer: int
    heads: int
    elements_per_token: int
    """Keys and values of all heads together."""
    dim: int
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    tokens: int


Event = OpEvent | AttentionEvent | AppendEvent
_FLOATS = {
    "float32", "float16", "bfloat16", "float64", "float8_e4m3fn", "complex64", "complex128",
}  # fmt: skip


@dataclass
class OperationRecorder:
    """Events of a forward pass, in order. Use ``watch(model)`` around the call."""

    events: list[Event] = field(default_factory=list)
    _path: list[tuple[str, str]] = field(default_factory=list)
    _names: dict[int, str] = field(default_factory=dict)
    _paused: int = 0
    _kept: list[Any] = field(default_factory=list)
    """Storages, so that a number is not given to another tensor."""

    @property
    def path(self) -> str:
        """Module that is running."""
        return self._path[-1][0] if self._path else ""

    @contextmanager
    def watch(self, model: Any) -> Iterator[None]:
        """Record what happens inside."""
        named = [*model.named_buffers(), *model.named_parameters()]
        self._names = {tensor.untyped_storage()._cdata: name for name, tensor in named}
        handles = []
        for name, module in model.named_modules():
            entry = (name, type(module).__name__)
            handles.append(module.register_forward_pre_hook(self._enter(entry)))
            handles.append(module.register_forward_hook(self._leave, always_call=True))
        try:
            with _Mode(self):
                yield
        finally:
            for handle in handles:
                handle.remove()
            self._path.clear()

    def _enter(self, entry: tuple[str, str]) -> Any:
        def hook(module: Any, arguments: Any) -> None:
            self._path.append(entry)

        return hook

    def _leave(self, module: Any, arguments: Any, output: Any) -> None:
        self._path.pop()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Record as if a module ``name`` of the running one did it."""
        path, owner = self._path[-1] if self._path else ("", "")
        self._path.append((f"{path}.{name}", owner))
        try:
            yield
        finally:
            self._path.pop()

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Record nothing inside."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1

    def add(self, event: Event) -> None:
        """Something that was seen from outside."""
        if not self._paused:
            self.events.append(event)

    def see(
        self, func: Any, inputs: Sequence[Any], outputs: Sequence[Any], by_one: bool = False
    ) -> None:
        """An operation was done; ``by_one``: a product with the number 1, which is a copy."""
        if self._paused:
            return
        path, owner = self._path[-1] if self._path else ("", "")
        op = func.overloadpacket.__name__
        if not op.startswith("_"):
            op = op.removesuffix("_")  # in place or not is the same work
        if by_one and op in ("mul", "div"):
            op = "clone"
        self.events.append(OpEvent(op, path, owner, self.facts(inputs), self.facts(outputs)))

    def facts(self, tensors: Sequence[Any]) -> tuple[TensorFacts, ...]:
        """What is kept of ``tensors``."""
        found = []
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._kept.append(storage)
            found.append(
                TensorFacts(
                    tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."),
                    self._names.get(storage._cdata, ""), storage._cdata,
                )
            )  # fmt: skip
        return tuple(found)


class _Mode(TorchDispatchMode):  # type: ignore[misc]
    def __init__(self, recorder: OperationRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        one = any(isinstance(each, (int, float)) and each == 1 for each in args[1:2])
        self.recorder.see(func, list(_tensors((args, kwargs or {}))), list(_tensors(out)), one)
        return out


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
