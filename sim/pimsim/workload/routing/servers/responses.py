"""Answers of inference servers, one JSON object or one a line, with the experts of their tokens.

Read for this, and what each says:

- vLLM 0.33 (``vllm/outputs.py``, ``entrypoints/openai/completion/protocol.py``,
  ``fused_moe/routed_experts_capturer.py``; 0.13 to 0.20 alike, pull request 28284):
  ``routed_experts`` of each choice, [tokens, all blocks, choices], zeros in dense blocks, base64 of
  a ``.npy`` file of uint8 or uint16 (int32 before), from ``routed_experts_prompt_start`` of the
  question, 0 where it has none, to the last token but one that was generated.
- vLLM 0.21 (``docs/training/routed_experts_replay.md``, commit 0087e00):
  ``prompt_routed_experts`` of the answer, [prompt tokens, MoE blocks, choices], and
  ``routed_experts`` of each choice, [generated tokens, MoE blocks, choices], lists in JSON; -1
  where the prefix cache had a token.
- SGLang 0.5 (``srt/managers/detokenizer_manager.py``, ``srt/state_capturer/routed_experts.py``,
  pull requests 12162 and 17434): ``meta_info.routed_experts``, or ``sgl_ext.routed_experts`` of an
  OpenAI answer or its choice: base64 of whole numbers without a shape, [tokens, all blocks,
  choices], int32 or what ``routed_experts_dtype`` says, from ``routed_experts_start_len`` to the
  last token but one.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pimsim.config.errors import InputError
from pimsim.config.reading import parse_json
from pimsim.workload.routing.servers.recorded import Record

__all__ = ["read_responses"]

Array = NDArray[np.integer]
_NPY = b"\x93NUMPY"
_WIRE_TYPES = ("int32", "uint16", "uint8", "int16", "int64")
_DEEPEST = 8


def read_responses(where: str, text: str) -> list[Record]:
    """The records of a file of answers, in its order.

    Parameters
    ----------
    where
        What messages call it.
    text
        Of the file.

    Raises
    ------
    InputError
        For what is no JSON, holds no experts, or cannot be decoded.
    """
    records = [
        record
        for place, value in _values(where, text)
        for answer_place, answer in _answers(place, value, 0)
        for record in _of_answer(answer_place, answer)
    ]
    if not records:
        raise InputError(
            f"{where}: no answer has routed_experts; start vLLM or SGLang with "
            "--enable-return-routed-experts, and ask SGLang with return_routed_experts"
        )
    return records


def _values(where: str, text: str) -> Iterator[tuple[str, Any]]:
    """The file's JSON: one value, or one a line."""
    lines = [(at, line) for at, line in enumerate(text.splitlines(), 1) if line.strip()]
    try:
        values = [(where, parse_json(text, where))]
    except InputError:
        if len(lines) < 2:
            raise
        values = [(f"{where}: line {at}", parse_json(line, where, at)) for at, line in lines]
    yield from values


