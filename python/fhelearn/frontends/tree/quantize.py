"""From a forest to what client and server need: encoder, program, decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from fhelearn.frontends.tree.conditions import AskedForest, ask
from fhelearn.frontends.tree.cut import Cut, cut_trees
from fhelearn.frontends.tree.forest import Forest
from fhelearn.frontends.tree.grid import (
    Encoding,
    Grid,
    encode_grid,
    encode_hidden,
    encode_thresholds,
    native_encoder,
    snap,
    uniform_grid,
)
from fhelearn.frontends.tree.leaves import Complements, IntegerLeaves, quantize_leaves, without_complements
from fhelearn.frontends.tree.lowering import ForestLowering
from fhelearn.frontends.tree.scalar import ScalarTree, facts_of, live_nodes, scalar_tree
from fhelearn.ir import Program, from_bytes, to_bytes
from fhelearn.quantization.conditions import ConditionEncoder
from fhelearn.quantization.digits import DigitEncoder
from fhelearn.typing import FloatArray, IntArray

EncodingName: TypeAlias = Literal["bits", "digits"]


@dataclass(frozen=True)
class ForestOptions:
    """How a forest is turned into a program.

    Attributes
    ----------
    leaf_bits : int
        Bits of leaf values, 1 to 16.
    input_bits : int
        Bits of the uniform grid, 2 to 8; used with ``grid="uniform"`` and ``encoding="digits"``.
    grid : {"hidden", "thresholds", "uniform"}
    encoding : {"bits", "digits"}
        "digits" is on the uniform grid, whatever `grid` says.
    separate_scales : bool
        Whether outputs are targets with a scale each; else they are classes, which are compared.
    """

    leaf_bits: int = 8
    input_bits: int = 8
    grid: Grid = "hidden"
    encoding: EncodingName = "bits"
    separate_scales: bool = False


@dataclass(frozen=True, eq=False)
class NativeForest:
    """The quantized forest as the C++ forest engine takes it; its sums equal the program's outputs.

    Attributes
    ----------
    encoder : ConditionEncoder
        Of the conditions that nodes ask, without decoys.
    tree_starts : ndarray of int64, shape (n_trees + 1,)
    condition, left, right : ndarray of int64, shape (n_nodes,)
    value : ndarray of int64, shape (n_nodes, width)
    first_output : ndarray of int64, shape (n_trees,)
    n_outputs : int
    """

    encoder: ConditionEncoder
    tree_starts: IntArray
    condition: IntArray
    left: IntArray
    right: IntArray
    value: IntArray
    first_output: IntArray
    n_outputs: int


@dataclass(frozen=True, eq=False)
class QuantizedForest:
    """A forest in integers.

    Attributes
    ----------
    forest : Forest
        Whose decisions the program takes: the model's own, or the model's snapped to a uniform grid.
    encoder : ConditionEncoder or DigitEncoder
        Of features.
    program : Program
        From bits to the sums of leaf values.
    zeros : ndarray of int64
        Per evaluated output, the sum of what its trees' leaves are counted from. Added as integers, so that scores
        that are equal in the model (ties between classes) stay equal.
    complements : Complements
        How the others follow.
    native : NativeForest
    cut : Cut
    leaves : IntegerLeaves
    options : ForestOptions
    """

    forest: Forest
    encoder: ConditionEncoder | DigitEncoder
    program: Program
    zeros: IntArray
    complements: Complements
    native: NativeForest
    cut: Cut
    leaves: IntegerLeaves
    options: ForestOptions

    def __getstate__(self) -> dict[str, Any]:
        # A program travels as its file, which the reader verifies again.
        return {**self.__dict__, "program": to_bytes(self.program)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, program=from_bytes(state["program"]))

    @property
    def exposed_features(self) -> IntArray:
        """Features whose thresholds outnumber their decoys; all that are asked, where there are no decoys at all."""
        assert isinstance(self.encoder, ConditionEncoder)
        own = _thresholds(self.native.encoder)
        decoys = _thresholds(self.encoder) - own
        asked, hidden = (
            np.bincount([feature for feature, _ in points], minlength=self.forest.n_features)
            for points in (own, decoys)
        )
        return np.flatnonzero(asked > hidden)

    def check(self, x: FloatArray) -> None:
        """Raise ValueError if `x` holds a missing value that the forest has no side for. x: shape (n, n_features)."""
        if not self.forest.accepts_nan and (missing := np.isnan(x)).any():
            row, column = np.argwhere(missing)[0]
            raise ValueError(
                f'X holds NaN in row {row}, column {column}; grid="uniform" and encoding="digits" have no place for '
                'missing values, use grid="hidden" or "thresholds" with encoding="bits"'
            )

    def encode(self, x: FloatArray) -> IntArray:
        """The bits of rows. x: floats, shape (n, n_features), checked. Returns int64, shape (n, n_bits)."""
        bits = self.encoder.encode(x)
        # a program has no input without elements: a model that asks nothing gets one that it ignores
        return bits if bits.shape[1] else np.zeros((len(bits), 1), dtype=np.int64)

    def decode(self, q: IntArray) -> FloatArray:
        """Scores of the program's outputs. q: int64, shape (n, outputs). Returns float64, shape (n, n_outputs)."""
        q = np.asarray(q)
        if q.dtype.kind not in "iu" or q.ndim != 2 or q.shape[1] != len(self.zeros):
            raise ValueError(f"q must hold integers of shape (n, {len(self.zeros)}), got {q.dtype} of shape {q.shape}")
        return self.complements.decode(q.astype(np.int64) + self.zeros, self.leaves)

    @property
    def error_bound(self) -> FloatArray:
        """How far a decoded score is from the library's at most: rounded leaves, float sums. Shape (n_outputs,)."""
        return self.complements.expand(self.leaves.error_bound) + self.forest.rounding_bound


