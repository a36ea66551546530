"""Lookups of a cut forest as an integer program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fhelearn.frontends.tree.conditions import Conditions
from fhelearn.frontends.tree.cut import Cut, Lookup
from fhelearn.frontends.tree.grid import Encoding
from fhelearn.frontends.tree.scalar import ScalarTree
from fhelearn.ir import DeclaredBounds, Program, ProgramBuilder
from fhelearn.quantization.digits import DigitEncoder

_BLOCK_ENTRIES = 2**16
"""Largest matrix from conditions to indices. Concrete multiplies by zero weights too (1.2 microseconds each), so many
lookups are evaluated in blocks that read few conditions."""

_NESTED = "conditions of a chain are nested: at most as many literals hold as there are"
_ONE_LEAF = "a row reaches exactly one leaf of each tree, so a tree's sum lies between its least and greatest leaf"


class Place(NamedTuple):
    """Where a condition's bit is, and the bit "the feature is present" if it holds for missing values, else -1."""

    column: int
    present: int = -1


class ForestLowering:
    """Emits the program of a cut forest whose trees' values are `trees`, counted from the cut's zeros."""

    def __init__(self, cut: Cut, trees: Sequence[ScalarTree], outputs: Sequence[int], n_outputs: int) -> None:
        self.cut = cut
        self.outputs = outputs
        self.n_outputs = n_outputs
        values = [tree.leaf_values for tree in trees]
        self.lo = [min(v) - zero for v, zero in zip(values, cut.zeros, strict=True)]
        self.hi = [max(v) - zero for v, zero in zip(values, cut.zeros, strict=True)]
        self.builder = ProgramBuilder()

    def from_bits(self, encoding: Encoding) -> Program:
        """The program whose input holds the bits of `encoding`."""
        x = self.builder.emit("input", shape=(max(encoding.encoder.n_conditions, 1),), lo=0, hi=1, name="conditions")
        places = zip(encoding.columns.tolist(), encoding.present.tolist(), strict=True)
        return self.builder.build(self._sum(x, [Place(column, present) for column, present in places]))

    def from_digits(self, encoder: DigitEncoder, conditions: Conditions) -> Program:
        """The program whose input holds thermometer digits, from which it looks up the conditions.

        With the high digit ``h`` and the low digit ``l`` of q, and those ``a`` and ``b`` of i, ``q <= i`` is
        ``[h <= a] + [h <= a - 1] + [l <= b] >= 2``: where ``h < a`` the first two make 2, where ``h > a`` they make 0.
        """
        x = self.builder.emit("input", shape=(max(encoder.n_columns, 1),), lo=0, hi=1, name="digits")
        used = sorted({c for lookup in self.cut.lookups for c in lookup.index_weights()[0]})
        places = [Place(-1)] * len(conditions)
        if not used:
            return self.builder.build(self._sum(x, places))
        weights = np.zeros((encoder.n_columns, len(used)), dtype=np.int64)
        tables = np.zeros((len(used), 4), dtype=np.int64)
        for column, condition in enumerate(used):
            places[condition] = Place(column)
            feature = int(conditions.feature[condition])
            position = encoder.position(feature, float(conditions.threshold[condition]))
            ones, least = _comparison(encoder, feature, position)
            weights[ones, column] = 1
            tables[column, least:] = 1
        kept = np.flatnonzero(weights.any(axis=1))
        digits = self.builder.emit("gather", x, axis=0, indices=kept)
        counts = self.builder.emit("matmul", digits, weights=weights[kept], name="digits that hold")
        held = self.builder.emit("table_lookup", counts, lo=0, table=tables, name="comparisons")
        return self.builder.build(self._sum(held, places))

    def _sum(self, x: int, places: Sequence[Place]) -> int:
        """The scores, from the value `x` that holds each condition at its place."""
        if not self.cut.lookups:  # the same scores for every row
            size = self.builder.value(x).size
            return self.builder.emit("matmul", x, weights=np.zeros((size, self.n_outputs), dtype=np.int64))
        one = self.builder.emit("constant", value=np.ones(1, dtype=np.int64))
        total, seen = -1, frozenset[int]()
        for block in _blocks(self.cut.lookups):
            trees = frozenset[int]().union(*(lookup.trees for lookup in block))
            seen |= trees
            whole = len(block) == len(self.cut.lookups)
            part = self._block(x, one, places, block, self._bounds(trees, whole))
            if total >= 0:
                part = self.builder.emit("add", total, part, declared=self._bounds(seen, False))
            total = part
        return total

    def _block(self, x: int, one: int, places: Sequence[Place], block: Sequence[Lookup], bounds: DeclaredBounds) -> int:
        """The part of the scores that the lookups of `block` make."""
        indices = [_column_weights(lookup, places) for lookup in block]
        used = sorted({column for weights, _ in indices for column in weights})
        row = {column: row for row, column in enumerate(used)}
        matrix = np.zeros((len(used) + 1, len(block)), dtype=np.int64)
        tables = np.zeros((len(block), max(lookup.size for lookup in block)), dtype=np.int64)
        for j, (lookup, (weights, constant)) in enumerate(zip(block, indices, strict=True)):
            for column, weight in weights.items():
                matrix[row[column], j] = weight
            matrix[-1, j] = constant
            tables[j, : lookup.size] = lookup.table()
        read = self.builder.emit("gather", x, axis=0, indices=np.array(used, dtype=np.int64))
        read = self.builder.emit("concatenate", read, one, axis=0)
        sizes = np.array([lookup.size - 1 for lookup in block])
        index = self.builder.emit(
            "matmul",
            read,
            weights=matrix,
            name="indices",
            declared=DeclaredBounds(np.zeros_like(sizes), sizes, "structural", _NESTED),
        )
        values = self.builder.emit("table_lookup", index, lo=0, table=tables, name="pieces")
        ones = np.zeros((len(block), self.n_outputs), dtype=np.int64)
        ones[np.arange(len(block)), [lookup.output for lookup in block]] = 1
        return self.builder.emit("matmul", values, weights=ones, name="scores", declared=bounds)

    def _bounds(self, trees: frozenset[int], whole: bool) -> DeclaredBounds:
        """Bounds of the sum of `trees`: of all their pieces (`whole`), or of any of them, the rest counting 0."""
        lo, hi = np.zeros(self.n_outputs, dtype=np.int64), np.zeros(self.n_outputs, dtype=np.int64)
        for tree in trees:
            lo[self.outputs[tree]] += self.lo[tree] if whole else min(self.lo[tree], 0)
            hi[self.outputs[tree]] += self.hi[tree] if whole else max(self.hi[tree], 0)
        return DeclaredBounds(lo, hi, "structural", _ONE_LEAF)


