"""numba's ``njit`` with a cache that follows all that a kernel is made of.

numba keeps compiled code beside the file of a function and takes it for fresh as long as that file
is: a callee, a constant or a record that was edited in another file goes unseen. Here compiled code
is kept by content: the bytecode of a kernel and of all that it calls, the values of every name that
they look up, the types of its arguments, the compiler and the processor. Two checkouts thus share
what is equal in both, and an edit anywhere compiles what it concerns and nothing else.

Files are written whole and renamed into place, so that many processes may write at once. A folder
that cannot be read or written costs time, never a result.
"""

from __future__ import annotations

import builtins
import enum
import io
import os
import pickle
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import llvmlite
import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from pimsim.config.errors import InputError
from pimsim.config.paths import cache_folder

__all__ = ["ContentCache", "cache_folders", "kernel_key", "njit", "prune"]

KEPT_DAYS = 30
KEPT_BYTES = 512 << 20
"""What was not used for so long, or is beyond so much, is removed when something new is kept."""
Function = TypeVar("Function", bound=Callable[..., Any])
_DAY_S = 86_400
_DIGEST = 32
_SETTINGS: Any = numba.config
_MOVED = (AttributeError, ImportError, TypeError)
"""What is raised where a numba keeps its own at another place than 0.60 to 0.68 do: nothing is kept
then, and kernels are compiled in every process."""
_LATE_SYMBOLS = (
    b"_numba_hashsecret", b"numba_parallel_for", b"do_scheduling", b"_sched", b"parallel_chunksize",
    b"et_num_threads", b"get_thread_id",
)  # fmt: skip
"""In names of what numba tells the linker when it loads hashing and parallel loops, not before."""
_SWITCHES = ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "LOOP_VECTORIZE", "SLP_VECTORIZE")
"""Of numba's settings, those that change the code that is made."""


def njit(cache: bool = False, **options: Any) -> Callable[[Function], Function]:
    """Compile a function as ``numba.njit`` does; with ``cache``, keep the code by content.

    Parameters
    ----------
    cache
        Whether to keep compiled code on disk.
    **options
        Of ``numba.njit``.

    Returns
    -------
    Callable
        A decorator.

    Raises
    ------
    InputError
        Where numba's compiler is switched off: kernels read numpy records by the names of their
        fields, which plain Python cannot.
    """
    if _SETTINGS.DISABLE_JIT:
        raise InputError("NUMBA_DISABLE_JIT is set; pimsim's kernels need the compiler, unset it")

    def compiled(function: Function) -> Function:
        dispatcher = numba.njit(**options)(function)
        if cache:
            dispatcher._cache = ContentCache(dispatcher)
        found: Function = dispatcher
        return found

    return compiled


def cache_folders() -> tuple[Path, ...]:
    """Where compiled kernels are looked for, and kept in the first that can be written:
    ``NUMBA_CACHE_DIR`` if it is set, else the user's cache folder, else the package's own."""
    if _SETTINGS.CACHE_DIR:
        return (Path(_SETTINGS.CACHE_DIR) / "pimsim-kernels",)
    own = Path(__file__).parents[1] / "__pycache__"
    return tuple(folder / "kernels" for folder in (cache_folder(), own) if folder is not None)


class ContentCache:
    """Compiled code of one kernel, a file for each signature; as numba's own ``_Cache``, of which
    a dispatcher calls what is public here."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._enabled = True

    @property
    def cache_path(self) -> str:
        """The first folder that is looked into."""
        return str(next(iter(cache_folders()), ""))

    def enable(self) -> None:
        """Read and write from now on."""
        self._enabled = True

    def disable(self) -> None:
        """Neither read nor write from now on."""
        self._enabled = False

    def flush(self) -> None:
        """Nothing is ever out of date here."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was compiled for ``sig``, or None."""
        if not self._enabled:
            return None
        try:
            return self._loaded(sig, target_context)
        except _MOVED:
            self.disable()
            return None

    def _loaded(self, sig: Any, target_context: Any) -> Any:
        name = self._file_name(sig, target_context.codegen())
        for folder in cache_folders():
            path = folder / name
            with suppress(OSError):
                data = path.read_bytes()
                if sha256(data[_DIGEST:]).digest() == data[:_DIGEST]:
                    _mark_used(path)
                    _prepare(target_context, data)
                    from numba.core.compiler import CompileResult

                    parts = _Unpickler(io.BytesIO(data[_DIGEST:])).load()
                    return CompileResult._rebuild(target_context, *parts)
        return None

    def save_overload(self, sig: Any, cres: Any) -> None:
        """Keep what was compiled for ``sig``, where there is a place for it."""
        if self._enabled:
            with suppress(*_MOVED):
                self._keep(sig, cres)

    def _keep(self, sig: Any, cres: Any) -> None:
        if cres.library.has_dynamic_globals or cres.lifted:
            return
        name = self._file_name(sig, cres.library.codegen)
        from numba.core.serialize import dumps

        data = dumps(cres._reduce())
        for folder in cache_folders():
            with suppress(OSError):
                _write(folder, name, sha256(data).digest() + data)
                return

    def _file_name(self, sig: Any, codegen: Any) -> str:
        function = self._dispatcher.py_func
        key = kernel_key(self._dispatcher, sig, codegen.magic_tuple())
        return f"{function.__module__}.{function.__qualname__}-{key}.nbc"


