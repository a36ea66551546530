"""What every public estimator shares: its construction, its state, and how overridden methods are kept."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from fhelearn.estimators.adapters import overridden
from fhelearn.estimators.build import METHODS, BitsParameter, build, scikit_learn_base
from fhelearn.estimators.compiled import CompiledModel
from fhelearn.exceptions import NotCompiledError
from fhelearn.ir import Program
from fhelearn.typing import FheMode, FloatArray, IntArray

Self = TypeVar("Self", bound="FHEMixin")


class FHEMixin:
    """Adds encrypted prediction to an estimator of scikit-learn's kind; families of models derive from it.

    Training and ``fhe="disable"`` stay the library's own. A family's mix-in adds `compile`; after it, the prediction
    methods take ``fhe="simulate"`` and ``fhe="execute"``, which agree exactly.
    """

    _fhe_base: ClassVar[Any] = None
    _fhe_bits: ClassVar[BitsParameter]
    n_bits: Any

    if TYPE_CHECKING:  # made by `build` from the library's method

        def predict(
            self, X: Any, *, fhe: FheMode = "disable", n_jobs: int | None = None, progress: bool | None = None
        ) -> Any:
            """Labels or values of the rows of `X`; see the library's class."""

        # each family of models has its own of these

        compile: Any

        def _fhe_fitted(self) -> tuple[Any, ...]:
            """Small arrays and parameters that tell whether what was compiled still describes the model."""

        def _fhe_same_bits(self, first: Any, second: Any) -> bool:
            """Whether two values of `n_bits` ask for the same."""

        def _fhe_encode(self, compiled: Any, X: Any) -> IntArray:
            """The program's input for rows as users give them."""

        def _fhe_from_scores(self, method: str, scores: FloatArray) -> Any:
            """The answer of `method` for decoded scores, by the library's own code."""

        def _fhe_report(self, compiled: Any, X: Any, y: Any) -> Any:
            """The figures of `report`."""

        def _fhe_answer(self, method: str, X: Any, fhe: str, n_jobs: int | None, progress: bool | None) -> Any:
            """The answer of `method`, computed by the library's own code from the scores of the quantized model."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        base = scikit_learn_base(cls, FHEMixin)
        if base is not None:
            cls._fhe_base = base
            build(cls, base, cls._fhe_bits)
        super().__init_subclass__(**kwargs)

    @classmethod
    def from_sklearn_model(cls: type[Self], model: Any, X: Any, *, n_bits: Any = None, **compile_options: Any) -> Self:
        """Compile a fitted model of the library as it is, without training it again.

        Parameters
        ----------
        model : fitted estimator of the library's class that this class is named after
            It is copied, not changed.
        X : array-like of shape (n, n_features)
            As for :meth:`compile`.
        n_bits : default=None
            As for the constructor, None for its default.
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
        compiled: Self = cls._fhe_adopt(model, n_bits).compile(X, **compile_options)
        return compiled

    @classmethod
    def _fhe_adopt(cls: type[Self], model: Any, n_bits: Any) -> Self:
        """A fitted model of the library as an instance of this class, not compiled; see :meth:`from_sklearn_model`."""
        if type(model) is not cls._fhe_base and not isinstance(model, cls):
            raise TypeError(cls._fhe_foreign(type(model)))
        check_is_fitted(model)
        n_bits = cls._fhe_bits.default if n_bits is None else n_bits
        estimator = cls(**{**model.get_params(deep=False), "n_bits": n_bits})
        fitted = {name: value for name, value in vars(model).items() if name not in ("n_bits", "_fhe_compiled")}
        estimator.__dict__.update(copy.deepcopy(fitted))
        return estimator

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

    def _fhe_plain(self) -> Any:
        """The fitted model as an instance of the library's own class. Raises NotFittedError before `fit`."""
        check_is_fitted(self)
        plain = object.__new__(self._fhe_base)
        plain.__dict__.update({k: v for k, v in vars(self).items() if not k.startswith("_fhe_") and k != "n_bits"})
        return plain

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
        program: Program = self._fhe_state().program
        return program

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
        q : ndarray of int64, shape (n, inputs of the program)
            Inside the program's input bounds. Linear models: a code per feature; values outside the range are clipped,
            or refused, as `compile` was told; networks alike. Trees: the 0 or 1 of each condition, or of each digit's.
        """
        return self._fhe_encode(self._fhe_state(), X)

    def dequantize_output(self, q: IntArray) -> FloatArray:
        """The float scores that decrypted integers stand for; :meth:`answer` makes predictions of them.

        Parameters
        ----------
        q : ndarray of integers, shape (n, outputs of the program)

        Returns
        -------
        scores : ndarray of float64, shape (n, n_scores)
            Linear models: what the dot products give. Trees: sums over the trees' leaves, before the library averages
            or transforms them. Networks: what the last layer gives, before its activation function.
        """
        return self._fhe_decode(self._fhe_state(), q)

    def answer(self, q: IntArray, method: str = "predict") -> Any:
        """What a prediction method answers for decrypted integers: the client's last step, where it decrypts itself.

        Parameters
        ----------
        q : ndarray of integers, shape (n, outputs of the program)
            As ``fhe_circuit_.decrypt`` returns them.
        method : str, default="predict"
            "predict", "predict_proba", "decision_function" or another prediction method of the class.

        Returns
        -------
        answer : what the method returns for n rows

        Raises
        ------
        ValueError
            If `q` has another shape or the class has no such prediction method.
        """
        compiled = self._fhe_state()
        if method not in METHODS or not hasattr(self, method):
            allowed = ", ".join(name for name in METHODS if hasattr(self, name))
            raise ValueError(f"{type(self).__name__} has no prediction method {method!r}; choose one of {allowed}")
        return self._fhe_from_scores(method, self._fhe_decode(compiled, q))

    def report(self, X: Any = None, y: Any = None) -> Any:
        """What prediction on ciphertexts costs, and how closely it follows the library's.

        Parameters
        ----------
        X : array-like of shape (n, n_features), default=None
            Rows to compare on; None leaves the accuracy figures out.
        y : array-like, default=None
            Targets, for the score.

        Returns
        -------
        LinearReport, ForestReport or MLPReport
        """
        return self._fhe_report(self._fhe_state(), X, y)

    def _fhe_decode(self, compiled: Any, q: IntArray) -> FloatArray:
        """Float scores of the program's output."""
        scores: FloatArray = compiled.decode(q)
        return scores

    def _fhe_state(self) -> Any:
        """What `compile` left, if it still describes the model."""
        check_is_fitted(self)
        name = type(self).__name__
        compiled: CompiledModel | None = self.__dict__.get("_fhe_compiled")
        if compiled is None:
            raise NotCompiledError(
                f"This {name} instance is fitted but not compiled yet. Call 'compile(X)' with data of the range to "
                "expect before using this method."
            )
        if not self._fhe_same_bits(compiled.n_bits, self.n_bits):
            raise NotCompiledError(
                f"n_bits of this {name} instance is {self.n_bits!r}, but it was compiled with {compiled.n_bits!r}. "
                "Call 'compile(X)' again."
            )
        if not compiled.describes(self._fhe_fitted()):
            raise NotCompiledError(
                f"The fitted attributes of this {name} instance, or parameters that its predictions depend on (as a "
                "kernel), changed after it was compiled. Call 'compile(X)' again."
            )
        return compiled

    def _fhe_scored(self: Self, X: Any, scores: FloatArray) -> Self:
        """A copy that knows the scores of the very object `X`, and does not compute them again."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, _fhe_known=(X, scores))
        return twin

    def _fhe_keep_overrides(
        self, view: Any, X: Any, scores: FloatArray, options: dict[str, Any], method: str | None
    ) -> Any:
        """`view`, on which `method` is to be called, with the prediction methods that a subclass overrides.

        Where the library's code calls one of them, the override gets the features `X`, as it does without encryption.
        """
        twin = self._fhe_scored(X, scores)
        for name in overridden(self, METHODS):
            if name != method:
                setattr(view, name, lambda *_, name=name, **__: getattr(twin, name)(X, **options))
        return view


def float64(x: Any) -> FloatArray:
    """`x`, dense or sparse, as a dense C-contiguous float64 array."""
    return np.ascontiguousarray(x.toarray() if issparse(x) else x, dtype=np.float64)


# The methods of these two are made by `build`. They are declared here because no type checker runs that: without them
# ``LogisticRegression().predict_proba(X, fhe="simulate")`` is an error, and ``Ridge().predict_proba`` is none.
class DecisionMethods(FHEMixin):
    """For estimators with ``decision_function``: the same at run time, more to a type checker."""

    if TYPE_CHECKING:

        def decision_function(
            self, X: Any, *, fhe: FheMode = "disable", n_jobs: int | None = None, progress: bool | None = None
        ) -> Any:
            """Confidence scores of the rows of `X`; see the library's class."""


class ProbabilityMethods(FHEMixin):
    """For estimators with ``predict_proba``: the same at run time, more to a type checker."""

    if TYPE_CHECKING:

        def predict_proba(
            self, X: Any, *, fhe: FheMode = "disable", n_jobs: int | None = None, progress: bool | None = None
        ) -> Any:
            """Class probabilities of the rows of `X`; see the library's class."""

        def predict_log_proba(
            self, X: Any, *, fhe: FheMode = "disable", n_jobs: int | None = None, progress: bool | None = None
        ) -> Any:
            """Logarithms of the class probabilities; see the library's class."""
