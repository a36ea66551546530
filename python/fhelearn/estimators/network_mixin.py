"""The mix-in of multi-layer perceptrons."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from sklearn.utils._param_validation import Interval
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from fhelearn.estimators.adapters import PlainFeatures, overridden, shallow_view
from fhelearn.estimators.base import ProbabilityMethods
from fhelearn.estimators.build import BitsParameter
from fhelearn.estimators.compiled import CompileOptions
from fhelearn.estimators.compiled_network import CompiledNetwork, NetworkModel
from fhelearn.estimators.mixin import FHEScoresMixin, ScoresAdapter
from fhelearn.estimators.network_report import NetworkReport, network_report
from fhelearn.estimators.out_of_range import report_clipped
from fhelearn.estimators.report import ModelReport, accuracy_figures, circuit_figures
from fhelearn.exceptions import BackendUnavailableError, QuantizationError
from fhelearn.frontends.linear import BitWidths
from fhelearn.frontends.onnx import NBits, Rounding, Settings, import_linear_or_network
from fhelearn.frontends.onnx.settings import BoundsMode
from fhelearn.ir import cost
from fhelearn.onnx.mlp import mlp_graph
from fhelearn.quantization.grids import ObserverName
from fhelearn.typing import FloatArray, IntArray

if TYPE_CHECKING:
    import onnx

# Measured on standardized iris, breast cancer, digits and diabetes (60 % to train, 40 % to test), hidden layers of 8,
# 32 and 16 + 16 neurons, relu and tanh: labels equal to the clear model's (iris, cancer, digits), change of the digits'
# accuracy and of R2, price of a neuron of a digits network in millions of operations (a 6-bit lookup is 230):
#
#     features, between layers, weights, rounding    labels                   digits    R2       exact   approximate
#     4, 5, 6 bits, to 5 bits                        0.981, 0.989, 0.923      -0.049    -0.022    858     536
#     4, 5, 6 bits, to 6 bits                        0.969, 0.986, 0.943      -0.033    -0.013   1325    1233
#     4, 5, 7 bits, to 6 bits                        0.972, 0.987, 0.977      -0.006    -0.014   1675    1468
#     6, 6, 7 bits, to 6 bits                        0.989, 0.992, 0.979      -0.005    -0.011   1821    1468
#     7, 7, 7 bits, to 6 bits                        0.992, 0.993, 0.974      -0.009    -0.005   2353    1925
#     7, 7, 7 bits, to 7 bits                        0.992, 0.995, 0.981      -0.005    -0.006   4855    4918
#
# Exact rounding costs little more than approximate, and keeps "execute" equal to "simulate". Weights coarse enough for
# 6-bit sums without rounding cost half as much (763 a neuron, 4-bit features), and lose labels: 0.97, 0.52, 0.10.
DEFAULT_BITS = NBits(model_inputs=4, op_inputs=5, op_weights=7, model_outputs=5)
DEFAULT_ROUNDING = 6

# With 0.1, 1 to 5 of 177 unseen diabetes rows wrapped, by up to 75 % of the range; with 0.5 none did, for half a bit.
DEFAULT_MARGIN = 0.5

NETWORK_BITS = BitsParameter(
    None,
    (Interval(Integral, 2, 16, closed="both"), dict, None),
    f"""
    n_bits : int or dict, default=None
        Widths on the encrypted side, 2 to 16 bits; `fit` does not use it. A dict has the keys "op_inputs" (what a
        layer gets from the one before), "op_weights", and if wanted "model_inputs" (the features) and "model_outputs";
        an int sets all of them, features to 5 bits or more. None takes {DEFAULT_BITS.model_inputs} bits for features,
        {DEFAULT_BITS.op_inputs} between layers and {DEFAULT_BITS.op_weights} for weights, and for a network without
        any nonlinear layer the widest that fit (about 16). Change it before :meth:`compile`.
""",
)

Self = TypeVar("Self", bound="FHENetworkMixin")


@dataclass(frozen=True, kw_only=True)
class MLPReport(ModelReport):
    """Cost and accuracy of a compiled network.

    Attributes
    ----------
    clipped : int or None
        Values of `X` outside the range seen at compile.
    network : NetworkReport
        Layer by layer, with the share of rows on which some accumulator leaves its calibrated bounds.
    """

    clipped: int | None = None
    network: NetworkReport

    def __str__(self) -> str:
        own = {name: value for name, value in vars(self).items() if name != "network" and value is not None}
        return self.network.text({**own, "max_errors": None, "label_agreement": own.get("label_agreement")})


class MLPAdapter(PlainFeatures):
    """scikit-learn's multi-layer perceptrons; scores are what the last layer gives before its activation function."""

    def fitted(self, estimator: Any) -> tuple[Any, ...]:
        """Weights, biases and the activation function between layers."""
        return *estimator.coefs_, *estimator.intercepts_, estimator.activation

    def view(self, estimator: Any, n_scores: int) -> Any:
        """A view with a single layer, the identity, before the last activation function."""
        view = shallow_view(estimator, n_scores)
        view.n_layers_ = 2
        view.coefs_ = [np.eye(n_scores)]
        view.intercepts_ = [np.zeros(n_scores)]
        return view


