"""The ONNX view of fitted models, made by Hummingbird.

Hummingbird's own ONNX back end does not run on today's torch (it calls ``torch.onnx.export`` as if ``dynamo=False``
were still its default) and writes a file into the working directory. So Hummingbird only turns the model into a torch
module here, and the module is exported by us: nothing in either library is patched.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fhelearn.exceptions import BackendUnavailableError, LoweringError
from fhelearn.onnx.faithful import prepared
from fhelearn.onnx.forward import NumpyForward
from fhelearn.onnx.torch_export import onnx_from_torch, quiet_exporter

if TYPE_CHECKING:
    import onnx

TreeImplementation: TypeAlias = Literal["auto", "gemm", "tree_trav", "perf_tree_trav"]

_TREE_IMPLEMENTATIONS = ("auto", "gemm", "tree_trav", "perf_tree_trav")
_PRECISIONS = (None, "float32", "float64")
_OPSET = 17
_CHECKED_ROWS = 100


def export_sklearn(
    model: Any,
    X: Any,
    *,
    tree_implementation: TreeImplementation = "auto",
    tree_precision: Literal["float32", "float64"] | None = None,
) -> onnx.ModelProto:
    """Convert a fitted model to an ONNX graph of float operators, through Hummingbird.

    Parameters
    ----------
    model : fitted estimator or pipeline of scikit-learn, XGBoost or LightGBM
        Of the library's own class, as Hummingbird looks classes up by identity. It is not changed.
    X : array-like of shape (n, n_features), n >= 1
        Rows of numbers without missing values, for instance training data: the graph is traced on two of them and its
        answers on the first 100 (rounded to float32) are compared with the model's. float32 stays float32, everything
        else becomes float64; this is the type of the graph's input. The columns of a data frame are put into the order
        in which the model was fitted, which is that of the graph's input, and may be chosen by name in the model.
    tree_implementation : {"auto", "gemm", "tree_trav", "perf_tree_trav"}, default="auto"
        Hummingbird's strategy for trees. "auto" takes "gemm" up to depth 3, "perf_tree_trav" up to 10. "gemm" is what
        `forest_from_hummingbird` reads; its matrices take 4 * trees * leaves**2 bytes (of the largest tree).
    tree_precision : {"float32", "float64"}, default=None
        Type of thresholds and leaf values; features are float32 in either case. None takes the one in which every
        comparison with a float32 feature is the library's: "float32" for XGBoost, "float64" for others (in "float32"
        their thresholds are rounded to nearest; features equal to one that was rounded up go to the other side).

    Returns
    -------
    onnx.ModelProto
        Opset 17, input "input" of shape (n, n_features). Classifiers have outputs "label" (integers, shape (n,):
        indices into ``classes_``; outlier detectors: 1 and -1) and "scores" (probabilities or decisions), others have
        one output "output". The graph means nothing for missing and infinite values.

    Raises
    ------
    BackendUnavailableError
        An ImportError: onnx, torch or Hummingbird is not installed.
    LoweringError
        If Hummingbird cannot convert the model, or would convert it to something else than the model.
    sklearn.exceptions.NotFittedError
        If the model is not fitted.
    ValueError
        If X is empty, of the wrong shape or not finite, or an option is none of the allowed.
    """
    _check_option("tree_implementation", tree_implementation, _TREE_IMPLEMENTATIONS)
    _check_option("tree_precision", tree_precision, _PRECISIONS)
    rows = _rows(model, X)
    _import_libraries()
    plain, config = prepared(model)
    config["container"] = False  # the bare torch module; the container would want onnxruntime
    config["n_threads"] = None  # else Hummingbird sets torch's number of threads for the whole process
    if tree_implementation != "auto":
        config["tree_implementation"] = tree_implementation
    if tree_precision is not None:
        config["tree_op_precision_dtype"] = tree_precision
    with quiet_exporter():
        module = _converted(plain, rows, config)
        outputs = _outputs(model, module, rows)
        _check_answers(model, outputs, _as_frame(model, X, rows))
        return _checked_graph(model, module, outputs, rows)


def _check_option(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def _rows(model: Any, X: Any) -> NDArray[Any]:
    """Up to 100 rows of `X`, at least two: Hummingbird squeezes axes of length 1 away, and one row is such an axis."""
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(model)
    names = list(getattr(model, "feature_names_in_", []))
    if names and hasattr(X, "columns") and set(names) <= set(X.columns):
        X = X[names]
    x = np.asarray(X)
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"X must be of shape (n, n_features), n >= 1, got {x.shape}")
    if (expected := getattr(model, "n_features_in_", x.shape[1])) != x.shape[1]:
        raise ValueError(
            f"X has {x.shape[1]} features, but {type(model).__name__} is expecting {expected} features as input"
        )
    try:
        x = x[:_CHECKED_ROWS].astype(np.float32).astype(np.float32 if x.dtype == np.float32 else np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"X must hold numbers only ({error}); encode texts and categories as numbers before fitting the model"
        ) from error
    if not np.isfinite(x).all():
        raise ValueError("X must be finite in float32: the ONNX view means nothing for missing and infinite values")
    return np.resize(x, (max(2, len(x)), x.shape[1]))


def _as_frame(model: Any, X: Any, rows: NDArray[Any]) -> Any:
    """`rows` as a data frame if scikit-learn's model may choose columns by name, else as they are."""
    names = getattr(model, "feature_names_in_", None)
    if (
        names is None
        or type(X).__module__.split(".")[0] != "pandas"
        or type(model).__module__.split(".")[0] != "sklearn"
    ):
        return rows
    return type(X)(rows, columns=list(names))


