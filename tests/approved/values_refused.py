"""What configs refuse beyond the bounds of a key (case ``tables/keys``): every number of a preset
is changed by itself; told is what does not fit the others."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from cases import values

PRESETS = {
    "memory": ("hbm2", "lpddr5", "hbm2-onnxim"),
    "pim": ("aim", "hbm-pim", "attacc-bank", "duplex", "neupims", "newton"),
    "hardware": ("npu-only", "neupims", "neupims-artifact-main", "onnxim-tpuv4"),
    "xpu": ("a100", "attacc-h100", "rtx4090"),
    "system": ("dgx-a100", "dgx-attacc-bank", "dgx-attacc-buffer"),
}  # fmt: skip


def _leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _leaves(each, (*at, key))
    elif isinstance(value, (list, tuple)) and len(at) < 3:
        for number, each in enumerate(value[:2]):
            yield from _leaves(each, (*at, number))
    elif isinstance(value, (bool, int, float)) or value is None:
        yield at, value


def _changes(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif value is None:
        yield 3
    else:
        yield from (0, 3 * value + 1)


def _told(kind: type[Any], given: dict[str, Any]) -> str:
    from pydantic import ValidationError

    try:
        kind.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] != "value_error":  # of one key by itself
            return ""
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".splitlines()[0]
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return ""


def _register(kind: str) -> None:
    @values(f"refusals/numbers-of-{kind}")
    def _lines() -> Iterator[str]:
        from pimsim.config import loader
        from pimsim.config.resources import preset_names

        known = preset_names(kind)
        for name in [each for each in PRESETS[kind] if each in known] or sorted(known)[:2]:
            config = loader.load_preset(kind, name).config
            whole = config.model_dump(exclude_unset=True)
            yield f"=== {name}{_told(type(config), whole)}"
            for path, value in _leaves(config.model_dump()):
                for changed in _changes(value):
                    given = copy.deepcopy(whole)
                    _put(given, path, changed)
                    told = _told(type(config), given)
                    if told:
                        yield f"{'.'.join(map(str, path))} = {changed!r}: {told}"


def _put(given: Any, path: tuple[Any, ...], value: Any) -> None:
    *front, last = path
    for key in front:
        if isinstance(given, dict):
            given = given.setdefault(key, {})
            if given is None:
                return
        else:
            given = given[key]
    given[last] = value


for _kind in PRESETS:
    _register(_kind)
