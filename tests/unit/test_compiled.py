"""Compiled kernels are kept by all that they are made of."""

from __future__ import annotations

import os
import pkgutil
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher

import pimsim.hardware
from pimsim.config.errors import InputError
from pimsim.hardware import compiled

MODULE = """
from enum import IntEnum
import numpy as np
from pimsim.hardware.compiled import njit
from other import far
import constants

LIMIT = 7
TABLE = np.array([1, 2, 3])
PAIR = (1, 2)

class Command(IntEnum):
    ACT = 3

@njit(cache=True)
def callee(x):
    return x + 1

@njit(cache=True)
def unrelated(x):
    return x - 1

@njit(cache=True)
def kernel(x, step=2):
    # a comment
    return callee(x) * LIMIT + TABLE[0] + Command.ACT + PAIR[1] + far(x) + constants.DEPTH + step
"""
OTHER = """
from pimsim.hardware.compiled import njit

@njit(cache=True)
def far(x):
    return near(x)

@njit(cache=True)
def near(x):
    return 5 * x
"""
CONSTANTS = "DEPTH = 4\nUNUSED = 1\n"


def _module(name: str, source: str) -> ModuleType:
    made = ModuleType(name)
    sys.modules[name] = made
    exec(compile(source, f"{name}.py", "exec"), made.__dict__)
    return made


