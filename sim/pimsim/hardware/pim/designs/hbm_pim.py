"""HBM-PIM (Samsung Aquabolt-XL): kernels as requests of an ordinary host.

Between each even and odd bank sits a PIM block: 16 FP16 lanes, register files GRF_A and GRF_B
of eight 32 B registers each, and an instruction memory (CRF). In all-bank mode a column access
to bank 0 (1) happens in all even (odd) banks, and each steps the blocks' program once (ISCA
2021, section III). The host orders requests with fences. Kernels as in Samsung's PIMSimulator,
src/tests/PIMKernel.cpp; results stay in the banks, 16 partial sums to an output.
"""

from __future__ import annotations

from dataclasses import dataclass

from pimsim.config.errors import InputError, near_miss
from pimsim.config.pim import PimDesignConfig
from pimsim.hardware.pim.stream import CommandStream, StreamBuilder

__all__ = ["Instruction", "elementwise", "elementwise_program", "gemv", "gemv_program", "steps"]

EVEN, ODD = 0, 1
_OPCODES = {"add": "ADD", "multiply": "MUL", "mul": "MUL"}
"""CRF opcodes of functions of two operands; PIMSimulator says ``mul``."""


@dataclass(frozen=True)
class Instruction:
    """One CRF instruction: what it does, and how often it is repeated."""

    opcode: str
    """``MAC``, ``ADD``, ``MUL``, ``FILL``, ``NOP``, ``JUMP`` or ``EXIT``."""
    bank: int = -1
    """Parity of the bank that is an operand; -1 none."""
    repeat: int = 1
    """Column accesses that step it. JUMP takes none; it goes back ``repeat`` times."""
    offset: int = 0
    """Instructions that JUMP goes back."""


def steps(program: tuple[Instruction, ...]) -> int:
    """Column accesses from a program's start to its EXIT.

    Parameters
    ----------
    program
        Of a block, ended by an EXIT; its JUMPs go back.
    """
    total, at = 0, 0
    left = {i: step.repeat for i, step in enumerate(program) if step.opcode == "JUMP"}
    while program[at].opcode != "EXIT":
        if program[at].opcode == "JUMP":
            if left[at] > 0:
                left[at] -= 1
                at -= program[at].offset
                continue
        else:
            total += program[at].repeat
        at += 1
    return total