def _import_libraries() -> None:
    try:
        for name in ("onnx", "torch", "hummingbird.ml"):
            import_module(name)
    except ImportError as error:
        raise BackendUnavailableError(
            f"the ONNX view of a model needs onnx, torch and hummingbird-ml ({error}); "
            'install them by pip install "fhelearn[onnx]"'
        ) from error


def _converted(model: Any, rows: NDArray[Any], config: dict[str, Any]) -> Any:
    """The model as a torch module that takes `rows`."""
    from hummingbird.ml import convert

    try:
        return convert(model, "torch", rows, extra_config=config)
    except Exception as error:  # Hummingbird raises whatever its parser trips over: KeyError, ValueError, assert, ...
        raise LoweringError(_failure(model, error)) from error


def _outputs(model: Any, module: Any, rows: NDArray[Any]) -> list[NDArray[Any]]:
    """What the module answers to `rows`: labels and scores of classifiers, else one array."""
    import torch

    try:
        with torch.no_grad():
            outputs = module(torch.from_numpy(rows))
        return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
    except Exception as error:
        raise LoweringError(_failure(model, error)) from error


def _check_answers(model: Any, outputs: list[NDArray[Any]], rows: Any) -> None:
    """Refuse outputs of the module that are not the answers of the model on `rows`, to half the digits of float32.

    Exact equality is not to be had (Hummingbird sums in another order and precision). What this is for are parts of a
    model that Hummingbird does not know of, because the model's library is newer: they change the answers altogether.
    """
    found = outputs[-1].astype(np.float64).ravel()
    for method in ("predict_proba", "decision_function", "predict", "transform"):
        if hasattr(model, method) and not (method == "predict" and len(outputs) > 1):
            answer = getattr(model, method)(rows)
            answer = answer.toarray() if hasattr(answer, "toarray") else answer
            if np.shape(answer) == () or np.size(answer) != found.size:
                continue
            expected = np.asarray(answer, dtype=np.float64).ravel()
            if not (apart := np.abs(expected - found).max()) <= _bound(expected):
                reason = f"its graph answers {method} otherwise than the model, by up to {apart:.3g} on rows of X"
                raise LoweringError(_failure(model, ArithmeticError(reason)))
            return
    if len(outputs) > 1 and not np.array_equal(_label_indices(model, rows), outputs[0].ravel()):
        raise LoweringError(_failure(model, ArithmeticError("its graph answers predict otherwise than the model")))


def _bound(expected: NDArray[np.float64]) -> np.float64:
    bound: np.float64 = np.sqrt(np.finfo(np.float32).eps) * max(1.0, np.abs(expected).max())
    return bound


def _label_indices(model: Any, rows: Any) -> NDArray[Any]:
    labels = np.asarray(model.predict(rows))
    return np.searchsorted(model.classes_, labels) if hasattr(model, "classes_") else labels


def _checked_graph(model: Any, module: Any, outputs: list[NDArray[Any]], rows: NDArray[Any]) -> onnx.ModelProto:
    """The graph of the module, unless it answers otherwise: tracing turns what depends on values into constants."""
    graph = _export(model, module, rows)
    forward = NumpyForward(graph)
    if len(forward.input_names) != 1:
        raise LoweringError(_failure(model, ArithmeticError("its graph is a constant")))
    found = forward(rows)
    for name, one, other in zip(
        forward.output_names, outputs, found if isinstance(found, tuple) else (found,), strict=True
    ):
        if one.shape != other.shape:
            reason = f"output {name!r} of its graph has shape {other.shape} instead of {one.shape}"
            raise LoweringError(_failure(model, ArithmeticError(reason)))
        if name == "label":
            continue  # sums in another order may decide ties otherwise; the scores are compared
        expected = one.astype(np.float64)
        if not (apart := np.abs(expected - other).max()) <= _bound(expected):
            reason = f"output {name!r} of its graph is not that of the traced module, by up to {apart:.3g}"
            raise LoweringError(_failure(model, ArithmeticError(reason)))
    return graph


def _export(model: Any, module: Any, rows: NDArray[Any]) -> onnx.ModelProto:
    import torch

    sample = torch.from_numpy(rows[:2])
    try:
        with torch.no_grad():
            outputs = module(sample)
        names = ["label", "scores"] if isinstance(outputs, tuple) else ["output"]
        return onnx_from_torch(
            module, (sample,), input_names=["input"], output_names=names, opset=_OPSET, dynamic_rows=True
        )
    except Exception as error:  # anything that tracing a foreign module can raise
        raise LoweringError(_failure(model, error)) from error


def _failure(model: Any, error: Exception) -> str:
    return (
        f"{type(model).__name__}: hummingbird-ml {version('hummingbird-ml')} (torch {version('torch')}) cannot convert "
        f"this model to ONNX: {type(error).__name__}: {' '.join(str(error).split())[:300]}; where fhelearn has a "
        "class for the model, predictions, simulated and encrypted, do not need the ONNX view"
    )
