"""Lookups whose results are known are constants: dead neurons and channels cost nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fhelearn.ir import DeclaredBounds, Node, Program, ProgramBuilder
from fhelearn.passes.rewrite import declared_bounds, emit_within, rewrite
from fhelearn.typing import IntArray


def fold_constant_lookups(program: Program) -> Program:
    """Replace slices of ``table_lookup`` that have one possible result: ``f(x)[s] = c`` where its bounds are c.

    Slices along the axis that has most of them are left out of the lookup, which keeps the form of its tables.

    Guarantee: no ``table_lookup`` has a slice, along any axis, all of whose elements are constant; outputs are
    unchanged for every input that keeps the declared bounds.
    """

    def rule(builder: ProgramBuilder, index: int, node: Node, operands: tuple[int, ...]) -> int | None:
        if node.op != "table_lookup":
            return None
        axis, dead = _dead_slices(node)
        if not dead.any():
            return None
        lo, _ = (end for end in node.value.bounds.broadcast(node.value.shape).to_int64())
        if dead.all():
            return builder.emit("constant", value=np.array(lo, order="C"), name=node.name)
        return _emit_alive(builder, node, operands[0], axis, dead, lo)

    while True:  # what is left may have dead slices along another axis
        folded = rewrite(program, rule)
        if folded == program:
            return program
        program = folded


def _dead_slices(node: Node) -> tuple[int, NDArray[np.bool_]]:
    """The axis with most constant slices, and which they are; scalars count as one slice."""
    lo, hi = node.value.bounds.to_int64()
    constant = np.broadcast_to(lo == hi, node.value.shape or (1,))
    axes = range(constant.ndim)
    by_axis = [constant.all(axis=tuple(a for a in axes if a != axis)) for axis in axes]
    shares = [float(dead.mean()) for dead in by_axis]
    axis = int(np.argmax(shares))
    return axis, by_axis[axis]


def _emit_alive(
    builder: ProgramBuilder, node: Node, operand: int, axis: int, dead: NDArray[np.bool_], lo: IntArray
) -> int:
    """The lookup of the other slices, with the constant ones put between them."""
    alive = np.flatnonzero(~dead)
    table = node.array("table")
    position = axis - len(node.value.shape) - 1  # counted from the end: a table may have fewer axes, and one more
    if table.ndim >= -position and table.shape[position] > 1:
        table = np.take(table, alive, axis=position)
    declared = declared_bounds(node)
    some: DeclaredBounds | None = None
    if declared is not None:
        low, high = (np.take(end, alive, axis) for end in node.value.bounds.broadcast(node.value.shape).to_int64())
        some = DeclaredBounds(low, high, declared.provenance, declared.reason)
    x = builder.emit("gather", operand, axis=axis, indices=alive)
    found = emit_within(builder, "table_lookup", x, declared=some, name=node.name, lo=node.integer("lo"), table=table)
    known = np.ascontiguousarray(np.take(lo, np.flatnonzero(dead), axis))
    constant = builder.emit("constant", value=known, name=node.name)
    both = builder.emit("concatenate", found, constant, axis=axis)
    order = np.argsort(np.concatenate([alive, np.flatnonzero(dead)]), kind="stable")
    return builder.emit("gather", both, axis=axis, indices=order)