class _Unpickler(pickle.Unpickler):
    """Reads compiled code without the modules of numba's that its parts were written in.

    Each function that was compiled in has the globals of its module beside it, which only code that
    runs Python objects reads; ours does not. ``numba.np.arrayobj``, of which every kernel has a
    part, alone takes a tenth of a second to import.
    """

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle names."""
        found = super().find_class(module, name)
        return _environment if (module, name) == _ENVIRONMENT else found


_ENVIRONMENT = ("numba.core.environment", "_rebuild_env")


def _environment(module: str, consts: Any, name: str) -> Any:
    from numba.core.environment import Environment, _rebuild_env

    if module in sys.modules or not module.startswith("numba.") or name in Environment._memo:
        return _rebuild_env(module, consts, name)
    found = Environment({"__name__": module})
    found.consts[:] = consts
    found.env_name = name
    Environment._memo[name] = found
    return found


def _prepare(target_context: Any, data: bytes) -> None:
    """Let the process have all that compiled code refers to.

    Numba's implementations of Python and numpy are for compiling, and who compiles loads them: a
    tenth of a run's start. Code that was compiled needs the run-time library, and, of the modules
    that bring symbols of their own (``_LATE_SYMBOLS``), those that it names.
    """
    if any(symbol in data for symbol in _LATE_SYMBOLS):
        target_context.refresh()
        return
    from numba.core.runtime.nrt import rtsys

    rtsys.initialize(target_context)


def kernel_key(dispatcher: Dispatcher, sig: Any = (), target: Any = ()) -> str:
    """Equal for what compiles to equal code: 32 hexadecimal digits.

    Parameters
    ----------
    dispatcher
        The kernel.
    sig
        Types of its arguments.
    target
        The processor, as numba's code generator names it.
    """
    # Which values the code reads is known once all modules are loaded: at the first call.
    seen: dict[str, str] = {}
    waiting = [dispatcher]
    while waiting:
        one = waiting.pop()
        name = _name(one.py_func)
        if name not in seen:
            seen[name], callees = _described(one)
            waiting += callees
    parts = (_compiler(), target, _types(sig), sorted(seen.items()))
    return sha256(repr(parts).encode()).hexdigest()[:32]


def _name(function: Any) -> str:
    return f"{function.__module__}.{function.__qualname__}"


@cache
def _compiler() -> tuple[Any, ...]:
    switches = tuple(str(getattr(_SETTINGS, name, None)) for name in _SWITCHES)
    versions = (numba.__version__, llvmlite.__version__, np.__version__, sys.version)
    return versions + switches


def _types(sig: Any) -> list[str]:
    """Types by name, which for a record tells all fields; a named tuple's does not."""
    types = sig if isinstance(sig, tuple) else (*sig.args, sig.return_type)
    return [f"{one!r} {getattr(one, 'fields', '')}" for one in types]


@cache
def _described(dispatcher: Dispatcher) -> tuple[str, list[Dispatcher]]:
    """What the kernel itself is made of, and the kernels that it names."""
    found: list[Dispatcher] = []
    function = dispatcher.py_func
    code = function.__code__
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    texts = [
        repr(sorted(dispatcher.targetoptions.items(), key=str)),
        _code_text(code),
        _value_text((function.__defaults__, function.__kwdefaults__, cells), (), found),
    ]
    names = sorted(set(_names(code)))
    for name in names:
        if name in function.__globals__:
            value = function.__globals__[name]
            texts.append(f"{name} = {_value_text(value, names, found)}")
        elif hasattr(builtins, name):
            texts.append(f"{name} is built in")
    return sha256("\n".join(texts).encode()).hexdigest(), found


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)


