"""What `import pimsim` and `pimsim --help` may not pull in (their time is measured by hand)."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pimsim

HEAVY = ("matplotlib", "numba", "numpy", "onnx", "pandas", "pyarrow", "pydantic", "simpy", "yaml")


def _loaded_by(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("code", ["import pimsim", "import pimsim.cli.commands"])
def test_importing_leaves_heavy_libraries_alone(code: str) -> None:
    loaded = _loaded_by(code)
    assert "pimsim" in loaded
    assert not loaded.intersection(HEAVY)


@pytest.mark.parametrize("name", [name for name in pimsim.__all__ if name != "__version__"])
def test_every_public_name_resolves(name: str) -> None:
    assert callable(getattr(pimsim, name))
    assert name in dir(pimsim)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        pimsim.simulat  # noqa: B018  # the access is the test
