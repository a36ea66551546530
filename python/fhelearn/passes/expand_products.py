"""Products and maxima of encrypted values as lookups: afterwards only lookups and rounding are nonlinear."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.ir import Bounds, DeclaredBounds, Node, Program, ProgramBuilder
from fhelearn.passes.rewrite import declared_bounds, emit_within, rewrite
from fhelearn.typing import IntArray

MAX_TABLE_BITS = 16
"""Widest operand of an encrypted lookup that Concrete has parameters for."""


def expand_products(program: Program) -> Program:
    """Replace every ``multiply`` and ``maximum``.

    ``x * y = floor((x + y)**2 / 4) - floor((x - y)**2 / 4)``, exact because ``x + y`` and ``x - y`` have one parity
    (the quarter-square method), and ``maximum(x, y) = y + max(x - y, 0)``.

    Guarantee: no ``multiply`` or ``maximum`` is left; outputs are unchanged for every input
    that keeps the declared bounds.

    Raises
    ------
    LoweringError
        If a sum or difference of the operands needs more than 16 bits, the widest table that can be encrypted.
    """

    def rule(builder: ProgramBuilder, index: int, node: Node, operands: tuple[int, ...]) -> int | None:
        if node.op not in ("multiply", "maximum"):
            return None
        expand = _expand_multiply if node.op == "multiply" else _expand_maximum
        return expand(builder, program.label(index), node, *operands)

    return rewrite(program, rule)


def _expand_multiply(builder: ProgramBuilder, where: str, node: Node, x: int, y: int) -> int:
    if x == y:
        return _table(builder, where, node, x, lambda v: v * v, declared_bounds(node))
    plus = _table(builder, where, node, builder.emit("add", x, y), lambda v: v * v // 4)
    minus = _table(builder, where, node, builder.emit("sub", x, y), lambda v: v * v // 4)
    reason = "a product lies in the product of its factors' bounds"
    return emit_within(builder, "sub", plus, minus, name=node.name, declared=_box(node, reason))


def _expand_maximum(builder: ProgramBuilder, where: str, node: Node, x: int, y: int) -> int:
    if x == y:
        return emit_within(builder, "add_constant", x, value=np.zeros((), np.int64), declared=declared_bounds(node))
    excess = _table(builder, where, node, builder.emit("sub", x, y), lambda v: np.maximum(v, 0))
    reason = "a maximum lies between the greater of its operands' bounds"
    return emit_within(builder, "add", y, excess, name=node.name, declared=_box(node, reason))


def _box(node: Node, reason: str) -> DeclaredBounds:
    own = declared_bounds(node)
    if own is not None:
        return own
    return DeclaredBounds(node.value.bounds.lo, node.value.bounds.hi, "structural", reason)


def _table(
    builder: ProgramBuilder,
    where: str,
    node: Node,
    operand: int,
    function: Callable[[IntArray], IntArray],
    declared: DeclaredBounds | None = None,
) -> int:
    bounds: Bounds = builder.value(operand).bounds
    if bounds.bit_width > MAX_TABLE_BITS:
        raise LoweringError(
            f"{where}: needs a lookup on {bounds.bit_width} bits, at most {MAX_TABLE_BITS} can be encrypted; "
            "quantize the operands to fewer bits"
        )
    entries = function(np.arange(bounds.minimum, bounds.maximum + 1, dtype=np.int64))
    lo = bounds.minimum
    return emit_within(builder, "table_lookup", operand, name=node.name, declared=declared, lo=lo, table=entries)
