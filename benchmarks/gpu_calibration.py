"""The constants of a GPU's kernels from the rows that calibrate them.

``python -m benchmarks.gpu_calibration --reference DIR [GPU...]`` prints, for each device and kind
of kernel, the constants of ``configs/xpu`` that make the mean squared logarithm of ours over
measured least on those rows (``pimsim.validate.gpu_kernels.KINDS`` says which), and the errors on
them and on all others. Nothing is written: figures go into the YAML by hand.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pimsim.config.xpu import XpuConfig
from pimsim.validate.gpu_kernels import KINDS, Kernel, Kind, kernels, xpu_of
from pimsim.validate.types import References

__all__ = ["CONSTANTS", "calibrated", "errors", "with_constants"]

CONSTANTS: dict[Kind, tuple[str, ...]] = {
    "gemm": (
        "memory_utilisation", "compute_utilisation", "silicon.gemm.launch_ns",
        "silicon.gemm.reduction_ns", "silicon.gemm.burst_utilisation",
    ),
    "context": (
        "silicon.flash.launch_ns", "silicon.flash.block_ns", "silicon.flash.softmax_cost",
    ),
    "generation": (
        "silicon.decode.launch_ns", "silicon.decode.block_ns", "silicon.decode.combine_ns",
        "silicon.decode.regroup_ns", "silicon.decode.memory_utilisation",
    ),
    "experts": (
        "silicon.experts.launch_ns", "silicon.experts.step_ns",
        "silicon.experts.memory_utilisation", "silicon.experts.overlap",
    ),
}  # fmt: skip
"""In this order: later kinds use what earlier ones gave."""
_MOST = {"memory_utilisation": 1.0, "compute_utilisation": 1.0, "burst_utilisation": 1.0}


def value_of(xpu: XpuConfig, path: str) -> float:
    """The constant at a dotted ``path``."""
    found: object = xpu
    for key in path.split("."):
        found = getattr(found, key)
    assert isinstance(found, int | float)
    return float(found)


def with_constants(xpu: XpuConfig, values: dict[str, float]) -> XpuConfig:
    """``xpu`` with other constants."""
    for path, value in values.items():
        *outer, last = path.split(".")
        sections = [xpu]
        for key in outer:
            sections.append(getattr(sections[-1], key))
        changed = sections[-1].model_copy(update={last: value})
        for section, key in zip(reversed(sections[:-1]), reversed(outer), strict=True):
            changed = section.model_copy(update={key: changed})
        xpu = changed
    return xpu


def errors(rows: Sequence[Kernel], xpu: XpuConfig) -> np.ndarray:
    """Ours over measured, less one."""
    return np.array([1e6 * each.ours_s(xpu) / each.measured_us - 1 for each in rows])


def calibrated(
    rows: Sequence[Kernel], xpu: XpuConfig, paths: Sequence[str], rounds: int = 40
) -> dict[str, float]:
    """Constants of least mean squared logarithm: each in turn, by steps that shrink."""

    def cost(values: dict[str, float]) -> float:
        return float(np.mean(np.log1p(errors(rows, with_constants(xpu, values))) ** 2))

    return _descend(cost, {path: value_of(xpu, path) for path in paths}, rounds)


def _descend(
    cost: Callable[[dict[str, float]], float], values: dict[str, float], rounds: int
) -> dict[str, float]:
    steps = dict.fromkeys(values, 0.3)
    least = cost(values)
    for _ in range(rounds):
        for path, step in steps.items():
            most = _MOST.get(path.rpartition(".")[-1], float("inf"))
            found = False
            for factor in (1 + step, 1 / (1 + step)):
                tried = {**values, path: min(values[path] * factor, most)}
                new = cost(tried)
                if new < least:
                    values, least, found = tried, new, True
                    break
            steps[path] = min(0.5, step * 1.3) if found else step / 2
        if max(steps.values()) < 1e-3:
            break
    return values


def main() -> None:
    """Print the constants of each device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("gpus", nargs="*", default=[])
    parser.add_argument("--reference", type=Path, required=True)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    arguments = parser.parse_args()
    rows = list(kernels(References(Path(), arguments.reference)))
    gpus = arguments.gpus or list(dict.fromkeys(each.gpu for each in rows))
    for gpu in gpus:
        xpu = xpu_of(gpu)
        for kind, paths in CONSTANTS.items():
            of_kind = [each for each in rows if (each.gpu, each.kind) == (gpu, kind)]
            if not of_kind or kind not in arguments.kinds:
                continue
            stated = [each for each in of_kind if each.calibrates]
            values = calibrated(stated, xpu, [path for path in paths if value_of(xpu, path)])
            xpu = with_constants(xpu, values)
            print(gpu, kind, {path: float(f"{value:.3g}") for path, value in values.items()})
            for name, some in (
                ("calibrate", stated), ("test", [e for e in of_kind if not e.calibrates]),
            ):  # fmt: skip
                found = errors(some, xpu)
                sizes = np.abs(found)
                print(
                    f"  {name}: {len(some)} rows, median {np.median(sizes):.1%}, "
                    f"p90 {np.quantile(sizes, 0.9):.1%}, bias {found.mean():+.1%}", flush=True
                )  # fmt: skip


if __name__ == "__main__":
    main()