def _names(code: CodeType) -> Iterator[str]:
    for one in _codes(code):
        yield from one.co_names


def _code_text(code: CodeType) -> str:
    """All of the code but where it is written."""
    texts = []
    for one in _codes(code):
        consts = [const for const in one.co_consts if not isinstance(const, CodeType)]
        texts.append(repr((
            one.co_code.hex(), consts, one.co_names, one.co_varnames, one.co_freevars,
            one.co_cellvars, one.co_argcount, one.co_kwonlyargcount, one.co_flags,
            one.co_exceptiontable.hex(),
        )))  # fmt: skip
    return "\n".join(texts)


def _value_text(value: Any, attributes: Any, found: list[Dispatcher]) -> str:
    """A value that code names, by content. ``attributes``: names that may be read of a module.
    Kernels are added to ``found``."""
    if isinstance(value, Dispatcher):
        found.append(value)
        return f"kernel {_name(value.py_func)}"
    if isinstance(value, np.ndarray):
        return f"array {value.dtype!r} {value.shape} {sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_value_text(item, attributes, found) for item in value)
        return f"{type(value).__qualname__}({inner})"
    if isinstance(value, dict):
        return _value_text(sorted(value.items()), attributes, found)
    if isinstance(value, ModuleType):
        return _module_text(value, attributes, found)
    if isinstance(value, FunctionType):
        return f"function {_name(value)} {_code_text(value.__code__)}"
    if isinstance(value, type):
        return _class_text(value)
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype)):
        return f"{type(value).__qualname__} {value!r}"
    if isinstance(value, (np.generic, enum.Enum, type(len), np.ufunc)):
        return f"{type(value).__qualname__} {value!r}"
    # Anything else may mean what it likes: all of the file that defines it counts.
    return f"{type(value).__qualname__} {_file_sha256(type(value).__module__)}"


def _module_text(module: ModuleType, attributes: Any, found: list[Dispatcher]) -> str:
    top = module.__name__.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("numpy", "numba"):
        return f"module {module.__name__}"
    read = [
        f"{name} = {_value_text(vars(module)[name], (), found)}"
        for name in attributes
        if name in vars(module) and not isinstance(vars(module)[name], ModuleType)
    ]
    return f"module {module.__name__} {read}"


def _class_text(value: type) -> str:
    name = f"class {value.__module__}.{value.__qualname__}"
    if issubclass(value, enum.Enum):
        return f"{name} {[(one.name, repr(one.value)) for one in value]}"
    if value.__module__.partition(".")[0] in (*sys.stdlib_module_names, "numpy", "numba"):
        return name
    return f"{name} {_file_sha256(value.__module__)}"


@cache
def _file_sha256(module: str) -> str:
    file = getattr(import_module(module), "__file__", None)
    return sha256(Path(file).read_bytes()).hexdigest() if file else module


def _mark_used(path: Path) -> None:
    """Let the file's time say that it is used; a day's precision is enough."""
    if time.time() - path.stat().st_mtime > _DAY_S:
        with suppress(OSError):  # somebody else's folder
            os.utime(path)


def _write(folder: Path, name: str, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, folder / name)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _prune_once(folder)


@cache
def _prune_once(folder: Path) -> None:
    prune(folder, time.time())


def prune(folder: Path, now_s: float) -> None:
    """Remove what nobody has used for ``KEPT_DAYS``, and the oldest beyond ``KEPT_BYTES``.

    Parameters
    ----------
    folder
        Of kept code.
    now_s
        Seconds since the epoch.
    """
    files = []
    for path in folder.iterdir():
        with suppress(OSError):  # another process may have removed it
            files.append((path.stat().st_mtime, path.stat().st_size, path))
    kept = 0
    for used, size, path in sorted(files, reverse=True):
        kept += size
        if now_s - used > KEPT_DAYS * _DAY_S or kept > KEPT_BYTES:
            with suppress(OSError):
                path.unlink()