@pytest.fixture
def key_of(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The key of ``kernel`` where ``old`` is ``new`` in one of the three files."""

    def key(old: str = "", new: str = "", sig: Any = (), target: Any = ()) -> str:
        texts = [text.replace(old, new) if old else text for text in (CONSTANTS, OTHER, MODULE)]
        assert not old or texts != [CONSTANTS, OTHER, MODULE], f"nothing to edit: {old}"
        names = ("constants", "other", "kernels_of_a_test")
        for name in names:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))  # undone at the end
        *_, made = (_module(name, text) for name, text in zip(names, texts, strict=True))
        return compiled.kernel_key(made.kernel, sig, target)

    return key


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return callee(x) *", "return 2 + callee(x) *"),
        ("return x + 1", "return x + 2"),
        ("return 5 * x", "return x * 5"),
        ("LIMIT = 7", "LIMIT = 8"),
        ("LIMIT = 7", "LIMIT = 7.0"),
        ("[1, 2, 3]", "[1, 2, 4]"),
        ("[1, 2, 3])", "[1, 2, 3], np.int32)"),
        ("PAIR = (1, 2)", "PAIR = (1, 3)"),
        ("ACT = 3", "ACT = 4"),
        ("DEPTH = 4", "DEPTH = 5"),
        ("step=2", "step=3"),
        ("@njit(cache=True)\ndef near", "@njit(cache=True, inline='always')\ndef near"),
    ],
)
def test_an_edit_of_anything_that_a_kernel_reads_changes_its_key(
    key_of: Any, old: str, new: str
) -> None:
    assert key_of(old, new) != key_of()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another\n\n"),
        ("return x - 1", "return x - 2"),
        ("UNUSED = 1", "UNUSED = 2"),
    ],
)
def test_an_edit_of_anything_else_does_not(key_of: Any, old: str, new: str) -> None:
    assert key_of(old, new) == key_of()


def test_the_key_tells_types_processor_and_compiler_apart(
    key_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = numba.typeof(np.zeros(1, [("a", np.int64), ("b", np.int64)]))
    two = numba.typeof(np.zeros(1, [("b", np.int64), ("a", np.int64)]))
    wider = numba.typeof(np.zeros(1, [("a", np.int64), ("b", np.int64), ("c", np.int64)]))
    keys = [key_of(sig=(each,)) for each in (one, two, wider)]
    keys += [key_of(), key_of(target=("x86-64", "znver4", "+avx512f"))]
    keys += [key_of(target=("x86-64", "znver3", "+avx2"))]
    for name in ("numba", "llvmlite", "np"):
        compiled._compiler.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(getattr(compiled, name), "__version__", "0.0.1")
            keys.append(key_of())
    compiled._compiler.cache_clear()
    assert len(set(keys)) == len(keys)
    assert key_of(sig=(one,)) == keys[0]


def _package_kernels() -> list[Dispatcher]:
    found: dict[str, Dispatcher] = {}
    for info in pkgutil.walk_packages(pimsim.hardware.__path__, "pimsim.hardware."):
        for value in vars(import_module(info.name)).values():
            if isinstance(value, Dispatcher):
                found[compiled._name(value.py_func)] = value
    return list(found.values())


def test_every_kernel_of_the_package_is_kept_by_content(repo_dir: Path) -> None:
    plain = re.compile(r"^\s*(from numba import .*njit|@numba\.)", re.MULTILINE)
    sources = [
        path for path in (repo_dir / "sim").rglob("*.py") if path.name != "compiled.py"
    ]  # fmt: skip
    wrong = [path for path in sources if plain.search(path.read_text())]
    assert not wrong, "take njit from pimsim.hardware.compiled, whose cache follows callees"
    kernels = _package_kernels()
    assert len(kernels) > 50
    assert all(isinstance(one._cache, compiled.ContentCache) for one in kernels)
    assert len({compiled.kernel_key(one) for one in kernels}) == len(kernels)


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from kernels_of_a_test import kernel
print(kernel(10))
print(sum(kernel.stats.cache_hits.values()), sum(kernel.stats.cache_misses.values()))
"""


def _run(folder: Path, **environment: str) -> tuple[int, int, int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, timeout=120,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value, hits, misses = map(int, done.stdout.split())
    return value, hits, misses


def test_processes_see_an_edited_callee_in_another_file_and_a_damaged_file(tmp_path: Path) -> None:
    for name, text in (("kernels_of_a_test", MODULE), ("other", OTHER), ("constants", CONSTANTS)):
        (tmp_path / f"{name}.py").write_text(text)
    cache = tmp_path / "cache"
    first = 11 * 7 + 1 + 3 + 2 + 50 + 4 + 2
    assert _run(tmp_path, NUMBA_CACHE_DIR=str(cache)) == (first, 0, 1)
    assert _run(tmp_path, NUMBA_CACHE_DIR=str(cache)) == (first, 1, 0)
    (tmp_path / "other.py").write_text(OTHER.replace("5 * x", "6 * x"))
    assert _run(tmp_path, NUMBA_CACHE_DIR=str(cache)) == (first + 10, 0, 1)
    (tmp_path / "other.py").write_text(OTHER)
    for path in (cache / "pimsim-kernels").glob("*kernel-*"):
        path.write_bytes(path.read_bytes()[:-9])
    assert _run(tmp_path, NUMBA_CACHE_DIR=str(cache)) == (first, 0, 1)


LATE = """
import sys
import numpy as np
from pimsim.hardware.compiled import njit

@njit(cache=True)
def counted(size):
    return np.zeros(size, np.int64).size

print(counted(5), "numba.np.arrayobj" in sys.modules)

@njit(cache=True)
def fill(size):
    found = {}
    for at in range(size):
        found[str(at)] = at
    return found["7"]

@njit(cache=True)
def grown(size):
    squares = [at * at for at in range(size)]
    return sum(squares)

print(grown(4), "numba.np.arraymath" in sys.modules, fill(9))

@njit()
def new(size):
    return size + 1

print(new(1), *(sum(one.stats.cache_hits.values()) for one in (grown, fill)))
"""


def test_kept_code_finds_what_it_needs_without_what_compiles(tmp_path: Path) -> None:
    """Memory that it takes and text that it hashes; and compiling goes on beside it."""
    (tmp_path / "late.py").write_text(LATE)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    told = [
        subprocess.run(
            [sys.executable, str(tmp_path / "late.py")], capture_output=True, text=True,
            timeout=300, check=True, env=environment,
        ).stdout.split()
        for _ in range(2)
    ]  # fmt: skip
    assert told == [
        ["5", "True", "14", "True", "7", "2", "0", "0"],
        ["5", "False", "14", "False", "7", "2", "1", "1"],
    ]


def test_a_cache_that_cannot_be_kept_is_not_kept(tmp_path: Path) -> None:
    for name, text in (("kernels_of_a_test", MODULE), ("other", OTHER), ("constants", CONSTANTS)):
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "file").write_text("")
    value, hits, misses = _run(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file" / "below"))
    assert (value, hits, misses) == (139, 0, 1)


def test_a_second_folder_is_taken_where_the_first_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    folders = (tmp_path / "file" / "below", tmp_path / "second")
    monkeypatch.setattr(compiled, "cache_folders", lambda: folders)

    def make() -> Any:
        @compiled.njit(cache=True)
        def twice(x: int) -> int:
            return 2 * x

        return twice

    assert make()(3) == 6
    assert [path.suffix for path in folders[1].iterdir()] == [".nbc"]
    again = make()
    assert again(4) == 8
    assert sum(again.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("name", ["_rebuild", "_reduce"])
def test_a_numba_that_keeps_its_own_elsewhere_costs_time_alone(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels are compiled, and not kept."""
    monkeypatch.setattr(compiled, "cache_folders", lambda: (tmp_path,))

    def make() -> Any:
        @compiled.njit(cache=True)
        def twice(x: int) -> int:
            return 2 * x

        return twice

    if name == "_rebuild":
        assert make()(3) == 6  # there is something to read
    monkeypatch.delattr(CompileResult, name)
    moved = make()
    assert moved(4) == 8
    assert sum(moved.stats.cache_hits.values()) == 0
    assert len(list(tmp_path.iterdir())) == (name == "_rebuild")


def test_what_is_old_or_too_much_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "KEPT_BYTES", 250)
    day, now = 86_400, 1_000 * 86_400
    for name, age in (("new", 0), ("used", 29), ("third", 29.5), ("old", 31)):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (now - age * day, now - age * day))
    compiled.prune(tmp_path, now)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "used"]
    monkeypatch.setattr(compiled, "KEPT_BYTES", 300)
    compiled.prune(tmp_path, now + 1.5 * day)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_without_the_compiler_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled._SETTINGS, "DISABLE_JIT", 1)
    with pytest.raises(InputError, match="NUMBA_DISABLE_JIT is set"):
        compiled.njit(cache=True)