def _answers(place: str, value: Any, depth: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The answers in a value: lists of them, and what batch files wrap around one."""
    if depth > _DEEPEST:
        return
    if isinstance(value, list):
        for number, each in enumerate(value):
            yield from _answers(f"{place}[{number}]", each, depth + 1)
    elif isinstance(value, Mapping):
        if {"choices", "meta_info", "routed_experts", "prompt_routed_experts"} & set(value):
            yield place, value
            return
        for key in ("response", "body", "output", "outputs"):
            if key in value:
                yield from _answers(f"{place}.{key}", value[key], depth + 1)


def _of_answer(place: str, answer: Mapping[str, Any]) -> Iterator[Record]:
    prompt = _decoded(f"{place}.prompt_routed_experts", answer.get("prompt_routed_experts"), None)
    extension = answer.get("sgl_ext")
    shared = extension if isinstance(extension, Mapping) else {}
    choices = answer.get("choices")
    parts = choices if isinstance(choices, list) else [answer]
    for number, part in enumerate(parts):
        at = f"{place}.choices[{number}]" if isinstance(choices, list) else place
        if not isinstance(part, Mapping):
            raise InputError(f"{at}: an object is expected")
        ids = _TokenIds.of(answer, part, shared, number)
        holder = _holder(part, part.get("sgl_ext"), part.get("meta_info"))
        if holder is None and number == 0:
            holder = _holder(shared)  # SGLang's, of the first choice
        if holder is None:
            if prompt is not None and number == 0:
                yield Record(f"{at}.prompt_routed_experts", prompt, tokens=ids.prompt)
            continue
        found = _decoded(
            f"{at}.routed_experts", holder["routed_experts"], holder.get("routed_experts_dtype")
        )
        if found is None:
            continue
        if prompt is not None:
            if prompt.ndim != 3 or found.ndim != 3 or prompt.shape[1:] != found.shape[1:]:
                raise InputError(
                    f"{at}: routed_experts of shape {found.shape} do not follow "
                    f"prompt_routed_experts of shape {prompt.shape}"
                )
            yield Record(at, np.concatenate([prompt, found]), tokens=ids.whole)
            continue
        said = holder.get("routed_experts_start_len")
        start = None if said is None else _position(f"{at}.routed_experts_start_len", said)
        fed = _tokens_fed(answer, part) if len(parts) == 1 else None
        yield Record(at, found, first_position=start, tokens=ids.whole, tokens_fed=fed)


@dataclass(frozen=True)
class _TokenIds:
    """Ids of a request's tokens; None where the answer does not have them."""

    prompt: NDArray[np.int64] | None
    generated: NDArray[np.int64] | None

    @classmethod
    def of(
        cls, answer: Mapping[str, Any], part: Mapping[str, Any], shared: Mapping[str, Any], at: int
    ) -> _TokenIds:
        """Of choice number ``at``."""
        listed = shared.get("output_ids")
        outputs = listed[at] if isinstance(listed, list) and at < len(listed) else None
        return cls(
            prompt=_first_ids(
                part.get("prompt_token_ids"),
                answer.get("prompt_token_ids"),
                shared.get("input_ids"),
            ),
            generated=_first_ids(part.get("token_ids"), part.get("output_ids"), outputs),
        )

    @property
    def whole(self) -> NDArray[np.int64] | None:
        """From position 0 on; without the prompt's nothing says where the others belong."""
        if self.prompt is None or self.generated is None:
            return self.prompt
        return np.concatenate([self.prompt, self.generated])


def _tokens_fed(answer: Mapping[str, Any], part: Mapping[str, Any]) -> int | None:
    """Tokens that went through the model: all but the last one that was generated."""
    for counts in (part.get("meta_info"), answer.get("usage")):
        if isinstance(counts, Mapping):
            asked, made = counts.get("prompt_tokens"), counts.get("completion_tokens")
            if isinstance(asked, int) and isinstance(made, int):
                return max(asked + made - 1, 0)
    return None


def _holder(*places: Any) -> Mapping[str, Any] | None:
    """The first of the places where a server puts a choice's experts that has some."""
    for each in places:
        if isinstance(each, Mapping) and each.get("routed_experts") is not None:
            return each
    return None


def _first_ids(*values: Any) -> NDArray[np.int64] | None:
    return next((ids for value in values if (ids := _ids(value)) is not None), None)


def _ids(value: Any) -> NDArray[np.int64] | None:
    """Token ids; a prompt of several is not told apart."""
    if not isinstance(value, list) or not value:
        return None
    if not all(isinstance(each, int) and not isinstance(each, bool) for each in value):
        return None
    if not all(0 <= each < 2**31 for each in value):
        return None
    return np.array(value, dtype=np.int64)


def _position(where: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise InputError(f"{where}: {value!r} is no position")
    return value


def _decoded(where: str, value: Any, wire_type: Any) -> Array | None:
    """Experts as a server wrote them; None where it wrote none."""
    if value is None:
        return None
    if isinstance(value, str):
        return _from_base64(where, value, wire_type)
    if isinstance(value, Sequence):
        return _from_lists(where, value)
    raise InputError(f"{where}: neither lists nor base64 text: {type(value).__name__}")


def _from_lists(where: str, value: Sequence[Any]) -> Array:
    try:
        found = np.array(value)
    except (ValueError, OverflowError):
        found = np.zeros(0, dtype=object)
    if found.dtype.kind not in "iu" or found.ndim != 3:
        raise InputError(
            f"{where}: no lists of tokens, blocks and choices that are equally long, of whole "
            "numbers"
        )
    return found


def _from_base64(where: str, text: str, wire_type: Any) -> Array:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"{where}: no base64 text") from None
    if data.startswith(_NPY):
        try:
            found: Array = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError):
            raise InputError(f"{where}: a damaged .npy array") from None
        return found
    name = "int32" if wire_type is None else wire_type
    if name not in _WIRE_TYPES:
        raise InputError(
            f"{where}: routed_experts_dtype is {name!r}; known: {', '.join(_WIRE_TYPES)}"
        )
    element = np.dtype(str(name)).newbyteorder("<")
    if not data or len(data) % element.itemsize:
        raise InputError(f"{where}: {len(data)} bytes are no whole number of {name}")
    flat: Array = np.frombuffer(data, dtype=element)
    return flat
