"""The mix-in that lets a scikit-learn estimator with a dot product at its heart predict on ciphertexts."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted, validate_data

from fhelearn.estimators.adapters import Adapter, CoefAdapter, overridden, shallow_view
from fhelearn.estimators.bits import parse_n_bits, same_n_bits
from fhelearn.estimators.build import METHODS, build, scikit_learn_base
from fhelearn.estimators.compiled import CompiledLinear, CompileOptions
from fhelearn.estimators.report import LinearReport, accuracy_figures, cost_figures
from fhelearn.exceptions import NotCompiledError
from fhelearn.frontends.linear import quantize_linear
from fhelearn.ir import Program
from fhelearn.typing import FheMode, FloatArray, IntArray

Self = TypeVar("Self", bound="FHELinearMixin")


class FHELinearMixin:
    """Adds encrypted prediction to a scikit-learn estimator, as in ``class Ridge(FHELinearMixin, linear_model.Ridge)``.

    Training and ``fhe="disable"`` stay scikit-learn's own. :meth:`compile` quantizes the fitted model for the range of
    some data; after it, the prediction methods take ``fhe="simulate"`` and ``fhe="execute"``, which agree exactly.
    """

    _fhe_adapter: ClassVar[Adapter] = CoefAdapter()
    _fhe_base: ClassVar[Any] = None
    n_bits: Any

    if TYPE_CHECKING:  # made by `build` from scikit-learn's method

        def predict(
            self, X: Any, *, fhe: FheMode = "disable", n_jobs: int | None = None, progress: bool | None = None
        ) -> Any:
            """Labels or values of the rows of `X`; see the scikit-learn class."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        base = scikit_learn_base(cls, FHELinearMixin)
        if base is not None:
            cls._fhe_base = base
            build(cls, base)
        super().__init_subclass__(**kwargs)

    @classmethod
    def from_sklearn_model(cls: type[Self], model: Any, X: Any, *, n_bits: Any = None, **compile_options: Any) -> Self:
        """Compile a fitted scikit-learn model as it is, without training it again.

        Parameters
        ----------
        model : fitted estimator of the scikit-learn class this class is named after
            It is copied, not changed.
        X : array-like of shape (n, n_features)
            As for :meth:`compile`.
        n_bits : int or dict, default=None
            As for the constructor.
        **compile_options
            Keyword arguments of :meth:`compile`.

        Returns
        -------
        estimator : instance of this class
            Fitted and compiled.

        Raises
        ------
        TypeError
            If `model` is of another class, or of a subclass that is not fhelearn's.
        sklearn.exceptions.NotFittedError
            If `model` is not fitted.
        """
        if type(model) is not cls._fhe_base and not isinstance(model, cls):
            raise TypeError(cls._fhe_foreign(type(model)))
        check_is_fitted(model)
        estimator = cls(**{**model.get_params(deep=False), "n_bits": n_bits})
        fitted = {name: value for name, value in vars(model).items() if name not in ("n_bits", "_fhe_compiled")}
        estimator.__dict__.update(copy.deepcopy(fitted))
        return estimator.compile(X, **compile_options)

    @classmethod
    def _fhe_foreign(cls, other: type) -> str:
        """Why `from_sklearn_model` does not take an instance of `other`."""
        base = f"{cls._fhe_base.__module__.split('._')[0]}.{cls._fhe_base.__name__}"
        found = f"{cls.__name__}.from_sklearn_model: model must be a {base}, got {other.__module__}.{other.__name__}"
        if issubclass(other, cls._fhe_base):
            return (
                f"{found}, a subclass of it whose own methods would be lost; derive {other.__name__} from "
                f"{cls.__module__}.{cls.__name__} instead and fit that"
            )
        return f"{found}; use the fhelearn class of that name"

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
        x = adapter.prepare(self, self._fhe_validated(X))
        quantized = quantize_linear(adapter.linear_map(self), adapter.columns(self, x, range_margin), bits)
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"feature {j}" for j in range(x.shape[1])]
        compiled = CompiledLinear(quantized, options, copy.deepcopy(self.n_bits), adapter.fitted(self), names)
        compiled.prepare_circuit()
        self._fhe_compiled = compiled
        return self

    @property
    def is_compiled_(self) -> bool:
        """Whether the model, as it is now, is compiled. Raises NotFittedError before `fit`."""
        try:
            self._fhe_state()
        except NotCompiledError:
            return False
        return True

    @property
    def program_(self) -> Program:
        """The integer program. Raises NotCompiledError before :meth:`compile`."""
        return self._fhe_state().program

    @property
    def fhe_circuit_(self) -> Any:
        """The Concrete circuit: keys, encryption, cost. Raises NotCompiledError before :meth:`compile`."""
        return self._fhe_state().circuit

    def quantize_input(self, X: Any) -> IntArray:
        """The integers that are encrypted for `X`.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        q : ndarray of int64, shape (n, n_features)
            Inside the program's input bounds: values outside the range are clipped, or refused, as
            :meth:`compile` was told.
        """
        compiled = self._fhe_state()
        x = self._fhe_adapter.prepare(self, self._fhe_validated(X))
        return compiled.encode(x, stacklevel=2)

    def dequantize_output(self, q: IntArray) -> FloatArray:
        """The float scores that decrypted integers stand for.

        Parameters
        ----------
        q : ndarray of int64, shape (n, n_scores)

        Returns
        -------
        scores : ndarray of float64, shape (n, n_scores)
        """
        return self._fhe_state().decode(q)

    def report(self, X: Any = None, y: Any = None) -> LinearReport:
        """What prediction on ciphertexts costs, and how closely it follows scikit-learn's.

        Parameters
        ----------
        X : array-like of shape (n, n_features), default=None
            Rows to compare on; None leaves the accuracy figures out.
        y : array-like, default=None
            Targets, for the score.

        Returns
        -------
        LinearReport
        """
        compiled = self._fhe_state()
        figures = cost_figures(compiled)
        if X is not None:
            x = self._fhe_adapter.prepare(self, self._fhe_validated(X))
            q, below, above = compiled.quantized.encoder.quantize_counting(x)
            scores = compiled.decode(compiled.simulate(q))
            answered = self._fhe_scored(X, scores).predict(X, fhe="simulate")
            view = self._fhe_view(X, scores, {"fhe": "simulate"})
            figures |= accuracy_figures(self, X, y, answered, None if overridden(self, ["score"]) else view, scores)
            figures["clipped"] = int(below.sum() + above.sum())
        return LinearReport(estimator=type(self).__name__, **figures)

    def _fhe_numeric(self, X: Any) -> Any:
        """`X` as scikit-learn checks it, of a dtype it could compute with, dense or CSR."""
        return validate_data(self, X, reset=False, accept_sparse="csr", dtype="numeric", order="C")

    def _fhe_validated(self, X: Any) -> FloatArray:
        """`X` as scikit-learn checks it, float64, dense and C-contiguous, shape (n, n_features)."""
        return _float64(self._fhe_numeric(X))

    def _fhe_state(self) -> CompiledLinear:
        """What `compile` left, if it still describes the model."""
        check_is_fitted(self)
        name = type(self).__name__
        compiled: CompiledLinear | None = self.__dict__.get("_fhe_compiled")
        if compiled is None:
            raise NotCompiledError(
                f"This {name} instance is fitted but not compiled yet. Call 'compile(X)' with data of the range to "
                "expect before using this method."
            )
        if not same_n_bits(compiled.n_bits, self.n_bits):
            raise NotCompiledError(
                f"n_bits of this {name} instance is {self.n_bits!r}, but it was compiled with {compiled.n_bits!r}. "
                "Call 'compile(X)' again."
            )
        if not compiled.describes(self._fhe_adapter.fitted(self)):
            raise NotCompiledError(
                f"The fitted attributes of this {name} instance, or parameters that its predictions depend on (as a "
                "kernel), changed after it was compiled. Call 'compile(X)' again."
            )
        return compiled

    def _fhe_answer(self, method: str, X: Any, fhe: str, n_jobs: int | None, progress: bool | None) -> Any:
        """The answer of `method`, computed by scikit-learn's own code from the scores of the quantized model."""
        compiled = self._fhe_state()
        numeric = self._fhe_numeric(X)
        known, scores = self.__dict__.get("_fhe_known", (None, None))
        if known is not X:
            q = compiled.encode(self._fhe_adapter.prepare(self, _float64(numeric)), stacklevel=3)
            if fhe == "simulate":
                integers = compiled.simulate(q, n_jobs=n_jobs)
            else:
                integers = compiled.execute(q, n_jobs=n_jobs, progress=progress)
            scores = compiled.decode(integers)
        view = self._fhe_view(X, scores, {"fhe": fhe, "n_jobs": n_jobs, "progress": progress}, method)
        return self._fhe_cast(method, getattr(view, method)(scores), numeric.dtype)

    def _fhe_cast(self, method: str, answer: Any, dtype: Any) -> Any:
        """`answer` in the dtype in which scikit-learn answers features of `dtype`: that of a row of zeros."""
        if answer.dtype.kind != "f":
            return answer
        plain = shallow_view(self, self.n_features_in_)  # type: ignore[attr-defined]
        expected = getattr(plain, method)(np.zeros((1, plain.n_features_in_), dtype))
        return answer.astype(expected.dtype, copy=False)

    def _fhe_scored(self: Self, X: Any, scores: FloatArray) -> Self:
        """A copy that knows the scores of the very object `X`, and does not compute them again."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _fhe_known=(X, scores))
        return twin

    def _fhe_view(self, X: Any, scores: FloatArray, options: dict[str, Any], method: str | None = None) -> Any:
        """The adapter's view, on which `method` is to be called.

        Where scikit-learn's code calls another prediction method that a subclass overrides, the override gets the
        features `X`, as it does without encryption.
        """
        view = self._fhe_adapter.view(self, scores.shape[1])
        twin = self._fhe_scored(X, scores)
        for name in overridden(self, METHODS):
            if name != method:
                setattr(view, name, lambda _, name=name: getattr(twin, name)(X, **options))
        return view


def _float64(x: Any) -> FloatArray:
    return np.ascontiguousarray(x.toarray() if issparse(x) else x, dtype=np.float64)


# The methods of these two are made by `build`. They are declared here because no type checker runs that: without them
# ``LogisticRegression().predict_proba(X, fhe="simulate")`` is an error, and ``Ridge().predict_proba`` is none.
class FHEDecisionMixin(FHELinearMixin):
    """For estimators with ``decision_function``: the same at run time, more to a type checker."""

    if TYPE_CHECKING:

        def decision_function(
            self, X: Any, *, fhe: FheMode = "disable", n_jobs: int | None = None, progress: bool | None = None
        ) -> Any:
            """Confidence scores of the rows of `X`; see the scikit-learn class."""


class FHEProbabilityMixin(FHELinearMixin):
    """For estimators with ``predict_proba``: the same at run time, more to a type checker."""

    if TYPE_CHECKING:

        def predict_proba(
            self, X: Any, *, fhe: FheMode = "disable", n_jobs: int | None = None, progress: bool | None = None
        ) -> Any:
            """Class probabilities of the rows of `X`; see the scikit-learn class."""

        def predict_log_proba(
            self, X: Any, *, fhe: FheMode = "disable", n_jobs: int | None = None, progress: bool | None = None
        ) -> Any:
            """Logarithms of the class probabilities; see the scikit-learn class."""