def gemv_program(design: PimDesignConfig, input_tiles: int) -> tuple[Instruction, ...]:
    """MACs on the even banks' tiles, then the odd ones', then the outputs' way to the bank.

    Parameters
    ----------
    design
        HBM-PIM's.
    input_tiles
        Of 128 inputs, even and odd ones together.
    """
    registers = design.capacity("grf_registers")
    program: list[Instruction] = []
    for parity, tiles in ((EVEN, -(-input_tiles // 2)), (ODD, input_tiles // 2)):
        if tiles:
            program += [
                Instruction("MAC", parity, registers),
                Instruction("JUMP", repeat=registers * tiles - 1, offset=1),
            ]
    return (*program, Instruction("NOP", repeat=registers), Instruction("EXIT"))


def elementwise_program(
    design: PimDesignConfig, function: str, tiles: int
) -> tuple[Instruction, ...]:
    """For each parity: an operand into registers, the operation on the way, the way back.

    Parameters
    ----------
    design
        HBM-PIM's.
    function
        ``add``, ``multiply`` or ``relu``.
    tiles
        Of eight columns of every bank; the program is repeated for each.
    """
    registers = design.capacity("grf_registers")
    program: list[Instruction] = []
    for parity in (EVEN, ODD):
        program.append(Instruction("FILL", parity, registers))
        if function != "relu":
            program.append(Instruction(_OPCODES[function], parity, registers))
        program.append(Instruction("NOP", repeat=registers))
    if tiles > 1:
        program.append(Instruction("JUMP", repeat=tiles - 1, offset=len(program)))
    return (*program, Instruction("EXIT"))


class _Host:
    """Requests of one channel, in groups that a fence ends; all channels get the same."""

    def __init__(self, design: PimDesignConfig) -> None:
        self._design = design
        self._builder = StreamBuilder(design, [design.organization.channels])
        self._park()
        self._switch_banks("all_bank", "WR")

    def _switch_banks(self, mode: str, command: str) -> None:
        """Requests to the row that sets a channel to ``mode``."""
        per_group = self._design.organization.banks_per_group
        for mode_row in self._design.own_controller.mode_rows:
            if mode_row.to == mode:
                banks = [divmod(bank, per_group) for bank in mode_row.banks]
                self._requests(command, mode_row.row, banks)

    def _requests(self, command: str, row: int, banks: list[tuple[int, int]]) -> None:
        """One request to each of ``banks`` (bank group, bank); the last one is a fence."""
        for index, (group, bank) in enumerate(banks):
            last = index == len(banks) - 1
            self._builder.add(
                command, row=row, place=(0, 0, group, bank), wait="issued" if last else "none"
            )

    def _park(self) -> None:
        """Open a row that no kernel uses in every bank."""
        org = self._design.organization
        banks = [(g, b) for b in range(org.banks_per_group) for g in range(org.bank_groups)]
        self._requests("RD", self._design.capacity("park_row"), banks)

    def access(self, command: str, parity: int, row: int, count: int) -> None:
        """``count`` accesses to one row of all banks of a parity."""
        if count > 1:
            self._builder.add(command, row=row, place=(0, 0, 0, parity), count=count - 1)
        self._builder.add(command, row=row, place=(0, 0, 0, parity), wait="issued")

    def program(self, program: tuple[Instruction, ...]) -> None:
        """Write the CRF, a burst at a time."""
        design = self._design
        most, most_turns = design.capacity("crf_instructions"), design.capacity("crf_loop_count")
        if len(program) > most:
            raise InputError(
                f"{design.name}: a program of {len(program)} instructions; the CRF holds {most}"
            )
        for step in program:
            if step.opcode == "JUMP" and step.repeat > most_turns:
                raise InputError(
                    f"{design.name}: a loop of {step.repeat} turns; JUMP counts to {most_turns}"
                )
        bursts = -(-len(program) // design.capacity("crf_per_burst"))
        self.access("WR_AB", ODD, design.capacity("register_row"), bursts)

    def switch_pim(self) -> None:
        """To all-bank PIM mode, where accesses step the program, or back: a control write."""
        self.access("WR_AB", EVEN, self._design.capacity("register_row"), 1)

    def finish(self) -> CommandStream:
        """Back to single-bank mode."""
        self._switch_banks("bank", "WR_AB")
        self._park()
        return self._builder.build()


def _check_format(design: PimDesignConfig) -> None:
    if (design.dtype, design.element_bytes) != ("fp16", 2):
        raise InputError(
            f"{design.name}: found dtype {design.dtype!r} of {design.element_bytes} bytes; its "
            "lanes compute fp16 of 2 bytes"
        )


def _check_rows(design: PimDesignConfig, what: str, rows: int) -> None:
    limit = design.capacity("weight_rows")
    if rows > limit:
        raise InputError(
            f"{design.name}: {what} takes {rows} rows of each bank; {limit} can be operands"
        )


def gemv(design: PimDesignConfig, outputs: int, inputs: int, batch: int = 1) -> CommandStream:
    """``batch`` products of an ``outputs`` x ``inputs`` matrix with a vector.

    Each block sums eight outputs in GRF_B, so that a tile has 8 outputs a block. Tiles of 128
    inputs lie in even and odd banks in turn: eight writes bring them to GRF_A, 64 reads
    multiply. Every vector of a batch reads the matrix again.

    Parameters
    ----------
    design
        HBM-PIM's.
    outputs
        Rows of the matrix.
    inputs
        Columns of the matrix, elements of a vector.
    batch
        Vectors.

    Raises
    ------
    InputError
        For another number format, or a matrix that rows cannot hold.
    """
    _check_format(design)
    org, registers = design.organization, design.capacity("grf_registers")
    per_column = org.burst_bytes // design.element_bytes
    output_tiles = -(-outputs // (org.channels * design.capacity("pim_blocks") * registers))
    input_tiles = -(-inputs // (registers * per_column))
    even_tiles = -(-input_tiles // 2)
    tile_columns = registers * registers
    result_column = output_tiles * even_tiles * tile_columns
    columns = result_column + output_tiles * batch * registers
    _check_rows(design, f"a {outputs} x {inputs} matrix", -(-columns // org.columns))
    host = _Host(design)
    host.program(gemv_program(design, input_tiles))
    for tile in range(output_tiles):
        for vector in range(batch):
            host.switch_pim()
            for parity in (EVEN, ODD):
                for part in range(parity, input_tiles, 2):
                    host.access("WR_AB", ODD, design.capacity("register_row"), registers)
                    first = tile_columns * (tile * even_tiles + part // 2)
                    for column in range(first, first + tile_columns, registers):
                        host.access("RD_AB", parity, column // org.columns, registers)
            column = result_column + (tile * batch + vector) * registers
            host.access("WR_AB", ODD, column // org.columns, registers)
            host.switch_pim()
    return host.finish()


def elementwise(design: PimDesignConfig, function: str, elements: int) -> CommandStream:
    """A function of one vector or two, padded to whole tiles.

    A tile is eight columns of every bank: read into registers, combined with the second operand's
    on the way, written back.

    Parameters
    ----------
    design
        HBM-PIM's.
    function
        ``add``, ``multiply`` or ``relu``.
    elements
        Of each vector.

    Raises
    ------
    InputError
        For another function, another number format, or vectors that rows cannot hold.
    """
    known = ("add", "multiply", *design.activations)
    if function not in (*known, *_OPCODES):
        raise InputError(
            f"{design.name} has no {function!r}{near_miss(function, known)}; "
            f"it does: {', '.join(known)}"
        )
    _check_format(design)
    org, registers = design.organization, design.capacity("grf_registers")
    per_column = org.burst_bytes // design.element_bytes
    banks = org.bank_groups * org.banks_per_group
    tiles = -(-elements // (org.channels * banks * registers * per_column))
    rows = -(-tiles * registers // org.columns)
    operands = 1 if function == "relu" else 2
    _check_rows(design, f"{function} of {elements:,} elements", (operands + 1) * rows)
    host = _Host(design)
    host.program(elementwise_program(design, function, tiles))
    host.switch_pim()
    for tile in range(tiles):
        row = tile * registers // org.columns
        for parity in (EVEN, ODD):
            for operand in range(operands):
                host.access("RD_AB", parity, operand * rows + row, registers)
            host.access("WR_AB", parity, operands * rows + row, registers)
    host.switch_pim()
    return host.finish()
