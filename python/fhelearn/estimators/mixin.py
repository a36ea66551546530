"""The mix-in that lets a scikit-learn estimator with a dot product at its heart predict on ciphertexts.

What it shares with other families that turn features into scores is a mix-in of its own.
"""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from sklearn.utils.validation import check_is_fitted, validate_data

from fhelearn.estimators.adapters import Adapter, CoefAdapter, overridden, shallow_view
from fhelearn.estimators.base import DecisionMethods, FHEMixin, ProbabilityMethods, float64
from fhelearn.estimators.bits import LINEAR_BITS, parse_n_bits, same_n_bits
from fhelearn.estimators.build import BitsParameter
from fhelearn.estimators.compiled import CompiledLinear, CompileOptions
from fhelearn.estimators.report import LinearReport, accuracy_figures, cost_figures
from fhelearn.frontends.linear import quantize_linear
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    import onnx

_ONNX_STEPS = 40
"""Features that are moved, one at a time, when the export compares the ONNX model with the library's."""

Self = TypeVar("Self", bound="FHELinearMixin")


class ScoresAdapter(Protocol):
    """What is needed of a family of estimators whose answers follow from a table of scores; see `Adapter`."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """Small arrays and parameters that tell whether what was compiled still describes the estimator."""
        ...

    def prepare(self, estimator: Any, x: FloatArray) -> FloatArray:
        """What the client does to validated features in the clear, before it encodes them."""
        ...

    def view(self, estimator: Any, n_scores: int) -> Any:
        """A copy of `estimator` whose methods take scores, shape (n, n_scores), in place of features."""
        ...


class FHEScoresMixin(FHEMixin):
    """For families whose quantized model turns a table of features into a table of scores.

    scikit-learn's own code makes its answers of the scores; see :mod:`fhelearn.estimators.adapters`.
    """

    _fhe_adapter: ClassVar[ScoresAdapter]

    if TYPE_CHECKING:  # each family has its own of these

        def _fhe_codes(self, compiled: Any, x: FloatArray, stacklevel: int) -> IntArray:
            """Integers of prepared features; warns, `stacklevel` frames up, of values out of range."""

        def _fhe_integers(
            self, compiled: Any, q: IntArray, fhe: str, n_jobs: int | None, progress: bool | None
        ) -> IntArray:
            """What the program returns, simulated or decrypted."""

    def __dir__(self) -> list[str]:
        # scikit-learn's own lists what the instance has, and reads every attribute to know: this one would start torch
        # and Hummingbird, and raise where they are missing or do not know the class. Notebooks list before they show.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # as scikit-learn's own does
            return [name for name in object.__dir__(self) if name != "onnx_model_" and hasattr(self, name)]

    def _fhe_encode(self, compiled: Any, X: Any) -> IntArray:
        return self._fhe_codes(compiled, self._fhe_prepared(X), 3)

    def _fhe_from_scores(self, method: str, scores: FloatArray) -> Any:
        return getattr(self._fhe_adapter.view(self, scores.shape[1]), method)(scores)

    def _fhe_prepared(self, X: Any) -> FloatArray:
        """What is to be encoded for `X`: as scikit-learn checks it, then as the adapter prepares it."""
        return self._fhe_adapter.prepare(self, float64(self._fhe_numeric(X)))

    def _fhe_numeric(self, X: Any) -> Any:
        """`X` as scikit-learn checks it, of a dtype it could compute with, dense or CSR."""
        return validate_data(self, X, reset=False, accept_sparse="csr", dtype="numeric", order="C")

    def _fhe_fitted(self) -> tuple[Any, ...]:
        return self._fhe_adapter.fitted(self)

    def _fhe_names(self) -> list[str]:
        """Names of the features, for messages."""
        names = getattr(self, "feature_names_in_", None)
        return [f"feature {j}" for j in range(self.n_features_in_)] if names is None else list(names)  # type: ignore[attr-defined]

    def _fhe_answer(self, method: str, X: Any, fhe: str, n_jobs: int | None, progress: bool | None) -> Any:
        """The answer of `method`, computed by scikit-learn's own code from the scores of the quantized model."""
        compiled = self._fhe_state()
        numeric = self._fhe_numeric(X)
        known, scores = self.__dict__.get("_fhe_known", (None, None))
        if known is not X:
            q = self._fhe_codes(compiled, self._fhe_adapter.prepare(self, float64(numeric)), 3)
            scores = self._fhe_decode(compiled, self._fhe_integers(compiled, q, fhe, n_jobs, progress))
        view = self._fhe_view(X, scores, {"fhe": fhe, "n_jobs": n_jobs, "progress": progress}, method)
        return self._fhe_cast(method, getattr(view, method)(scores), numeric.dtype)

    def _fhe_cast(self, method: str, answer: Any, dtype: Any) -> Any:
        """`answer` in the dtype in which scikit-learn answers features of `dtype`: that of a row of zeros."""
        if answer.dtype.kind != "f":
            return answer
        plain = shallow_view(self, self.n_features_in_)  # type: ignore[attr-defined]
        expected = getattr(plain, method)(np.zeros((1, plain.n_features_in_), dtype))
        return answer.astype(expected.dtype, copy=False)

    def _fhe_view(self, X: Any, scores: FloatArray, options: dict[str, Any], method: str | None = None) -> Any:
        """The adapter's view, on which `method` is to be called."""
        view = self._fhe_adapter.view(self, scores.shape[1])
        return self._fhe_keep_overrides(view, X, scores, options, method)