def _column_weights(lookup: Lookup, places: Sequence[Place]) -> tuple[dict[int, int], int]:
    """The lookup's index as ``sum of weight * bit + constant``; weights by column, none of them 0."""
    conditions, constant = lookup.index_weights()
    weights: Counter[int] = Counter()
    for condition, weight in conditions.items():
        place = places[condition]
        weights[place.column] += weight
        if place.present >= 0:  # missing is 1 less present
            weights[place.present] -= weight
            constant += weight
    return {column: weight for column, weight in weights.items() if weight}, constant


def _comparison(encoder: DigitEncoder, feature: int, position: int) -> tuple[list[int], int]:
    """The bits that are added up for ``q <= position``, and the least sum for which it holds."""
    high, low = divmod(position, encoder.n_low + 1)
    first = feature * (encoder.n_high + encoder.n_low)
    ones = [first + bit for bit in (high - 1, high) if 0 <= bit < encoder.n_high]
    least = 2
    if high == encoder.n_high:  # the last digit: h <= a always holds, and is not sent
        least -= 1
    if low == encoder.n_low:  # likewise l <= b
        least -= 1
    else:
        ones.append(first + encoder.n_high + low)
    return ones, least


def _blocks(lookups: Sequence[Lookup]) -> Iterator[Sequence[Lookup]]:
    """Lookups in groups whose matrix from conditions to indices stays small."""
    start, used = 0, set[int]()
    for position, lookup in enumerate(lookups):
        more = used.union(lookup.index_weights()[0])
        if position > start and len(more) * (position + 1 - start) > _BLOCK_ENTRIES:
            yield lookups[start:position]
            start, more = position, set(lookup.index_weights()[0])
        used = more
    yield lookups[start:]
