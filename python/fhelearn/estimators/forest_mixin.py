"""The mix-in of tree models and their ensembles."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from sklearn.base import is_regressor
from sklearn.utils.validation import check_is_fitted

from fhelearn.estimators.base import DecisionMethods, FHEMixin, ProbabilityMethods
from fhelearn.estimators.bits import FOREST_BITS, parse_forest_bits, same_forest_bits
from fhelearn.estimators.build import BitsParameter
from fhelearn.estimators.compiled import NAMED_FEATURES, CompileOptions
from fhelearn.estimators.compiled_forest import CompiledForest, leaves_reached
from fhelearn.estimators.forest_adapter import ForestAdapter
from fhelearn.estimators.forest_report import ForestReport, forest_accuracy, forest_cost
from fhelearn.exceptions import HiddenGridWarning, QuantizationError
from fhelearn.frontends.tree import (
    EncodingName,
    Forest,
    ForestOptions,
    Grid,
    place,
    quantize_forest,
    rounded_scores,
)
from fhelearn.frontends.tree.leaves import MAX_BITS, MIN_BITS
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    import onnx

_ONNX_ROWS = 64
"""Rows, spread over the thresholds, on which the export compares the ONNX model with the library's."""

Self = TypeVar("Self", bound="FHEForestMixin")


class FHEForestMixin(FHEMixin):
    """Adds encrypted prediction to a tree model, as in ``class ExtraTreeRegressor(FHEForestMixin, tree.ExtraTree...)``.

    Training and ``fhe="disable"`` stay the library's own. :meth:`compile` turns the fitted model into an integer
    program; after it, the prediction methods take ``fhe="simulate"`` and ``fhe="execute"``, which agree exactly. A row
    reaches the very leaves that it reaches in the library (with the default `grid` and `encoding`): the only
    difference is that leaf values are rounded to `n_bits`.
    """

    _fhe_adapter: ClassVar[ForestAdapter]
    _fhe_bits: ClassVar[BitsParameter] = FOREST_BITS

    if TYPE_CHECKING:

        def report(self, X: Any = None, y: Any = None) -> ForestReport:
            """See FHEMixin."""

    def compile(
        self: Self,
        X: Any,
        *,
        p_error: float | None = None,
        global_p_error: float | None = None,
        security_level: int = 128,
        grid: Grid | None = None,
        encoding: EncodingName = "bits",
    ) -> Self:
        """Turn the fitted model into an integer program and its circuit (from 10,000 lookups on when first used).

        The client encrypts answers to ``feature <= threshold``, from which the server computes the indices of table
        lookups, and from these one ciphertext per class or target.

        Parameters
        ----------
        X : array-like of shape (n, n_features), n >= 1
            Rows like those to come: decoys and uniform grids are made from them, ``n_bits="auto"`` keeps their labels.
        p_error : float, default=None
            Probability, in [2**-128, 1), that one table lookup goes wrong; None is 2**-40.
        global_p_error : float, default=None
            Probability that any lookup of a row goes wrong; give this or `p_error`, not both.
        security_level : int, default=128
            In bits.
        grid : {"hidden", "thresholds", "uniform"}, default=None
            Which conditions the client is given, and thereby learns. None is "hidden", with digits "uniform".

            - "hidden": the model's thresholds among as many decoys or more, at least 63 conditions per feature (if `X`
              has as many values), used or not. The client is not told which are the model's, nor any leaf or shape of
              a tree. Sets of categories are sent as they are. 24 bytes and about 0.16 ms per condition and row.
            - "thresholds": the model's thresholds. The client learns all of them; the fewest bytes.
            - "uniform": ``2**inputs - 1`` evenly spaced points per feature (see `n_bits`), to which the model's
              thresholds are moved. The client learns the range of each feature. ``report(X)`` counts the rows that
              reach other leaves.
        encoding : {"bits", "digits"}, default="bits"
            What the client sends: the answers to all conditions of the grid; or, for very many features, each feature
            on the uniform grid as two digits (30 ciphertexts at 8 bits), from which the server looks up each distinct
            condition of the model, one lookup each.

        Returns
        -------
        self : object

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        LoweringError
            If the model is not exactly a sum of trees, or no cryptographic parameters exist; says why.
        QuantizationError
            If `n_bits` is not allowed, or a feature has no range.
        ValueError
            If `X` is not what the library's ``predict`` takes, or an argument is not one of those above.
        """
        options = CompileOptions(p_error, global_p_error, security_level)
        return self._fhe_compile(X, options, *_checked(grid, encoding))

    def _fhe_compile(self: Self, X: Any, options: CompileOptions, grid: Grid, encoding: EncodingName) -> Self:
        check_is_fitted(self)
        adapter = self._fhe_adapter
        bits = parse_forest_bits(self.n_bits)
        forest = adapter.forest(self)
        x = adapter.prepare(self, X)
        if not len(x):
            raise ValueError("compile needs at least one row, got X with 0 rows")
        wanted = ForestOptions(bits.leaves or MAX_BITS, bits.inputs, grid, encoding, is_regressor(self))
        if bits.leaves is None:
            wanted = replace(wanted, leaf_bits=self._fhe_fewest_bits(place(forest, x, wanted)[0], x))
        quantized = quantize_forest(forest, x, wanted)
        if grid == "hidden" and (exposed := quantized.exposed_features).size:
            _warn_exposed(exposed)
        compiled = CompiledForest(quantized, options, copy.deepcopy(self.n_bits), adapter.fitted(self))
        compiled.prepare_circuit()
        self._fhe_compiled = compiled
        return self

    def _fhe_fewest_bits(self, forest: Forest, x: FloatArray) -> int:
        """The fewest bits for the leaves of `forest` that change no label of prepared rows."""
        if is_regressor(self):
            raise QuantizationError(
                f'n_bits="auto" keeps labels, and {type(self).__name__} has none; give an int from {MIN_BITS} to '
                f"{MAX_BITS} (the default is {FOREST_BITS.default})"
            )
        leaves = leaves_reached(forest, x)
        expected = self._fhe_from_scores("predict", forest.sums(leaves))
        for bits in range(MIN_BITS, MAX_BITS + 1):
            changed = self._fhe_from_scores("predict", rounded_scores(forest, leaves, bits)) != expected
            if not changed.any():
                return bits
        rows = int(changed.reshape(len(x), -1).any(axis=1).sum())
        raise QuantizationError(
            f'n_bits="auto": even {MAX_BITS} bits change the labels of {rows} of {len(x)} rows, whose scores hardly '
            f"differ; give an int (the default is {FOREST_BITS.default})"
        )

    @property
    def onnx_model_(self) -> onnx.ModelProto:
        """The model in ONNX, as Hummingbird writes it (GEMM form). Predictions do not use it.

        Raises
        ------
        ImportError
            If Hummingbird or ONNX are not installed: ``pip install "fhelearn[onnx]"``.
        LoweringError
            If Hummingbird cannot convert the model; encrypted prediction works nevertheless.
        """
        from fhelearn.onnx import export_sklearn

        plain = self._fhe_plain()
        rows = self._fhe_adapter.forest(self).rows_at_thresholds(_ONNX_ROWS)
        return export_sklearn(plain, rows, tree_implementation="gemm")

    def _fhe_encode(self, compiled: CompiledForest, X: Any) -> IntArray:
        x = self._fhe_adapter.prepare(self, X)
        compiled.quantized.check(x)
        return compiled.quantized.encode(x)

    def _fhe_from_scores(self, method: str, scores: FloatArray) -> Any:
        return getattr(self._fhe_adapter.view(self, scores), method)(self._fhe_adapter.placeholder(self, len(scores)))

    def _fhe_report(self, compiled: CompiledForest, X: Any, y: Any) -> ForestReport:
        figures = forest_cost(compiled)
        if X is not None:
            figures |= forest_accuracy(self, compiled, X, y)
        return ForestReport(estimator=type(self).__name__, **figures)

    def _fhe_fitted(self) -> tuple[Any, ...]:
        return self._fhe_adapter.fitted(self)

    def _fhe_same_bits(self, first: Any, second: Any) -> bool:
        return same_forest_bits(first, second)

    def _fhe_answer(self, method: str, X: Any, fhe: str, n_jobs: int | None, progress: bool | None) -> Any:
        """The answer of `method`, computed by the library's own code from the scores of the quantized model."""
        compiled: CompiledForest = self._fhe_state()
        known, scores = self.__dict__.get("_fhe_known", (None, None))
        if scores is None or known is not X:
            scores = compiled.scores(self._fhe_adapter.prepare(self, X), fhe, n_jobs, progress)
        view = self._fhe_adapter.view(self, scores)
        view = self._fhe_keep_overrides(view, X, scores, {"fhe": fhe, "n_jobs": n_jobs, "progress": progress}, method)
        return getattr(view, method)(self._fhe_adapter.placeholder(self, len(scores)))