def _thresholds(encoder: ConditionEncoder) -> set[tuple[int, float]]:
    """The thresholds of features that are compared with finite ones."""
    facts = zip(encoder.feature.tolist(), encoder.threshold.tolist(), encoder.members, strict=True)
    return {(feature, threshold) for feature, threshold, members in facts if members is None and np.isfinite(threshold)}


def quantize_forest(forest: Forest, x: FloatArray, options: ForestOptions) -> QuantizedForest:
    """Turn a forest into a program.

    Parameters
    ----------
    forest : Forest
    x : ndarray of float, shape (n, n_features), n >= 1
        Rows like those to come: where decoys and uniform grids are taken from. Decisions of ``grid="hidden"`` and
        ``grid="thresholds"`` do not depend on them.
    options : ForestOptions

    Raises
    ------
    LoweringError, QuantizationError
        If the forest has no such program; the message says why and what to do.
    """
    forest, points = place(forest, x, options)
    evaluated, complements = without_complements(forest)
    leaves = quantize_leaves(evaluated, options.leaf_bits, options.separate_scales)
    asked = ask(evaluated)
    trees, places = _scalar_trees(asked, leaves)
    outputs = [output for _, _, output in places]
    cut = cut_trees(trees, outputs, asked.conditions.chain.tolist())
    lowering = ForestLowering(cut, trees, outputs, evaluated.n_outputs)
    encoder: ConditionEncoder | DigitEncoder
    if options.encoding == "digits":
        assert points is not None
        encoder = DigitEncoder(points, options.input_bits, forest.precision)
        program = lowering.from_digits(encoder, asked.conditions)
    else:
        encoding = _encoding(evaluated, asked, x, options, points)
        encoder = encoding.encoder
        program = lowering.from_bits(encoding)
    zeros = np.zeros(evaluated.n_outputs, dtype=np.int64)
    np.add.at(zeros, outputs, cut.zeros)
    native = _native(asked, _counted_from_zeros(asked, leaves, cut, places))
    return QuantizedForest(forest, encoder, program, zeros, complements, native, cut, leaves, options)


def place(forest: Forest, x: FloatArray, options: ForestOptions) -> tuple[Forest, FloatArray | None]:
    """The forest whose decisions the program takes, and the uniform grid, if any, that its thresholds were moved to."""
    if options.grid != "uniform" and options.encoding != "digits":
        return forest, None
    points = uniform_grid(forest, x, options.input_bits)
    return snap(forest, points, x), points


def rounded_scores(forest: Forest, leaves: IntArray, n_bits: int) -> FloatArray:
    """Scores of classes as leaf values of `n_bits` give them: those that the program's outputs are decoded to.

    leaves: int64, shape (n, n_trees), nodes of the trees. Returns float64, shape (n, n_outputs).
    """
    evaluated, complements = without_complements(forest)
    integers = quantize_leaves(evaluated, n_bits)
    sums = np.zeros((len(leaves), evaluated.n_outputs), dtype=np.int64)
    for index, (tree, values) in enumerate(zip(evaluated.trees, integers.values, strict=True)):
        sums[:, tree.first_output : tree.first_output + values.shape[1]] += values[leaves[:, index]]
    return complements.decode(sums, integers)


def native_forest(forest: Forest, values: Sequence[IntArray]) -> NativeForest:
    """A forest with integer leaf values as the C++ engine takes it."""
    return _native(ask(forest), values)


def _encoding(
    forest: Forest, asked: AskedForest, x: FloatArray, options: ForestOptions, points: FloatArray | None
) -> Encoding:
    if options.grid == "thresholds":
        return encode_thresholds(forest, asked.conditions)
    if points is None:
        return encode_hidden(forest, asked.conditions, x)
    return encode_grid(forest, asked.conditions, points)


def _scalar_trees(asked: AskedForest, leaves: IntegerLeaves) -> tuple[list[ScalarTree], list[tuple[int, int, int]]]:
    """Trees of one output, and of each (tree, column of its values, output)."""
    trees, places = [], []
    facts = facts_of(asked.conditions)
    for index, (tree, asks, values) in enumerate(zip(asked.forest.trees, asked.asks, leaves.values, strict=True)):
        live = live_nodes(tree, asks, facts, asked.forest.accepts_nan)
        for column in range(values.shape[1]):
            trees.append(scalar_tree(live, values[:, column].tolist()))
            places.append((index, column, tree.first_output + column))
    return trees, places


def _counted_from_zeros(
    asked: AskedForest, leaves: IntegerLeaves, cut: Cut, places: list[tuple[int, int, int]]
) -> list[IntArray]:
    """Leaf values as the program adds them up."""
    values = [q.copy() for q in leaves.values]
    for (tree, column, _), zero in zip(places, cut.zeros, strict=True):
        values[tree][asked.forest.trees[tree].feature < 0, column] -= zero
    return values


def _native(asked: AskedForest, values: Sequence[IntArray]) -> NativeForest:
    trees = asked.forest.trees
    starts = np.concatenate([[0], np.cumsum([len(tree.feature) for tree in trees])])
    condition = np.concatenate(asked.asks)
    inner = condition >= 0
    shift = np.repeat(starts[:-1], np.diff(starts))
    return NativeForest(
        encoder=native_encoder(asked.forest, asked.conditions),
        tree_starts=starts.astype(np.int64),
        condition=condition,
        left=np.where(inner, np.concatenate([tree.left for tree in trees]) + shift, -1),
        right=np.where(inner, np.concatenate([tree.right for tree in trees]) + shift, -1),
        value=np.concatenate(values),
        first_output=np.array([tree.first_output for tree in trees], dtype=np.int64),
        n_outputs=asked.forest.n_outputs,
    )
