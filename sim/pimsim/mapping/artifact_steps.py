"""A matrix product to steps as the NeuPIMs artifact tiles it and moves its operands."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pimsim.config.npu import NpuConfig
from pimsim.hardware.dram.system import Stream
from pimsim.hardware.npu.gemm import plan_gemm
from pimsim.hardware.npu.tiling import GemmTile, tile_gemm
from pimsim.mapping.artifact_operands import gemm_operands
from pimsim.mapping.tasks import GemmStep
from pimsim.workload.operators import Operator

__all__ = ["ArtifactTiler", "operand_stream"]


def operand_stream(
    operands: tuple[int, ...], burst_bytes: int, write: bool = False, track: bool = False
) -> Stream:
    """Operands of these bytes, where the artifact's counter stands."""
    return Stream(0, -(-sum(operands) // burst_bytes), write, track, operands)


@dataclass(frozen=True)
class ArtifactTiler:
    """Tiles of the artifact's rule; activations are loaded block by block between the weights
    that they meet."""

    npu: NpuConfig
    burst_bytes: int
    element_bytes: int
    activation_burst: int

    def steps(
        self, operator: Operator, at: int, spill: bool
    ) -> tuple[list[GemmStep], list[GemmTile]]:
        """Steps of a product whose weights begin at burst ``at``; ``spill``: activations cross
        the bus."""
        tiles = tile_gemm(
            operator.m, operator.n, operator.k, self.element_bytes, self.npu.scratchpad,
            "halve-largest",
        )  # fmt: skip
        bias = max(operator.weight_bytes - operator.n * operator.k * self.element_bytes, 0)
        if self.npu.artifact_request_order != "none":
            return [self._by_operand(operator, tile, bias > 0) for tile in tiles], list(tiles)
        steps: list[GemmStep] = []
        for number, tile in enumerate(tiles):
            weights = tile.weight_bytes + (bias if number == 0 else 0)
            ride = tile.input_bytes + tile.partial_bytes if spill else 0
            loads = []
            if weights + ride:
                bursts = self._bursts(weights + ride)
                loads.append(Stream(at, bursts, track_blocks=True, weight_bytes=weights))
                at += self._bursts(tile.weight_bytes)
            stored = self._bursts(self._stored(operator, tile.output_bytes)) if spill else 0
            stores = (Stream(self.activation_burst, stored, write=True),) if stored else ()
            block = min(operator.m, self.npu.systolic.rows) * operator.k * self.element_bytes
            scale = 1.0 + min(ride, block) / weights if ride and weights else 1.0
            plan = plan_gemm(tile.m, tile.n, tile.k, self.npu.systolic, self.element_bytes)
            steps.append(GemmStep(plan, tuple(loads), stores, 0, scale))
        return steps, list(tiles)

    def _bursts(self, size: int) -> int:
        return -(-size // self.burst_bytes)

    def _by_operand(self, operator: Operator, tile: GemmTile, has_bias: bool) -> GemmStep:
        """Loads and stores in the artifact's order, operand by operand."""
        operands = gemm_operands(
            tile, operator.m, operator.n, self.npu.systolic.rows, self.element_bytes, has_bias,
            self.npu.artifact_store_bug,
        )  # fmt: skip
        plan = plan_gemm(tile.m, tile.n, tile.k, self.npu.systolic, self.element_bytes)
        stream = operand_stream(operands.loads, self.burst_bytes, track=True)
        loads = (replace(stream, weight_bytes=operands.weight_bytes),)
        stores = tuple(
            operand_stream((size,), self.burst_bytes, write=True) for size in operands.stores
        )
        return GemmStep(
            plan, loads, stores, 0, needed=operands.needed, stored_after=operands.stored_after
        )

    def _stored(self, operator: Operator, output_bytes: int) -> int:
        """Bytes of results that go back to DRAM."""
        if not self.npu.artifact_store_bug:
            return output_bytes
        rows = self.npu.systolic.rows
        kept = operator.m * min(operator.n, rows * -(-operator.m // rows)) * self.element_bytes
        return min(output_bytes, kept)
