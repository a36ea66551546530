"""Which elements of a program's values are equal for a reason that can be seen: value numbering, element by element.

Two elements have one number if they are the same constant, the same element moved, or the same operation with the same
numbers on elements of the same numbers (Alpern, Wegman and Zadeck 1988, on elements instead of variables). Different
numbers say nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np

from fhelearn.ir import OPS, Node, Program
from fhelearn.ir.ops_levelled import windows
from fhelearn.typing import IntArray

MAX_TERMS = 2**26
"""Most operand elements that a node's outputs may read, all together; elements of larger nodes count as different."""


class ValueNumbers:
    """Numbers for the elements of every node of a program.

    Attributes
    ----------
    numbers : list of ndarray of int64
        Per node, of its shape.
    """

    def __init__(self, program: Program) -> None:
        self._known: dict[Hashable, int] = {}
        self.numbers: list[IntArray] = []
        for index, node in enumerate(program.nodes):
            found = self._node(index, node, [self.numbers[i] for i in node.operands])
            # a lookup of something unknown is a ciphertext of its own, even if its table holds one number only
            self.numbers.append(found if node.op == "table_lookup" else self._constants(node, found))

    def _number(self, key: Hashable) -> int:
        return self._known.setdefault(key, len(self._known))

    def _all(self, keys: Any, shape: tuple[int, ...]) -> IntArray:
        return np.array([self._number(key) for key in keys], dtype=np.int64).reshape(shape)

    def _constants(self, node: Node, found: IntArray) -> IntArray:
        """Elements whose bounds are one integer are that integer."""
        lo, hi = node.value.bounds.to_int64()
        single = np.broadcast_to(lo == hi, node.value.shape)
        if not single.any():
            return found
        values = np.broadcast_to(lo, node.value.shape)
        numbers = {int(v): self._number(("constant", int(v))) for v in np.unique(values[single])}
        result = np.array(found)
        result[single] = [numbers[int(v)] for v in values[single]]
        return result

    def _node(self, index: int, node: Node, operands: list[IntArray]) -> IntArray:
        op, shape = node.op, node.value.shape
        if OPS[op].kind == "source":  # constants are told by their bounds
            return self._all(((index, i) for i in range(node.value.size)), shape)
        if OPS[op].kind == "static":
            attributes = dict(node.attributes)
            if op == "pad":
                attributes["value"] = self._number(("constant", node.integer("value")))
            return np.asarray(OPS[op].evaluate([x[np.newaxis] for x in operands], attributes)[0])
        if op in ("add_constant", "multiply_constant"):
            values = np.broadcast_to(node.array("value"), shape)
            return self._all(zip([op] * values.size, operands[0].flat, values.flat, strict=True), shape)
        if op in ("add", "sub", "multiply", "maximum", "negate", "round"):
            detail = (op, *((key, node.attributes[key]) for key in node.attributes))
            return self._all(((detail, *row) for row in zip(*(x.flat for x in operands), strict=True)), shape)
        if op == "table_lookup":
            return self._lookups(node, operands[0])
        terms = _terms(node, operands[0])
        if terms is None:
            return self._all(((index, i) for i in range(node.value.size)), shape)
        return self._sums(*terms).reshape(shape)

    def _lookups(self, node: Node, x: IntArray) -> IntArray:
        table = node.array("table")
        rows = table.reshape(-1, table.shape[-1])
        tables = [self._number(("table", node.integer("lo"), row.tobytes())) for row in rows]
        which = np.broadcast_to(np.array(tables, dtype=np.int64).reshape(table.shape[:-1]), x.shape)
        return self._all((("lookup", a, b) for a, b in zip(x.flat, which.flat, strict=True)), x.shape)

    def _sums(self, groups: list[tuple[IntArray, IntArray]], order: tuple[int, ...]) -> IntArray:
        """Numbers of weighted sums; per group operand numbers (positions, terms) and weights (channels, terms)."""
        results = []
        for numbers, weights in groups:
            block = np.empty((len(weights), len(numbers)), dtype=np.int64)
            for channel, row in enumerate(weights):
                used = np.flatnonzero(row)
                kernel = row[used].tobytes()
                block[channel] = [self._number(("sum", kernel, line.tobytes())) for line in numbers[:, used]]
            results.append(block)
        return np.concatenate(results).transpose(order)


def _terms(node: Node, x: IntArray) -> tuple[list[tuple[IntArray, IntArray]], tuple[int, ...]] | None:
    """What the sums of a linear node add up, and whether channels or positions come first; None if too much."""
    if node.op == "matmul":
        weights = np.ascontiguousarray(node.array("weights").T)
        if x.size * len(weights) > MAX_TERMS and x.ndim > 1:
            return None
        return [(x.reshape(-1, x.shape[-1]), weights)], (1, 0)
    if node.op == "sum":
        axes = node.integers("axes")
        last = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
        count = int(np.prod([x.shape[a] for a in axes]))
        return [(last.reshape(-1, count), np.ones((1, count), dtype=np.int64))], (0, 1)
    if node.op == "sum_pool2d":
        views = windows(x[np.newaxis], node.integers("kernel"), node.integers("strides"), (1, 1))[0]
        count = int(np.prod(node.integers("kernel")))
        return [(views.reshape(-1, count), np.ones((1, count), dtype=np.int64))], (0, 1)
    weights, groups = node.array("weights"), node.integer("groups")
    per_group = weights.reshape(groups, weights.shape[0] // groups, -1)
    if node.value.size * per_group.shape[2] > MAX_TERMS:
        return None
    views = windows(x[np.newaxis], weights.shape[2:], node.integers("strides"), node.integers("dilations"))[0]
    rank = weights.ndim - 2
    grouped = views.reshape(groups, views.shape[0] // groups, *views.shape[1:])
    lines = np.moveaxis(grouped, 1, 1 + rank).reshape(groups, -1, per_group.shape[2])
    return [(lines[g], per_group[g]) for g in range(groups)], (0, 1)
