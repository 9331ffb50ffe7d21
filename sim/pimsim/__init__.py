"""pimsim: NPU-PIM accelerators running decoder LLMs, simulated at DRAM command level.

Names are loaded when they are first used, so that ``import pimsim`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_LAZY = {
    "CheckFailed": "pimsim.config.errors:CheckFailed",
    "InputError": "pimsim.config.errors:InputError",
    "ResolvedRun": "pimsim.config.loader:ResolvedRun",
    "collective": "pimsim.hardware.fabric.plan:collective",
    "compare": "pimsim.simulate:compare",
    "load": "pimsim.explore.results:load",
    "load_config": "pimsim.config.loader:load_any_run",
    "plot_trade_off": "pimsim.report.plots:plot_trade_off",
    "Result": "pimsim.result.types:Result",
    "run": "pimsim.simulate:run",
    "serve": "pimsim.services:serve",
    "ServiceResult": "pimsim.result.service:ServiceResult",
    "sweep": "pimsim.explore.results:sweep",
}

__all__ = ["__version__", *sorted(_LAZY)]  # every name resolves in __getattr__


def __getattr__(name: str) -> Any:
    """Import the module behind a public name (PEP 562) and keep what it found."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Names for completion, lazy ones included."""
    return sorted({*globals(), *_LAZY})