class FHELinearMixin(FHEScoresMixin):
    """Adds encrypted prediction to a scikit-learn estimator, as in ``class Ridge(FHELinearMixin, linear_model.Ridge)``.

    Training and ``fhe="disable"`` stay scikit-learn's own. :meth:`compile` quantizes the fitted model for the range of
    some data; after it, the prediction methods take ``fhe="simulate"`` and ``fhe="execute"``, which agree exactly.
    """

    _fhe_adapter: ClassVar[Adapter] = CoefAdapter()
    _fhe_bits: ClassVar[BitsParameter] = LINEAR_BITS

    if TYPE_CHECKING:

        def report(self, X: Any = None, y: Any = None) -> LinearReport:
            """See FHEMixin."""

    def compile(
        self: Self,
        X: Any,
        *,
        p_error: float | None = None,
        global_p_error: float | None = None,
        security_level: int = 128,
        range_margin: float = 0.1,
        on_out_of_range: Literal["warn", "error"] = "warn",
    ) -> Self:
        """Quantize the fitted model for the range of `X` and make its circuit.

        Parameters
        ----------
        X : array-like of shape (n, n_features), n >= 1
            Rows like those to come, for instance the training data: only the range and the mean of each feature are
            used. Each feature gets its own scale. The accumulator's width is proved for every input in that range, seen
            or not.
        p_error : float, default=None
            Probability, in [2**-128, 1), that a score of a row decrypts to a wrong integer, unnoticed; None is 2**-40.
            A linear model has no table lookup that could fail, so this is what `p_error` means for it: with 0.1, one
            score in ten of ``fhe="execute"`` is off from ``fhe="simulate"``, by about one step of the decoder. Keys
            and ciphertexts hardly get cheaper by it: leave it at None.
        global_p_error : float, default=None
            The same for a whole row, all its scores together; give this or `p_error`, not both.
        security_level : int, default=128
            In bits.
        range_margin : float, default=0.1
            Part of each feature's range by which it is widened at both ends (a constant feature: of its magnitude).
        on_out_of_range : {"warn", "error"}, default="warn"
            What to do with later values outside that range: clip them with one OutOfRangeWarning that counts them, or
            raise OutOfRangeError.

        Returns
        -------
        self : object

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before `fit`.
        QuantizationError
            If `n_bits` is not allowed or too wide for cryptographic parameters, or a range is unusable.
        LoweringError
            If this model does not predict through a dot product (a support vector machine with another kernel), or no
            cryptographic parameters exist.
        """
        check_is_fitted(self)
        adapter = self._fhe_adapter
        options = CompileOptions(p_error, global_p_error, security_level, on_out_of_range)
        bits = parse_n_bits(self.n_bits)
        x = self._fhe_prepared(X)
        quantized = quantize_linear(adapter.linear_map(self), adapter.columns(self, x, range_margin), bits)
        compiled = CompiledLinear(
            quantized, options, copy.deepcopy(self.n_bits), adapter.fitted(self), self._fhe_names()
        )
        compiled.prepare_circuit()
        self._fhe_compiled = compiled
        return self

    def _fhe_codes(self, compiled: CompiledLinear, x: FloatArray, stacklevel: int) -> IntArray:
        return compiled.encode(x, stacklevel=stacklevel + 1)

    def _fhe_integers(
        self, compiled: CompiledLinear, q: IntArray, fhe: str, n_jobs: int | None, progress: bool | None
    ) -> IntArray:
        if fhe == "simulate":
            return compiled.simulate(q, n_jobs=n_jobs)
        return compiled.execute(q, n_jobs=n_jobs, progress=progress)

    @property
    def onnx_model_(self) -> onnx.ModelProto:
        """The model in ONNX, as Hummingbird writes it, with float32 weights. Predictions do not use it.

        Raises
        ------
        ImportError
            If Hummingbird or ONNX are not installed: ``pip install "fhelearn[onnx]"``.
        LoweringError
            If Hummingbird cannot convert the class; encrypted prediction works nevertheless.
        """
        from fhelearn.onnx import export_sklearn

        return export_sklearn(self._fhe_plain(), _around_zero(self.n_features_in_))  # type: ignore[attr-defined]

    def _fhe_report(self, compiled: CompiledLinear, X: Any, y: Any) -> LinearReport:
        figures = cost_figures(compiled)
        if X is not None:
            q, below, above = compiled.quantized.encoder.quantize_counting(self._fhe_prepared(X))
            scores = compiled.decode(compiled.simulate(q))
            answered = self._fhe_scored(X, scores).predict(X, fhe="simulate")
            view = self._fhe_view(X, scores, {"fhe": "simulate"})
            figures |= accuracy_figures(self, X, y, answered, None if overridden(self, ["score"]) else view, scores)
            figures["clipped"] = int(below.sum() + above.sum())
        return LinearReport(estimator=type(self).__name__, **figures)

    def _fhe_same_bits(self, first: Any, second: Any) -> bool:
        return same_n_bits(first, second)


def _around_zero(n_features: int) -> FloatArray:
    """Rows on which the export compares an ONNX model with a linear model: zeros, and unit steps both ways."""
    steps = np.eye(n_features)[:_ONNX_STEPS]
    return np.concatenate([np.zeros((1, n_features)), steps, -steps])


class FHEDecisionMixin(DecisionMethods, FHELinearMixin):
    """For linear estimators with ``decision_function``: the same at run time, more to a type checker."""


class FHEProbabilityMixin(ProbabilityMethods, FHELinearMixin):
    """For linear estimators with ``predict_proba``: the same at run time, more to a type checker."""