class FHENetworkMixin(FHEScoresMixin):
    """Adds encrypted prediction to a multi-layer perceptron, as in ``class MLP(FHENetworkMixin, MLPRegressor)``.

    Training and ``fhe="disable"`` stay scikit-learn's own. :meth:`compile` quantizes the fitted network on calibration
    data; after it, the prediction methods take ``fhe="simulate"`` and ``fhe="execute"``, which agree exactly unless
    approximate rounding was asked for.
    """

    _fhe_adapter: ClassVar[ScoresAdapter] = MLPAdapter()
    _fhe_bits: ClassVar[BitsParameter] = NETWORK_BITS

    if TYPE_CHECKING:

        def report(self, X: Any = None, y: Any = None) -> MLPReport:
            """See FHEMixin."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        train = cls.__dict__.get("partial_fit")
        if train is not None and cls._fhe_base is not None:
            # As in scikit-learn, whether it exists depends on the solver.
            setattr(cls, "partial_fit", available_if(partial(_inherits, cls, "partial_fit"))(train))  # noqa: B010

    def compile(
        self: Self,
        X: Any,
        *,
        p_error: float | None = None,
        global_p_error: float | None = None,
        security_level: int = 128,
        rounding_threshold_bits: int | Mapping[str, Any] | None = DEFAULT_ROUNDING,
        bounds: BoundsMode = "calibrated",
        margin: float = DEFAULT_MARGIN,
        observer: ObserverName = "minmax",
        range_margin: float = 0.1,
        on_out_of_range: Literal["warn", "error"] = "warn",
    ) -> Self:
        """Quantize the fitted network on the rows of `X` and make its circuit.

        Parameters
        ----------
        X : array-like of shape (n, n_features), n >= 1
            Calibration data: rows like those to come. Each feature gets its own scale.
        p_error, global_p_error : float, default=None
            Probability, in [2**-128, 1), that one table lookup, or any of a row, goes wrong. None: 2**-40 for one.
        security_level : int, default=128
            In bits.
        rounding_threshold_bits : int, dict or None, default=6
            Sums are rounded to so many bits, 2 to 8, before their activation function is looked up; every bit doubles
            the price. ``{"n_bits": 6, "method": "approximate"}`` is cheaper, but random near ties: "execute" then
            differs from "simulate". None looks up whole sums: above 8 bits those with calibrated bounds cannot be
            encrypted; with proved ones the compiler takes 9 to 16 bits as residues, with keys of gigabytes.
        bounds : {"calibrated", "proved"}, default="calibrated"
            Whether sums are as wide as the rows of `X` need, plus `margin`, or as any row could need. Beyond calibrated
            bounds they wrap around, in "simulate" as in "execute"; ``report(X)`` tells the share of rows that do.
        margin : float, default=0.5
            Part of each sum's observed range that is added at both ends, 0 to 10.
        observer : {"minmax", "percentile", "mse"}, default="minmax"
            Range of activations: all that is seen; 99.9 % of it; or that of least mean squared error.
        range_margin : float, default=0.1
            Part of each feature's range by which it is widened at both ends (a constant feature: of its magnitude).
        on_out_of_range : {"warn", "error"}, default="warn"
            Clip later values outside that range with one OutOfRangeWarning that counts them, or raise OutOfRangeError.

        Raises
        ------
        sklearn.exceptions.NotFittedError, BackendUnavailableError
            Before `fit`; if onnx is not installed.
        QuantizationError, LoweringError
            If an option is not allowed or a range unusable; if sums are too wide to be encrypted.
        """
        options = CompileOptions(p_error, global_p_error, security_level, on_out_of_range)
        bits, linear_bits = parse_network_bits(self.n_bits)
        rounding = Rounding.of(rounding_threshold_bits)
        settings = Settings(bits, rounding, bounds, margin, observer, range_margin=range_margin)
        return self._fhe_compile(X, options, settings, linear_bits)

    def _fhe_compile(
        self: Self, X: Any, options: CompileOptions, settings: Settings, linear_bits: BitWidths | None
    ) -> Self:
        check_is_fitted(self)
        x = self._fhe_prepared(X)
        quantize = partial(import_linear_or_network, bits=linear_bits)
        network = NetworkModel.of(self.onnx_model_, [x], settings, quantize=quantize)
        compiled = CompiledNetwork(network, options, copy.deepcopy(self.n_bits), self._fhe_fitted())
        compiled.prepare_circuit()
        self._fhe_compiled = compiled
        return self

    def overflowing_rows(self, X: Any) -> IntArray:
        """Which rows leave calibrated bounds, so that their answers mean nothing.

        Parameters
        ----------
        X : array-like of shape (n, n_features)

        Returns
        -------
        ndarray of int64, shape (rows that do,)
            Ascending. Empty with ``bounds="proved"``.
        """
        compiled = self._fhe_state()
        rows: IntArray = compiled.overflowing_rows([self._fhe_encode(compiled, X)])
        return rows

    @property
    def onnx_model_(self) -> onnx.ModelProto:
        """The network in ONNX: ``output`` is that of its last activation function, in float64.

        Raises
        ------
        BackendUnavailableError
            An ImportError: onnx is not installed.
        """
        check_is_fitted(self)
        _require_onnx()
        network: Any = self
        return mlp_graph(network.coefs_, network.intercepts_, network.activation, network.out_activation_)

    def _fhe_codes(self, compiled: CompiledNetwork, x: FloatArray, stacklevel: int) -> IntArray:
        encoder = compiled.network.quantized.encoders[0]
        q, below, above = encoder.columns.quantize_counting(x)
        if (below + above).any():
            report_clipped(encoder.columns, self._fhe_names(), below, above, len(x), compiled.options, stacklevel + 1)
        return q.reshape(len(q), *encoder.shape)

    def _fhe_integers(
        self, compiled: CompiledNetwork, q: IntArray, fhe: str, n_jobs: int | None, progress: bool | None
    ) -> IntArray:
        if fhe == "simulate":
            return compiled.simulate([q], n_jobs=n_jobs)[0]
        return compiled.execute(q, n_jobs=n_jobs, progress=progress)

    def _fhe_decode(self, compiled: CompiledNetwork, q: IntArray) -> FloatArray:
        # The client's last steps are scikit-learn's own code, not those of the graph.
        decoder = compiled.network.quantized.decoders[0]
        shape = compiled.program.nodes[compiled.program.outputs[0]].value.shape
        q = np.asarray(q)
        if q.shape[1:] != shape:
            expected = ", ".join(map(str, ("n", *shape)))
            raise ValueError(f"q must have shape ({expected}), got {q.shape}")
        return decoder.dequantize(q)

    def _fhe_report(self, compiled: CompiledNetwork, X: Any, y: Any) -> MLPReport:
        quantized = compiled.network.quantized
        figures: dict[str, Any] = {
            "n_features": quantized.encoders[0].columns.n_features,
            "n_scores": quantized.decoders[0].columns.n_outputs,
            "lookups": cost(compiled.program).total_lookups,
            **circuit_figures(compiled),
        }
        x = None if X is None else self._fhe_prepared(X)
        if x is not None:
            q, below, above = quantized.encoders[0].columns.quantize_counting(x)
            integers = compiled.simulate([q.reshape(len(q), *quantized.encoders[0].shape)])[0]
            scores = self._fhe_decode(compiled, integers)
            answered = self._fhe_scored(X, scores).predict(X, fhe="simulate")
            view = None if overridden(self, ["score"]) else self._fhe_view(X, scores, {"fhe": "simulate"})
            figures |= accuracy_figures(self, X, y, answered, view, scores)
            figures["clipped"] = int(below.sum() + above.sum())
        network = network_report(compiled, None if x is None else [x])
        return MLPReport(estimator=type(self).__name__, network=network, **figures)

    def _fhe_same_bits(self, first: Any, second: Any) -> bool:
        try:
            return parse_network_bits(first) == parse_network_bits(second)
        except QuantizationError:
            return False


class FHENetworkProbabilityMixin(ProbabilityMethods, FHENetworkMixin):
    """For networks with ``predict_proba``: the same at run time, more to a type checker."""


def parse_network_bits(n_bits: Any) -> tuple[NBits, BitWidths | None]:
    """Widths that `n_bits` asks for, of a network and of one that is linear throughout (None: the widest that fit).

    Raises
    ------
    QuantizationError
        Naming the key, the value met and what is allowed.
    """
    if n_bits is None:
        return DEFAULT_BITS, None
    parts = n_bits if isinstance(n_bits, Mapping) else {"op_inputs": n_bits, "op_weights": n_bits}
    plain = {key: int(value) if isinstance(value, np.integer) else value for key, value in parts.items()}
    bits = NBits.of(plain)
    return bits, BitWidths(max(bits.model_inputs, 2), bits.op_weights)


def _inherits(cls: type, name: str, instance: Any) -> bool:
    """Whether what `cls` mixes into has a method for this very instance; raises or answers as scikit-learn does."""
    return getattr(super(cls, instance), name) is not None


def _require_onnx() -> None:
    try:
        import onnx
        import onnxscript
    except ImportError as error:
        raise BackendUnavailableError(
            f'networks are quantized from their ONNX graph ({error}); install pip install "fhelearn[onnx]"'
        ) from error
    del onnx, onnxscript
