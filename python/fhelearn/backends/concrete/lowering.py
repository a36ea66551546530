"""Program -> MLIR: one function per number of rows, every value at its region's width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fhelearn.backends.concrete.independence import refreshed_rounds
from fhelearn.backends.concrete.mlir import FunctionText, Wire, clear_type, module
from fhelearn.exceptions import LoweringError
from fhelearn.ir import OPS, Node, Program, RegionType, region_widths
from fhelearn.passes import canonicalize_linear, eliminate_dead_nodes, expand_products, share_equal_lookups
from fhelearn.typing import IntArray

WIDEST_LOOKUP = 16
"""Widest operand of a table lookup that Concrete has parameters for."""

SINGLE, BATCH = "main", "main_batch"
"""Names of the functions for one row and for a whole batch."""


@dataclass(frozen=True)
class LoweredProgram:
    """A program as text, and what is needed to call it.

    Attributes
    ----------
    program : Program
        The normal form that was lowered: same inputs and outputs, no products, independent sums.
    mlir : str
    batch_size : int
        Rows of ``main_batch``; 1 if there is only ``main``.
    results : tuple of int
        Per program output, the position of the function result that holds it (equal outputs are computed once).
    shifts : tuple of int
        Per program output, the power of two that decrypted integers are to be multiplied by.
    lookups_by_bit_width : mapping of int to int
        Table lookups of one row by the width of their operand's encoding.
    """

    program: Program
    mlir: str
    batch_size: int
    results: tuple[int, ...]
    shifts: tuple[int, ...]
    lookups_by_bit_width: Mapping[int, int]

    @property
    def num_lookups(self) -> int:
        """Table lookups of one row."""
        return sum(self.lookups_by_bit_width.values())

    @property
    def widest_region(self) -> tuple[str, int]:
        """Label of the node with the widest values, which set the width of their whole region, and that width."""
        index = int(np.argmax([node.value.bit_width for node in self.program.nodes]))
        return self.program.label(index), region_widths(self.program)[index].bit_width


def normalize(program: Program) -> Program:
    """The form that can be lowered: no dead nodes, products, maxima or correlated sums. Outputs are unchanged."""
    return canonicalize_linear(share_equal_lookups(expand_products(eliminate_dead_nodes(program))))


def lower(program: Program, batch_size: int, clear_inputs: Sequence[int] = ()) -> LoweredProgram:
    """Lower a verified program.

    Parameters
    ----------
    program : Program
        In normal form (:func:`normalize`).
    batch_size : int
        Rows of the batched function, >= 1; 1 makes none.
    clear_inputs : sequence of int
        Positions of inputs that are function arguments in the clear.

    Raises
    ------
    LoweringError
        If a node cannot be expressed; names the node and the remedy.
    """
    clear = _clear_nodes(program, clear_inputs)
    single = FunctionLowering(program, SINGLE, 1, clear)
    functions = [single.run()]
    if batch_size > 1:
        functions.append(FunctionLowering(program, BATCH, batch_size, clear).run())
    unique = list(dict.fromkeys(program.outputs))
    return LoweredProgram(
        program,
        module(functions),
        batch_size,
        tuple(unique.index(o) for o in program.outputs),
        tuple(single.values[o].shift for o in program.outputs),
        dict(sorted(single.lookups.items())),
    )


def _clear_nodes(program: Program, positions: Sequence[int]) -> frozenset[int]:
    """The input nodes at `positions`.

    Raises LoweringError if there is no such input, or a lookup reads nothing that is encrypted. Clear values enter the
    circuit as ciphertexts without noise, and equal ones are equal ciphertexts; so would be the results of their
    lookups, and sums of those would have more noise than parameters allow for.
    """
    inputs = program.inputs
    if any(p >= len(inputs) for p in positions):
        raise LoweringError(f"clear_inputs: {max(positions)} is no input of this program, it has {len(inputs)}")
    chosen = frozenset(inputs[p] for p in positions)
    encrypted: list[bool] = []
    for index, node in enumerate(program.nodes):
        source = node.op == "input" and index not in chosen
        encrypted.append(source or any(encrypted[i] for i in node.operands))
        if OPS[node.op].kind == "lookup" and not encrypted[-1] and chosen:
            raise LoweringError(
                f"{program.label(index)}: looks up clear data only; compute it before the circuit and give the result "
                "as the clear input, or encrypt the input"
            )
    return chosen


@dataclass
class FunctionLowering:
    """Lowers a program for a fixed number of rows; the rules for the ops are in ``lowering_*.py``.

    Attributes
    ----------
    values : dict of int to Wire
        What each node became.
    lookups : Counter
        Lookups per operand width, of all rows.
    """

    program: Program
    name: str
    rows: int
    clear: frozenset[int] = frozenset()
    text: FunctionText = field(init=False)
    values: dict[int, Wire] = field(init=False, default_factory=dict)
    lookups: Counter[int] = field(init=False, default_factory=Counter)
    regions: tuple[RegionType, ...] = field(init=False)
    _refreshed: dict[str, Wire] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.text = FunctionText(self.name)
        self.regions = region_widths(self.program)
        self._refreshing = refreshed_rounds(self.program)

    def run(self) -> str:
        """The function's text."""
        from fhelearn.backends.concrete.lowering_rules import RULES  # the rules import this class

        arguments: list[tuple[str, str]] = []
        for index, node in enumerate(self.program.nodes):
            if node.op == "input":
                argument = replace(self.like(index), name=f"%arg{len(arguments)}")
                arguments.append((argument.name, clear_type(argument) if index in self.clear else argument.type))
                self.text.location = f"@n{index} | program:{index}:0"
                clear = index in self.clear
                self.values[index] = self.text.add_argument(argument.name, self.like(index)) if clear else argument
                continue
            # the tag carries the index alone: names are free text and would have to be escaped
            self.text.location = f"@n{index} | program:{index}:0"
            try:
                self.values[index] = RULES[node.op](self, index, node)
            except OverflowError as error:
                raise LoweringError(f"{self.program.label(index)}: {error}; use smaller weights or constants") from None
        results = [self.values[o] for o in dict.fromkeys(self.program.outputs)]
        return self.text.text(arguments, results)

    def like(self, index: int) -> Wire:
        """A nameless wire of the shape and region type of node `index`."""
        width, signed = self.regions[index]
        return Wire("", (self.rows, *self.program.nodes[index].value.shape), width, signed)

    def operand(self, node: Node, position: int = 0) -> Wire:
        """An operand as it is, possibly with a shift."""
        return self.values[node.operands[position]]

    def wide(self, node: Node, position: int = 0) -> Wire:
        """An operand at its region's full width, fit for levelled arithmetic."""
        index = node.operands[position]
        wire = self.values[index]
        if not wire.shift:
            return wire
        known = self._refreshed.get(wire.name)
        if known is None:
            known = self._refreshed[wire.name] = self._widen(index, wire)
        return known

    def _widen(self, index: int, wire: Wire) -> Wire:
        target = self.like(index)
        if wire.exact:
            return self.text.emit("FHELinalg.reinterpret_precision", (wire,), target)
        return self.lookup(index, wire, target, messages(wire) << wire.shift)

    def must_refresh(self, index: int) -> bool:
        """Whether levelled consumers of the ``round`` node `index` must read a lookup of it."""
        return index in self._refreshing

    def check_lookup(self, index: int, wire: Wire) -> None:
        """Raise LoweringError if `wire` is wider than any table."""
        if wire.bit_width > WIDEST_LOOKUP:
            raise LoweringError(
                f"{self.program.label(index)}: looks up {wire.bit_width}-bit values, at most {WIDEST_LOOKUP} bits can "
                "be encrypted with a table; round the operand first, or use fewer n_bits for inputs and weights"
            )

    def lookup(self, index: int, wire: Wire, result: Wire, entries: IntArray, choice: IntArray | None = None) -> Wire:
        """Emit a table lookup on the messages of `wire`.

        Parameters
        ----------
        index : int
            The node, for errors.
        wire, result : Wire
        entries : int64 array, shape (2**width,) or (tables, 2**width)
            In the order of :func:`messages`.
        choice : int64 array of the shape of `wire`, optional
            Which of the tables each element reads; must lie in [0, tables), which nothing below checks.

        Raises
        ------
        LoweringError
            If the operand is wider than any table, or `choice` points outside the tables.
        """
        self.check_lookup(index, wire)
        self.lookups[wire.bit_width] += int(np.prod(wire.shape))
        tables = self.text.constant(entries, 64)
        if choice is None:
            return self.text.emit("FHELinalg.apply_lookup_table", (wire, tables), result)
        if choice.min() < 0 or choice.max() >= len(entries):
            raise LoweringError(f"{self.program.label(index)}: table map outside [0, {len(entries) - 1}]")
        where = self.text.index_constant(choice)
        return self.text.emit("FHELinalg.apply_mapped_lookup_table", (wire, tables, where), result)


def messages(wire: Wire) -> IntArray:
    """Encoded integers in the order of tables: 0, 1, ..., then, for signed encodings, the negative ones ascending."""
    size = 1 << wire.bit_width
    values = np.arange(size, dtype=np.int64)
    return np.where(values >= size // 2, values - size, values) if wire.signed else values
