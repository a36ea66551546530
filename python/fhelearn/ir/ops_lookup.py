"""Operations that cost table lookups when encrypted: tables, rounding, products and maxima of encrypted values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fhelearn.exceptions import ProgramError
from fhelearn.ir.interval import Bounds
from fhelearn.ir.op_spec import Attributes, OpSpec
from fhelearn.ir.ops_levelled import broadcasts_to, common_boxes, same_shape
from fhelearn.ir.program import Value

MAX_LSBS = 62
"""Largest number of bits that `round` can remove: one less than the bits of a non-negative int64."""


def _lookup_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    x, lo, table = operands[0], a["lo"], a["table"]
    if not table.ndim or not table.size:
        raise ProgramError(f"table must have shape (*s, size) with size >= 1, got {table.shape}")
    if not broadcasts_to(table.shape[:-1], x.shape):
        raise ProgramError(
            f"table of shape {table.shape}: {table.shape[:-1]} must broadcast to the operand's shape {x.shape} "
            "(() for one table, (channels, 1, 1) for one per channel)"
        )
    last = lo + table.shape[-1] - 1
    if x.bounds.minimum < lo or x.bounds.maximum > last:
        raise ProgramError(
            f"operand is in [{x.bounds.minimum}, {x.bounds.maximum}] but the table covers [{lo}, {last}]; "
            "extend the table or narrow the operand"
        )
    return x.shape


def _lookup_bounds(operands: Sequence[Value], a: Attributes) -> Bounds:
    """Per element the least and greatest entry that its own interval can reach."""
    x, table = operands[0], a["table"]
    box = x.bounds.compact()
    if not box.lo.ndim and table.ndim == 1:
        reach = table[int(box.lo) - a["lo"] : int(box.hi) - a["lo"] + 1]
        return Bounds.of(int(reach.min()), int(reach.max()))
    full = x.bounds.broadcast(x.shape)
    first = (full.lo - a["lo"]).astype(np.int64)
    last = (full.hi - a["lo"]).astype(np.int64)
    size = table.shape[-1]
    rows = np.arange(table.size // size).reshape(table.shape[:-1])
    intervals, inverse = np.unique((rows * size + first) * (size + 1) + last - first + 1, return_inverse=True)
    starts, lengths = np.divmod(intervals, size + 1)
    if int(lengths.sum()) > 4 * table.size:  # many that overlap
        return Bounds(_range_query(table, first, last, np.minimum), _range_query(table, first, last, np.maximum))
    entries = np.ravel(table)
    reach = [entries[start : start + length] for start, length in zip(starts, lengths, strict=True)]
    lo, hi = (np.array([extreme(part) for part in reach], dtype=np.int64) for extreme in (np.min, np.max))
    return Bounds(*(ends[inverse].reshape(x.shape).astype(object) for ends in (lo, hi)))


def _range_query(table: Any, first: Any, last: Any, combine: Any) -> Any:
    """`combine` over ``table[..., first:last + 1]`` for every element, by doubling (a sparse table)."""
    length = last - first + 1
    level = np.frompyfunc(lambda n: int(n).bit_length() - 1, 1, 1)(length).astype(np.int64)
    result = np.zeros(first.shape, dtype=np.int64)
    step, current = 1, table
    for k in range(int(level.max(initial=0)) + 1):
        here = level == k
        full = np.broadcast_to(current, (*first.shape, current.shape[-1]))
        left = np.take_along_axis(full, np.where(here, first, 0)[..., np.newaxis], axis=-1)[..., 0]
        right = np.take_along_axis(full, np.where(here, last + 1 - step, 0)[..., np.newaxis], axis=-1)[..., 0]
        result = np.where(here, combine(left, right), result)
        if current.shape[-1] > step:
            current = combine(current[..., :-step], current[..., step:])
        step *= 2
    return result.astype(object)


def _lookup(operands: Sequence[Any], a: Attributes) -> Any:
    x, table = operands[0], a["table"]
    index = (x - a["lo"]).astype(np.int64)
    full = np.broadcast_to(table, (*x.shape, table.shape[-1]))
    return np.take_along_axis(full, index[..., np.newaxis], axis=-1)[..., 0]


def _elements(operands: Sequence[Value], _: Attributes) -> int:
    return operands[0].size


def round_half_up(x: Any, lsbs: int) -> Any:
    """The nearest multiple of ``2**lsbs``, ties upward; no intermediate leaves the operand's and the result's range."""
    return ((x >> lsbs) + ((x >> (lsbs - 1)) & 1)) << lsbs


def _round_shape(operands: Sequence[Value], a: Attributes) -> tuple[int, ...]:
    if not 1 <= a["lsbs"] <= MAX_LSBS:
        raise ProgramError(f"lsbs must be in [1, {MAX_LSBS}], got {a['lsbs']}")
    if a["method"] not in ("exact", "approximate"):
        raise ProgramError(f"method must be 'exact' or 'approximate', got {a['method']!r}")
    return operands[0].shape


def _round_bounds(operands: Sequence[Value], a: Attributes) -> Bounds:
    x, lsbs = operands[0].bounds, a["lsbs"]
    if a["method"] == "exact":
        return Bounds(*(round_half_up(b, lsbs) for b in (x.lo, x.hi)))
    # noise may send a value to either neighbouring multiple
    up = (x.hi + (2**lsbs - 1)) >> lsbs << lsbs
    return Bounds(x.lo >> lsbs << lsbs, up)


def _round(operands: Sequence[Any], a: Attributes) -> Any:
    return round_half_up(operands[0], a["lsbs"])


def _round_lookups(operands: Sequence[Value], a: Attributes) -> int:
    return operands[0].size * a["lsbs"] if a["method"] == "exact" else 0


def _multiply_bounds(operands: Sequence[Value], _: Attributes) -> Bounds:
    x, y = common_boxes(operands)
    corners = [p * q for p in (x.lo, x.hi) for q in (y.lo, y.hi)]
    lo = np.minimum(np.minimum(corners[0], corners[1]), np.minimum(corners[2], corners[3]))
    hi = np.maximum(np.maximum(corners[0], corners[1]), np.maximum(corners[2], corners[3]))
    return Bounds(lo, hi)


def _maximum_bounds(operands: Sequence[Value], _: Attributes) -> Bounds:
    x, y = common_boxes(operands)
    return Bounds(np.maximum(x.lo, y.lo), np.maximum(x.hi, y.hi))


def _multiply(operands: Sequence[Any], _: Attributes) -> Any:
    return operands[0] * operands[1]


def _maximum(operands: Sequence[Any], _: Attributes) -> Any:
    return np.maximum(operands[0], operands[1])


SPECS: tuple[OpSpec, ...] = (
    OpSpec(
        "table_lookup",
        "lookup",
        (1, 1),
        {"lo": "int", "table": "array"},
        _lookup_shape,
        _lookup_bounds,
        _lookup,
        _elements,
    ),
    OpSpec(
        "round",
        "lookup",
        (1, 1),
        {"lsbs": "int", "method": "str"},
        _round_shape,
        _round_bounds,
        _round,
        _round_lookups,
    ),
    # a product is two lookups (quarter squares), a maximum one (a rectified difference): passes/expand_products.py
    OpSpec("multiply", "lookup", (2, 2), {}, same_shape, _multiply_bounds, _multiply, lambda v, a: 2 * v[0].size),
    OpSpec("maximum", "lookup", (2, 2), {}, same_shape, _maximum_bounds, _maximum, _elements),
)
