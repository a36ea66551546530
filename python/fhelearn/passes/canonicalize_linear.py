"""The linear normal form: no encrypted value is added to something it already is a part of.

This is a correctness pass. Concrete's noise model takes the operands of a levelled sum as independent; ``x + x``
three times made 118 of 400 encrypted answers wrong at a promised error of 2.4e-6, ``x * 8`` none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fhelearn.exceptions import LoweringError
from fhelearn.ir import OPS, DeclaredBounds, Node, Program, ProgramBuilder, starts_region
from fhelearn.passes.rewrite import copy_node, declared_bounds, emit_within
from fhelearn.typing import IntArray

MAX_MATRIX_ENTRIES = 2**26
"""Largest linear map that is written out: half a gigabyte of int64."""

MAX_PROBE_ENTRIES = 2**22
"""Elements of the widest value while maps are read off: 32 MiB of int64."""

_MIXING = ("matmul", "conv2d", "conv1d", "sum_pool2d", "sum")


@dataclass(frozen=True)
class LinearForm:
    """How a value is made of basis values.

    ``basis``: the values whose ciphertexts it adds up. ``distinct``: its elements share no ciphertext, so a linear
    op may add them up. ``sound``: no ciphertext was added to itself on the way.
    """

    basis: frozenset[int]
    distinct: bool
    sound: bool


def is_canonical(program: Program) -> bool:
    """Whether every levelled sum of `program` adds independent ciphertexts.

    Products count once they are expanded. Rounded values count as ciphertexts of their own, which they are up to the
    operand's noise; the Concrete back end refreshes them where that matters (``independence.py``).
    """
    return all(form.sound for form in linear_forms(program))


def canonicalize_linear(program: Program) -> Program:
    """Rewrite levelled nodes that add correlated ciphertexts.

    Such a node becomes ``sum over basis values b of A_b b + c``: one ``matmul`` (or ``multiply_constant`` where
    ``A_b`` is diagonal) for each basis value (input, lookup or rounding result), each used once. The maps are
    exact: they are read off by evaluating the linear part at zero and at the unit vectors. Nodes without that
    problem stay.

    Guarantee: :func:`is_canonical`; outputs are unchanged for every input that keeps the declared bounds. A rewritten
    node keeps the bounds it had: where they rest on declared bounds of the nodes it replaces, it declares them itself.

    Raises
    ------
    LoweringError
        If a map needs more than 2**26 coefficients.
    """
    forms = linear_forms(program)
    if all(form.sound for form in forms):
        return program
    builder = ProgramBuilder()
    moved: dict[int, int] = {}
    for index, node in enumerate(program.nodes):
        if forms[index].sound:
            moved[index] = copy_node(builder, node, tuple(moved[i] for i in node.operands))
        else:
            moved[index] = _emit_sum(builder, program, index, sorted(forms[index].basis), moved)
    return builder.build(*(moved[i] for i in program.outputs))


def _is_basis(node: Node) -> bool:
    return node.op == "round" or starts_region(OPS[node.op])


def linear_forms(program: Program, is_basis: Callable[[int], bool] | None = None) -> list[LinearForm]:
    """Per value, how it is made of basis values.

    Parameters
    ----------
    program : Program
    is_basis : callable, optional
        Whether a node's value counts as a ciphertext of its own; default: sources, lookups, products and rounding.
    """
    forms: list[LinearForm] = []
    for index, node in enumerate(program.nodes):
        if _is_basis(node) if is_basis is None else is_basis(index):
            fresh = frozenset() if node.op == "constant" else frozenset([index])
            forms.append(LinearForm(fresh, True, True))
        else:
            size = program.nodes[node.operands[0]].value.size
            forms.append(_combine(node, [forms[i] for i in node.operands], size))
    return forms


def _combine(node: Node, operands: list[LinearForm], operand_size: int) -> LinearForm:
    basis = frozenset().union(*(form.basis for form in operands))
    if not basis:  # constants carry no noise
        return LinearForm(basis, True, True)
    disjoint = sum(len(form.basis) for form in operands) == len(basis)
    distinct = disjoint and all(form.distinct for form in operands)
    # below an unsound operand only the last node of the chain is rewritten, from the basis
    sound = all(form.sound for form in operands)
    if node.op in _MIXING:
        return LinearForm(basis, False, sound and operands[0].distinct)
    if node.op in ("add", "sub"):
        return LinearForm(basis, distinct, sound and disjoint)
    if node.op == "gather":
        distinct = distinct and len(set(node.array("indices").tolist())) == node.array("indices").size
    if node.op == "broadcast":
        distinct = distinct and node.value.size == operand_size
    return LinearForm(basis, distinct, sound)


def _emit_sum(builder: ProgramBuilder, program: Program, index: int, basis: list[int], moved: dict[int, int]) -> int:
    node, size = program.nodes[index], program.nodes[index].value.size
    sizes = [program.nodes[b].value.size for b in basis]
    if sum(sizes) * size > MAX_MATRIX_ENTRIES:
        raise LoweringError(
            f"{program.label(index)}: adds correlated values, and the exact linear map from its {sum(sizes)} basis "
            f"elements has more than {MAX_MATRIX_ENTRIES} coefficients; insert a table_lookup between the linear layers"
        )
    offset = _linear_part(program, index, {})[0]
    total: int | None = None
    for b in basis:
        matrix = _coefficients(program, index, b, offset)
        term = _emit_term(builder, moved[b], matrix, node.value.shape)
        total = term if total is None else builder.emit("add", total, term)
    assert total is not None  # an unsound node adds a basis value to itself
    constant = offset.reshape(node.value.shape)
    declared = declared_bounds(node) or _inherited_bounds(program, index)
    return emit_within(builder, "add_constant", total, value=constant, name=node.name, declared=declared)


def _inherited_bounds(program: Program, index: int) -> DeclaredBounds | None:
    """The bounds of a proved value whose proof rests on declared bounds below it in its linear region; else None."""
    pending, seen = [index], set[int]()
    found: list[DeclaredBounds] = []
    while pending:
        node = program.nodes[current := pending.pop()]
        declared = declared_bounds(node)
        if declared is not None and current != index:
            found.append(declared)
        if current == index or not _is_basis(node):
            pending.extend(i for i in node.operands if i not in seen)
            seen.update(node.operands)
    if not found:
        return None
    weakest = next((d for d in found if d.provenance == "calibrated"), found[0])
    bounds = program.nodes[index].value.bounds
    return DeclaredBounds(bounds.lo, bounds.hi, weakest.provenance, weakest.reason)


def _emit_term(builder: ProgramBuilder, operand: int, matrix: IntArray, shape: tuple[int, ...]) -> int:
    source = builder.value(operand).shape
    if source == shape and np.array_equal(matrix, np.diag(np.diagonal(matrix))):
        return builder.emit("multiply_constant", operand, value=np.diagonal(matrix).reshape(shape))
    flat = builder.emit("reshape", operand, shape=(matrix.shape[0],))
    return builder.emit("reshape", builder.emit("matmul", flat, weights=matrix), shape=shape)


def _coefficients(program: Program, index: int, basis: int, offset: IntArray) -> IntArray:
    """The map from the elements of `basis` to those of node `index`, shape (elements of basis, elements of node)."""
    value = program.nodes[basis].value
    widest = max(node.value.size for node in program.nodes)
    rows = max(1, MAX_PROBE_ENTRIES // widest)
    blocks = []
    for start in range(0, value.size, rows):  # unit vectors in blocks that keep every intermediate value small
        units = np.eye(min(rows, value.size - start), value.size, start, dtype=np.int64)
        blocks.append(_linear_part(program, index, {basis: units.reshape(-1, *value.shape)}) - offset)
    return np.concatenate(blocks)


def _linear_part(program: Program, index: int, given: dict[int, IntArray]) -> IntArray:
    """Node `index` as an affine function of its basis values, zero but for `given`; shape (rows, elements)."""
    rows = len(next(iter(given.values()))) if given else 1
    values: dict[int, IntArray] = dict(given)
    pending = [index]
    while pending:
        current = pending[-1]
        node = program.nodes[current]
        missing = [] if _is_basis(node) else [i for i in node.operands if i not in values]
        if current in values or not missing:
            pending.pop()
            if current not in values:
                values[current] = _evaluate(node, [values[i] for i in node.operands if i in values], rows)
        else:
            pending.extend(missing)
    return values[index].reshape(rows, -1)


def _evaluate(node: Node, operands: list[IntArray], rows: int) -> IntArray:
    if node.op == "constant":
        return np.repeat(node.array("value")[np.newaxis], rows, axis=0)
    if _is_basis(node):
        return np.zeros((rows, *node.value.shape), dtype=np.int64)
    result: IntArray = OPS[node.op].evaluate(operands, node.attributes)
    return result
