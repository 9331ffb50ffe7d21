"""The NPU: SCALE-Sim's closed forms, and ONNXim's products with their traffic.

SCALE-Sim: compute cycles of one array, folds that never overlap. ONNXim: four cores that share a
memory, every request over its network and every DRAM command, on the presets that stand for its
configs. ``matmul_cycles`` is a core's multiply-accumulates over those of its array.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from pimsim.config.loader import load_run
from pimsim.config.npu import SystolicConfig
from pimsim.engine.gemm import run_gemm
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.validate.types import References, Row

__all__ = ["PRESETS", "onnxim_rows", "rows", "scalesim_rows"]

PRESETS = {
    "systolic_ws_128x128_c4_simple_noc_tpuv4": "onnxim-tpuv4",
    "systolic_ws_8x8_c4_simple_noc_transformer": "onnxim-transformer",
}
"""Our preset of each of ONNXim's configs."""
ONNXIM_TABLES = ("onnxim.csv", "onnxim_more.csv")


def scalesim_rows(references: References) -> Iterator[Row]:
    """Every run of SCALE-Sim 3: cycles by its closed form, and as it reports them.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    for run in references.table("scalesim.csv"):
        systolic = SystolicConfig.model_validate(
            {
                "arrays": 1, "rows": int(run["rows"]), "cols": int(run["cols"]),
                "dataflow": run["dataflow"], "preload": "exposed",
            }
        )  # fmt: skip
        cycles = plan_gemm(int(run["M"]), int(run["N"]), int(run["K"]), systolic).cycles
        case = "{dataflow}/{rows}x{cols}/{M}x{N}x{K}".format(**run)
        yield Row("scalesim.cycles", case, "cycles", float(run["formula_lines"]), cycles)
        # its own count is the index of the last cycle
        yield Row("scalesim.cycles", case, "last_cycle", float(run["compute_cycles"]), cycles - 1)


def onnxim_rows(references: References, cases: Container[str] | None = None) -> Iterator[Row]:
    """Every run of ONNXim, or those of ``cases``.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    cases
        None: all.
    """
    for name in ONNXIM_TABLES:
        for run in references.table(name):
            case = f"{run.known('config', PRESETS)}/{run['M']}x{run['N']}x{run['K']}"
            if cases is None or case in cases:
                yield from _onnxim(run, case)


def _onnxim(run: Mapping[str, str], case: str) -> Iterator[Row]:
    m, n, k = (int(run[size]) for size in "MNK")
    preset = load_run(PRESETS[run["config"]]).config
    found = run_gemm(m, n, k, preset.npu, preset.memory)
    yield Row("onnxim.cycles", case, "cycles", float(run["cycles"]), found.cycles)
    active = run.get("matmul_active_cycles_per_core_c0_c1_c2_c3")
    if active is None:
        return
    elements = preset.npu.systolic.rows * preset.npu.systolic.cols
    for core, (theirs, tiles) in enumerate(zip(active.split("/"), found.tiling.cores, strict=True)):
        work = sum(tile.m * tile.n * tile.k for tile in tiles) // elements
        yield Row("onnxim.work", case, f"matmul_cycles_core_{core}", float(theirs), work)


def rows(references: References) -> Iterator[Row]:
    """All of them; ONNXim's take about a minute.

    Parameters
    ----------
    references
        Tables that ship, and those of ``--reference``.
    """
    yield from scalesim_rows(references)
    yield from onnxim_rows(references)