class FHEForestProbabilityMixin(ProbabilityMethods, FHEForestMixin):
    """For tree models with ``predict_proba``: the same at run time, more to a type checker."""


class FHEForestDecisionMixin(DecisionMethods, FHEForestProbabilityMixin):
    """For tree models with ``decision_function`` too: the same at run time, more to a type checker."""


def _warn_exposed(features: IntArray) -> None:
    shown = ", ".join(str(feature) for feature in features[:NAMED_FEATURES])
    more = f" and {len(features) - NAMED_FEATURES} more" if len(features) > NAMED_FEATURES else ""
    warnings.warn(
        f'grid="hidden": the model has more thresholds than decoys could be drawn for feature {shown}{more}, because X '
        "has few different values there; compile on more rows, or take it that the client can guess them",
        HiddenGridWarning,
        stacklevel=4,
    )


def _checked(grid: Grid | None, encoding: EncodingName) -> tuple[Grid, EncodingName]:
    """Both arguments of `compile`, the default filled in. Raises ValueError if they are not allowed, or together."""
    _check_choice("encoding", encoding, ("bits", "digits"))
    if grid is None:
        return ("uniform" if encoding == "digits" else "hidden"), encoding
    _check_choice("grid", grid, ("hidden", "thresholds", "uniform"))
    if encoding == "digits" and grid != "uniform":
        raise ValueError(
            f'encoding="digits" sends features on a uniform grid, so grid must be "uniform" or None, got "{grid}"; use '
            'encoding="bits" with it'
        )
    return grid, encoding


def _check_choice(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in allowed:
        choices = ", ".join(f'"{choice}"' for choice in allowed)
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
