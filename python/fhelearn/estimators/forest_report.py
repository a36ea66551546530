"""What a compiled tree model costs and how closely it follows the library's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import is_regressor

from fhelearn.estimators.adapters import overridden
from fhelearn.estimators.compiled_forest import CompiledForest, leaves_reached
from fhelearn.estimators.report import ModelReport, accuracy_figures, circuit_figures
from fhelearn.frontends.tree.cut import LOOKUP_PRICE
from fhelearn.quantization.digits import digit_columns


@dataclass(frozen=True)
class CutReport:
    """How the trees were cut into lookups.

    Attributes
    ----------
    bit_width : int
        Bits of a lookup's index.
    lookups, pieces : int
        A lookup evaluates one piece of a tree, or the sum of several small ones.
    sizes : mapping of int to int
        Lookups by the number of values of their index.
    compared : mapping of int to float
        Milliseconds that the cuts into lookups of so many bits were estimated at (on a sample of the trees, where there
        are many); the cheapest was taken.
    """

    bit_width: int
    lookups: int
    pieces: int
    sizes: Mapping[int, int]
    compared: Mapping[int, float]

    def __str__(self) -> str:
        sizes = ", ".join(f"{count} of {size}" for size, count in self.sizes.items())
        compared = ", ".join(f"{bits} bits {price:.0f} ms" for bits, price in self.compared.items())
        return (
            f"{self.pieces} pieces in {self.lookups} lookups of {self.bit_width} bits (values: {sizes}); "
            f"compared: {compared}"
        )


@dataclass(frozen=True)
class EncodingPrice:
    """What an encoding would cost per row: ciphertexts sent, lookups, and a rough estimate of their milliseconds."""

    ciphertexts: int
    lookups: int
    milliseconds: float

    def __str__(self) -> str:
        return f"{self.ciphertexts} ciphertexts, {self.lookups} lookups, about {self.milliseconds:.0f} ms"


@dataclass(frozen=True, kw_only=True)
class ForestReport(ModelReport):
    """Cost and accuracy of a compiled tree model.

    Attributes
    ----------
    n_trees : int
        Of the model.
    n_outputs : int
        Scores that the server evaluates, one ciphertext each; of two complementary ones it evaluates one.
    n_conditions : int
        Distinct conditions that the model asks.
    grid, encoding : str
        As given to `compile`.
    ciphertexts : int
        Encrypted numbers that the client sends per row.
    cut : CutReport
        How the trees became lookups.
    bits_encoding, digits_encoding : EncodingPrice
        The prices of both encodings, "bits" with the grid that was compiled.
    leaf_bits, output_bits : int
        Widths of a tree's integer leaf values and of their sum.
    score_error : float
        How far a score can be from the library's at most, because leaves are rounded and float sums are, too: as a
        share of the range of scores that the trees' leaves allow, of the worst output.
    rows_moved : int or None
        Rows of `X` that reach another leaf than in the library; 0 unless thresholds were moved to a uniform grid.
    rows_undecided : int or None
        Rows of `X` whose label could change by score errors of at most `score_error` (classifiers, outlier detectors).
    """

    n_trees: int
    n_outputs: int
    n_conditions: int
    grid: str
    encoding: str
    ciphertexts: int
    cut: CutReport
    bits_encoding: EncodingPrice
    digits_encoding: EncodingPrice
    leaf_bits: int
    output_bits: int
    score_error: float
    rows_moved: int | None = None
    rows_undecided: int | None = None


def forest_cost(compiled: CompiledForest) -> dict[str, Any]:
    """The report's fields on sizes, lookups and time."""
    quantized = compiled.quantized
    program, cut = quantized.program, quantized.cut
    output = program.nodes[program.outputs[0]].value
    lookups = len(cut.lookups)
    ciphertexts = program.nodes[program.inputs[0]].value.size
    conditions = quantized.native.encoder.n_conditions
    asked = len({c for lookup in cut.lookups for c in lookup.index_weights()[0]})
    digits = quantized.options.encoding == "digits"
    return {
        "n_features": quantized.forest.n_features,
        "n_trees": quantized.forest.n_trees,
        "n_scores": quantized.forest.n_outputs,
        "n_outputs": output.size,
        "n_conditions": conditions,
        "grid": quantized.options.grid,
        "encoding": quantized.options.encoding,
        "ciphertexts": ciphertexts,
        "lookups": lookups + asked if digits else lookups,
        "cut": CutReport(
            cut.bit_width,
            lookups,
            sum(len(lookup.pieces) for lookup in cut.lookups),
            dict(sorted(Counter(lookup.size for lookup in cut.lookups).items())),
            cut.prices,
        ),
        "bits_encoding": _price(
            cut.bit_width,
            quantized.forest.n_features * (2**quantized.options.input_bits - 1) if digits else ciphertexts,
            lookups,
        ),
        "digits_encoding": _price(
            cut.bit_width, quantized.forest.n_features * digit_columns(quantized.options.input_bits), lookups + asked
        ),
        "leaf_bits": quantized.leaves.n_bits,
        "output_bits": output.bit_width,
        "score_error": float((quantized.error_bound / quantized.forest.score_range).max()),
        **circuit_figures(compiled),
    }


def _price(bits: int, ciphertexts: int, lookups: int) -> EncodingPrice:
    """All lookups of a circuit have the parameters of the widest; a ciphertext costs the server 0.16 ms."""
    return EncodingPrice(
        ciphertexts, lookups, LOOKUP_PRICE.get(bits, max(LOOKUP_PRICE.values())) * lookups + 0.16 * ciphertexts
    )


def forest_accuracy(estimator: Any, compiled: CompiledForest, X: Any, y: Any) -> dict[str, Any]:
    """The report's fields on agreement with the library, on the rows `X`."""
    adapter, quantized = estimator._fhe_adapter, compiled.quantized
    x = adapter.prepare(estimator, X)
    scores = compiled.scores(x, "simulate")
    answered = estimator._fhe_scored(X, scores).predict(X, fhe="simulate")
    view = estimator._fhe_keep_overrides(adapter.view(estimator, scores), X, scores, {"fhe": "simulate"}, None)
    judge = None if overridden(estimator, ["score"]) else view
    placeholder = adapter.placeholder(estimator, len(scores))
    figures = accuracy_figures(estimator, X, y, answered, judge, placeholder)
    own = leaves_reached(adapter.forest(estimator), x)
    figures["rows_moved"] = int((own != compiled.forest_engine.apply(x)).any(axis=1).sum())
    if not is_regressor(estimator):
        figures["rows_undecided"] = int(undecided(estimator, scores, quantized.error_bound).sum())
    return figures


def undecided(estimator: Any, scores: Any, bound: Any) -> Any:
    """Rows whose label could change if each score were off by up to its bound.

    A label depends on which score is greatest (or on the sign of one score), so it suffices to raise each by its bound
    while all others are lowered by theirs, and the reverse of that for a single score.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    label = np.asarray(estimator._fhe_from_scores("predict", scores))
    changed = np.zeros(len(scores), dtype=np.bool_)
    signs = 2 * np.eye(scores.shape[1]) - 1
    for sign in (*signs, -np.ones(scores.shape[1])):
        moved = np.asarray(estimator._fhe_from_scores("predict", scores + sign * bound))
        different = moved != label
        changed |= different.any(axis=1) if different.ndim == 2 else different
    return changed
